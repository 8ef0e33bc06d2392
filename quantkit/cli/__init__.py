"""The command line: the only place that prints, exits, shows progress and reads the environment.

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 over budget, 130 interrupted.
"""

from __future__ import annotations

from quantkit.cli.application import main, run

__all__ = ["main", "run"]
