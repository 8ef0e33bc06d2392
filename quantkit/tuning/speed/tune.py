"""Tuning by time alone: the fastest placement of a network on this GPU, from its statistics.

`quantkit tune --objective latency` and `quantkit run` add what it loses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from quantkit.artifact import write_whole
from quantkit.backends.tensorrt.options import DEFAULT_LEVEL, LEVELS
from quantkit.calibration.tables import header_for, make_tables
from quantkit.engines.bench import DEFAULT_BATCHES, explain_no_gpu
from quantkit.errors import BackendError, UsageError
from quantkit.graph import AnyModel, Model, load_model
from quantkit.quantization.options import QuantizeOptions
from quantkit.quantization.quantize import quantize, refuse_quantized
from quantkit.quantization.scales import load_statistics_for
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.rewrites.fp16 import convert_to_fp16
from quantkit.rules import DEFAULT_RULE, as_rules
from quantkit.statistics import Statistics
from quantkit.table import table_bytes
from quantkit.tensorrt_version import target_version
from quantkit.tuning.memoized_rule import memoized_rule
from quantkit.tuning.speed.candidate import SpeedCandidate, SpeedPlacement
from quantkit.tuning.speed.engine_choice import Objective, choose_candidate
from quantkit.tuning.speed.lab import EngineLab, LabOptions, TensorrtLab
from quantkit.tuning.speed.result import SpeedTuning, time_left_note
from quantkit.tuning.speed.search import NetworkSource, SpeedSearch, TimeLimit
from quantkit.values import check_number

if TYPE_CHECKING:
    import onnx

MINUTES = 15.0
"""Minutes that tuning by time may take: some eight engines of a network of ImageNet's size at level 3."""
MOST_MINUTES = 10_080.0


@dataclass(frozen=True, slots=True)
class SpeedOptions:
    """Options of a tuning by time.

    batches: the batch sizes that count, all of them alike; engines are built from the smallest to the largest, for the
    largest. minutes: for building and timing engines. level, device, shapes: as for `build`. quantize: rule, policy and
    exclusions of the Q/DQ networks.
    """

    batches: tuple[int, ...] = DEFAULT_BATCHES
    minutes: float = MINUTES
    level: int = DEFAULT_LEVEL
    device: int = 0
    shapes: tuple[str, ...] = ()
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)

    def __post_init__(self) -> None:
        object.__setattr__(self, "batches", tuple(dict.fromkeys(self.batches)))
        if not self.batches:
            raise UsageError("no batch sizes to tune for", remedy="for example --batch 1,32")
        for batch in self.batches:
            check_number("batch", batch, 1)
        check_number("tune_time", self.minutes, 0.0, MOST_MINUTES, whole=False)
        check_number("level", self.level, LEVELS[0], LEVELS[-1])
        check_number("device", self.device, 0)

    @property
    def lab(self) -> LabOptions:
        """The options of builds and measurements."""
        return LabOptions(self.batches, self.level, self.device, self.shapes)


class StatisticsNetworks:
    """The networks of candidates, quantized from statistics; the table lies in `folder`."""

    def __init__(self, source: Model, statistics: Statistics, options: QuantizeOptions, folder: Path) -> None:
        self._source, self._statistics, self._folder = source, statistics, folder
        given = options.rule or DEFAULT_RULE
        rule = memoized_rule(given) if isinstance(given, str) else given
        self._options = replace(options, rule=rule)
        self._given = given
        self._plain: onnx.ModelProto | None = None

    def plain(self, *, half: bool) -> onnx.ModelProto:
        """Return the cleaned float network; half: converted to FP16."""
        if self._plain is None:
            self._plain = fold_batch_norms(self._source).proto
        return convert_to_fp16(replace(self._source, proto=self._plain)).proto if half else self._plain

    def original(self) -> onnx.ModelProto:
        """Return the float network as it was given."""
        return self._source.proto

    def table(self) -> Path:
        """Write the calibration table, and return its path."""
        path = self._folder / f"{self._source.path.stem}.tuned.calib"
        (rule,) = as_rules(self._given)
        header = header_for(rule, target_version(None).number, None)
        write_whole(path, table_bytes(make_tables(self._statistics, {rule: header})[rule.name]))
        return path

    def excluded(self) -> tuple[str, ...]:
        """Return the nodes that are float in every candidate, or their patterns."""
        return self._options.exclude

    def quantized(self, placement: SpeedPlacement, *, half: bool) -> onnx.ModelProto:
        """Return the Q/DQ network of a placement."""
        options = replace(
            self._options,
            policy=placement.policy,
            exclude=(*self._options.exclude, *placement.kept),
            fp16=half,
            repairs=() if self._options.repairs is None else self._options.repairs,
        )
        return quantize(self._source, statistics=self._statistics, options=options).proto


