"""The bundled digits as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BUNDLED = Path(__file__).parents[2] / "calibration_data"
SPEC = BUNDLED / "preprocess.toml"
MEAN, STD = 0.305, 0.32
"""As in preprocess.toml."""


def digits(folder: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images [200, 16, 16] float32, preprocessed as preprocess.toml says, and labels."""
    files = sorted((BUNDLED / folder).glob("*/*.png"))
    pixels = [np.asarray(Image.open(f).convert("L").resize((16, 16), Image.Resampling.BILINEAR)) for f in files]
    images = (np.stack(pixels).astype(np.float32) / 255 - MEAN) / STD
    return images.astype(np.float32), np.array([int(f.parent.name) for f in files])


def shifted(images: np.ndarray[Any, Any], generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """Every image moved by up to a pixel, so that 200 of them teach more."""
    moved = [np.roll(image, generator.integers(-1, 2, 2), (0, 1)) for image in images]
    return np.stack(moved)
