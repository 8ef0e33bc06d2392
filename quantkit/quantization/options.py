"""Options of `quantize`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from quantkit.data import DataOptions
from quantkit.data.opening import DataFields
from quantkit.errors import UsageError
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.placement import Policy
from quantkit.quantization.node_types import NodeTypes
from quantkit.tensorrt_version import DEFAULT_VERSION, FP8_FROM, installed_number, number_text, parse_version
from quantkit.values import QuantizedType, check_number

if TYPE_CHECKING:
    import os

    from quantkit.gpu_profile.profile import GpuProfile
    from quantkit.rules import Rule

MOST_BATCH = 65_536
FLOAT_WEIGHTS_BELOW = 10
"""TensorRT before 10 fails on INT8 weights of matrix products (measured with 8.6: docs/decisions/0010-qdq.md)."""


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """Options of `quantize`. The defaults suit most networks."""

    type: QuantizedType = QuantizedType.INT8
    """The type that tensors are quantized to; FP8 needs TensorRT 10."""
    int8: tuple[str, ...] = ()
    """Nodes that are INT8 in an FP8 network: names, patterns or operators."""
    fp8: tuple[str, ...] = ()
    """Nodes that are FP8 in an INT8 network."""
    rule: str | Rule | None = None
    """How scales come from statistics; `best` chooses for every tensor. None: chosen by the data, else the default."""
    policy: Policy = Policy.TENSORRT
    exclude: tuple[str, ...] = ()
    """Nodes that stay float: names, patterns (`/head/*`) or operators (`Softmax`)."""
    include: tuple[str, ...] = ()
    """Nodes that are quantized although the policy keeps them float."""
    weights: WeightForm | None = None
    """How weights are stored; None: in the type for TensorRT 10 and newer, float before."""
    fp16: bool = False
    """Convert the rest of the network to FP16: TensorRT 11 has no flag for that."""
    repairs: tuple[str, ...] | None = None
    """Names of repairs; None: with data those that help, with statistics those that need no data, else none."""
    gpu_profile: str | os.PathLike[str] | GpuProfile | None = None
    """A profile of a GPU, or its file: where INT8 is not faster there, operators stay float."""
    gpu_batch: int | None = None
    """The batch size that the times of the profile are for; None: that of the model, else 1."""
    data: DataOptions = field(default_factory=DataOptions)
    min_coverage: float = 0.9
    tensorrt_version: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", QuantizedType.named(self.type))
        object.__setattr__(self, "policy", Policy.named(self.policy))
        if self.weights is not None:
            object.__setattr__(self, "weights", WeightForm.named(self.weights))
        self._check_type()
        if self.fp16 and self.major < FLOAT_WEIGHTS_BELOW:
            raise UsageError(
                f"TensorRT {self.major} enables FP16 by a flag, and does not support float16 Q/DQ",
                remedy="leave --fp16 out; quantkit build allows FP16 beside INT8",
            )
        both = sorted(set(self.exclude) & set(self.include))
        if both:
            raise UsageError(f"{', '.join(both)} is both excluded and included", remedy="name it in one of the two")
        if self.gpu_batch is not None:
            check_number("gpu_batch", self.gpu_batch, 1, MOST_BATCH)
            if self.gpu_profile is None:
                raise UsageError("--for-batch is for a GPU profile, and none is given", remedy="give both, or none")
        check_number("min_coverage", self.min_coverage, 0.0, 1.0, whole=False)

    def _check_type(self) -> None:
        """Raise UsageError for weights of another type, and for a TensorRT or a GPU profile without FP8."""
        kind, only = self.types.network_type, "give --type int8" + (" without --fp8" if self.fp8 else "")
        if self.weights not in (None, WeightForm.FLOAT, WeightForm(kind.value)):
            raise UsageError(
                f"weights are stored as {self.weights.value}, but the type is {kind.value}",
                remedy=f"give --weights {kind.value} or float, or leave it out",
            )
        if self.types.has_fp8 and self.major < FP8_FROM:
            raise UsageError(
                f"TensorRT {self.major} has no FP8: its NvInfer.h says that kFP8 is not supported yet",
                remedy=f"{only}, or --tensorrt-version {FP8_FROM}.0 or newer",
            )
        if self.types.has_fp8 and self.gpu_profile is not None:
            raise UsageError(
                "a GPU profile has times of INT8 and float, none of FP8", remedy=f"leave --for out, or {only}"
            )

    @property
    def types(self) -> NodeTypes:
        """The types of the operators. UsageError."""
        return NodeTypes(self.type, self.int8, self.fp8)

    def of_nodes(self, only: QuantizedType, fp8: Collection[str]) -> QuantizeOptions:
        """Return these options with the types of nodes by name. only: the type of all, where none is in `fp8`."""
        form = WeightForm(only.value) if self.weights is WeightForm.MIXED and not fp8 else self.weights
        return replace(self, type=only, int8=(), fp8=tuple(sorted(fp8)), weights=form)

    @property
    def form(self) -> WeightForm:
        """How weights are stored, resolved. UsageError if the TensorRT version is invalid."""
        if self.weights is not None:
            return self.weights
        return WeightForm.FLOAT if self.major < FLOAT_WEIGHTS_BELOW else WeightForm(self.types.network_type.value)

    @property
    def target(self) -> str:
        """The TensorRT that the model is for: as asked, the installed one, or the default."""
        if self.tensorrt_version is not None:
            return self.tensorrt_version
        installed = installed_number()
        return number_text(installed) if installed else DEFAULT_VERSION

    @property
    def major(self) -> int:
        """Major version of the TensorRT that the model is for. UsageError."""
        return parse_version(self.target)[0]


class QuantizeFields(DataFields, total=False):
    """The keywords of `quantize` that are fields of `QuantizeOptions`."""

    type: QuantizedType | str
    int8: str | Sequence[str]
    fp8: str | Sequence[str]
    rule: str | Rule | None
    policy: Policy | str
    exclude: str | Sequence[str]
    include: str | Sequence[str]
    weights: WeightForm | str | None
    fp16: bool
    repairs: Sequence[str] | None
    gpu_profile: str | os.PathLike[str] | GpuProfile | None
    gpu_batch: int | None
    min_coverage: float
    tensorrt_version: str | None
    force: bool
