"""The command `quantkit doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantkit.cli import options
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import Printing, print_fields, print_line

if TYPE_CHECKING:
    from quantkit.inspection.machine import Diagnosis


@verb(
    "Show what quantkit can do on this machine",
    "quantkit doctor",
    "quantkit doctor --json",
)
@options.printing_tables_loudly
def doctor(printing: Printing) -> None:
    """Show what quantkit can do on this machine."""
    from quantkit.inspection.machine import doctor as run

    printing.print_result(run(), doctor_document, print_diagnosis)


def print_diagnosis(result: Diagnosis) -> None:
    """Print the machine, its packages, and what they allow."""
    print_fields(
        [
            ("quantkit", result.quantkit),
            ("python", f"{result.python}, {result.platform}, {result.cpus} cores"),
            *((name, version or "not installed") for name, version in result.packages.items()),
        ]
    )
    print_line()
    for ability in result.abilities:
        print_line(f"{'yes' if ability.able else 'no ':<4} {ability.what}: {ability.detail}")


def doctor_document(result: Diagnosis) -> dict[str, Any]:
    """Return the result for programs."""
    return {
        "quantkit": result.quantkit,
        "python": result.python,
        "platform": result.platform,
        "cpus": result.cpus,
        "packages": result.packages,
        "abilities": [{"what": a.what, "able": a.able, "detail": a.detail} for a in result.abilities],
    }
