"""Options of `tune`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantkit.backends.tensorrt.options import DEFAULT_LEVEL
from quantkit.data import DataOptions
from quantkit.data.opening import DataFields
from quantkit.engines.bench import DEFAULT_BATCHES
from quantkit.errors import UsageError
from quantkit.qdq.placement import Policy
from quantkit.quantization.options import QuantizeOptions
from quantkit.repairs.registry import REPAIR_NAMES, parse_repairs, resolve_repairs
from quantkit.rules import as_rules, kind_of, rule_in_type, rule_kinds
from quantkit.tuning.speed.engine_choice import Objective
from quantkit.tuning.speed.tune import MINUTES, SpeedOptions
from quantkit.values import NetworkType, QuantizedType, check_number

RULES = ",".join(kind.usage for kind in rule_kinds().values())
"""All rules, in the order in which they are tried."""
MAX_FLOAT = 0.1
EVALUATIONS = 20
MIN_EVALUATIONS = 5
"""Evaluations that a search needs at least: three for the report, the float network, and one trial."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """Options for what the search may try and how candidates are evaluated.

    holdout: fraction of the samples held out for the final report. rules: the first is tried first. repairs: those that
    may be used. most: fraction of the layers that may stay float. evaluations: maximum number of evaluations of one
    network on one part. policy, include, exclude, tensorrt_version: as for `quantize`. data: how samples are read; its
    limit covers both parts. type: what layers are quantized to; mixed chooses for each of them. calibration: how the
    calibration data are read. metrics, classes, provider: as for `evaluate`; the first metric decides. front: build
    engines if a GPU with TensorRT is available. objective: `latency` and `balanced` need one: they build engines of
    several placements, for `batches`, at the builder level `level`, in at most `tune_time` minutes.
    """

    holdout: float = 0.5
    type: NetworkType = NetworkType.INT8
    rules: str = RULES
    repairs: tuple[str, ...] = REPAIR_NAMES
    most: float = MAX_FLOAT
    evaluations: int = EVALUATIONS
    policy: Policy = Policy.TENSORRT
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tensorrt_version: str | None = None
    data: DataOptions = field(default_factory=DataOptions)
    calibration: DataOptions = field(default_factory=DataOptions)
    metrics: tuple[str, ...] = ()
    classes: str | Path | None = None
    provider: str = "cpu"
    front: bool = True
    objective: Objective = Objective.ACCURACY
    batches: tuple[int, ...] = DEFAULT_BATCHES
    tune_time: float = MINUTES
    level: int = DEFAULT_LEVEL
    device: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", Policy.named(self.policy))
        object.__setattr__(self, "objective", Objective.named(self.objective))
        object.__setattr__(self, "type", NetworkType.named(self.type))
        object.__setattr__(self, "repairs", parse_repairs(",".join(self.repairs) or "none"))
        as_rules(self.rules)
        self._check_type()
        check_number("holdout", self.holdout, 0.0, 1.0, whole=False)
        if not 0.0 < self.holdout < 1.0:
            raise UsageError(
                f"cannot hold out a fraction of {self.holdout:g} of the samples", remedy="for example --holdout 0.5"
            )
        check_number("max_float", self.most, 0.0, 1.0, whole=False)
        check_number("evaluations", self.evaluations, 0)
        object.__setattr__(self, "batches", self.speed.batches)
        by_time = self.objective is not Objective.ACCURACY
        if self.evaluations < MIN_EVALUATIONS + by_time:
            least, report = MIN_EVALUATIONS + by_time, "four" if by_time else "three"
            raise UsageError(
                f"{self.evaluations} evaluations are too few",
                remedy=f"allow at least {least}: {report} for the report and two to start the search",
            )

    def _check_type(self) -> None:
        """Keep the rules and repairs that FP8 has, where nothing else is asked for. UsageError for what it lacks."""
        if self.type is NetworkType.INT8:
            return
        if self.objective is not Objective.ACCURACY:
            raise UsageError(
                f"--objective {self.objective.value} times engines with INT8 and float layers, none with FP8",
                remedy="leave --objective out, or give --type int8",
            )
        QuantizeOptions(type=QuantizedType.FP8, tensorrt_version=self.tensorrt_version)
        if self.type is NetworkType.MIXED:
            return
        if self.rules == RULES:
            known = [rule for rule in as_rules(RULES) if kind_of(rule).in_fp8 is not None]
            object.__setattr__(self, "rules", ",".join(rule.name for rule in known))
        for rule in as_rules(self.rules):
            rule_in_type(rule, QuantizedType.FP8)
        asked = None if self.repairs == REPAIR_NAMES else self.repairs
        found = resolve_repairs(asked, statistics=True, data=True, quantized_type=QuantizedType.FP8)
        object.__setattr__(self, "repairs", found)

    @property
    def speed(self) -> SpeedOptions:
        """The options of the search by time."""
        return SpeedOptions(self.batches, self.tune_time, self.level, self.device, quantize=self.quantize)

    @property
    def quantize(self) -> QuantizeOptions:
        """The quantization options that all trials share."""
        return QuantizeOptions(
            type=QuantizedType.FP8 if self.type is NetworkType.FP8 else QuantizedType.INT8,
            policy=self.policy,
            include=self.include,
            exclude=self.exclude,
            tensorrt_version=self.tensorrt_version,
        )


class TuneFields(DataFields, total=False):
    """The keywords of `tune` that are fields of `TuneOptions`."""

    holdout: float
    type: NetworkType | str
    rule: str
    rules: str
    """Another name of `rule`."""
    repairs: Sequence[str]
    most: float
    evaluations: int
    policy: Policy | str
    include: str | Sequence[str]
    exclude: str | Sequence[str]
    tensorrt_version: str | None
    metric: str | Sequence[str]
    metrics: str | Sequence[str]
    """Another name of `metric`."""
    classes: str | Path | None
    provider: str
    front: bool
    objective: Objective | str
    batches: int | Sequence[int]
    tune_time: float
    level: int
    device: int
    force: bool
