"""Measured speed: what a bench finds out, and what it means in words. Pure; the measuring itself is elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from quantkit.view import Block, Remarks, Shown, Table

FASTER = 1.03
"""Less than 3 % is taken for noise."""
LOSSY = frozenset({"int8", "best"})
ORDER = ("fp32", "tf32", "fp16", "int8", "best")


@dataclass(frozen=True, slots=True)
class BenchSubject:
    """What was measured: an engine, or a model on onnxruntime.

    model: sha256 of the network, "" where nothing tells; only subjects of one network are compared. bytes: of the file.
    build_seconds: None where nothing tells. memory: bytes of activations a context takes. counts: precision → layers
    that compute in it.
    """

    name: str
    precision: str
    bytes: int
    model: str = ""
    build_seconds: float | None = None
    memory: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one batch alone, on the device where there is one, without copies."""

    subject: str
    batch: int
    graph: bool
    median: float
    p90: float
    p99: float
    runs: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Samples a second with `streams` batches under way at once, copies in and out included."""

    subject: str
    batch: int
    streams: int
    graph: bool
    rate: float


@dataclass(frozen=True, slots=True)
class BenchResult(Shown):
    """All of it. `machine`: the GPU and TensorRT, or the processor and onnxruntime, as a label of every figure."""

    machine: str
    on_gpu: bool
    subjects: tuple[BenchSubject, ...]
    latencies: tuple[Latency, ...]
    throughputs: tuple[Throughput, ...] = ()
    notes: tuple[str, ...] = ()

    def median(self, subject: str, batch: int) -> float | None:
        """The best median latency of a subject at a batch size."""
        found = [x.median for x in self.latencies if (x.subject, x.batch) == (subject, batch)]
        return min(found, default=None)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes that were measured."""
        return tuple(sorted({x.batch for x in self.latencies}))

    def _view_(self) -> Sequence[Block]:
        head = ("subject", "precision", "MiB", *(f"batch {n}, ms" for n in self.batches), "samples/s at most")
        rows = [
            (
                s.name,
                s.precision,
                f"{s.bytes / 2**20:.1f}",
                *(format_milliseconds(self.median(s.name, n)) for n in self.batches),
            )
            for s in self.subjects
        ]
        rates = [max((x.rate for x in self.throughputs if x.subject == s.name), default=0.0) for s in self.subjects]
        return (
            f"{self.machine}: median latency of one batch",
            Table(
                head,
                [(*row, f"{rate:,.0f}" if rate else "") for row, rate in zip(rows, rates, strict=True)],
                frozenset({0, 1}),
            ),
            Remarks([*bench_verdicts(self), *self.notes]),
        )


def format_milliseconds(milliseconds: float | None) -> str:
    """Three decimals; nothing where it was not measured."""
    return "" if milliseconds is None else f"{milliseconds:.3f}"


def bench_verdicts(bench: BenchResult) -> tuple[str, ...]:
    """What the figures say, one sentence each; networks are not compared with each other."""
    said: list[str] = []
    if not bench.on_gpu:
        said.append("these are figures of the processor; TensorRT's on a GPU will be others")
    models = list(dict.fromkeys(s.model or s.name for s in bench.subjects))
    for model in models:
        subjects = tuple(s for s in bench.subjects if (s.model or s.name) == model)
        names = {s.name for s in subjects}
        own = replace(bench, subjects=subjects, latencies=tuple(x for x in bench.latencies if x.subject in names))
        if own.latencies:
            prefix = f"{subjects[0].name.split('.')[0]}: " if len(models) > 1 else ""
            said += [prefix + text for text in network_verdicts(own)]
    return tuple(said)


