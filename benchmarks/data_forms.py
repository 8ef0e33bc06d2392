"""Speed and memory of reading the same pictures from every form of data.

    python benchmarks/data_forms.py [--images 20000] [--forms NAME,…] [--output results/data_forms.json]

JPEG files of 96 × 96 pixels are written as a folder, as archives, tables and a video; archives and a table also go into
moto, a server of S3's protocol on this machine. Each form is read once by an interpreter of its own, two threads,
resized to 64 × 64. Memory is what belongs to the process alone (RssAnon), after the first tenth and at its largest.
moto and its reader share the cores, so that its rows say what requests cost, not what a network does.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import tables
from harness.machine import child_environment, this_machine

READER = """
import json, sys, time
from quantkit.data import DataOptions, open_data
from quantkit.preprocess import Preprocess
from quantkit.values import ModelInput
def held():
    return int(open("/proc/self/status").read().split("RssAnon:")[1].split()[0]) / 1024
source, total = sys.argv[1], int(sys.argv[2])
began = time.perf_counter()
inputs = (ModelInput("image", "float32", ("N", 3, 64, 64)),)
feed, _ = open_data(source, inputs, Preprocess(resize="exact"), DataOptions(whole=True, threads=2, batch_size=64))
opened = time.perf_counter() - began
early = largest = 0.0
for portion in feed.portions():
    largest = max(largest, held())
    early = largest if portion.stop <= total // 10 else early
seconds = time.perf_counter() - began - opened
print(json.dumps({"images": feed.samples, "open_seconds": opened, "images_per_second": feed.samples / seconds,
                  "early_mib": early, "largest_mib": largest, "content": feed.identity().content[:16]}))
"""
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
FORMS = {
    "folder": "folder", "archives": "shards", "Parquet": "a.parquet", "Feather": "a.feather", "Arrow stream": "a.arrow",
    "video": "a.mp4", "archives on S3": "s3://forms/shards", "Parquet on S3": "s3://forms/a.parquet",
}  # fmt: skip
SHARDS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the forms, read each of them, print, write. 1 if a form failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--forms", help="names, separated by `;`")
    parser.add_argument("--output", type=Path, metavar="JSON")
    given = parser.parse_args(arguments)
    chosen = [name for name in FORMS if given.forms is None or name in given.forms.split(";")]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_forms(root, given.images)
        with_store = any(FORMS[name].startswith("s3:") for name in chosen)
        found = dict.fromkeys(chosen)
        environment, stop = serve(root) if with_store else ({}, lambda: None)
        try:
            for name in chosen:
                found[name] = read(FORMS[name], root, given.images, environment)
        finally:
            stop()
    heads = ("form", "opens in s", "images/s", "MiB after a tenth", "largest MiB")
    print(tables.plain_text(heads, [row(name, figures) for name, figures in found.items()]))
    if given.output:
        record = {"kind": "data_forms", "machine": asdict(this_machine()), "images": given.images, "forms": found}
        given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(None in found.values())


def row(name: str, figures: Any) -> tuple[str, ...]:
    """A line of the table."""
    if figures is None:
        return (name, "failed", "", "", "")
    shown = (figures["open_seconds"], figures["images_per_second"], figures["early_mib"], figures["largest_mib"])
    return (name, f"{shown[0]:.1f}", f"{shown[1]:,.0f}", f"{shown[2]:.0f}", f"{shown[3]:.0f}")


def pictures(count: int) -> Iterator[bytes]:
    """JPEG files, no two of them equal."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    base = [Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((96, 96)) for _ in range(64)]
    for number in range(count):
        image = base[number % 64]
        image.putpixel((number % 96, number // 96 % 96), (number % 256, number // 256 % 256, 7))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        yield file.getvalue()


def write_forms(root: Path, count: int) -> None:
    """Write every form below a folder."""
    import av
    import numpy as np
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    contents = list(pictures(count))
    (root / "shards").mkdir()
    for shard in range(SHARDS):
        with tarfile.open(root / "shards" / f"{shard:03}.tar", "w") as archive:
            for number in range(count * shard // SHARDS, count * (shard + 1) // SHARDS):
                entry = tarfile.TarInfo(f"{number:06}.jpg")
                entry.size = len(contents[number])
                archive.addfile(entry, io.BytesIO(contents[number]))
    for number, content in enumerate(contents):
        path = root / "folder" / str(number % 10) / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    table = pa.table({"image": contents, "label": [number % 10 for number in range(count)]})
    pa.parquet.write_table(table, root / "a.parquet", row_group_size=1000)
    pa.feather.write_feather(table, str(root / "a.feather"), compression="lz4", chunksize=1000)
    with pa.OSFile(str(root / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    with av.open(str(root / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height = stream.width = 96
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((96, 96, 3), number % 256, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def serve(root: Path) -> tuple[dict[str, str], Callable[[], None]]:
    """Start moto, put archives and a table there; return the environment of its readers, and what stops it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "-c", SERVER], text=True, **pipes)
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    os.environ.update(variables)
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="forms")
    for path in [*sorted((root / "shards").iterdir()), root / "a.parquet"]:
        client.upload_file(str(path), "forms", str(path.relative_to(root)))
    return variables, lambda: (server.communicate("", timeout=30), None)[1]


def read(source: str, root: Path, count: int, variables: dict[str, str]) -> Any:
    """Read one form in an interpreter of its own; None if that fails."""
    place = source if source.startswith("s3:") else str(root / source)
    done = subprocess.run(
        [sys.executable, "-c", READER, place, str(count)],
        env=child_environment() | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        print(f"{source}: {done.stderr[-400:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


if __name__ == "__main__":
    raise SystemExit(main())
