"""The plot of a bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.errors import BackendError, OutputError, UsageError

if TYPE_CHECKING:
    from quantkit.pipeline.measuring import Bench

FORMATS = frozenset({".svg", ".png", ".pdf"})
COLOURS = {"fp32": "#8c8c8c", "tf32": "#4c78a8", "fp16": "#f2a93b", "int8": "#2f9e6e", "best": "#7b4fa3"}
OTHER = "#555555"


def check_drawable(path: Path) -> None:
    """Fail before the work. UsageError, OutputError, BackendError."""
    if path.suffix not in FORMATS:
        raise UsageError(f"cannot draw {path.name}", remedy=f"the name ends in {', '.join(sorted(FORMATS))}")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}", remedy="make the folder first")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise BackendError("a plot needs matplotlib", remedy="pip install 'quantkit[notebook]'") from None


def draw_latencies(made: Bench, path: Path) -> None:
    """Median latency of every subject at every batch size, as bars with their values. OutputError."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from quantkit.artifact import write_whole

    batches, subjects = made.batches, made.subjects
    figure = Figure(figsize=(7.2, 0.7 + len(batches) * (0.5 + 0.26 * len(subjects))), layout="constrained")
    FigureCanvasAgg(figure)
    precisions = [s.precision for s in subjects]
    labels = {s.name: s.precision if precisions.count(s.precision) == 1 else s.name for s in subjects}
    for axes, batch in zip(figure.subplots(len(batches), squeeze=False)[:, 0], batches, strict=True):
        timed = [(s, value) for s in subjects if (value := made.median(s.name, batch)) is not None]
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
    figure.suptitle(made.machine, fontsize=9)
    content = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(content, format=path.suffix[1:], dpi=160, metadata=metadata)
    write_whole(path, content.getvalue())
