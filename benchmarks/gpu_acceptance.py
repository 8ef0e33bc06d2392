"""What quantkit does with TensorRT on a real GPU. Writes results/gpu_acceptance.json, which the tests replay.

    python benchmarks/gpu_acceptance.py [SECTION…] [--shared DIR] [--images DIR] [--output FILE]

Needs TensorRT 8.6 … 10.x, pycuda and a GPU; DIR with models/ and golden/; DIR of images with train/ and test/ class
folders of CIFAR-10; polygraphy for the comparison in `streaming`. Sections that are not named keep their figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

NETWORKS = ("resnet20", "mobilenetv2", "vit", "ultraface")


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    import platform

    from quantkit._version import __version__
    from quantkit.backends.tensorrt.device import open_device
    from quantkit.backends.tensorrt.versions import detect_features, tensorrt

    return {
        "gpu": open_device().name,
        "tensorrt": detect_features(tensorrt()).version,
        "cuda_driver": open_device().driver_version,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "quantkit": __version__,
        "date": date.today().isoformat(),
    }


def sections(shared: Path, images: Path, folder: Path, qdq: Path | None) -> dict[str, Callable[[], Iterator[Any]]]:
    """Name → what measures it: yields its figures, as far as they are known, again and again."""
    tested: list[Any] = []

    def test_set() -> list[Any]:
        from acceptance import networks

        if not tested:
            tested.extend(networks.test_images(images / "test"))
        return tested

    def classifier(name: str) -> Any:
        from acceptance import networks

        return networks.classifier(shared / "models" / f"{name}.onnx", shared, folder, *test_set())

    def explicit() -> Iterator[Any]:
        from acceptance import explicit, networks

        if qdq is None:
            raise SystemExit("explicit: give the folder of Q/DQ models with --qdq")
        place = folder / "explicit"
        place.mkdir()
        known: dict[str, Any] = {}
        for name in networks.CIFAR:
            for figures in explicit.measured(name, place, qdq, shared / "models", *test_set()):
                yield {**known, name: figures}
            known[name] = figures

    def detector() -> Any:
        from acceptance import networks

        return networks.detector(shared / "models" / "ultraface.onnx", images / "train", folder)

    def of(module: str, *arguments: Any) -> Any:
        from importlib import import_module

        place = folder / module
        place.mkdir()
        figures = import_module(f"acceptance.{module}").measured(*arguments, place)
        yield from [figures] if isinstance(figures, dict) else figures

    return {
        "behaviour": lambda: of("behaviour"),
        "distributions": lambda: of("distributions", shared),
        "streaming": lambda: of("streaming"),
        "resnet20": lambda: classifier("resnet20"),
        "mobilenetv2": lambda: classifier("mobilenetv2"),
        "vit": lambda: classifier("vit"),
        "ultraface": detector,
        "deconvolution": lambda: of("deconvolution"),
        "constants": lambda: of("constants"),
        **({"explicit": explicit} if qdq else {}),
    }


def main() -> int:
    """Measure the sections, and write after each of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION")
    parser.add_argument("--shared", type=Path, default=os.environ.get("QUANTKIT_SHARED", HERE.parent.parent / "shared"))
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--qdq", type=Path, help="folder of Q/DQ models NETWORK.WHAT.onnx, tables NETWORK.calib beside")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "gpu_acceptance.json")
    arguments = parser.parse_args()
    document = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    failed = 0
    from acceptance.report import rendered

    from quantkit.backends.tensorrt.build import kernels_loaded

    with tempfile.TemporaryDirectory() as folder, kernels_loaded():
        every = sections(Path(arguments.shared), arguments.images, Path(folder), arguments.qdq)
        for name in arguments.sections or every:
            started = time.monotonic()
            try:
                for figures in every[name]():  # whatever ends the run, what was measured is kept
                    seconds = round(time.monotonic() - started, 1)
                    document[name] = {"machine": machine(), "seconds": seconds, "figures": figures}
                    text = json.dumps(document, indent=2).replace(f"{folder}/", "")
                    arguments.output.write_text(text + "\n")
            except Exception:
                traceback.print_exc()
                failed += 1
                continue
            arguments.output.with_suffix(".md").write_text(rendered(document))
            print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
