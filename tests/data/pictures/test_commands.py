"""Every command takes every form of data, with the same figures as a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import quantkit
from quantkit.locations import write_object
from tests.evaluation.scenes.test_detectors import ROWS, WORSE, network
from tests.support import heads
from tests.support.picture_forms import Drawn, draw, table_of, write_members, write_table, write_video

pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")


def bundled(place: Path) -> list[Drawn]:
    images = sorted((place / "imgs").rglob("*.png"))
    return [Drawn(f"{p.parent.name}/{p.name}", p.read_bytes(), int(p.parent.name)) for p in images]


@pytest.fixture
def forms(place: Path) -> dict[str, str]:
    """The images of `place` in several forms."""
    pictures = bundled(place)
    members = [(f"{p.label}-{p.name[2:-4]}{end}", c) for p in pictures for end, c in
               ((".png", p.content), (".cls", str(p.label).encode()))]  # fmt: skip
    for number, part in enumerate((members[:60], members[60:])):
        write_members(place / f"part-{number}.tar", part)
    table = table_of(pictures, hub=False)
    write_table(place / "all.parquet", table, 25)
    write_object(f"memory://{place.name}/all.parquet", (place / "all.parquet").read_bytes())
    return {
        "archives": f"{place}/part-{{0..1}}.tar",
        "table": f"{place}/all.parquet",
        "url": f"file://{place}/all.parquet",
        "memory": f"memory://{place.name}/all.parquet",
    }


@pytest.mark.parametrize("form", ["archives", "table", "url", "memory"])
def test_every_form_gives_the_same_table(form: str, place: Path, forms: dict[str, str]) -> None:
    model, source = place / "net" / "model.onnx", forms[form]
    quantkit.calibrate(model, place / "imgs", output=place / "a.calib", batch_size=16)
    found = quantkit.calibrate(model, source, output=place / "b.calib", batch_size=16)
    assert (place / "a.calib").read_bytes() == (place / "b.calib").read_bytes()
    assert found.samples == 60
    assert quantkit.calibrate(model, source, output=place / "b.calib", batch_size=16).reused
    ours, theirs = quantkit.evaluate(model, source), quantkit.evaluate(model, place / "imgs")
    assert ours.models[0].metrics == theirs.models[0].metrics
    assert "top1" in ours.models[0].metrics


@pytest.mark.slow
def test_quantize_layers_and_run(place: Path, forms: dict[str, str]) -> None:
    model, table = place / "net" / "model.onnx", forms["table"]
    made = quantkit.quantize(model, place / "ours.onnx", data=table, limit=20, repairs=["bias"])
    same = quantkit.quantize(model, place / "same.onnx", data=place / "imgs", limit=20, repairs=["bias"])
    assert dict(made.pairs) == dict(same.pairs)
    assert quantkit.quantize(model, place / "ours.onnx", data=table, limit=20, repairs=["bias"]).reused
    quantkit.calibrate(model, table, output=place / "net" / "model.calib")
    assert quantkit.layers(model, statistics=place / "net" / "model.stats.safetensors", data=table, limit=8).layers
    settings = {"model": model, "data": forms["archives"], "output": place / "out", "compile": False}
    quantkit.run(**settings)
    assert {step.name for step in quantkit.run(**settings).steps if step.reused} >= {"statistics", "table", "model"}


def test_boxes_in_archives_and_tables(tmp_path: Path) -> None:
    """Objects are measured at the sizes that the pictures have, wherever these lie; COCO's JSON has the labels."""
    size = (heads.CANVAS[1] // 2, heads.CANVAS[0] // 2)
    pictures = draw(3, size)
    rows = [(x1 / 2, y1 / 2, x2 / 2, y2 / 2, kind) for x1, y1, x2, y2, _, kind in ROWS]
    boxes = [
        {"id": 10 * i + k, "image_id": i, "category_id": row[4], "iscrowd": 0, "bbox": [row[0], row[1], row[2] - row[0],
         row[3] - row[1]], "area": (row[2] - row[0]) * (row[3] - row[1])}
        for i in range(3) for k, row in enumerate(rows)
    ]  # fmt: skip
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": size[1], "height": size[0]} for i in range(3)],
        "categories": [{"id": k, "name": str(k)} for k in range(3)],
        "annotations": boxes,
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    write_members(tmp_path / "a.tar", [(f"{i}.png", p.content) for i, p in enumerate(pictures)])
    (tmp_path / "images").mkdir()
    for i, picture in enumerate(pictures):
        (tmp_path / "images" / f"{i}.png").write_bytes(picture.content)
    models = [network(tmp_path / f"{n}.onnx", heads.v8(r)) for n, r in (("float", ROWS), ("int8", WORSE))]

    def figures(data: str) -> list[float]:
        found = quantkit.evaluate(
            models, data, preprocess="yolo", metrics="map", labels=tmp_path / "boxes.json", batch_size=1
        )
        return [score.metrics["mAP50-95"] for score in found.models]

    plain = figures(str(tmp_path / "images"))
    assert plain[0] > plain[1] > 0
    assert figures(str(tmp_path / "a.tar")) == figures(f"file://{tmp_path}/a.tar") == plain


def test_a_video_calibrates(place: Path) -> None:
    pytest.importorskip("av")
    write_video(place / "clips" / "1.mp4", 30)
    found = quantkit.calibrate(place / "net" / "model.onnx", place / "clips", frame_step=5)
    assert found.samples == 6


def test_without_labels_the_columns_are_named(place: Path) -> None:
    table = table_of(bundled(place), hub=False).rename_columns(["image", "digit"])
    write_table(place / "all.parquet", table)
    with pytest.raises(quantkit.QuantkitError) as caught:
        quantkit.evaluate(place / "net" / "model.onnx", place / "all.parquet", metrics="top1")
    assert caught.value.problem == (
        "there are no labels to measure with: all.parquet: none of its columns (image, digit) is called label, target "
        "or class"
    )


FLAT = """
import sys
from quantkit.data import DataOptions, open_data
from quantkit.preprocess import Preprocess
from quantkit.values import ModelInput
def held():
    text = open("/proc/self/status").read()
    return int(text.split("RssAnon:")[1].split()[0]) / 1024
inputs = (ModelInput("image", "float32", ("N", 3, 8, 8)),)
feed, _ = open_data(sys.argv[1], inputs, Preprocess(resize="exact"), DataOptions(whole=True, threads=2, batch_size=32))
early = late = 0.0
for portion in feed.portions():
    early, late = max(early, held()) if portion.stop <= 128 else early, max(late, held())
print(late - early)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("name", ["a.tar", "a.parquet", "a.feather", "a.arrow"])
def test_memory_does_not_grow_with_the_data(name: str, tmp_path: Path) -> None:
    """50 MiB of pictures, of which a few at a time are in memory."""
    random = np.random.default_rng(0)
    content = draw(1)[0].content
    pictures = [Drawn(f"{n}.png", content + random.bytes(100_000), 0) for n in range(512)]  # decoders stop before
    if name == "a.tar":
        write_members(tmp_path / name, [(p.name, p.content) for p in pictures])
    else:
        write_table(tmp_path / name, table_of(pictures), 16)
    done = subprocess.run(
        [sys.executable, "-c", FLAT, str(tmp_path / name)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 20
