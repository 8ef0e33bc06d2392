"""The search for a fast placement, with few builds: two engines say where time goes, and a minimum cut what to switch.

    fp16        the float network: what everything is compared with
    default     all pairs that the policy places
    table       TensorRT chooses by a table what is INT8 (before TensorRT 11)
    cut         the cheapest split of the regions, by the layers' times in `fp16` and `default`
    cut 2 …     the cheapest split again, after the layers of the last cut were timed
    own         what TensorRT chose in `table`, as pairs
    conv-only   only convolutions
    all         all that policy `all` quantizes

A candidate that equals another is not built. No build begins that is not expected to end in time; the first two are
built in any case, because without them nothing is known. In the end all engines are timed side by side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from quantkit.engines.round_times import ROUNDS, SECONDS, RoundTimes
from quantkit.errors import BackendError, ModelError, QuantkitError, TableError
from quantkit.graph.index import GraphIndex
from quantkit.qdq.placement import Policy
from quantkit.tuning.speed.candidate import CandidateStatus, EngineKind, SpeedCandidate, SpeedPlacement
from quantkit.tuning.speed.implicit import has_int8_layer, nodes_left_float
from quantkit.tuning.speed.lab import EngineLab, EngineRequest, LabEngine, weighted_profile
from quantkit.tuning.speed.layer_nodes import placed_pairs
from quantkit.tuning.speed.regions import RegionCosts, network_index, region_costs

if TYPE_CHECKING:
    import onnx

    from quantkit.backends.tensorrt.layer_profile import ProfiledLayer

FP16, DEFAULT, TABLE, CUT, OWN, CONV_ONLY, ALL = "fp16", "default", "table", "cut", "own", "conv-only", "all"
SPLIT = "the cheapest split by the layers' times"
LOADING = 0.2
"""Seconds to load an engine and to capture it as a CUDA graph."""
CUTS = 3
"""Cuts at most: the first, and two that know what the one before did to the layers at its borders."""
PROMISE = 0.995
"""A cut is built if it is predicted to take at most this fraction of the faster of its two engines."""
SLACK = 1.15
"""A Q/DQ build is expected to take this much longer than the longest after `default`, which times most kernels."""
NEEDED = 2
"""Engines without whose times nothing can be said: FP16 and one to compare with it."""
TABLE_BUILD = 1.75
"""A build with a table is expected to take this many times as long as that of FP16, because it times all kernels in
both precisions: 1.06 (ResNet-50) … 1.71 times (ResNet-20) on an H200 with TensorRT 8.6, level 2."""


class NetworkSource(Protocol):
    """Where the networks of candidates come from."""

    def plain(self, *, half: bool) -> onnx.ModelProto:
        """Return the cleaned float network; half: converted to FP16."""

    def original(self) -> onnx.ModelProto:
        """Return the float network as it was given, for a table."""

    def table(self) -> Path:
        """Return the calibration table."""

    def excluded(self) -> tuple[str, ...]:
        """Return the nodes that are float in every candidate, or their patterns."""

    def quantized(self, placement: SpeedPlacement, *, half: bool) -> onnx.ModelProto:
        """Return the Q/DQ network of a placement. ModelError if it quantizes nothing."""


@dataclass(slots=True)
class TimeLimit:
    """A limit in seconds, and what is left of it. clock: for tests."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    @property
    def left(self) -> float:
        """Seconds that are left, negative if there are none."""
        return self.seconds - self.passed


