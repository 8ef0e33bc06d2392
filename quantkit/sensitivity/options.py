"""Options of `layers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantkit.data import DataOptions
from quantkit.data.opening import DataFields
from quantkit.errors import UsageError
from quantkit.qdq.placement import Policy
from quantkit.quantization.node_types import NodeTypes
from quantkit.quantization.options import QuantizeOptions
from quantkit.rules import DEFAULT_RULE
from quantkit.totals.options import TotalsFields, TotalsOptions
from quantkit.values import QuantizedType, check_number

if TYPE_CHECKING:
    from quantkit.rules import Rule

SAMPLES = 128
"""Default number of samples: enough to order the layers reliably."""
MOST_DB = 1000.0
"""More than doubles can hold, in dB."""


@dataclass(frozen=True, slots=True)
class LayersOptions(TotalsOptions):
    """Options of `layers`. type, int8, fp8, rule, policy, exclude, include, min_coverage, tensorrt_version: as for
    `quantize`, if scales are chosen here.

    keep: number of worst layers to report as those to keep float. keep_db: report as many as are needed to lift the
    outputs to this SQNR.

    What is kept is always measured by the calling process, not by workers.
    """

    type: QuantizedType = QuantizedType.INT8
    int8: tuple[str, ...] = ()
    fp8: tuple[str, ...] = ()
    rule: str | Rule = DEFAULT_RULE
    policy: Policy = Policy.TENSORRT
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    min_coverage: float = 0.9
    tensorrt_version: str | None = None
    keep: int | None = None
    keep_db: float | None = None
    data: DataOptions = field(default_factory=lambda: DataOptions(limit=SAMPLES))

    def __post_init__(self) -> None:
        TotalsOptions.__post_init__(self)
        object.__setattr__(self, "type", QuantizedType.named(self.type))
        object.__setattr__(self, "policy", Policy.named(self.policy))
        self._refuse_what_quantize_refuses()
        if self.keep is not None and self.keep_db is not None:
            raise UsageError("keep and keep_db both set how many layers stay float", remedy="give only one of them")
        check_number("keep", self.keep, 1)
        check_number("keep_db", self.keep_db, -MOST_DB, MOST_DB, whole=False)
        check_number("min_coverage", self.min_coverage, 0.0, 1.0, whole=False)

    def _refuse_what_quantize_refuses(self) -> None:
        """Raise UsageError for types that contradict each other, or that the TensorRT does not have."""
        QuantizeOptions(type=self.type, int8=self.int8, fp8=self.fp8, tensorrt_version=self.tensorrt_version)

    @property
    def types(self) -> NodeTypes:
        """The types of the operators. UsageError."""
        return NodeTypes(self.type, self.int8, self.fp8)

    @property
    def major(self) -> int:
        """Major version of the TensorRT that the layers are for. UsageError."""
        return QuantizeOptions(tensorrt_version=self.tensorrt_version).major


class LayersFields(DataFields, TotalsFields, total=False):
    """The keywords of `layers` that are fields of `LayersOptions`."""

    type: QuantizedType | str
    int8: str | Sequence[str]
    fp8: str | Sequence[str]
    rule: str | Rule
    policy: Policy | str
    exclude: str | Sequence[str]
    include: str | Sequence[str]
    min_coverage: float
    tensorrt_version: str | None
    keep: int | None
    keep_db: float | None
