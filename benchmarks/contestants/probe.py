"""Which of some modules this interpreter can import, in which versions: one line of JSON."""

from __future__ import annotations

import importlib
import json
import platform
import sys
from importlib import metadata


def main() -> None:
    """Import the modules named on the command line and report."""
    versions, missing = {"python": platform.python_version()}, {}
    providers = metadata.packages_distributions()
    notes: dict[str, str] = {}
    for name in sys.argv[1:]:
        top = name.partition(".")[0]
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever it dies of, the others are still to be asked
            absent = isinstance(error, ModuleNotFoundError) and error.name in {name, top}
            missing[name] = f"{top} is not installed" if absent else f"{name}: {error}"
            continue
        owners = sorted(set(providers.get(top, ())))
        versions[top] = _version(top, owners)
        if len(owners) > 1:
            held = " and ".join(f"{owner} {metadata.version(owner)}" for owner in owners)
            notes[top] = f"{held} are installed over one another; {top} {versions[top]} is used"
    print()
    print(json.dumps({"versions": versions, "missing": missing, "notes": notes}))


def _version(module: str, owners: list[str]) -> str:
    """What the module itself says, since two distributions may have been installed over another."""
    stated = getattr(sys.modules[module], "__version__", None)
    return str(stated or (metadata.version(owners[0]) if owners else "unknown"))


if __name__ == "__main__":
    main()
