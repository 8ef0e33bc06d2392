"""Workers as processes: they load the network once, outcome, are replaced when they die, and end with the command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quantkit.errors import BackendError, DataError, UsageError
from quantkit.executors import Placement, run_shards
from quantkit.executors.engines import open_crew
from quantkit.executors.gpus import VISIBLE, gpus_to_share
from quantkit.sharding import Shard
from tests.executors.example_tasks import Failing, Naming
from tests.support.networks import ROOT

EIGHT = [Shard(index, 8) for index in range(8)]


def ran(task: object, workers: int) -> dict[Shard, bytes]:
    with open_crew(task, Placement(workers), 4) as crew:  # type: ignore[arg-type]
        return {shard: result.content for shard, result in run_shards(crew, EIGHT)}


def loaded(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("opened-*"))


def test_two_workers_load_the_network_once_each_and_share_the_threads(tmp_path: Path) -> None:
    assert ran(Naming(tmp_path, seconds=0.02), 2) == {shard: str(shard).encode() for shard in EIGHT}
    assert 1 <= len(loaded(tmp_path)) <= 2
    assert all(name.endswith("-2") for name in loaded(tmp_path)), "4 threads for 2 workers"


def test_a_killed_worker_costs_its_shard_alone(tmp_path: Path) -> None:
    assert ran(Naming(tmp_path, deadly=(2, 5)), 2) == {shard: str(shard).encode() for shard in EIGHT}
    assert 3 <= len(loaded(tmp_path)) <= 4


def test_a_shard_that_kills_every_worker_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"shard 3/8 ended 3 workers; the last one by signal 9 \(SIGKILL\)"):
        ran(Naming(tmp_path, fatal=3), 1)


def test_errors_of_workers_are_errors_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shard 2/8 on .*: img_7.png cannot be read"):
        ran(Naming(tmp_path, wrong=2), 2)
    with pytest.raises(DataError, match=r"on .*: no such file: model.onnx"):
        ran(Failing(), 1)


def test_what_cannot_travel_is_refused_before_a_worker_starts() -> None:
    with pytest.raises(UsageError, match="an argument cannot be sent to another process"):
        ran(Naming(lambda: None), 1)  # type: ignore[arg-type]


def test_workers_take_gpus_in_turn_also_where_one_was_replaced(tmp_path: Path) -> None:
    found = ran(Naming(tmp_path, together=2, deadly=(2,), gpus=("3", "GPU-5")), 2)
    assert set(found.values()) == {b"3", b"GPU-5"}


def test_gpus_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "2, GPU-1,")
    assert gpus_to_share("cuda") == ("2", "GPU-1")
    assert gpus_to_share("cpu") == gpus_to_share("cuda:1") == gpus_to_share("cuda", device=1) == ()
    monkeypatch.setenv(VISIBLE, "-1")
    assert gpus_to_share("cuda") == ()


DRIVER = """
import sys
from pathlib import Path
from quantkit.executors import Placement, run_shards
from quantkit.executors.engines import open_crew
from quantkit.executors.gpus import VISIBLE, gpus_to_share
from quantkit.sharding import Shard
from tests.executors.example_tasks import Naming
with open_crew(Naming(Path(sys.argv[1]), seconds=30), Placement(2), 2) as crew:
    print(list(run_shards(crew, [Shard(0, 2), Shard(1, 2)])))
"""


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_end_with_the_process_that_started_them_even_if_it_is_killed(tmp_path: Path) -> None:
    """No `if __name__ == "__main__"` is needed: the program of the user is not imported again."""
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, tmp_path], cwd=ROOT)
    try:
        while len(begun := [path for path in tmp_path.glob("begun-*") if path.read_text()]) < 2:
            assert driver.poll() is None
            time.sleep(0.02)
    finally:
        driver.kill()
        driver.wait()
    workers = [int(path.read_text()) for path in begun]
    while any(map(is_alive, workers)):
        time.sleep(0.02)
