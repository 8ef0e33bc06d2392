"""The parts of progress displays: signs that turn, bars, and durations."""

from __future__ import annotations

SIGNS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def draw_bar(share: float, size: int) -> str:
    """Return a bar of `size` characters, filled to `share` (0 … 1)."""
    full = round(min(max(share, 0.0), 1.0) * size)
    return "━" * full + "─" * (size - full)


def format_duration(seconds: float) -> str:
    """Return `8.1 s`, `42 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60} min"
