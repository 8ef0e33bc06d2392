"""The plot of `quantkit bench --plot`: latencies as horizontal bars, a panel for each batch size."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.artifact import check_destinations, write_whole
from quantkit.errors import BackendError, UsageError
from quantkit.extras import install_command

if TYPE_CHECKING:
    from quantkit.engines.bench_result import BenchResult

FORMATS = frozenset({".svg", ".png", ".pdf"})
COLOURS = {"fp32": "#8c8c8c", "tf32": "#4c78a8", "fp16": "#f2a93b", "int8": "#2f9e6e", "best": "#7b4fa3"}
"""Precision → colour of its bars."""
OTHER = "#555555"


def refuse_undrawable(path: Path, read: Iterable[object] = (), *, force: bool) -> None:
    """Raise an error before the work if the plot could not be drawn or written after it.

    read: files that must not be replaced. UsageError, OutputError, StaleError, BackendError.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"cannot draw {path.name}", remedy=f"end the name in {', '.join(sorted(FORMATS))}")
    check_destinations([path], read=read, force=force, option="--plot")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise BackendError("a plot needs matplotlib", remedy=install_command("notebook", "matplotlib")) from None


def draw_latencies(bench: BenchResult, path: Path, *, force: bool = True) -> None:
    """Draw the median latency of every subject at every batch size, as bars with their values.

    force: False where no file may lie there. OutputError, StaleError.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    batches, subjects = bench.batches, bench.subjects
    figure = Figure(figsize=(7.2, 0.7 + len(batches) * (0.5 + 0.26 * len(subjects))), layout="constrained")
    FigureCanvasAgg(figure)
    precisions = [s.precision for s in subjects]
    labels = {s.name: s.precision if precisions.count(s.precision) == 1 else s.name for s in subjects}
    for axes, batch in zip(figure.subplots(len(batches), squeeze=False)[:, 0], batches, strict=True):
        timed = [(s, value) for s in subjects if (value := bench.median(s.name, batch)) is not None]
        bars = axes.barh(
            range(len(timed)), [value for _, value in timed], color=[COLOURS.get(s.precision, OTHER) for s, _ in timed]
        )
        axes.bar_label(bars, [f"{value:.3f}" for _, value in timed], padding=3, fontsize=8)
        axes.set_yticks(range(len(timed)), [labels[s.name] for s, _ in timed], fontsize=8)
        axes.set_title(f"batch {batch}", fontsize=9, loc="left")
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("median latency of one batch, ms", fontsize=8)
    figure.suptitle(bench.machine, fontsize=9)
    content = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(content, format=path.suffix[1:], dpi=160, metadata=metadata)
    write_whole(path, content.getvalue(), "--plot", force=force)
