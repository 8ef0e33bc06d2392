"""Which preprocessing is used, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantkit.graph import Model
from quantkit.preprocess import PRESETS, Preprocess, load_preprocess, metadata_preprocess

BESIDE = "preprocess.toml"


@dataclass(frozen=True, slots=True)
class PreprocessChoice:
    """The spec, where it came from, and what was applied after size, layout and dtype were filled in."""

    spec: Preprocess
    source: str
    warning: str | None = None
    applied: Preprocess | None = None

    def with_applied(self, applied: Preprocess | None) -> PreprocessChoice:
        """The same choice with what was applied; a warning about images is void where none are decoded."""
        return replace(self, applied=applied, warning=self.warning if applied else None)

    @property
    def document(self) -> dict[str, Any] | None:
        """What was applied, for the record; None where arrays pass unchanged."""
        return None if self.applied is None else self.applied.model_dump(mode="json")


def choose_spec(asked: str | Path | Preprocess | None, model: Model, data: Any) -> PreprocessChoice:
    """What the user asked for, else `preprocess.toml` beside the model, else the model's metadata, else a default.

    The default is `raw` for arrays, batches and streams, and `unit` with a warning for images.
    """
    if isinstance(asked, Preprocess):
        return PreprocessChoice(asked, "given")
    if asked is not None:
        return PreprocessChoice(load_preprocess(asked), f"--preprocess {Path(str(asked)).name}")
    if not feeds_images(data):
        return PreprocessChoice(PRESETS["raw"], "arrays are fed as they are")
    beside = model.path.parent / BESIDE
    if beside.exists():
        return PreprocessChoice(load_preprocess(beside), f"{BESIDE} beside the model")
    if told := metadata_preprocess(model.metadata):
        return PreprocessChoice(told, "the model's metadata")
    return PreprocessChoice(
        PRESETS["unit"],
        "default",
        "no preprocessing is known for this network: pixels are divided by 255 (unit); "
        f"if it was trained otherwise, say so with --preprocess ({', '.join(PRESETS)}, or a .toml file)",
    )


def feeds_images(data: Any) -> bool:
    """Whether `data` names images rather than arrays, batches or a stream."""
    if not isinstance(data, (str, os.PathLike)):
        return False
    path = Path(data)
    return (
        path.suffix not in (".npy", ".npz")
        and path.exists()
        and not (path.is_dir() and any(not p.name.startswith(".") for p in path.glob("*.npz")))
    )
