"""Section on the search by time: the engines that were built, their times with spread, and the chosen one."""

from __future__ import annotations

from quantkit.report.page import Cell, PageSection, PageTable, Prose
from quantkit.report.wording import count_noun, format_signed
from quantkit.tuning.result import Tuning
from quantkit.tuning.speed.candidate import EngineKind, SpeedCandidate
from quantkit.tuning.speed.result import SpeedTuning


def times_section(tuning: Tuning) -> PageSection | None:
    """Return all engines of the search by time; None where there was none."""
    found = tuning.speed
    if found is None:
        return None
    lead = (
        f"{count_noun(found.builds, 'engine')} on {found.machine}, built in {found.seconds / 60:.1f} of "
        f"{found.limit / 60:g} minutes and timed side by side in rounds, so that all see the same GPU. A time is the "
        "median of the rounds; behind it is half the distance between their quartiles. FP16 is chosen unless another "
        "engine is faster by more than 3 %, and by more than both vary, and slower at no batch size. The drop, in "
        f"{'percentage points' if tuning.share else tuning.metric}, is that of the engine on the tuning part."
    )
    batches = tuple(f"ms at batch {batch}" for batch in found.batches)
    head = ("candidate", "nodes in float", *batches, "drop", "why", "outcome")
    rows = tuple(engine_row(candidate, found, tuning.max_drop) for candidate in found.candidates)
    places = len(found.batches)
    table = PageTable("Engines by time", head, rows, frozenset({places + 3, places + 4}), cards=True)
    best = ", ".join(f"{name} at batch {batch}" for batch, name in found.best_at.items())
    said = [f"The fastest for each batch size alone: {best}."]
    if found.ties:
        said.append(f"Without a measurable difference: {', '.join((found.chosen.name, *found.ties))}.")
    return PageSection("times", "Engines by time", lead, (table, Prose(tuple(said))))


def engine_row(candidate: SpeedCandidate, found: SpeedTuning, max_drop: float) -> tuple[Cell, ...]:
    """Return the row of a candidate."""
    times = [Cell(candidate.times[b].text() if b in candidate.times else "") for b in found.batches]
    drop, status = "", ""
    if candidate.figure is not None:
        drop = format_signed(candidate.figure.drop)
        status = "within" if candidate.figure.cautious_drop <= max_drop else "over"
    return (
        Cell(candidate.name, "chosen" if candidate is found.chosen else ""),
        Cell(str(len(candidate.placement.kept)) if candidate.kind is EngineKind.QDQ else ""),
        *times,
        Cell(drop, status=status),
        Cell(candidate.why),
        Cell(candidate.outcome),
    )
