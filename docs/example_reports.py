"""Live reports of the bundled network, which the site holds below `examples/`; each takes a second or two to make.

On a page, the comment `<!-- live reports -->` stands where the site links to them: GitHub shows HTML as its source.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

BUNDLED = Path(__file__).parents[1] / "calibration_data"
MARK = "<!-- live reports -->"
ABOUT = {
    "evaluation": ("What INT8 costs", "a Q/DQ model that keeps the accuracy, and a table that loses some"),
    "map": ("The network", "every operator of the Q/DQ model with its scale, SQNR and precision"),
    "layers": ("Where the loss comes from", "layers and tensors of the table by `entropy`"),
}
"""Report → its title, and what it shows."""


@cache
def reports() -> dict[str, str]:
    """The reports as HTML."""
    import quantkit
    from quantkit.report.html import evaluation_page, sensitivity_page

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        for name in ("model.onnx", "preprocess.toml"):
            shutil.copy(BUNDLED / name, folder)
        images, test = BUNDLED / "images", BUNDLED / "test"
        table, quantized = model.with_suffix(".calib"), model.with_name("model.int8.onnx")
        made = quantkit.calibrate(model, images, output=table)
        quantkit.quantize(model, quantized, statistics=made.statistics)
        named = quantkit.EvaluateOptions(names=("float", "Q/DQ by mse", "table by entropy"))
        evaluation = quantkit.evaluate([model, quantized, f"{model}+{table}"], test, options=named)
        layers = quantkit.layers(model, table=table, data=test)
        drawn = Path(folder) / "map.html"
        quantkit.network_map(quantized, drawn, statistics=made.statistics)
        page = drawn.read_text(encoding="utf-8")
    return {"evaluation": evaluation_page(evaluation), "map": page, "layers": sensitivity_page(layers)}


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
