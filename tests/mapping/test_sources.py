"""Sources of a map: what each says reaches the cards, and one of another network is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from quantkit.backends.engine_record import EngineLayer, EngineRecord, engine_record_bytes
from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork, Kernel, KernelTensor
from quantkit.backends.tensorrt_rtx.record import CompiledRecord, compiled_record_bytes
from quantkit.errors import BackendError, QuantkitError, StaleError, UsageError
from quantkit.graph.model import Model
from quantkit.histogram import HistogramMode
from quantkit.mapping.facts import CardFacts
from quantkit.mapping.network_map import network_map
from quantkit.mapping.sources import kind_of_file
from quantkit.provenance import ModelRecord
from quantkit.statistics import Origin, Statistics, histogram_of
from quantkit.statistics.file import write_statistics
from tests.mapping.networks import as_model, quantized

SHA = "0" * 64
OTHER = "f" * 64


def small_model() -> Model:
    """MatMul and Relu with a pair before and behind them, then an operator that stays float."""
    nodes = [
        *quantized("x"),
        helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["w.dq"], "w.DQ"),
        helper.make_node("MatMul", ["x.dq", "w.dq"], ["m"], "mul"),
        helper.make_node("Relu", ["m"], ["r"], "relu"),
        *quantized("r"),
        helper.make_node("MatMul", ["r.dq", "w"], ["y"], "float"),
    ]
    return as_model(nodes, ["y"], wq=np.ones((4, 4), np.int8))


def facts_of(made: Any) -> dict[str, CardFacts]:
    """Card → facts."""
    return {card.name: facts for card, facts in zip(made.cards, made.facts, strict=True)}


def engine_record(layers: tuple[EngineLayer, ...], sha: str = SHA) -> EngineRecord:
    """The record of an engine with these layers."""
    return EngineRecord(
        quantkit="0", file="net.engine", sha256=SHA, bytes=1, tensorrt="8.6.1", gpu="GPU",
        model=ModelRecord(file="net.onnx", sha256=sha), precision="int8", shapes={}, options={}, seconds=1.0,
        device_memory=0, layers=layers,
    )  # fmt: skip


def compiled(sha: str = SHA) -> CompiledRecord:
    """A compiled network with one INT8 kernel for two nodes, and a float one."""
    tensors = [KernelTensor(name=n, shape=(4, 4), type=t) for n, t in (("a", "INT8"), ("b", "INT8"), ("c", "FP32"))]
    kernels = (
        Kernel(
            name="k1",
            kind="gemm",
            nodes=("mul", "relu"),
            reads=(tensors[0],),
            constants=(tensors[1],),
            writes=(tensors[0],),
        ),
        Kernel(
            name="k2", kind="gemm", nodes=("float",), reads=(tensors[0],), constants=(tensors[2],), writes=(tensors[2],)
        ),
    )
    network = CompiledNetwork(architecture="sm86", version="1.7", kernels=kernels, seconds=1.0, engine_bytes=9)
    return CompiledRecord(quantkit="0", model=ModelRecord(file="net.onnx", sha256=sha), networks=(network,))


def test_q_dq_alone_say_scale_precision_and_reason() -> None:
    found = facts_of(network_map(small_model()))
    assert {name: f.precision for name, f in found.items() if f.precision} == {
        "mul": "INT8",
        "relu": "fused",
        "float": "float",
    }
    assert (found["x"].scale, found["relu"].scale, found["mul"].scale) == (pytest.approx(0.1), pytest.approx(0.1), None)
    assert found["mul"].weight_scales == (pytest.approx(0.1), pytest.approx(0.1), 1)
    assert found["float"].reason == "no Q/DQ pair before its input: w"


def test_statistics_give_ranges_and_estimates() -> None:
    values = np.linspace(-14.0, 14.0, 4001, dtype=np.float32)  # a scale of 0.1 clips at 12.7
    origin = Origin(model=SHA, data=SHA, samples=3, histogram=HistogramMode.INVARIANT, backend="fake", slice=1)
    known = Statistics({"r": histogram_of(values, HistogramMode.INVARIANT)}, (), {}, origin)
    found = facts_of(network_map(small_model(), statistics=known))["relu"]
    assert (found.amax, found.estimated) == (14.0, True)
    assert found.clipped == pytest.approx(1.3 / 14.0, abs=0.005)
    clipped_noise = np.mean(np.square(np.clip(np.rint(values / np.float32(0.1)), -127, 127) * np.float32(0.1) - values))
    assert found.sqnr_db == pytest.approx(10 * np.log10(np.mean(np.square(values)) / clipped_noise), abs=0.3)


def test_layers_engine_and_profile_reach_the_cards(tmp_path: Path) -> None:
    layers = {
        "layers": [{"node": "mul", "kept": "", "alone_db": 33.5, "gain_db": None, "operator": "MatMul"}],
        "tensors": [
            {"name": "r", "node": "relu", "weight": False, "scale": 0.1, "sqnr_db": 21.5, "clipped": 0.25, "levels": 9}
        ],
        "provenance": {"model": SHA},
    }
    (tmp_path / "layers.json").write_text(json.dumps(layers))
    record = engine_record((
        EngineLayer(name="mul + relu", nodes=("mul", "relu"), kind="conv", precision="INT8"),
        EngineLayer(name="float", nodes=("float",), kind="gemm", precision="FP16", reason="no INT8 kernel"),
    ))  # fmt: skip
    (tmp_path / "net.engine.json").write_bytes(engine_record_bytes(record))
    profile = [
        {"count": 9},
        {"name": "mul + relu", "averageMs": 0.5, "medianMs": 0.25},
        {"name": "float", "averageMs": 1.5},
    ]
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    made = network_map(
        small_model(),
        layers=tmp_path / "layers.json",
        engine=tmp_path / "net.engine",
        profile=tmp_path / "profile.json",
    )
    found = facts_of(made)
    assert (found["mul"].alone_db, found["mul"].gain_db, found["relu"].sqnr_db) == (33.5, None, 21.5)
    assert (found["relu"].precision, found["relu"].kernel, found["relu"].kernel_nodes) == ("INT8", "mul + relu", 2)
    assert (found["relu"].milliseconds, found["float"].milliseconds) == (0.25, 1.5)
    assert (found["float"].precision, found["float"].reason) == ("FP16", "no INT8 kernel")


def test_an_operator_in_no_kernel_is_not_given_the_precision_of_q_dq(tmp_path: Path) -> None:
    record = engine_record((EngineLayer(name="mul", nodes=("mul",), kind="gemm", precision="INT8"),))
    (tmp_path / "net.engine.json").write_bytes(engine_record_bytes(record))
    found = facts_of(network_map(small_model(), engine=tmp_path / "net.engine"))
    assert {name: f.precision for name, f in found.items() if name in ("mul", "relu", "float")} == {
        "mul": "INT8", "relu": "no kernel", "float": "no kernel",
    }  # fmt: skip
    assert found["float"].precision_from == found["mul"].precision_from


def test_a_compiled_network_reaches_the_cards_and_differs_from_an_engine(tmp_path: Path) -> None:
    layer = EngineLayer(name="all", nodes=("mul", "relu", "float"), kind="gemm", precision="INT8")
    (tmp_path / "net.engine.json").write_bytes(engine_record_bytes(engine_record((layer,))))
    (tmp_path / "net.compiled.json").write_bytes(compiled_record_bytes(compiled()))
    made = network_map(small_model(), compiled=tmp_path / "net.compiled.json", against=tmp_path / "net.engine.json")
    found = facts_of(made)
    assert {name: (f.precision, f.kernel) for name, f in found.items() if f.kernel} == {
        "mul": ("INT8", "k1"), "relu": ("INT8", "k1"), "float": ("FP32", "k2"),
    }  # fmt: skip
    assert (found["mul"].kernel_types, found["float"].kernel_types) == ("INT8 → INT8", "INT8 → FP32")
    assert made.difference is not None
    precisions = {
        c.name: (c.before["precision"], c.after["precision"])
        for c in made.difference.changes
        if "precision" in c.before
    }
    assert precisions == {"float": ("FP32", "INT8")}


@pytest.mark.parametrize("source", ["statistics", "layers", "engine", "compiled"])
def test_a_source_of_another_network_is_refused(tmp_path: Path, source: str) -> None:
    origin = Origin(model=OTHER, data=SHA, samples=3, histogram=HistogramMode.INVARIANT, backend="fake", slice=1)
    write_statistics(
        Statistics({"r": histogram_of(np.ones(9, np.float32), HistogramMode.INVARIANT)}, (), {}, origin),
        tmp_path / "statistics",
    )
    (tmp_path / "layers").write_text(json.dumps({"layers": [], "tensors": [], "provenance": {"model": OTHER}}))
    (tmp_path / "engine.json").write_bytes(engine_record_bytes(engine_record((), OTHER)))
    (tmp_path / "compiled").write_bytes(compiled_record_bytes(compiled(OTHER)))
    with pytest.raises(StaleError, match=f"{source}.* belongs to another network than net.onnx"):
        network_map(small_model(), **{source: tmp_path / source})


def test_wrong_sources_give_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text('{"a": NaN}')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "cut.json").write_text('{"layers": [')
    with pytest.raises(QuantkitError, match="is not a result of quantkit layers"):
        network_map(small_model(), layers=tmp_path / "odd.json")
    with pytest.raises(QuantkitError, match="is not a file that a map can show"):
        network_map(small_model(), against=tmp_path / "odd.json")
    with pytest.raises(QuantkitError, match=r"cut\.json is not .*: line 1"):
        kind_of_file(tmp_path / "cut.json")
    with pytest.raises(BackendError, match="has no record beside it"):
        network_map(small_model(), engine=tmp_path / "none.engine")
    with pytest.raises(UsageError, match="a profile has the times of an engine"):
        network_map(small_model(), profile=tmp_path / "list.json")
    with pytest.raises(UsageError, match="are both the profile"):
        network_map(small_model(), against=[tmp_path / "list.json", tmp_path / "list.json"])
    with pytest.raises(UsageError, match="both say where nodes run"):
        network_map(small_model(), engine="a.engine", compile_for="sm86")
