"""Records of compiled networks: what is written is read, and damage is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork, Kernel, KernelTensor
from quantkit.backends.tensorrt_rtx.record import (
    CompiledRecord,
    SavedEngine,
    compiled_record_bytes,
    is_compiled_record,
    read_compiled_record,
)
from quantkit.errors import BackendError
from quantkit.provenance import ModelRecord

TENSOR = KernelTensor(name="x", shape=(1, 3, 8, 8), type="INT8", format="NC/4HW4")
NETWORK = CompiledNetwork(
    architecture="sm86",
    version="1.7.1",
    kernels=(Kernel(name='odd "name":\n', kind="correlation", nodes=("conv",), reads=(TENSOR,), writes=(TENSOR,)),),
    shapes={"x": (1, 3, 8, 8)},
    seconds=0.5,
    engine_bytes=10,
)
RECORD = CompiledRecord(
    quantkit="0.2.0",
    model=ModelRecord(file="m.onnx", sha256="0" * 64),
    networks=(NETWORK,),
    engines=(SavedEngine(file="m.engine", sha256="1" * 64, bytes=10, architecture="sm86"),),
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m.compiled.json"
    path.write_bytes(compiled_record_bytes(RECORD))
    assert read_compiled_record(path) == RECORD
    assert is_compiled_record(path)


def test_damage_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.compiled.json"
    path.write_bytes(compiled_record_bytes(RECORD).replace(b'"engine_bytes":10', b'"engine_bytes":11'))
    with pytest.raises(BackendError, match="damaged"):
        read_compiled_record(path)
    for content in (b"", b"{}", b"[1]", compiled_record_bytes(RECORD)[:-40]):
        path.write_bytes(content)
        assert not is_compiled_record(path)
    with pytest.raises(BackendError, match="No such file"):
        read_compiled_record(tmp_path / "absent.json")
