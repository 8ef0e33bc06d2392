"""Tables of results, for the terminal (80 columns) and as Markdown.

A ratio reads "so many times as long as", or as much memory: above 1 the contestant of that row
is slower or larger than the one named at the head of the column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from harness.results import Cell, Results

TIMES = "\N{MULTIPLICATION SIGN}"
TO = "\N{EN DASH}"
NONE = "\N{EN DASH}"
OURS = "quantkit"

Row = Sequence[str]
Measure = Callable[[Cell], float]


def seconds(cell: Cell) -> float:
    """The median wall time."""
    return cell.seconds


def mib(cell: Cell) -> float:
    """The median peak memory."""
    return cell.mib


def digits(value: float) -> str:
    """About three digits of a number."""
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def ratio(cell: Cell | str | None, base: Cell | str | None, measure: Measure) -> str:
    """``cell`` over ``base``, or a dash where one of them was not measured."""
    if not isinstance(cell, Cell) or not isinstance(base, Cell):
        return NONE
    return digits(measure(cell) / measure(base))


def network_rows(results: Results, network: str, images: int) -> tuple[Row, list[Row]]:
    """Head and rows of one network: time, its ratios, memory, its ratio."""
    head = (
        "contestant",
        "seconds",
        f"min{TO}max",
        f"{TIMES} floor",
        f"{TIMES} {OURS}",
        "MiB",
        f"{TIMES} {OURS}",
    )
    floor, ours = (results.cell(name, network, images) for name in ("floor", OURS))
    rows: list[Row] = []
    for name in results.contestants():
        cell = results.cell(name, network, images)
        if not isinstance(cell, Cell):
            rows.append((name, "failed" if cell else NONE, NONE, NONE, NONE, NONE, NONE))
            continue
        rows.append(
            (
                name,
                digits(cell.seconds),
                f"{digits(cell.fastest)}{TO}{digits(cell.slowest)}",
                ratio(cell, floor, seconds),
                ratio(cell, ours, seconds),
                f"{cell.mib:,.0f}",
                ratio(cell, ours, mib),
            )
        )
    rows += [(name, "skipped", *[NONE] * 5) for name in results.skipped]
    return head, rows


def scaling_rows(results: Results, network: str) -> tuple[Row, list[Row]]:
    """Head and rows of one network over the numbers of images: seconds and MiB side by side."""
    counts = results.counts()
    units = ("s", "MiB")
    head = ("contestant", *(f"{count:,} {unit}" for count in counts for unit in units))
    rows: list[Row] = []
    for name in results.contestants():
        row = [name]
        for count in counts:
            cell = results.cell(name, network, count)
            if isinstance(cell, Cell):
                row += [digits(cell.seconds), f"{cell.mib:,.0f}"]
            else:
                row += ["failed" if cell else NONE, NONE]
        rows.append(row)
    rows += [(name, "skipped", *[NONE] * (2 * len(counts) - 1)) for name in results.skipped]
    return head, rows


def all_tables(results: Results) -> Iterator[tuple[str, Row, list[Row]]]:
    """Title, head and rows of every table of a run."""
    repeats = results.settings["repeats"]
    how = "one run each" if repeats == 1 else f"medians of {repeats}"
    for network in results.networks():
        if results.kind == "scaling":
            yield f"{network}, growing numbers of images, {how}", *scaling_rows(results, network)
        else:
            (count,) = results.counts()
            yield f"{network}, {count:,} images, {how}", *network_rows(results, network, count)


def remarks(results: Results) -> list[str]:
    """Every skip, failure and oddity in words."""
    lines = [f"{name} skipped: {reason}" for name, reason in results.skipped.items()]
    lines += [
        f"{s.contestant} failed on {s.network}, {s.images:,} images: {s.failure}"
        for s in results.samples
        if s.failure is not None
    ]
    return lines + list(results.notes)


def plain_text(head: Row, rows: Iterable[Row]) -> str:
    """Columns padded to their widest cell, the first to the left, numbers to the right."""
    table = [head, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def markdown(head: Row, rows: Iterable[Row]) -> str:
    """The same as a Markdown table."""
    rule = ("---", *["--:"] * (len(head) - 1))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
