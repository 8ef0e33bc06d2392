"""Batch size and streams derived from the measurements of `quantkit bench --json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantkit.document import DocumentType
from quantkit.engines.bench_result import BenchResult, BenchSubject, Throughput
from quantkit.engines.choice import is_faster
from quantkit.errors import DataError, StaleError
from quantkit.export.served_model import PLAN, BatchTuning, ServedModel

LONGEST = 1_000_000
"""Maximum delay of a request, in microseconds."""
OUTPUT_OF_BENCH = "give the output of quantkit bench … --json"
BENCH = DocumentType[BenchResult](
    BenchResult, "the result of a benchmark", DataError, OUTPUT_OF_BENCH, absent=OUTPUT_OF_BENCH
)


def read_bench(path: Path) -> BenchResult:
    """Read the result of a benchmark. DataError if the file is not the JSON of one."""
    return BENCH.read(path)


def choose_batching(
    bench: BenchResult, served: ServedModel, precisions: Sequence[str], where: str, asked: int | None = None
) -> BatchTuning:
    """Return batch size and streams of the highest throughput, or smaller ones with practically the same throughput.

    asked: the largest batch that will be served, 0 for single requests; figures of larger batches are ignored.
    precisions: of engines that resemble those which onnxruntime's TensorRT provider builds from an ONNX model; the
    first one measured is used. () for onnxruntime itself. where: the name of the file in errors. StaleError if the
    benchmark has no figures for the model.
    """
    names = measured_names(bench, served, precisions)
    figures = [t for t in bench.throughputs if t.subject in names] or [
        Throughput(x.subject, x.batch, 1, x.graph, 1000.0 * x.batch / x.median)
        for x in bench.latencies
        if x.subject in names and x.median > 0
    ]
    known = [t for t in figures if t.rate > 0 and (served.max_batch is None or t.batch <= served.max_batch)]
    most = None if asked is None or served.unbatched else max(asked, 1)
    figures = [t for t in known if most is None or t.batch <= most]
    if known and not figures:
        sizes = ", ".join(map(str, sorted({t.batch for t in known})))
        raise StaleError(
            f"{where} has figures for batches of {sizes}, but none for batches of up to {most} (--max-batch {asked})",
            remedy=f"measure them (quantkit bench … --batch {most} --json), or omit --bench",
        )
    if not figures:
        there = ", ".join(f"{s.name} ({s.precision})" for s in bench.subjects) or "nothing"
        raise StaleError(
            f"{where} has no figures for {served.path.name} as it will run; it has {there} on {bench.machine}",
            remedy="measure the model to export (quantkit bench FILE --json), or omit --bench",
        )
    fastest = max(t.rate for t in figures)
    best = min((t for t in figures if not is_faster(fastest / t.rate)), key=lambda t: (t.batch * t.streams, -t.rate))
    delay = max(1, round(min(LONGEST, 1e6 * best.batch / best.rate)))
    how = f"batches of {best.batch}, {best.streams} in parallel{', CUDA graphs' if best.graph else ''}"
    why = f"measured as fastest: {how}: {best.rate:,.0f} samples/s ({bench.machine})"
    if most is not None and most not in {t.batch for t in figures}:
        why += f"; batches of {most} were not measured"
    return BatchTuning(best.batch, best.streams, best.graph, delay, max(t.batch for t in figures), why)


def measured_names(bench: BenchResult, served: ServedModel, precisions: Sequence[str]) -> set[str]:
    """Return the benchmark's models whose figures apply to the served model."""
    if served.platform == PLAN:
        return {s.name for s in bench.subjects if bench.on_gpu and is_same_engine(s, served)}
    own = [s for s in bench.subjects if s.model == served.model]
    if not precisions:
        return set() if bench.on_gpu else {s.name for s in own}
    wanted = next((p for p in precisions if bench.on_gpu and any(s.precision == p for s in own)), None)
    return {s.name for s in own if s.precision == wanted}


def is_same_engine(subject: BenchSubject, served: ServedModel) -> bool:
    """Return True if a measured engine has the same network, size and precision, as far as these are known."""
    same = [(subject.model, served.model), (subject.precision.strip("?"), served.precision)]
    return subject.bytes == served.bytes and all(a == b for a, b in same if a and b)
