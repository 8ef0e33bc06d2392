"""The same pictures in every form that data sets have."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")


@dataclass(frozen=True)
class Drawn:
    """A picture: its name with class folder, the bytes of its file, its class."""

    name: str
    content: bytes
    label: int


def draw(count: int, size: tuple[int, int] = (6, 5), seed: int = 3) -> list[Drawn]:
    """Pictures of noise, whose sorted names are in the order of the list."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(file, "PNG")
        label = number * len(CLASSES) // count
        made.append(Drawn(f"{CLASSES[label]}/{number:05}.png", file.getvalue(), label))
    return made


def write_folder(root: Path, pictures: Sequence[Drawn]) -> Path:
    """A folder of images in class folders."""
    for picture in pictures:
        path = root / picture.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.content)
    return root


def write_members(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """A .tar archive of these members."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def write_shards(root: Path, pictures: Sequence[Drawn], count: int = 2, label: str = "cls") -> str:
    """WebDataset's shards, and the pattern that names them. label: `cls`, `json` or `name`."""
    root.mkdir(parents=True, exist_ok=True)
    for shard in range(count):
        part = pictures[len(pictures) * shard // count : len(pictures) * (shard + 1) // count]
        members = []
        for picture in part:
            key = picture.name.replace("/", "_").removesuffix(".png")
            labels = {
                "cls": (f"{key}.cls", str(picture.label)),
                "json": (f"{key}.json", json.dumps({"label": picture.label, "by": "hand"})),
                "name": (f"{key}.cls", CLASSES[picture.label]),
            }
            name, text = labels[label]
            members += [(f"{key}.png", picture.content), (name, text.encode())]
        write_members(root / f"part-{shard:03}.tar", members)
    return f"{root}/part-{{000..{count - 1:03}}}.tar"


def table_of(pictures: Sequence[Drawn], *, hub: bool = True, names: bool = False) -> Any:
    """An Arrow table as the library `datasets` makes it, or a plain one. names: labels are names of classes."""
    import pyarrow as pa

    values = [CLASSES[p.label] if names else p.label for p in pictures]
    labels = pa.array(values, pa.string() if names else pa.int64())
    if not hub:
        return pa.table({"image": pa.array([p.content for p in pictures], pa.binary()), "label": labels})
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    if names:
        features["label"] = {"dtype": "string", "_type": "Value"}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", image), ("label", labels.type)],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = pa.array([{"bytes": p.content, "path": p.name} for p in pictures], image)
    return pa.table([rows, labels], schema=schema)


def write_table(path: Path, table: Any, rows: int = 7) -> Path:
    """A table as Parquet, as a Feather file with LZ4, or as Arrow's stream of batches, by the suffix."""
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path, row_group_size=rows)
    elif path.suffix == ".feather":
        pa.feather.write_feather(table, str(path), compression="lz4", chunksize=rows)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
    return path


def write_video(path: Path, frames: int, size: tuple[int, int] = (32, 48), codec: str = "mpeg4") -> Path:
    """A video whose frames are of one grey each, brighter from frame to frame."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.gop_size = 5
        for number in range(frames):
            pixels = np.full((*size, 3), 20 + 200 * number // max(frames - 1, 1), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    return path
