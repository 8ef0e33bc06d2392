"""The task that a contestant is given on its command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Job:
    """Which network, which images (an .npz, or the first ``limit`` of a folder), where to."""

    model: Path
    images: Path
    limit: int | None
    output: Path


def job() -> Job:
    """The task of this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    return Job(given.model, given.images, given.limit, given.output)
