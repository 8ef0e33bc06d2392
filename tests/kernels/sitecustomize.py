"""Make onnxruntime use other kernels, as QUANTKIT_TEST_ORT says, in the tests and in the programs that they start.

Python imports a module of this name when it starts and the folder is on PYTHONPATH, where `tests/conftest.py` puts it.
The value names graph optimizations (`disabled`, `basic`, `extended`), intra-op threads (`threads=2`), or both, with a
comma between. Sums are then taken in another order, as on another CPU, so that what depends on their last bits shows.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

WORDS = [word.partition("=") for word in os.environ.get("QUANTKIT_TEST_ORT", "").split(",") if word]
LEVELS = {"disabled": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}
THREADS = [int(value) for name, _, value in WORDS if name == "threads"]
NAMES = [LEVELS[name] for name, _, _ in WORDS if name != "threads"]
MODULE = "onnxruntime.capi.onnxruntime_inference_collection"


def change(module: Any) -> None:
    """Open every session with what is wanted, whatever its caller asks for."""
    start = module.InferenceSession.__init__

    def opened(self: Any, source: Any, sess_options: Any = None, *rest: Any, **named: Any) -> None:
        options = sess_options or module.C.SessionOptions()
        for count in THREADS:
            options.intra_op_num_threads = count
        for name in NAMES:
            level = getattr(module.C.GraphOptimizationLevel, name)
            if level.value < options.graph_optimization_level.value:
                options.graph_optimization_level = level
        start(self, source, options, *rest, **named)

    module.InferenceSession.__init__ = opened


class Finder:
    """A finder of one module, which is changed once it is imported: programs that do not need onnxruntime stay fast."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of onnxruntime's sessions, and None for everything else."""
        spec = PathFinder.find_spec(name, path, target) if name == MODULE else None
        if spec is not None:
            loader: Any = spec.loader
            execute = loader.exec_module
            loader.exec_module = lambda module: (execute(module), change(module))
        return spec


if WORDS:
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
