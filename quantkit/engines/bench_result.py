"""The result of a bench: measured speeds, and what they mean in words. Pure; `bench` measures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from quantkit.engines.choice import TimedEngine, fastest_within_budget, is_faster
from quantkit.view import Block, Remarks, RichDisplay, ViewTable

LOSSY = frozenset({"int8", "best"})
"""Precisions that may cost accuracy."""


@dataclass(frozen=True, slots=True)
class BenchSubject:
    """An engine, or a model on onnxruntime, that was measured.

    model: sha256 of the network, "" if unknown; only subjects of one network are compared. bytes: size of the file.
    build_seconds: None if unknown. memory: bytes of activation memory per context. counts: precision → layers that
    compute in it.
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
    """Milliseconds for one batch at a time, on the device if there is one, without copies."""

    subject: str
    batch: int
    graph: bool
    median: float
    p90: float
    p99: float
    runs: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Samples per second with `streams` batches in flight, including the copies in and out."""

    subject: str
    batch: int
    streams: int
    graph: bool
    rate: float


@dataclass(frozen=True, slots=True)
class BenchResult(RichDisplay):
    """All measurements. `machine` labels every figure: the GPU and TensorRT, or the CPU and onnxruntime."""

    machine: str
    on_gpu: bool
    subjects: tuple[BenchSubject, ...]
    latencies: tuple[Latency, ...]
    throughputs: tuple[Throughput, ...] = ()
    notes: tuple[str, ...] = ()

    def median(self, subject: str, batch: int) -> float | None:
        """Return the best median latency of a subject at a batch size, in milliseconds."""
        found = [x.median for x in self.latencies if (x.subject, x.batch) == (subject, batch)]
        return min(found, default=None)

    @property
    def batches(self) -> tuple[int, ...]:
        """Return the batch sizes that were measured."""
        return tuple(sorted({x.batch for x in self.latencies}))

    def _view_(self) -> Sequence[Block]:
        head = ("subject", "precision", "MiB", *(f"batch {n}, ms" for n in self.batches), "best samples/s")
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
            ViewTable(
                head,
                [(*row, f"{rate:,.0f}" if rate else "") for row, rate in zip(rows, rates, strict=True)],
                frozenset({0, 1}),
            ),
            Remarks([*bench_verdicts(self), *self.notes]),
        )


def format_milliseconds(milliseconds: float | None) -> str:
    """Return a time with three decimals, or "" if it was not measured."""
    return "" if milliseconds is None else f"{milliseconds:.3f}"


def bench_verdicts(bench: BenchResult) -> tuple[str, ...]:
    """Return one sentence for each conclusion; different networks are not compared with each other."""
    said: list[str] = []
    if not bench.on_gpu:
        said.append("these figures are for the CPU; TensorRT on a GPU will differ")
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
    """Return the conclusions for one network."""
    by_precision = fastest_by_precision(bench)
    found = [compare_precisions(bench, by_precision, "fp16", ("tf32", "fp32")), describe_tf32(bench, by_precision)]
    int8 = by_precision.get("int8")
    if int8 is not None:
        if set(int8.counts) - {"unknown"} and not int8.counts.get("INT8"):
            alias = ": it is the FP16 engine under another name" if "FP16" in int8.counts else ""
            found.append(f"the INT8 engine has no INT8 layer{alias}")
        found.append(compare_precisions(bench, by_precision, "int8", ("fp16", "tf32", "fp32")))
    return [*filter(None, found), *recommend_engines(bench)]


def fastest_by_precision(bench: BenchResult) -> dict[str, BenchSubject]:
    """Map each precision to its fastest subject at the largest batch; INT8 can come from a table and from Q/DQ."""
    found: dict[str, tuple[float, BenchSubject]] = {}
    for subject in bench.subjects:
        time = bench.median(subject.name, bench.batches[-1])
        if subject.precision not in found or (time is not None and time < found[subject.precision][0]):
            found[subject.precision] = (math.inf if time is None else time, subject)
    return {precision: subject for precision, (_, subject) in found.items()}


def compare_precisions(
    bench: BenchResult, subjects: Mapping[str, BenchSubject], precision: str, others: Sequence[str]
) -> str | None:
    """Return for example `INT8 against FP16: 1.32× as fast at batch 32 (0.310 against 0.409 ms)`, or None."""
    other = next((o for o in others if o in subjects), None)
    if precision not in subjects or other is None:
        return None
    parts = []
    for batch in bench.batches:
        ours, theirs = bench.median(subjects[precision].name, batch), bench.median(subjects[other].name, batch)
        if ours and theirs:
            ratio = theirs / ours
            gain = f"{ratio:.2f}× as fast" if is_faster(ratio) else "slower" if is_faster(1 / ratio) else "no faster"
            parts.append(f"{gain} at batch {batch} ({ours:.3f} against {theirs:.3f} ms)")
    return f"{precision.upper()} against {other.upper()}: {', '.join(parts)}" if parts else None


def describe_tf32(bench: BenchResult, subjects: Mapping[str, BenchSubject]) -> str | None:
    """Return how much of the float engine's speed is due to TF32, or None if that was not measured."""
    if "tf32" not in subjects or "fp32" not in subjects:
        return None
    batch = bench.batches[-1]
    ours, theirs = bench.median(subjects["tf32"].name, batch), bench.median(subjects["fp32"].name, batch)
    if not ours or not theirs or not is_faster(theirs / ours):
        return "TF32 is no faster than FP32 here"
    return (
        f"TF32, which TensorRT enables by default, is {theirs / ours:.2f}× as fast as FP32 at batch {batch}: "
        "compare INT8 with TF32, not with FP32"
    )


def recommend_engines(bench: BenchResult) -> list[str]:
    """Recommend a subject for the smallest and for the largest batch, by speed alone."""
    if len(bench.subjects) < 2:
        return []
    said = []
    lossy = False
    for batch in dict.fromkeys((bench.batches[0], bench.batches[-1])):
        medians = [(subject, bench.median(subject.name, batch)) for subject in bench.subjects]
        best = fastest_within_budget([TimedEngine(s.name, s.precision, time) for s, time in medians if time])
        if best is None:
            continue
        said.append(
            f"for batch {batch} take {best.precision.upper()} ({best.name}): {best.milliseconds:.3f} ms, "
            f"{1000.0 * batch / best.milliseconds:,.0f} samples/s"
        )
        lossy = lossy or best.precision in LOSSY
    return [*said, "this considers speed only: measure the accuracy of INT8 before you deploy it"] if lossy else said
