"""Plain inference: onnxruntime with default options, the network's own outputs, thrown away."""

from __future__ import annotations

import onnxruntime

from contestants.images import Images
from contestants.job import job


def main() -> None:
    """Run every batch once."""
    task = job()
    session = onnxruntime.InferenceSession(task.model, providers=["CPUExecutionProvider"])
    for batch in Images(task):
        session.run(None, batch)


if __name__ == "__main__":
    main()
