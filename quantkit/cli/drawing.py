"""The plot of a bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.errors import BackendError, OutputError, UsageError

if TYPE_CHECKING:
    from quantkit.pipeline.measuring import Bench

FORMATS = frozenset({".svg", ".png", ".pdf"})
COLOURS = {"fp32": "#8c8c8c", "tf32": "#4c78a8", "fp16": "#f2a93b", "int8": "#2f9e6e", "best": "#7b4fa3"}


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
    """Median latency of every subject at every batch size, as grouped bars with their values. OutputError."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from quantkit.artifact import write_whole

    batches, subjects = made.batches, made.subjects
    figure = Figure(figsize=(7.2, 0.9 + 0.34 * len(batches) * (len(subjects) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places: list[float] = []
    for group, batch in enumerate(batches):
        top = group * (len(subjects) + 1)
        places.append(top + (len(subjects) - 1) / 2)
        for k, subject in enumerate(subjects):
            value = made.median(subject.name, batch)
            if value is None:
                continue
            bar = axes.barh(top + k, value, height=0.8, color=COLOURS.get(subject.precision, "#555555"))
            axes.bar_label(bar, labels=[f"{value:.3f} ms  {subject.precision}"], padding=3, fontsize=8)
    axes.set_yticks(places, [f"batch {batch}" for batch in batches])
    axes.invert_yaxis()
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.5, high * 2.2)
    axes.set_xlabel("median latency of one batch, ms (logarithmic)")
    axes.set_title(made.machine, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(content, format=path.suffix[1:], dpi=160, metadata=metadata)
    write_whole(path, content.getvalue())
