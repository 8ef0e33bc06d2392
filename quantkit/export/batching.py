"""Batches and streams from what `quantkit bench --json` measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from quantkit.engines.bench_result import BenchResult, BenchSubject, Throughput
from quantkit.engines.choice import is_faster
from quantkit.errors import DataError, StaleError
from quantkit.export.served_model import PLAN, BatchTuning, ServedModel

LONGEST = 1_000_000
"""Microseconds that a request waits at most."""


def read_bench(path: Path) -> BenchResult:
    """What a bench found out. DataError where the file is not its JSON."""
    remedy = "give the output of quantkit bench … --json"
    try:
        return TypeAdapter(BenchResult).validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", remedy=remedy) from None
    except ValidationError as error:
        where = error.errors()[0]
        raise DataError(
            f"{path} holds no measurement: {'.'.join(map(str, where['loc'])) or 'document'}: {where['msg']}",
            remedy=remedy,
        ) from None


def choose_batching(
    bench: BenchResult, served: ServedModel, precisions: Sequence[str], where: str, asked: int | None = None
) -> BatchTuning:
    """The batch size and streams of the best throughput; smaller ones where they are as good as equal.

    asked: the largest batch that will be served, 0 for single requests; figures of larger ones do not count.

    precisions: of the engines that onnxruntime's TensorRT provider will build of an ONNX model, the first that was
    measured counts; () for onnxruntime itself. where: names the file in errors. StaleError where nothing was measured
    of what is served.
    """
    names = measured_names(bench, served, precisions)
    figures = [t for t in bench.throughputs if t.subject in names] or [
        Throughput(x.subject, x.batch, 1, x.graph, 1000.0 * x.batch / x.median)
        for x in bench.latencies
        if x.subject in names and x.median > 0
    ]
    known = [t for t in figures if t.rate > 0 and (served.most is None or t.batch <= served.most)]
    most = None if asked is None or served.unbatched else max(asked, 1)
    figures = [t for t in known if most is None or t.batch <= most]
    if known and not figures:
        sizes = ", ".join(map(str, sorted({t.batch for t in known})))
        raise StaleError(
            f"{where} has batches of {sizes}, and none of up to {most} (--max-batch {asked})",
            remedy=f"measure them (quantkit bench … --batch {most} --json), or leave out --bench",
        )
    if not figures:
        there = ", ".join(f"{s.name} ({s.precision})" for s in bench.subjects) or "nothing"
        raise StaleError(
            f"{where} has no figures of {served.path.name} as it will run; it measured {there}, {bench.machine}",
            remedy="measure what is served (quantkit bench FILE --json), or leave out --bench",
        )
    fastest = max(t.rate for t in figures)
    best = min((t for t in figures if not is_faster(fastest / t.rate)), key=lambda t: (t.batch * t.streams, -t.rate))
    delay = min(LONGEST, max(1, round(1e6 * best.batch / best.rate)))
    how = f"batches of {best.batch}, {best.streams} at once{', CUDA graphs' if best.graph else ''}"
    why = f"measured fastest: {how}: {best.rate:,.0f} samples/s ({bench.machine})"
    if most is not None and most not in {t.batch for t in figures}:
        why += f"; batches of {most} were not measured"
    return BatchTuning(best.batch, best.streams, best.graph, delay, max(t.batch for t in figures), why)


def measured_names(bench: BenchResult, served: ServedModel, precisions: Sequence[str]) -> set[str]:
    """The subjects whose figures hold for what is served."""
    if served.platform == PLAN:
        return {s.name for s in bench.subjects if bench.on_gpu and is_same_engine(s, served)}
    own = [s for s in bench.subjects if s.model == served.model]
    if not precisions:
        return set() if bench.on_gpu else {s.name for s in own}
    wanted = next((p for p in precisions if bench.on_gpu and any(s.precision == p for s in own)), None)
    return {s.name for s in own if s.precision == wanted}


def is_same_engine(subject: BenchSubject, served: ServedModel) -> bool:
    """Whether an engine was measured that is the same by network, size and precision, as far as these are known."""
    same = [(subject.model, served.model), (subject.precision.strip("?"), served.precision)]
    return subject.bytes == served.bytes and all(a == b for a, b in same if a and b)
