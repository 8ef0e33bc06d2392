"""Workers as actors of a Ray cluster.

Partial results travel through Ray's object store, once each; samples and activations never do. An actor asks for its
share of the CPUs, so that as many fit into the cluster as there are to be workers, and for GPUs if they are wanted.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import re
import signal
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quantkit._version import __version__
from quantkit.errors import BackendError, first_line
from quantkit.executors.crew import Event, Finished, Lost, Ready
from quantkit.executors.placement import RAY_URL, Placement
from quantkit.executors.processes import pickled
from quantkit.executors.task import ShardResult, ShardServer, ShardTask, WorkerError, describe_failure
from quantkit.extras import install_command
from quantkit.sharding import Shard

MOST_THREADS = 8
"""Threads of a worker; more of them wait for each other."""
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Defaults of Ray's variables: no report to its makers, and no warning about GPUs that a worker did not ask for."""
ERROR_LINE = re.compile(r"^\s*((?:\w+\.)*\w*(?:Error|Exception)\b.*)$", re.MULTILINE)


def import_ray() -> Any:
    """Return the module `ray`. BackendError without it."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        with kept_signals():
            import ray
    except ImportError as error:
        raise BackendError(f"Ray is missing ({first_line(error)})", remedy=install_command("ray")) from None
    return ray


@contextlib.contextmanager
def kept_signals() -> Iterator[None]:
    """Restore the handlers of signals at the end of the block; Ray installs its own."""
    known = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in known.items():
            with contextlib.suppress(ValueError):  # in another thread than the main one, which Ray leaves alone too
                signal.signal(number, handler)


@contextlib.contextmanager
def silent_engine(ray: Any) -> Iterator[None]:
    """Keep Ray's own remarks on dead workers off the terminal, where a bar is; `run_shards` tells what matters.

    `log_to_driver=False` does not: they are no output of workers.
    """
    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    shown = getattr(worker, "print_to_stdstream", None)
    if shown is None:
        yield
        return
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = shown


class ShardActor(ShardServer):
    """The actor. content: the pickled task. version: of quantkit in the starting process."""

    def __init__(self, content: bytes, version: str) -> None:
        if version != __version__:
            raise RuntimeError(f"quantkit is {__version__} on {platform.node()}, but {version} in the command")
        super().__init__(*pickle.loads(content))

    def ready(self) -> str:
        """Return the name of the machine."""
        return platform.node()


class RayCrew:
    """Actors of a Ray cluster. BackendError if Ray is missing, or there is no cluster, or no worker fits into it."""

    def __init__(self, task: ShardTask, placement: Placement) -> None:
        self._ray = import_ray()
        self._own = not self._ray.is_initialized()
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, tuple[int, bool]] = {}
        self._numbers = iter(range(1 << 62))
        self._silence = contextlib.ExitStack()
        if self._own:
            self._silence.enter_context(silent_engine(self._ray))
            connect(self._ray, placement.on or "ray")
        try:
            self.size, cpus = share_cluster(
                [node["Resources"] for node in self._ray.nodes() if node["Alive"]], placement
            )
            self._content = self._ray.put(pickled((task, cpus)))
        except BaseException:
            self.__exit__()
            raise
        self._kind = self._ray.remote(ShardActor).options(
            num_cpus=cpus, num_gpus=placement.gpus_per_worker, max_restarts=0, scheduling_strategy="SPREAD"
        )

    def __enter__(self) -> RayCrew:
        return self

    def __exit__(self, *_: object) -> None:
        with kept_signals():
            for actor in self._actors.values():
                with contextlib.suppress(Exception):
                    self._ray.kill(actor)
            if self._own:
                self._ray.shutdown()
        self._silence.close()

    def hire(self) -> int:
        """Start an actor, as soon as the cluster has room for it."""
        number = next(self._numbers)
        self._actors[number] = self._kind.remote(self._content, __version__)
        self._pending[self._actors[number].ready.remote()] = number, True
        return number

    def assign(self, worker: int, shard: Shard) -> None:
        """Give a shard to an actor."""
        self._pending[self._actors[worker].run.remote(shard)] = worker, False

    def events(self, seconds: float) -> Sequence[Event]:
        """Return what happened."""
        if not self._pending:
            time.sleep(seconds)
            return []
        done, _ = self._ray.wait(list(self._pending), timeout=seconds)
        return [self._event(outcome) for outcome in done]

    def _event(self, pending: Any) -> Event:
        worker, starting = self._pending.pop(pending)
        try:
            outcome: ShardResult | WorkerError | str = self._ray.get(pending)
        except self._ray.exceptions.RayTaskError as error:
            return Finished(worker, describe_failure(error, None))
        except self._ray.exceptions.RayError as error:
            with contextlib.suppress(Exception):
                self._ray.kill(self._actors.pop(worker))
            return Lost(worker, describe_loss(error))
        return Ready(worker) if starting or isinstance(outcome, str) else Finished(worker, outcome)


def connect(ray: Any, on: str) -> None:
    """Connect to a cluster, or start one on this machine. BackendError."""
    try:
        with kept_signals(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what goes wrong is in the error
            ray.init(address=on if on.startswith(RAY_URL) else None, logging_level="ERROR", log_to_driver=False)
    except Exception as error:
        raise BackendError(
            f"no Ray cluster is reachable at {on}: {first_line(error)}",
            remedy="check the address, that Ray and Python have the same versions there, and set RAY_AUTH_MODE=token "
            "here if the cluster wants a token: ray status",
        ) from None


def share_cluster(nodes: Sequence[Mapping[str, float]], placement: Placement) -> tuple[int, int]:
    """Return the number of workers for the machines of a cluster, and the CPUs of each. BackendError if none fits.

    nodes: the CPUs and GPUs of every machine. A worker is on one machine.
    """
    gpus = placement.gpus_per_worker

    def room(cpus: int) -> int:
        return sum(
            int(min(node.get("CPU", 0.0) // cpus, node.get("GPU", 0.0) // gpus if gpus else node.get("CPU", 0.0)))
            for node in nodes
        )

    if not room(1):
        total = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
        needs = "1 CPU" + (f" and {gpus:g} GPU{'' if gpus <= 1 else 's'}" if gpus else "")
        raise BackendError(
            f"no worker fits into the Ray cluster: it needs {needs} on one machine, and all have "
            f"{total['CPU']:g} CPUs and {total['GPU']:g} GPUs",
            remedy="ask for less with --gpus-per-worker, or add machines to the cluster",
        )
    size = placement.workers or room(1)
    return size, next(cpus for cpus in range(MOST_THREADS, 0, -1) if cpus == 1 or room(cpus) >= size)


def describe_loss(error: Exception) -> str:
    """Return why an actor died, from Ray's long text: the error of its start, or the first line."""
    text = str(error)
    causes = [line.strip() for line in ERROR_LINE.findall(text) if "RayActorError" not in line]
    return causes[-1][:300] if causes else first_line(error).rstrip(".")
