"""The choice of the preprocessing, with its source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from quantkit.data.image_list import ImageList
from quantkit.data.pictures.find import holds_images, is_remote
from quantkit.data.pixel_inputs import default_preset
from quantkit.graph import Model
from quantkit.paths import exists, is_folder
from quantkit.preprocess import PRESETS, Preprocess, load_preprocess, metadata_preprocess
from quantkit.values import ModelInput

AnyPreprocess: TypeAlias = "str | Path | Preprocess | PreprocessChoice | None"
"""A preset or a file, a spec, a choice that was made before, or None for the default."""
BESIDE = "preprocess.toml"
METADATA = "the model's metadata"


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
    def doubt(self) -> str | None:
        """The reason why figures of images prepared like this prove little; None unless the spec was guessed."""
        if self.warning is None:
            return None
        spec = (self.applied or self.spec).describe()
        return f"the preprocessing was guessed ({spec}); give the one of the training with --preprocess"

    @property
    def document(self) -> dict[str, Any] | None:
        """The spec as applied, for the record; None if arrays pass unchanged."""
        return None if self.applied is None else self.applied.model_dump(mode="json")


def choose_spec(
    asked: AnyPreprocess, model: Model, data: Any, inputs: Sequence[ModelInput] | None = None
) -> PreprocessChoice:
    """Return the requested spec, else `preprocess.toml` beside the model, else the model's metadata, else a default.

    A choice that was made before is returned with its source. The default is `raw` for arrays, batches and streams. For
    images it is `raw` where the input takes integers, else `unit`, both with a warning. inputs: those of an engine,
    which has no model. PreprocessError.
    """
    if isinstance(asked, PreprocessChoice):
        return asked
    if isinstance(asked, Preprocess):
        return PreprocessChoice(asked, "given")
    if asked is not None:
        return PreprocessChoice(load_preprocess(asked), f"--preprocess {Path(str(asked)).name}")
    if not feeds_images(data):
        return PreprocessChoice(PRESETS["raw"], "arrays are fed unchanged")
    beside = model.path.parent / BESIDE
    if exists(beside):
        return PreprocessChoice(load_preprocess(beside), f"{BESIDE} beside the model")
    if spec := metadata_preprocess(model.metadata):
        return PreprocessChoice(spec, METADATA)
    name, fed = default_preset(model, model.inputs if inputs is None else inputs)
    return PreprocessChoice(
        PRESETS[name],
        "default",
        f"the preprocessing of this network is unknown: {fed} ({name}); "
        f"if it was trained with another, give it with --preprocess ({', '.join(PRESETS)}, or a .toml file)",
    )


def feeds_images(data: Any) -> bool:
    """Return True if `data` names images rather than arrays, batches or a stream."""
    if not isinstance(data, (str, os.PathLike)):
        return isinstance(data, ImageList)
    if is_remote(data):
        return holds_images(os.fspath(data))
    path = Path(data)
    return (
        path.suffix not in (".npy", ".npz")
        and exists(path)
        and not (is_folder(path) and any(not p.name.startswith(".") for p in path.glob("*.npz")))
    )
