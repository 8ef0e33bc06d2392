"""The candidates of a tuning by time: which nodes stay float, the engine that was built of each, and its times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from quantkit.engines.round_times import RoundTimes
from quantkit.qdq.placement import Policy
from quantkit.tuning.figure import Figure


class EngineKind(Enum):
    """The kind of an engine to deploy."""

    FP16 = "fp16"
    """The float network, with FP16 allowed."""
    QDQ = "qdq"
    """A Q/DQ network: the pairs define what is INT8."""
    TABLE = "table"
    """The float network with a calibration table: TensorRT chooses what is INT8. TensorRT before 11."""


class CandidateStatus(Enum):
    """How a candidate ended."""

    TIMED = "timed"
    SAME = "not built: the same as another"
    NO_TIME = "not built: no time left"
    FAILED = "not built"
    UNTIMED = "not timed beside the others"
    HOPELESS = "not built: it promised no gain"


@dataclass(frozen=True, slots=True)
class SpeedPlacement:
    """The extent of a candidate. kept: nodes that stay float besides those the caller excluded, in graph order."""

    kept: tuple[str, ...] = ()
    policy: Policy = Policy.TENSORRT


@dataclass(frozen=True, slots=True)
class SpeedCandidate:
    """A candidate and what is known about it.

    why: the reason for trying it. predicted: its time as a fraction of FP16's, by the profiles; None if there was no
    prediction. seconds: of the build. expected: seconds that building and timing would have taken, where no time was
    left. layers: precision → number of layers. figure: what its engine loses on the tuning
    part; None if that was not measured. detail: more about the status.
    """

    name: str
    kind: EngineKind
    why: str
    placement: SpeedPlacement = SpeedPlacement()
    status: CandidateStatus = CandidateStatus.TIMED
    predicted: float | None = None
    seconds: float | None = None
    expected: float | None = None
    layers: Mapping[str, int] = field(default_factory=dict)
    times: Mapping[int, RoundTimes] = field(default_factory=dict)
    figure: Figure | None = None
    model: Path | None = None
    engine: Path | None = None
    detail: str = ""

    @property
    def outcome(self) -> str:
        """How it ended, in words."""
        return f"{self.status.value}: {self.detail}" if self.detail else self.status.value

    def document(self) -> dict[str, Any]:
        """Return the candidate as JSON values."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "why": self.why,
            "outcome": self.outcome,
            "policy": self.placement.policy.value,
            "kept": list(self.placement.kept),
            "predicted": self.predicted,
            "build_seconds": self.seconds,
            "expected_seconds": None if self.expected is None else round(self.expected, 1),
            "layers": dict(self.layers),
            "milliseconds": {
                str(batch): {"median": times.median, "spread": times.spread, "rounds": list(times.rounds)}
                for batch, times in self.times.items()
            },
            "drop": self.figure.drop if self.figure else None,
            "interval": [self.figure.low, self.figure.high] if self.figure else None,
            "model": self.model.name if self.model else None,
        }
