"""Live reports of the bundled networks, which the site holds below `examples/`; all of them take about five seconds.

On a page, the comment `<!-- live reports -->` stands where the site links to them: GitHub shows HTML as its source.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

    from quantkit import Evaluation

BUNDLED = Path(__file__).parents[1] / "calibration_data"
NAMES = ("float", "Q/DQ by wmse", "table by entropy")
MARK = "<!-- live reports -->"
ABOUT = {
    "evaluation": ("What INT8 costs", "a Q/DQ model that keeps the accuracy, and a table that loses some"),
    "map": ("The network", "every operator of the Q/DQ model with its scale, SQNR and precision"),
    "layers": ("Where the loss comes from", "layers and tensors of the table by `entropy`"),
    "detector": ("A detector", "mAP by class and size, and the boxes of float and INT8 on images that changed"),
}
"""Report → its title, and what it shows."""


@cache
def reports() -> dict[str, str]:
    """The reports as HTML."""
    import quantkit
    from quantkit.report.html import evaluation_page, sensitivity_page

    with tempfile.TemporaryDirectory() as name:
        classifier, detector = Path(name) / "digits/model.onnx", Path(name) / "shapes/best.onnx"
        draw = [sys.executable, str(BUNDLED / "shapes/draw.py"), str(detector.parent), "--train", "32", "--val", "48"]
        subprocess.run(draw, check=True, capture_output=True)
        classifier.parent.mkdir()
        for source, target in (("model.onnx", classifier), ("shapes/best.onnx", detector)):
            shutil.copy(BUNDLED / source, target)
        shutil.copy(BUNDLED / "preprocess.toml", classifier.parent)
        digits = evaluation(classifier, BUNDLED / "images", BUNDLED / "test")
        layers = quantkit.layers(classifier, table=classifier.with_suffix(".calib"), data=BUNDLED / "test")
        drawn, statistics = Path(name) / "map.html", classifier.with_suffix(".stats.safetensors")
        quantkit.network_map(classifier.with_suffix(".int8.onnx"), drawn, statistics=statistics)
        shapes = evaluation(detector, detector.parent / "images/train", detector.parent / "images/val")
        return {  # pages read the images that they show
            "evaluation": evaluation_page(digits),
            "map": drawn.read_text(encoding="utf-8"),
            "layers": sensitivity_page(layers),
            "detector": evaluation_page(shapes),
        }


def evaluation(model: Path, images: Path, test: Path) -> Evaluation:
    """A network beside its Q/DQ model and its table, which are made here."""
    import quantkit

    table, quantized = model.with_suffix(".calib"), model.with_suffix(".int8.onnx")
    made = quantkit.calibrate(model, images, output=table, rule="entropy")
    quantkit.quantize(model, quantized, statistics=made.statistics)
    return quantkit.evaluate([model, quantized, f"{model}+{table}"], test, names=NAMES)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the reports."""
    from mkdocs.structure.files import File

    for name, page in reports().items():
        files.append(File.generated(config, f"examples/{name}.html", content=page))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page with links to the reports."""
    del page, config, files
    links = [f"- [{title}](examples/{name}.html): {text}" for name, (title, text) in ABOUT.items()]
    return markdown.replace(MARK, "\n".join(["Open the reports:", "", *links]))