class SpeedSearch:
    """A search in progress. batches: the batch sizes that count, all of them alike."""

    def __init__(
        self,
        source: NetworkSource,
        lab: EngineLab,
        batches: Sequence[int],
        limit: TimeLimit,
        policy: Policy = Policy.TENSORRT,
        phase: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._source, self._lab, self._batches, self._limit = source, lab, tuple(batches), limit
        self._policy, self._phase = policy, phase
        self._wires: GraphIndex = network_index(source.plain(half=False))
        self._built: dict[str, LabEngine] = {}
        self._protos: dict[str, onnx.ModelProto] = {}
        self._seen: dict[frozenset[tuple[str, str]], str] = {}
        self._took: dict[EngineKind, list[float]] = {kind: [] for kind in EngineKind}
        self._totals: dict[int, float] = {}
        self._default_share = 0.0
        self.candidates: list[SpeedCandidate] = []
        self.costs: RegionCosts | None = None
        self.quantizable = 0
        """Nodes that read behind a pair in the default placement."""

    def run(self) -> tuple[SpeedCandidate, ...]:
        """Build the candidates and time them. Raises the error of the float network's engine if there is one."""
        self._build_float()
        default = SpeedPlacement((), self._policy)
        has_default = self._build_quantized(DEFAULT, default, "all pairs that the policy places", needed=True)
        self._build_table()  # before the cuts: where time is short, what was seen to be the fastest comes first
        if has_default:
            self._cut()
            self._take_own_choice()
        self._build_other_policies()
        self._time()
        return tuple(self.candidates)

    def _build_other_policies(self) -> None:
        """Build what other policies place; more INT8 is hopeless where the default is slower than FP16 already."""
        for policy in (Policy.CONV_ONLY, Policy.ALL):
            placement = SpeedPlacement((), policy)
            if policy is self._policy:
                continue
            why = "only convolutions in INT8" if policy is Policy.CONV_ONLY else "everything in INT8"
            if policy is Policy.ALL and self._default_share > 1.0:
                candidate = SpeedCandidate(policy.value, EngineKind.QDQ, why, placement)
                self._leave_out(replace(candidate, detail="the default is slower than FP16 already"))
            else:
                self._build_quantized(policy.value, placement, why)

    def _build_float(self) -> None:
        proto = self._source.plain(half=self._lab.half)
        request = EngineRequest(FP16, EngineKind.FP16, proto)
        self._phase(self._progress(FP16))
        made = self._lab.build(request)
        self._remember(SpeedCandidate(FP16, EngineKind.FP16, "what INT8 has to beat"), made)

    def _build_table(self) -> None:
        candidate = SpeedCandidate(TABLE, EngineKind.TABLE, "TensorRT chooses by the table what is INT8")
        if not self._lab.reads_tables:
            return
        if not self._has_time(EngineKind.TABLE):
            self._leave_untried(candidate)
            return
        self._phase(self._progress(TABLE))
        try:
            original, table = self._source.original(), self._source.table()
            request = EngineRequest(TABLE, EngineKind.TABLE, original, table, self._source.excluded())
            self._remember(candidate, self._lab.build(request))
        except (BackendError, ModelError, TableError) as error:
            self.candidates.append(replace(candidate, status=CandidateStatus.FAILED, detail=error.summary))

    def _build_quantized(
        self, name: str, placement: SpeedPlacement, why: str, predicted: float | None = None, *, needed: bool = False
    ) -> bool:
        """Build a Q/DQ engine unless it equals another; True if there is a new one."""
        candidate = SpeedCandidate(name, EngineKind.QDQ, why, placement, predicted=predicted)
        try:
            proto = self._source.quantized(placement, half=self._lab.half)
        except ModelError as error:
            self.candidates.append(replace(candidate, status=CandidateStatus.FAILED, detail=error.summary))
            return False
        placed = placed_pairs(self._wires, proto)
        self.quantizable = self.quantizable or len(placed.nodes)
        key = frozenset((tensor, node) for tensor, nodes in placed.readers.items() for node in nodes)
        if key in self._seen:
            detail = self._seen[key]
            self.candidates.append(replace(candidate, status=CandidateStatus.SAME, detail=detail))
            return False
        if not needed and not self._has_time():
            self._leave_untried(candidate)
            return False
        self._phase(self._progress(name))
        try:
            made = self._lab.build(EngineRequest(name, EngineKind.QDQ, proto))
        except (BackendError, ModelError) as error:
            self.candidates.append(replace(candidate, status=CandidateStatus.FAILED, detail=error.summary))
            return False
        self._seen[key], self._protos[name] = name, proto
        self._remember(candidate, made)
        return True

    def _remember(self, candidate: SpeedCandidate, made: LabEngine) -> None:
        self._built[candidate.name] = made
        self._took[candidate.kind].append(made.seconds)
        self.candidates.append(
            replace(candidate, seconds=made.seconds, layers=made.counts, model=made.model, engine=made.engine)
        )

    def _cut(self) -> None:
        """Build the cheapest splits, each knowing what the one before did."""
        if not self._has_time():
            self._leave_untried(SpeedCandidate(CUT, EngineKind.QDQ, SPLIT))
            return
        try:
            floats, quantized = self._profile(FP16), self._profile(DEFAULT)
        except (BackendError, ValueError) as error:
            self._give_up_cut(CUT, error)
            return
        costs = region_costs(self._wires, self._protos[DEFAULT], floats, quantized, max(self._batches))
        self.costs = costs
        bounds = [costs.cost(()), costs.cost(costs.parts)]
        self._default_share = bounds[1] / bounds[0] if bounds[0] else 0.0
        for number in range(CUTS):
            kept = costs.cheapest()
            split = costs.int8_regions(kept)
            predicted, name = costs.cost(split), CUT if number == 0 else f"{CUT} {number + 1}"
            share = predicted / bounds[0] if bounds[0] else math.nan
            placement = SpeedPlacement(self._in_order(kept), self._policy)
            why = f"{len(kept)} nodes float: the cheapest split by the layers' times"
            if predicted > PROMISE * min(bounds):
                self._leave_out(SpeedCandidate(name, EngineKind.QDQ, why, placement, predicted=share))
                return
            if not self._build_quantized(name, placement, why, share):
                return
            if number + 1 < CUTS and self._has_time():
                try:
                    layers = self._profile(name)
                except (BackendError, ValueError) as error:
                    self._give_up_cut(f"{CUT} {number + 2}", error)
                    return
                costs = costs.refined(split, layers, placed_pairs(self._wires, self._protos[name]))
                self.costs = costs

    def _give_up_cut(self, name: str, error: Exception) -> None:
        """Note that layers could not be timed; whole engines can be all the same."""
        detail = f"the layers could not be timed: {getattr(error, 'summary', error)}"
        self.candidates.append(
            SpeedCandidate(name, EngineKind.QDQ, SPLIT, status=CandidateStatus.FAILED, detail=detail)
        )

    def _leave_out(self, candidate: SpeedCandidate) -> None:
        self.candidates.append(replace(candidate, status=CandidateStatus.HOPELESS))

    def _take_own_choice(self) -> None:
        """Write TensorRT's own choice down in pairs."""
        table = self._built.get(TABLE)
        if table is None:
            return
        quantized = placed_pairs(self._wires, self._protos[DEFAULT]).nodes
        kept = nodes_left_float(table.layers, quantized)
        placement = SpeedPlacement(self._in_order(kept), self._policy)
        why = f"{len(kept)} nodes float: what TensorRT chose by the table"
        if not has_int8_layer(table.layers):
            detail = "with the table, TensorRT runs no layer in INT8"
            candidate = SpeedCandidate(OWN, EngineKind.QDQ, why, placement, CandidateStatus.HOPELESS, detail=detail)
            self.candidates.append(candidate)
            return
        self._build_quantized(OWN, placement, why)

    def _profile(self, name: str) -> Sequence[ProfiledLayer]:
        """Return an engine's profile over all batch sizes, in shares of what the FP16 engine's layers take."""
        profiles = {batch: self._lab.profile(self._built[name], batch) for batch in self._batches}
        if not self._totals:
            sums = {batch: math.fsum(x.milliseconds for x in layers) for batch, layers in profiles.items()}
            self._totals = {batch: total or 1.0 for batch, total in sums.items()}
        return weighted_profile(profiles, self._totals)

    def _time(self) -> None:
        """Time all engines side by side, or without those built last if the GPU cannot hold or run them together."""
        timed = list(self._built.values())
        while True:
            try:
                found: Mapping[str, Mapping[int, RoundTimes]] = self._lab.time(timed)
                break
            except QuantkitError as error:
                if len(timed) <= NEEDED:
                    summary = f"the engines could not be timed: {error.summary}"
                    raise BackendError(summary, remedy=error.remedy) from None
                self._leave_untimed(timed.pop().name, error.summary)
        self.candidates = [replace(c, times=dict(found[c.name])) if c.name in found else c for c in self.candidates]

    def _leave_untimed(self, name: str, reason: str) -> None:
        status = CandidateStatus.UNTIMED
        self.candidates = [replace(c, status=status, detail=reason) if c.name == name else c for c in self.candidates]

    def _leave_untried(self, candidate: SpeedCandidate) -> None:
        """Note that no time was left for a candidate, and what it would have taken."""
        expected = self._expected(candidate.kind) + self._timing(1)
        self.candidates.append(replace(candidate, status=CandidateStatus.NO_TIME, expected=expected))

    def _has_time(self, kind: EngineKind = EngineKind.QDQ) -> bool:
        """Return whether one more build is expected to end early enough to time all engines after it."""
        return self._expected(kind) + self._timing(len(self._built) + 1) <= self._limit.left

    def _expected(self, kind: EngineKind) -> float:
        """Return the seconds that one more build is expected to take."""
        if kind is EngineKind.TABLE:
            return TABLE_BUILD * self._took[EngineKind.FP16][0]
        first, *later = self._took[EngineKind.QDQ] or self._took[EngineKind.FP16]
        return SLACK * max(later) if later else first

    def _timing(self, engines: int) -> float:
        """Return the seconds that it takes to time engines side by side."""
        return engines * len(self._batches) * (ROUNDS * SECONDS + LOADING)

    def _progress(self, name: str) -> str:
        left = max(0.0, self._limit.left)
        return f"building {name}: engine {len(self._built) + 1}, {left // 60:.0f} min {left % 60:.0f} s left"

    def _in_order(self, names: frozenset[str]) -> tuple[str, ...]:
        return tuple(name for n in range(len(self._wires.nodes)) if (name := self._wires.name(n)) in names)
