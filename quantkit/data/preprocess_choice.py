"""The choice of the preprocessing, with its source."""

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
    """The spec, its source, and the spec as applied, with size, layout and dtype filled in."""

    spec: Preprocess
    source: str
    warning: str | None = None
    applied: Preprocess | None = None

    def with_applied(self, applied: Preprocess | None) -> PreprocessChoice:
        """Return the same choice with the spec as applied; a warning about images is dropped if none are decoded."""
        return replace(self, applied=applied, warning=self.warning if applied else None)

    @property
    def document(self) -> dict[str, Any] | None:
        """The spec as applied, for the record; None if arrays pass unchanged."""
        return None if self.applied is None else self.applied.model_dump(mode="json")


def choose_spec(asked: str | Path | Preprocess | None, model: Model, data: Any) -> PreprocessChoice:
    """Return the requested spec, else `preprocess.toml` beside the model, else the model's metadata, else a default.

    The default is `raw` for arrays, batches and streams, and `unit` with a warning for images. PreprocessError.
    """
    if isinstance(asked, Preprocess):
        return PreprocessChoice(asked, "given")
    if asked is not None:
        return PreprocessChoice(load_preprocess(asked), f"--preprocess {Path(str(asked)).name}")
    if not feeds_images(data):
        return PreprocessChoice(PRESETS["raw"], "arrays are fed unchanged")
    beside = model.path.parent / BESIDE
    if beside.exists():
        return PreprocessChoice(load_preprocess(beside), f"{BESIDE} beside the model")
    if spec := metadata_preprocess(model.metadata):
        return PreprocessChoice(spec, "the model's metadata")
    return PreprocessChoice(
        PRESETS["unit"],
        "default",
        "the preprocessing of this network is unknown: pixels are divided by 255 (unit); "
        f"if it was trained with another, give it with --preprocess ({', '.join(PRESETS)}, or a .toml file)",
    )


def feeds_images(data: Any) -> bool:
    """Return True if `data` names images rather than arrays, batches or a stream."""
    if not isinstance(data, (str, os.PathLike)):
        return False
    path = Path(data)
    return (
        path.suffix not in (".npy", ".npz")
        and path.exists()
        and not (path.is_dir() and any(not p.name.startswith(".") for p in path.glob("*.npz")))
    )
