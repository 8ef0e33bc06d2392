"""Running an engine: pinned buffers, several streams with a context each, CUDA graphs, device times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantkit.backends.tensorrt.device import Buffer, Graph, free_all, open_device
from quantkit.backends.tensorrt.messages import Messages, capture_messages, make_or_raise
from quantkit.backends.tensorrt.versions import allow_own_code, device_memory, output_allocator, tensorrt
from quantkit.errors import BackendError, DataError, UsageError
from quantkit.values import Array, Batch, ModelInput

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """An input or output of an engine; `shape` holds −1 for a dynamic dimension."""

    name: str
    dtype: str
    shape: Shape
    is_input: bool
    on_host: bool = False


class Engine:
    """A deserialized engine. Use it with `with`, or call `close()`.

    allow_code: a version compatible engine contains its own runtime, which is code that will run; allow it for engines
    that you trust. Raises BackendError where the plan is for another TensorRT or GPU, or is not a plan.
    """

    def __init__(self, plan: bytes, where: str, device: int = 0, *, allow_code: bool = False) -> None:
        self._trt = tensorrt()
        self.device = open_device(device)
        self.where, self.size = where, len(plan)
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
            plan = path.read_bytes()
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
        return tuple(ModelInput(b.name, b.dtype, tuple(None if s < 0 else s for s in b.shape)) for b in inputs)

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
        said = "".join(f"\n    {text}" for text in self.messages.errors) or "\n    TensorRT gives no reason"
        return BackendError(f"{problem}:{said}", remedy="use fewer streams or smaller batches, or build it again")

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


@dataclass(slots=True)
class BindingMemory:
    """Pinned and device memory of one binding, as large as the largest batch so far."""

    host: Array | None = None
    device: Buffer | None = None
    shape: Shape = ()

    def drop(self) -> None:
        """Free the device memory, before more of it is allocated."""
        device, self.device = self.device, None
        if device is not None:
            device.free()


@dataclass(slots=True)
class Lane:
    """An execution context with its stream and its memory; it runs one batch at a time."""

    of: Engine
    graphs: bool = False
    _rooms: dict[str, BindingMemory] = field(default_factory=dict)
    _recorded: list[Graph] = field(default_factory=list)
    _shapes: tuple[Shape, ...] = ()
    _allocator: Any = None
    stream: Any = None
    context: Any = None

    def __enter__(self) -> Lane:
        with self.of.device.current():
            self.stream = self.of.device.stream()
            self.context = self.of.engine.create_execution_context()
            if self.context is None:
                self.stream.free()
                room = f"{self.of.memory / 2**20:,.0f} MiB"
                raise self.of.failure(f"TensorRT cannot create another context of {self.of.where} ({room} each)")
            self._rooms = {b.name: BindingMemory() for b in self.of.bindings}
        return self

    def __exit__(self, *_: object) -> None:
        with self.of.device.current():
            try:
                self.stream.synchronize()
            finally:
                self.context = None
                self._allocator = None
                free_all([*self._recorded, *(room.device for room in self._rooms.values())])
                self._recorded.clear()
                self._rooms.clear()
                self.stream.free()

    def submit(self, batch: Batch) -> None:
        """Enqueue a batch: copy in, run, copy out. DataError where it does not fit."""
        with self.of.device.current():
            self.load(batch)
            self.replay()

    def load(self, batch: Batch) -> None:
        """Write a batch into the buffers; the context must be current. DataError where it does not fit."""
        arrays = self.of.fitted(batch)
        self._settle({name: array.shape for name, array in arrays.items()}, arrays)
        for binding in self.of.bindings:
            if binding.is_input:
                self._host(binding)[...] = arrays[binding.name]

    def replay(self) -> None:
        """Enqueue the content of the buffers: copy in, run, copy out. The context must be current."""
        self._upload()
        self.execute()
        self._download()

    def outputs(self) -> dict[str, Array]:
        """Wait for the batch, and return copies of the outputs."""
        with self.of.device.current():
            self.stream.synchronize()
            self._fetch_late()
        return {b.name: self._host(b).copy() for b in self.of.bindings if not b.is_input}

    @property
    def captures(self) -> bool:
        """True if the network runs as a CUDA graph: requested, and no output's shape depends on the data."""
        return self.graphs and self._allocator is None

    def _settle(self, shapes: Mapping[str, Shape], arrays: Batch) -> None:
        """Set the shapes of the inputs, and allocate memory. DataError where the engine was built for other shapes."""
        inputs = [b for b in self.of.bindings if b.is_input]
        wanted = tuple(tuple(shapes[b.name]) for b in inputs)
        by_value = [b for b in inputs if b.on_host]  # their values determine shapes
        if wanted == self._shapes and not by_value:
            return
        self._shapes = ()  # if one input does not fit, no shape is set
        for binding in inputs:
            self._settle_input(binding, tuple(shapes[binding.name]))
        for binding in by_value:
            self._make_room(binding)
            self._host(binding)[...] = arrays[binding.name]
        free_all(self._recorded)  # a captured graph is only valid for its shapes
        self._recorded.clear()
        for binding in self.of.bindings:
            self._make_room(binding)
        self._shapes = wanted

    def _settle_input(self, binding: Binding, shape: Shape) -> None:
        name = binding.name
        fits = len(shape) == len(binding.shape) and all(w in (-1, h) for w, h in zip(binding.shape, shape, strict=True))
        if fits and -1 in binding.shape:
            low, high = self.of.least(name), self.of.most(name)
            fits = all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True))
            limits = f"; it is built for {'x'.join(map(str, low))} … {'x'.join(map(str, high))}"
        else:
            limits = f"; it has {'x'.join(map(str, binding.shape))}"
        if not fits or not self.context.set_input_shape(name, shape):
            raise DataError(
                f"input {name!r} of {self.of.where} does not accept {'x'.join(map(str, shape))}{limits}",
                remedy="give batches within that range, or build with other --shapes",
            )

    def _make_room(self, binding: Binding) -> None:
        """Allocate memory for a binding in its shape; where that depends on the data, it is allocated on request."""
        import numpy as np

        room = self._rooms[binding.name]
        shape = tuple(self.context.get_tensor_shape(binding.name))
        if -1 in shape:
            self._late(binding)
            return
        count = int(np.prod(shape, dtype=np.int64)) * np.dtype(binding.dtype).itemsize
        if room.host is None or room.host.nbytes < count:
            room.drop()
            room.host = self.of.device.pinned(count)
            room.device = None if binding.on_host else self.of.device.buffer(count)
        room.shape = shape
        address = room.host.ctypes.data if room.device is None else room.device.address
        self.context.set_tensor_address(binding.name, address)

    def _late(self, binding: Binding) -> None:
        """Set an allocator for an output whose shape depends on the data: TensorRT asks it for memory."""
        if self._allocator is None:
            self._allocator = output_allocator(self.of._trt, self._allocate, self._came_out)
        self._rooms[binding.name].shape = (-1,)
        self.context.set_output_allocator(binding.name, self._allocator)

    def _allocate(self, name: str, size: int) -> int:
        room = self._rooms[name]
        if room.device is None or room.device.size < size:
            room.drop()
            room.device = self.of.device.buffer(size)
        return room.device.address

    def _came_out(self, name: str, shape: Shape) -> None:
        self._rooms[name].shape = shape

    def _host(self, binding: Binding) -> Array:
        import numpy as np

        room = self._rooms[binding.name]
        count = int(np.prod(room.shape, dtype=np.int64)) * np.dtype(binding.dtype).itemsize
        assert room.host is not None
        return room.host[:count].view(binding.dtype).reshape(room.shape)

    @property
    def _has_late(self) -> bool:
        return self._allocator is not None

    def _upload(self) -> None:
        for binding in self.of.bindings:
            room = self._rooms[binding.name]
            if binding.is_input and room.device is not None:
                self.stream.upload(room.device, self._host(binding))

    def _download(self) -> None:
        for binding in self.of.bindings:
            room = self._rooms[binding.name]
            if not binding.is_input and room.device is not None and -1 not in room.shape and not self._has_late:
                self.stream.download(self._host(binding), room.device)

    def _fetch_late(self) -> None:
        """Copy outputs whose shapes are known only after the run."""
        if not self._has_late:
            return
        for binding in self.of.bindings:
            room = self._rooms[binding.name]
            if binding.is_input or room.device is None:
                continue
            if room.host is None or room.host.nbytes < room.device.size:
                room.host = self.of.device.pinned(room.device.size)
            self.stream.download(self._host(binding), room.device)
        self.stream.synchronize()

    def execute(self) -> None:
        """Enqueue the network once, with the content of the buffers; as a graph if that was requested."""
        if not self.captures:
            self._enqueue()
            return
        if not self._recorded:
            self._enqueue()  # TensorRT allocates resources in the first run, which cannot be captured
            self.stream.synchronize()
            self._recorded.append(self.stream.capture(self._enqueue))
        self._recorded[0].launch(self.stream)

    def _enqueue(self) -> None:
        if not self.context.execute_async_v3(self.stream.handle):
            raise self.of.failure(f"TensorRT could not run {self.of.where}")