def tune_speed(
    model: AnyModel,
    *,
    statistics: str | os.PathLike[str] | Statistics,
    folder: str | os.PathLike[str] | None = None,
    options: SpeedOptions | None = None,
    phase: Callable[[str], None] = lambda _: None,
) -> SpeedTuning:
    """Find the fastest placement of a network's pairs on this GPU, whatever it loses.

    statistics: as `calibrate` wrote them. folder: for models, engines and the timing cache; None keeps nothing, and
    paths in the result are then those of files that are gone. Raises BackendError without a GPU or TensorRT,
    StaleError, ModelError, UsageError.
    """
    options = options or SpeedOptions()
    refuse_without_gpu(options.device)
    source = load_model(model)
    refuse_quantized(source)
    options = replace(options, batches=batches_for(source, options.batches))
    known, _ = load_statistics_for(source, statistics)
    with ExitStack() as held:
        place = Path(folder) if folder is not None else Path(held.enter_context(TemporaryDirectory(prefix="quantkit-")))
        networks = StatisticsNetworks(source, known, options.quantize, place)
        lab = TensorrtLab(source, place, options.lab, phase)
        held.enter_context(lab.ready())
        return search_speed(source, networks, lab, options, phase=phase)


def refuse_without_gpu(device: int) -> None:
    """Raise BackendError if engines cannot be built and timed here."""
    reason = explain_no_gpu(device)
    if reason is not None:
        raise BackendError(
            f"tuning by time needs a GPU with TensorRT, and {reason}",
            remedy="tune on the target machine, or tune for accuracy alone (--objective accuracy)",
        )


def batches_for(source: Model, batches: tuple[int, ...]) -> tuple[int, ...]:
    """Return the batch sizes to time: those given, or the only one that a network takes, as `bench` does."""
    fixed = next((i.fixed_batch for i in source.inputs if i.fixed_batch is not None), None)
    return batches if fixed is None else (fixed,)


def search_speed(
    source: Model,
    networks: NetworkSource,
    lab: EngineLab,
    options: SpeedOptions,
    *,
    limit: TimeLimit | None = None,
    choose: Callable[[Sequence[SpeedCandidate]], tuple[Sequence[SpeedCandidate], SpeedCandidate | None]] | None = None,
    objective: Objective = Objective.LATENCY,
    phase: Callable[[str], None] = lambda _: None,
) -> SpeedTuning:
    """Search, and choose a candidate.

    choose: returns the candidates with their losses, and the chosen one; None takes the fastest. Raises BackendError
    where the FP16 engine cannot be built or timed.
    """
    limit = limit or TimeLimit(60.0 * options.minutes)
    search = SpeedSearch(networks, lab, options.batches, limit, options.quantize.policy, phase)
    candidates: Sequence[SpeedCandidate] = search.run()
    searched = limit.passed
    candidates, chosen = (candidates, choose_candidate(candidates)) if choose is None else choose(candidates)
    if chosen is None:
        sizes = ", ".join(map(str, options.batches))
        raise BackendError(
            f"the FP16 engine of {source.path.name} takes none of the batch sizes {sizes}",
            remedy="give batch sizes that the network takes with --batch",
        )
    return SpeedTuning(
        model=source.path.name,
        objective=objective,
        machine=lab.machine,
        batches=tuple(chosen.times),
        level=options.level,
        candidates=tuple(candidates),
        chosen=chosen,
        nodes=search.quantizable,
        limit=60.0 * options.minutes,
        seconds=limit.passed,
        half=lab.half,
        notes=time_left_note(tuple(candidates), searched),
    )
