"""The client script that sends images: a template, filled in for one model."""

from __future__ import annotations

import re
from importlib.resources import files

from quantkit._version import __version__
from quantkit.artifact import text_bytes
from quantkit.export.config import TYPES, Deployment, ensemble_pixels
from quantkit.export.served_model import ServedModel, ServedTensor
from quantkit.preprocess import Preprocess

SCRIPT = "client.py"
OPEN = 32
"""Images per request if the model accepts any number."""


def client_script(served: ServedModel, made: ServedTensor, deployment: Deployment, spec: Preprocess) -> bytes:
    """Return the client of a model and its ensemble. made: the preprocessed input. spec: resolved for it."""
    size = deployment.max_batch or made.shape[0]
    filled = {
        "NAME": deployment.name,
        "VERSION": __version__,
        "ENSEMBLE": python_literal((deployment.ensemble, ensemble_pixels(served), "UINT8")),
        "MODEL": python_literal((deployment.name, made.name, TYPES[made.dtype])),
        "OUTPUTS": python_literal([t.name for t in served.outputs]),
        "BATCH": python_literal(size if size > 0 else OPEN),
        "FIXED": python_literal(not deployment.max_batch and size > 0),
        "SPEC": python_literal(spec.model_dump_json()),
    }
    text = files("quantkit.export").joinpath("client.py.template").read_text(encoding="utf-8")
    return text_bytes(re.sub("@([A-Z]+)@", lambda key: filled[key[1]], text))


def python_literal(value: object) -> str:
    """Return a value as Python source."""
    return repr(value)