def network_verdicts(bench: BenchResult) -> list[str]:
    """What the figures of one network say."""
    by_precision = fastest_by_precision(bench)
    found = [compare_precisions(bench, by_precision, "fp16", ("tf32", "fp32")), describe_tf32(bench, by_precision)]
    int8 = by_precision.get("int8")
    if int8 is not None:
        if set(int8.counts) - {"unknown"} and not int8.counts.get("INT8"):
            alias = ": it is the FP16 engine under another name" if "FP16" in int8.counts else ""
            found.append(f"the INT8 engine holds no INT8 layer{alias}")
        found.append(compare_precisions(bench, by_precision, "int8", ("fp16", "tf32", "fp32")))
    return [*filter(None, found), *recommend_engines(bench)]


def fastest_by_precision(bench: BenchResult) -> dict[str, BenchSubject]:
    """Precision → the subject that is fastest at the largest batch: INT8 may come by a table and by Q/DQ."""
    found: dict[str, tuple[float, BenchSubject]] = {}
    for subject in bench.subjects:
        time = bench.median(subject.name, bench.batches[-1])
        if subject.precision not in found or (time is not None and time < found[subject.precision][0]):
            found[subject.precision] = (math.inf if time is None else time, subject)
    return {precision: subject for precision, (_, subject) in found.items()}


def compare_precisions(
    bench: BenchResult, subjects: Mapping[str, BenchSubject], precision: str, others: Sequence[str]
) -> str | None:
    """`INT8 is 1.32× as fast as FP16 at batch 32, no faster at batch 1`."""
    other = next((o for o in others if o in subjects), None)
    if precision not in subjects or other is None:
        return None
    parts = []
    for batch in bench.batches:
        ours, theirs = bench.median(subjects[precision].name, batch), bench.median(subjects[other].name, batch)
        if ours and theirs:
            ratio = theirs / ours
            gain = f"{ratio:.2f}× as fast" if ratio >= FASTER else "no faster" if ratio > 1 / FASTER else "slower"
            parts.append(f"{gain} at batch {batch} ({ours:.3f} against {theirs:.3f} ms)")
    return f"{precision.upper()} against {other.upper()}: {', '.join(parts)}" if parts else None


def describe_tf32(bench: BenchResult, subjects: Mapping[str, BenchSubject]) -> str | None:
    """That TF32 explains a part of the float engine's speed."""
    if "tf32" not in subjects or "fp32" not in subjects:
        return None
    batch = bench.batches[-1]
    ours, theirs = bench.median(subjects["tf32"].name, batch), bench.median(subjects["fp32"].name, batch)
    if not ours or not theirs or theirs / ours < FASTER:
        return "TF32 is no faster than FP32 here"
    return (
        f"TF32, which TensorRT allows by default, is {theirs / ours:.2f}× as fast as FP32 at batch {batch}: "
        "compare INT8 with it, not with FP32"
    )


def recommend_engines(bench: BenchResult) -> list[str]:
    """The fastest subject for single samples and for throughput; the simpler one where they are as good as equal."""
    if len(bench.subjects) < 2:
        return []
    said = []
    lossy = False
    for batch in dict.fromkeys((bench.batches[0], bench.batches[-1])):
        timed = [(bench.median(s.name, batch), rank(s), s) for s in bench.subjects]
        known = [(time, order, s) for time, order, s in timed if time]
        if not known:
            continue
        best = min(time for time, _, _ in known)
        chosen = min((order, time, s.name, s) for time, order, s in known if time <= best * FASTER)[3]
        time = next(t for t, _, s in known if s is chosen)
        said.append(
            f"for batch {batch} take {chosen.precision.upper()} ({chosen.name}): {time:.3f} ms, "
            f"{1000.0 * batch / time:,.0f} samples/s"
        )
        lossy = lossy or chosen.precision in LOSSY
    return [*said, "that is speed alone: measure what INT8 costs in accuracy before you take it"] if lossy else said


def rank(subject: BenchSubject) -> int:
    """Simpler precisions first: they cost no accuracy."""
    return ORDER.index(subject.precision) if subject.precision in ORDER else len(ORDER)
