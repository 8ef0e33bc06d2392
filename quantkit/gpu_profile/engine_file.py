"""The file of measured engines: what `profile` goes on from, and what every figure of a profile can be traced to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantkit.artifact import write_whole
from quantkit.errors import UsageError
from quantkit.gpu_profile.measure import MeasuredEngine
from quantkit.gpu_profile.plan import EnginePlan
from quantkit.gpu_profile.profile import GpuProfile
from quantkit.gpu_profile.rows import border_rows, branch_times, form_rows, operator_rows
from quantkit.regular_file import read_regular

FORMAT = "quantkit measured engines 1"
MOST_BYTES = 256 << 20
MACHINE = ("gpu", "compute_capability", "tensorrt", "level")


@dataclass(slots=True)
class EngineFile:
    """Measured engines of one machine. machine: GPU, compute capability, TensorRT, level; date: of the first one."""

    machine: Mapping[str, Any]
    date: str
    engines: list[dict[str, Any]] = field(default_factory=list)

    def has(self, plan: EnginePlan) -> bool:
        """Return True if every branch of a plan was measured, or could not be built."""
        there = [b for engine in self.engines if engine["quantized"] == plan.quantized for b in engine["branches"]]
        if len(plan.branches) == 1:  # a check: the branch in an engine of its own
            there = [e["branches"][0] for e in self.engines if len(e["branches"]) == 1]
        return all(branch in there for branch in branch_documents(plan))

    @property
    def profile(self) -> GpuProfile:
        """The profile that follows from the engines."""
        branches = branch_times(self.engines)
        return GpuProfile(
            **self.machine,
            date=self.date,
            operators=tuple(operator_rows(branches)),
            borders=tuple(border_rows(branches)),
            forms=tuple(form_rows(branches)),
        )


def branch_documents(plan: EnginePlan) -> list[dict[str, object]]:
    """Return the branches of a plan for JSON."""
    return [{**chain.document(), "form": form} for chain, form in plan.branches]


def engine_document(plan: EnginePlan, made: MeasuredEngine) -> dict[str, Any]:
    """Return one engine for JSON. Times are milliseconds."""
    return {
        "quantized": plan.quantized,
        "branches": branch_documents(plan),
        "graph": [round(value, 5) for value in made.graph],
        "overhead": round(made.overhead, 5),
        "build_seconds": round(made.build_seconds, 2),
        "layers": [layer.document() for layer in made.layers],
    }


def write_engines(file: EngineFile, path: Path) -> None:
    """Write the file, one engine a line. OutputError."""
    head = {"format": FORMAT, **file.machine, "date": file.date}
    engines = ",\n".join(json.dumps(engine, separators=(",", ":")) for engine in file.engines)
    write_whole(path, f'{json.dumps(head)[:-1]}, "engines": [\n{engines}\n]}}\n'.encode())


def read_engines(path: Path) -> EngineFile:
    """Read the file. UsageError where it is none."""
    remedy = "give another --output, or --force"
    try:
        document = json.loads(read_regular(path, most=MOST_BYTES))
        engines: Sequence[dict[str, Any]] = document["engines"]
        file = EngineFile({key: document[key] for key in MACHINE}, document["date"], list(engines))
        _ = file.profile, [(engine["quantized"], engine["branches"]) for engine in engines]  # all that is used of it
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", remedy=remedy) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{path} holds no measured engines", remedy=remedy) from None
    return file
