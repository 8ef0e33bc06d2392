"""Tables of changed objects and regions: the classes that drop, and the images that change most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantkit.cli.terminal.console import print_heading, print_line, print_rows
from quantkit.view import percent_text, signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantkit.evaluation.object_changes import PrecisionChange, RegionChange
    from quantkit.evaluation.result import ModelScore

SHOWN = 5


def print_scene_tables(model: ModelScore, of_model: str) -> None:
    """Print the classes and images in which objects or regions of a candidate change, if any."""
    objects, regions = model.objects, model.regions
    if objects is not None:
        print_precision_drops([(c, c.objects) for c in objects.classes], of_model, "AP", "objects")
        if objects.changed_images:
            count = objects.changed_images
            print_heading(f"{count:,} image{'' if count == 1 else 's'}{of_model} with lost or new objects")
            changed = [scene for scene in objects.scenes if scene.lost or scene.new]
            rows = [(s.sample, str(s.lost), str(s.new)) for s in changed[:SHOWN]]
            print_rows(("image", "lost", "new"), rows)
    if regions is not None:
        print_precision_drops([(c, c.pixels) for c in regions.classes], of_model, "IoU", "pixels")
        if regions.maps:
            print_heading(f"images{of_model} that change most")
            shares = [(found.sample, f"{percent_text(found.agreement)}%") for found in regions.maps[:SHOWN]]
            print_rows(("image", "equal pixels"), shares)


def print_precision_drops(
    classes: Sequence[tuple[PrecisionChange | RegionChange, int]], of_model: str, figure: str, unit: str
) -> None:
    """Print the classes whose drop is above 0 with its whole interval, if any. unit: of the counts beside them."""
    worst = [(found, count) for found, count in classes if found.low > 0]
    if not worst:
        return
    print_heading(f"classes{of_model} whose {figure} drops, by its interval")
    print_rows(
        ("class", unit, "reference", "here", "drop", "95 % interval"),
        [
            (
                found.name,
                f"{count:,}",
                f"{percent_text(found.reference)}%",
                f"{percent_text(found.candidate)}%",
                signed(found.drop),
                f"{signed(found.low)} … {signed(found.high)}",
            )
            for found, count in worst[:SHOWN]
        ],
    )
    if len(worst) > SHOWN:
        print_line(f"… {len(worst) - SHOWN} more (--json lists all)")
