"""Latency and throughput of an engine, by events of the device."""

from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np

from quantkit.backends.tensorrt.engine import Engine
from quantkit.backends.tensorrt.lane import Shape
from quantkit.values import Array

WARM_UP = 10
CHECKED = 16
"""Runs between two readings of the clock."""


def shapes_for(engine: Engine, batch: int) -> dict[str, Shape]:
    """Return the shapes of the inputs for a batch; other dynamic dimensions take their largest size."""
    shapes = {}
    for i in engine.inputs:
        most = engine.most(i.name) if None in i.shape else ()
        shape = tuple(most[k] if size is None else int(str(size)) for k, size in enumerate(i.shape))
        shapes[i.name] = (batch, *shape[1:]) if i.shape and i.shape[0] is None else shape
    return shapes


def timing_inputs(engine: Engine, batch: int) -> dict[str, Array]:
    """Return seeded inputs for timing; zeros for types other than float, so that indices stay in range."""
    random = np.random.default_rng(0)
    made = {}
    for i in engine.inputs:
        shape = shapes_for(engine, batch)[i.name]
        made[i.name] = (
            random.random(shape, np.float32).astype(i.dtype) if "float" in i.dtype else np.zeros(shape, i.dtype)
        )
    return made


def takes_batch(engine: Engine, batch: int) -> bool:
    """Return True if the engine accepts batches of that size."""
    for i in engine.inputs:
        if not i.shape:
            continue
        if i.shape[0] is None:
            if not engine.least(i.name)[0] <= batch <= engine.most(i.name)[0]:
                return False
        elif i.shape[0] != batch:
            return False
    return True


class LatencyMeter:
    """An engine that is ready to run one batch alone, as a CUDA graph if that is requested and possible."""

    def __init__(self, engine: Engine, batch: int, *, graph: bool = True) -> None:
        self._engine, self._batch = engine, batch
        self._lane = engine.lane(graphs=graph)
        self.captures = False
        """True if it runs as a CUDA graph: the shape of an output must not depend on the data."""

    def __enter__(self) -> LatencyMeter:
        lane = self._lane.__enter__()
        try:
            with self._engine.device.current():
                lane.load(timing_inputs(self._engine, self._batch))
                lane.replay()
                self.captures = lane.captures
                for _ in range(WARM_UP):
                    lane.execute()
                lane.stream.synchronize()
        except BaseException:
            lane.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lane.__exit__(None, None, None)

    def measure(self, seconds: float) -> list[float]:
        """Return the device time in milliseconds of each run, for about `seconds`."""
        lane, found = self._lane, list[float]()
        with self._engine.device.current():
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for _ in range(CHECKED):
                    first = lane.stream.event()
                    lane.execute()
                    last = lane.stream.event()
                    last.wait()
                    found.append(last.since(first))
                    first.free()
                    last.free()
        return found


def measure_latencies(engine: Engine, batch: int, *, seconds: float, graph: bool) -> list[float]:
    """Return the device time in milliseconds of each run of one batch alone, for about `seconds`.

    Empty if `graph` is requested and the network cannot run as a CUDA graph, because an output's shape depends on the
    data.
    """
    with LatencyMeter(engine, batch, graph=graph) as meter:
        return [] if graph and not meter.captures else meter.measure(seconds)


def measure_throughput(engine: Engine, batch: int, *, streams: int, seconds: float, graph: bool) -> float:
    """Return the samples per second with `streams` contexts, each copying in, running and copying out."""
    inputs = timing_inputs(engine, batch)
    with ExitStack() as stack, engine.device.current():
        lanes = [stack.enter_context(engine.lane(graphs=graph)) for _ in range(streams)]
        for lane in lanes:
            lane.load(inputs)
            lane.replay()
            lane.stream.synchronize()
        runs, started = 0, time.monotonic()
        while True:
            for lane in lanes:
                lane.stream.synchronize()
                lane.replay()
            runs += len(lanes)
            if runs % CHECKED < len(lanes) and time.monotonic() - started >= seconds:
                break
        for lane in lanes:
            lane.stream.synchronize()
        return batch * runs / (time.monotonic() - started)
