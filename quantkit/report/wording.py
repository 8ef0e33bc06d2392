"""Numbers for readers: few digits, a true minus sign, and words in place of values that are not numbers."""

from __future__ import annotations

import math

from quantkit.view import percent_text


def format_number(value: float, digits: int = 2) -> str:
    """Format a number: `0.25`, `−3.10`, `∞`, `not a number`; very large or small ones as `1.2e+09`."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    text = f"{value:,.{digits}f}" if size < 1e6 else f"{value:.3g}"
    if size and float(text.replace(",", "")) == 0.0:
        text = f"{value:.1e}" if digits > 2 else text.lstrip("-")
    return text.replace("-", "−")


def format_significant(value: float) -> str:
    """Format with four significant digits: `0.02387`, `6.812`, `1.2e-05`."""
    return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else format_number(value)


def format_percent(share: float, digits: int = 2) -> str:
    """Format a fraction as a percentage: 0.9118 is `91.18 %`; only exact ones are `0.00 %` or `100.00 %`."""
    if 0.0 <= share <= 1.0:
        return f"{percent_text(share, digits)} %"
    return f"{format_number(100.0 * share, digits)} %" if math.isfinite(share) else format_number(share)


def format_signed(value: float, digits: int = 2) -> str:
    """Format with a plus sign if the number is positive."""
    text = format_number(value, digits)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def format_decibel(value: float, unit: bool = True) -> str:
    """Format `31.2 dB`; for a perfect copy `∞ dB`."""
    return format_number(value, 1) + (" dB" if unit and not math.isnan(value) else "")


def format_probability(p: float) -> str:
    """Format a p-value: `p 0.031`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}" if math.isfinite(p) else f"p {format_number(p)}"


def format_size(count: int) -> str:
    """Format bytes in SI units: `1.14 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000.0 or unit == "GB":
            break
        value /= 1000.0
    return f"{value:,.0f} B" if unit == "B" else f"{value:,.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def count_noun(count: int, noun: str) -> str:
    """Return a count with its noun: `1 sample`, `10,000 samples`, `2 classes`, `7 batches`."""
    plural = noun + ("es" if noun.endswith(("s", "ch")) else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def format_seconds(value: float) -> str:
    """Format a duration: `48 s`, `2 min 5 s`."""
    if not math.isfinite(value) or value < 60.0:
        return f"{format_number(value, 1)} s"
    whole = round(value)
    return f"{whole // 60:,} min {whole % 60} s"
