"""Running an engine on several lanes at once, and what it takes and gives."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from quantkit.artifact import sha256_of
from quantkit.backends.tensorrt.device import open_device
from quantkit.backends.tensorrt.lane import Binding, Lane, Shape
from quantkit.backends.tensorrt.messages import Messages, capture_messages, make_or_raise
from quantkit.backends.tensorrt.versions import allow_own_code, device_memory, tensorrt
from quantkit.errors import BackendError, DataError, UsageError
from quantkit.regular_file import UNBOUNDED, read_regular
from quantkit.values import Array, Batch, ModelInput, with_batch_axes


class Engine:
    """A deserialized engine. Use it with `with`, or call `close()`.

    allow_code: a version compatible engine contains its own runtime, which is code that will run; allow it for engines
    that you trust. Raises BackendError where the plan is for another TensorRT or GPU, or is not a plan.
    """

    def __init__(self, plan: bytes, where: str, device: int = 0, *, allow_code: bool = False) -> None:
        self._trt = tensorrt()
        self.device = open_device(device)
        self.where, self.size, self.sha256 = where, len(plan), sha256_of(plan)
        self.messages = Messages()
        self._held = ExitStack()
        log = self._held.enter_context(capture_messages(self._trt, self.messages))
        self._runtime: Any = None
        self.engine: Any = None
        try:
            with self.device.current():
                self._trt.init_libnvinfer_plugins(log, "")
                self._runtime = make_or_raise(lambda: self._trt.Runtime(log), self.messages)
                if allow_code:
                    allow_own_code(self._runtime)
                self.engine = self._runtime.deserialize_cuda_engine(plan)
            if self.engine is None:
                raise unusable_plan(self.messages, where)
            self.memory = device_memory(self.engine)
            names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
            self.bindings = tuple(self._binding(name) for name in names)
        except BaseException:
            self.close()
            raise

    @classmethod
    def load(cls, path: Path, device: int = 0, *, allow_code: bool = False) -> Engine:
        """Read an engine file. BackendError."""
        try:
            plan = read_regular(path, most=UNBOUNDED)
        except OSError as error:
            raise BackendError(f"{path}: {error.strerror or error}", remedy="give the path of an engine") from None
        return cls(plan, str(path), device, allow_code=allow_code)

    def _binding(self, name: str) -> Binding:
        import numpy as np

        trt, engine = self._trt, self.engine
        kind = engine.get_tensor_dtype(name)
        try:
            dtype = np.dtype(trt.nptype(kind)).name
        except TypeError:
            raise BackendError(
                f"{self.where}: {name!r} is {str(kind).rpartition('.')[2]}, which numpy does not have",
                remedy="build the engine with float32 or float16 inputs and outputs",
            ) from None
        return Binding(
            name,
            dtype,
            tuple(engine.get_tensor_shape(name)),
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            engine.get_tensor_location(name) == trt.TensorLocation.HOST,
        )

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """The inputs, as a data source takes them; a dynamic dimension is None."""
        inputs = [b for b in self.bindings if b.is_input]
        shapes = {b.name: tuple(None if size < 0 else size for size in b.shape) for b in inputs}
        return with_batch_axes([ModelInput(b.name, b.dtype, shapes[b.name]) for b in inputs])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(b.name for b in self.bindings if not b.is_input)

    def most(self, name: str) -> Shape:
        """Return the largest shape of an input in the engine's first profile."""
        return tuple(self.engine.get_tensor_profile_shape(name, 0)[2])

    def least(self, name: str) -> Shape:
        """Return the smallest shape of an input in the engine's first profile."""
        return tuple(self.engine.get_tensor_profile_shape(name, 0)[0])

    def fitted(self, batch: Batch) -> dict[str, Array]:
        """Return the inputs of a batch, checked. DataError where one is missing, unknown, or of another type."""
        import numpy as np

        inputs = {b.name: b for b in self.bindings if b.is_input}
        if batch.keys() != inputs.keys():
            raise DataError(
                f"{self.where} takes {', '.join(inputs)}, but the batch holds {', '.join(batch)}",
                remedy="name the arrays as the engine names its inputs",
            )
        arrays = {}
        for name, binding in inputs.items():
            array = np.asarray(batch[name])
            if not np.can_cast(array.dtype, binding.dtype, "same_kind"):
                raise DataError(
                    f"input {name!r} of {self.where} is {binding.dtype}, but the batch holds {array.dtype}",
                    remedy=f"give {binding.dtype}",
                )
            arrays[name] = array
        return arrays

    def lane(self, *, graphs: bool = False) -> Lane:
        """Return a new execution context with its own stream."""
        return Lane(self, graphs=graphs)

    def run(self, batches: Iterable[Batch], *, streams: int = 1, graphs: bool = False) -> Iterator[Mapping[str, Array]]:
        """Yield the outputs of each batch, in order, with up to `streams` batches running at once.

        The arrays are copies. graphs: run as a CUDA graph, unless output shapes depend on the data. Raises DataError
        where a batch does not fit the engine's inputs.
        """
        if streams < 1:
            raise UsageError(f"{streams} streams", remedy="give at least 1")
        with ExitStack() as stack:
            lanes = deque(stack.enter_context(self.lane(graphs=graphs)) for _ in range(streams))
            under_way: deque[Lane] = deque()
            for batch in batches:
                if not lanes:
                    done = under_way.popleft()
                    yield done.outputs()
                    lanes.append(done)
                lane = lanes.popleft()
                lane.submit(batch)
                under_way.append(lane)
            for lane in under_way:
                yield lane.outputs()

    def failure(self, problem: str) -> BackendError:
        """Return an error with TensorRT's messages about it."""
        said = list(self.messages.errors) or ["TensorRT gives no reason"]
        return BackendError(problem, details=said, remedy="use fewer streams or smaller batches, or build it again")

    def close(self) -> None:
        """Free the engine."""
        with self.device.current():
            self.engine = self._runtime = None
        self._held.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unusable_plan(messages: Messages, where: str) -> BackendError:
    """Return the error for a plan that TensorRT cannot read."""
    said = "; ".join(messages.errors) or "TensorRT gives no reason"
    rebuild = "build it again on this machine: quantkit build MODEL"
    if "magicTag" in said or ("plan->header" in said and "ersion" not in said):
        return BackendError(f"{where} is not a TensorRT engine, or is cut short", remedy=rebuild)
    if (
        messages.mention("ersion tag does not match")
        or messages.mention("Current Version")
        or messages.mention("TRT version")
    ):
        return BackendError(f"{where} was built by another TensorRT: {said}", remedy=rebuild)
    if messages.mention("host code") or messages.mention("HostCode") or messages.mention("host_code"):
        return BackendError(
            f"{where} is version compatible: it contains code of its own, which needs permission to run",
            remedy="if you trust it, use --allow-code, or Engine.load(…, allow_code=True)",
        )
    if messages.mention("incompatible device") or messages.mention("compute capability"):
        return BackendError(f"{where} was built for another GPU: {said}", remedy=rebuild)
    return BackendError(f"TensorRT cannot read {where}: {said}", remedy=rebuild)
