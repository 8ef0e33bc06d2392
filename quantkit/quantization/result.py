"""The result of `quantize`: a Q/DQ network, and what was done to make it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.backends.trial_run import Trial
from quantkit.qdq.float_reason import FloatReason
from quantkit.qdq.insertion import WeightForm
from quantkit.quantization.choice_record import HeldOutChoice
from quantkit.repairs.repair import RepairReport
from quantkit.table import Coverage
from quantkit.values import NetworkType, QuantizedType
from quantkit.view import Block, Remarks, RichDisplay, ViewTable

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Quantization(RichDisplay):
    """A Q/DQ network.

    pairs: activation → scale, that of INT8 where it has a pair of both types. weights: names of the quantized ones.
    left: node → why it stays float. source: of the scales. coverage: of the float tensors by the table; None if scales
    come from statistics. files: those that were written.
    """

    proto: onnx.ModelProto = field(repr=False)
    pairs: Mapping[str, float]
    weights: tuple[str, ...]
    left: Mapping[str, FloatReason]
    source: str
    rules: Mapping[str, str]
    coverage: Coverage | None
    folded: tuple[str, ...]
    form: WeightForm
    repairs: Mapping[str, RepairReport]
    opset: int
    notes: tuple[str, ...]
    files: tuple[Path, ...]
    int8_layers: tuple[int, int] = (0, 0)
    """Operators with weights that compute in INT8, and all with weights."""
    type: NetworkType = NetworkType.INT8
    """The type that tensors are quantized to, or that there are both."""
    types: Mapping[str, QuantizedType] = field(default_factory=dict)
    """Node that reads behind pairs → its type."""
    also_fp8: Mapping[str, float] = field(default_factory=dict)
    """Activation with a pair of both types → its scale in FP8."""
    fp8_layers: int = 0
    """Those that compute in FP8."""
    trial: Trial | None = None
    """The outcome of running it once before it was written; None if it was not written."""
    held_out: HeldOutChoice | None = None
    """What was chosen by samples that nothing was fitted to; None where nothing was to be chosen, or could be."""
    reused: bool = False
    """True if an earlier call wrote the files, from the same inputs."""

    @property
    def reasons(self) -> dict[str, int]:
        """Reason for staying float → number of operators."""
        return dict(Counter(reason.summary for reason in self.left.values()).most_common())

    @property
    def types_text(self) -> str:
        """The operators of each type in words: `12 operators INT8, 7 FP8; 1 activation has a pair of each`."""
        counts = Counter(self.types.values())
        both = len(self.also_fp8)
        several = f"; {both} activation{'s have' if both > 1 else ' has'} a pair of each type" if both else ""
        int8 = counts[QuantizedType.INT8]
        return f"{int8} operator{'s' * (int8 != 1)} INT8, {counts[QuantizedType.FP8]} FP8{several}"

    def _view_(self) -> Sequence[Block]:
        repairs = [f"{name}: {repair.text}" for name, repair in self.repairs.items()]
        return (
            f"Q/DQ for {len(self.pairs)} activations and {len(self.weights)} weights, scales from {self.source}",
            *([self.types_text] if self.type is NetworkType.MIXED else []),
            Remarks(
                [
                    *(self.held_out.lines if self.held_out else ()),
                    *repairs,
                    *([self.trial.text] if self.trial else []),
                    *self.notes,
                ]
            ),
            ViewTable(
                ("stays float", "why"), [(node, str(reason)) for node, reason in self.left.items()], frozenset({0, 1})
            ),
        )
