"""Workers of a Ray cluster on this machine: the bytes of one run, also if a node dies, and datasets of Ray.

Starting a cluster takes seconds, so that there are few tests, each with several things, among them what the pages show.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quantkit
import quantkit.ray
from quantkit.errors import BackendError, DataError, UsageError
from quantkit.executors.actors import share_cluster
from quantkit.executors.placement import Placement
from quantkit.statistics import statistics_bytes
from tests.docs.test_documents import WITH_FRAMEWORKS, refuse_other_outputs
from tests.executors.example_tasks import Naming
from tests.support.networks import BUNDLED

IMAGES = BUNDLED / "images"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the bundled network."""
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copy(BUNDLED / name, tmp_path)
    return tmp_path


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A cluster of three nodes with one CPU each, and a connection to it."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_pages_run_on_a_cluster_and_one_of_its_nodes_may_die(nodes: Any, place: Path) -> None:
    from quantkit.executors import run_shards
    from quantkit.executors.actors import RayCrew
    from quantkit.sharding import Shard

    shutil.copytree(BUNDLED, place / BUNDLED.name, ignore=shutil.ignore_patterns("*.calib*", "*.stats.*"))
    for page, framework in WITH_FRAMEWORKS:
        if framework == "ray":
            refuse_other_outputs(page, framework, place, RAY_ADDRESS=nodes.address)

    shards, found = [Shard(index, 12) for index in range(12)], []
    with RayCrew(Naming(place, seconds=0.3), Placement(3, "ray")) as crew:
        assert crew.size == 3
        for shard, result in run_shards(crew, shards):
            found.append((shard, result.content))
            if len(found) == 3:
                nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
    assert sorted(found) == [(shard, str(shard).encode()) for shard in shards], "each once, on the nodes that are left"

    options: dict[str, Any] = {"batch_size": 20, "backend": "onnxruntime", "histogram": "invariant"}
    whole = quantkit.calibrate(place / "model.onnx", IMAGES, **options).statistics
    ray_options = {"on": "ray", "workers": 2}
    divided = quantkit.calibrate(place / "model.onnx", IMAGES, **options, **ray_options).statistics
    assert whole is not None
    assert divided is not None
    assert statistics_bytes(divided) == statistics_bytes(whole)

    data = importlib.import_module("ray.data")
    of_dataset = importlib.import_module("quantkit.ray").statistics
    files = data.read_binary_files(str(IMAGES), include_paths=True)
    assert statistics_bytes(of_dataset(files, place / "model.onnx")) == statistics_bytes(whole)
    with pytest.raises(UsageError, match="which column feeds the network is not clear: the dataset has 'x'"):
        of_dataset(data.from_items([{"x": 1}]), place / "model.onnx")
    with pytest.raises(DataError, match=r"on .*: 1 of 2 samples cannot be read"):
        of_dataset(
            data.from_items([{"image": (IMAGES / name).read_bytes()} for name in some_images(1)] + [{"image": b"no"}]),
            place / "model.onnx",
            batch_size=1,
        )


def some_images(count: int) -> list[str]:
    return sorted(path.relative_to(IMAGES).as_posix() for path in IMAGES.rglob("*.png"))[:count]


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ({"threads": 3}, "threads"), ({"limit": 8}, "limit"), ({"seed": 1}, "seed"), ({"force": True}, "force"),
        ({"frame_step": 2}, "frame_step"), ({"parts": "x"}, "parts"), ({"checkpoint_every": 2}, "checkpoint_every"),
        ({"shard": "0/2"}, "shard"), ({"algorithm": "MinMaxCalibration"}, "algorithm"),
    ],
)  # fmt: skip
def test_options_that_say_nothing_to_a_dataset_are_refused(option: dict[str, Any], word: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(UsageError, match=f"{word}= is not for a dataset"):
        quantkit.ray.statistics(None, BUNDLED / "model.onnx", **option)


def test_what_is_no_dataset_is_refused() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(UsageError, match=r"the dataset is a str, not a ray\.data\.Dataset"):
        quantkit.ray.statistics("images", BUNDLED / "model.onnx", batch_size=4, skip_corrupt=True)


def test_a_cluster_without_room_is_refused_and_others_are_shared_out() -> None:
    nodes = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0}]
    assert share_cluster(nodes, Placement(None, "ray")) == (20, 1)
    assert share_cluster(nodes, Placement(2, "ray")) == (2, 8)
    assert share_cluster(nodes, Placement(3, "ray")) == (3, 5)
    assert share_cluster(nodes, Placement(None, "ray", 1)) == (2, 8)
    assert share_cluster(nodes, Placement(None, "ray", 0.5)) == (4, 4)
    with pytest.raises(BackendError, match="needs 1 CPU and 4 GPUs on one machine, and all have 20 CPUs and 2 GPUs"):
        share_cluster(nodes, Placement(None, "ray", 4))


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    for name in [name for name in sys.modules if name == "quantkit.ray" or name.startswith("quantkit.ray.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"Ray is missing .*\n  → pip install 'ray\[client,data\]"):
        importlib.import_module("quantkit.ray")
    with pytest.raises(BackendError, match="Ray is missing"):
        quantkit.calibrate(place / "model.onnx", IMAGES, on="ray", output=place / "out.calib", backend="onnxruntime")
    assert not list(place.glob("out*")), "nothing is left"
