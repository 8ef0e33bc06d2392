"""A lane of an engine: an execution context with its stream, its pinned and device memory, and its CUDA graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from quantkit.backends.tensorrt.device import Buffer, GpuDevice, Graph, free_all
from quantkit.backends.tensorrt.versions import output_allocator, tensorrt
from quantkit.errors import BackendError, DataError
from quantkit.values import Array, Batch

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """An input or output of an engine; `shape` holds −1 for a dynamic dimension."""

    name: str
    dtype: str
    shape: Shape
    is_input: bool
    on_host: bool = False


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


class LoadedEngine(Protocol):
    """The part of an engine that its lanes use. engine: TensorRT's own object; memory: bytes of one context."""

    device: GpuDevice
    engine: Any
    memory: int
    where: str
    bindings: tuple[Binding, ...]

    def fitted(self, batch: Batch) -> dict[str, Array]:
        """Return the inputs of a batch, checked. DataError."""

    def least(self, name: str) -> Shape:
        """Return the smallest shape of an input."""

    def most(self, name: str) -> Shape:
        """Return the largest shape of an input."""

    def failure(self, problem: str) -> BackendError:
        """Return an error with TensorRT's messages about it."""


@dataclass(slots=True)
class Lane:
    """An execution context with its stream and its memory; it runs one batch at a time."""

    of: LoadedEngine
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
            self._allocator = output_allocator(tensorrt(), self._allocate, self._came_out)
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
