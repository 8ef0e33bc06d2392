"""TODO docstring."""

from __future__ import annotations

import click

from quantkit.cli import options
from quantkit.cli.console import print_fields, print_json


@click.command()
@options.as_json
def doctor(as_json: bool) -> None:
    """Show what quantkit can do on this machine."""
    from quantkit.inspection.machine import doctor as run

    found = run()
    if as_json:
        print_json(
            {
                "quantkit": found.quantkit,
                "python": found.python,
                "platform": found.platform,
                "cpus": found.cpus,
                "packages": found.packages,
                "abilities": [{"what": a.what, "able": a.able, "detail": a.detail} for a in found.abilities],
            }
        )
        return
    print_fields(
        [
            ("quantkit", found.quantkit),
            ("python", f"{found.python}, {found.platform}, {found.cpus} cores"),
            *((name, version or "not installed") for name, version in found.packages.items()),
        ]
    )
    print()
    for ability in found.abilities:
        print(f"{'yes' if ability.able else 'no ':<4} {ability.what}: {ability.detail}")
