"""Optional libraries: what each extra of the package installs, for messages that name the remedy.

Messages name the libraries themselves, because that works from a clone, from a wheel and from a package index alike.
"""

from __future__ import annotations

from collections.abc import Mapping

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "tensorrt": ("tensorrt>=8.6,<11", "pycuda>=2022.2"),
    "cuda": ("pycuda>=2022.2",),
    "ort-cuda": ("onnxruntime-gpu[cuda,cudnn]>=1.31", "cupy-cuda13x>=13.6"),
    "rtx": ("tensorrt-rtx-cu13>=1.7,<2",),
    "triton": ("tritonclient[grpc]>=2.40",),
    "torch": ("torch>=2.4", "onnxscript>=0.5"),
    "tensorflow": ("tensorflow>=2.16", "tf2onnx>=1.17"),
    "map": ("fast-sugiyama>=0.5.3,<1",),
    "ray": ("ray[client,data]>=2.40",),
    "notebook": ("jupyter>=1.0", "matplotlib>=3.7", "resvg-py>=0.4"),
    "detection": ("pycocotools>=2.0.7",),
    "remote": ("fsspec>=2024.6", "s3fs>=2024.6", "huggingface_hub>=0.24", "aiohttp>=3.9"),
    "gcs": ("fsspec>=2024.6", "gcsfs>=2024.6"),
    "parquet": ("pyarrow>=15",),
    "video": ("av>=12",),
}
"""Extra → its requirements, as in pyproject.toml."""


def gpu_command() -> str:
    """Return the commands that put onnxruntime-gpu in the place of onnxruntime.

    Both install the same folder, and the last one counts; removing one removes the files of both.
    """
    return f"pip uninstall -y onnxruntime onnxruntime-gpu, then {install_command('ort-cuda')}"


def install_command(extra: str, library: str = "") -> str:
    """Return the command that installs an extra, or one library of it: `pip install 'pycocotools>=2.0.7'`."""
    return f"pip install {' '.join(repr(entry) for entry in EXTRAS[extra] if entry.startswith(library))}"
