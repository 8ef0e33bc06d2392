"""Chains are valid networks in every form, compute nearly the same, and their nodes lead back to their steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from quantkit.gpu_profile.attribution import NODE
from quantkit.gpu_profile.branch_writer import FLOAT, branches_model
from quantkit.gpu_profile.chain import FORMS, WRITERS, Chain, chain_branch
from quantkit.gpu_profile.plan import BATCHES, TOGETHER, engine_plans
from tests.support.qdq import on_onnxruntime

CHAINS = {
    "conv": Chain("conv", 32, 8, 2, 3, "SiLU", width=8),
    "depthwise": Chain("depthwise", 16, 8, 1, 5, "HardSwish", stride=2),
    "strided": Chain("strided", 16, 8, 1, 3),
    "stem": Chain("stem", 16, 32, 1, 4, "", stride=4),
    "transposed": Chain("transposed", 16, 7, 1, 4, "LeakyRelu"),
    "gemm": Chain("gemm", 64, 1, 2),
    "residual": Chain("residual", 16, 8, 1, 3),
    "pool": Chain("pool", 16, 8, 1, 3, stride=2, word="AveragePool"),
    "global-pool": Chain("global-pool", 32, 7, 1),
    "concat": Chain("concat", 16, 8, 1),
    "resize": Chain("resize", 16, 8, 1, word="nearest"),
    "excite": Chain("excite", 32, 8, 1, 3, "SiLU"),
    "shared": Chain("shared", 16, 8, 1, 3),
    "matmul": Chain("matmul", 32, 10, 1, act="GELU"),
    "perceptron": Chain("perceptron", 32, 10, 1),
    "attention": Chain("attention", 128, 10, 2),
    "convnext": Chain("convnext", 32, 8, 1, 7),
}
REWRITTEN = {"flat", "convolved"}
"""Forms with other operators; the last has other weights too."""
EVERY = [(kind, form) for kind in CHAINS for form in (FLOAT, *FORMS[kind])]


def model_of(kind: str, form: str) -> onnx.ModelProto:
    return branches_model([chain_branch(CHAINS[kind], form, 5)])


def outputs(model: onnx.ModelProto) -> np.ndarray:
    random = np.random.default_rng(0)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    return on_onnxruntime(model, **{name: random.normal(size=s).astype("f") for name, s in shapes.items()})[0]


def test_every_kind_is_tested() -> None:
    assert CHAINS.keys() == FORMS.keys() == WRITERS.keys()


@pytest.mark.parametrize(("kind", "form"), EVERY)
def test_a_form_is_a_network_that_computes_nearly_what_the_float_one_computes(kind: str, form: str) -> None:
    model = model_of(kind, form)
    onnx.checker.check_model(model, full_check=True)
    made, plain = outputs(model), outputs(model_of(kind, FLOAT))
    assert plain.std() > 0.01
    if form == "convolved":
        assert made.shape == plain.shape
        return
    noise = float(np.mean((made - plain) ** 2) / np.mean(plain**2))
    assert noise == 0 if form == FLOAT else 0 < noise < 0.1


@pytest.mark.parametrize(("kind", "form"), EVERY)
def test_every_node_leads_back_to_its_branch_and_step(kind: str, form: str) -> None:
    found = [NODE.fullmatch(node.name) for node in model_of(kind, form).graph.node]
    assert all(found)
    assert {match[1] for match in found if match} == {"5"}
    steps = [int(match[2]) for match in found if match]
    assert steps == sorted(steps)


@pytest.mark.parametrize(("kind", "form"), EVERY)
def test_a_form_is_a_network_in_fp16_too(kind: str, form: str) -> None:
    model = branches_model([chain_branch(CHAINS[kind], form, 5)], half=True)
    onnx.checker.check_model(model, full_check=True)
    kinds = {value.type.tensor_type.elem_type for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    assert onnx.TensorProto.FLOAT not in kinds


def test_forms_differ_in_their_pairs_alone() -> None:
    for kind in CHAINS:
        operators = []
        for form in {FLOAT, *FORMS[kind]} - REWRITTEN:
            nodes = [node.op_type for node in model_of(kind, form).graph.node]
            operators.append([op for op in nodes if op not in ("QuantizeLinear", "DequantizeLinear")])
        assert all(found == operators[0] for found in operators), kind


def test_weights_are_never_zero_and_branches_are_independent() -> None:
    both = branches_model([chain_branch(CHAINS["conv"], form, k) for k, form in enumerate((FLOAT, "int8"))])
    onnx.checker.check_model(both)
    assert len(both.graph.input) == len(both.graph.output) == 2
    for weights in both.graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        assert values.dtype != np.float32 or np.abs(values).max() > 0


def test_each_chain_is_planned_once_in_each_form_and_batch() -> None:
    plans = list(engine_plans())
    branches = [(branch, plan.quantized) for plan in plans if len(plan.branches) > 1 for branch in plan.branches]
    assert len(set(branches)) == len(branches)
    assert max(len(plan.branches) for plan in plans) <= TOGETHER
    chains = {chain for plan in plans for chain, _ in plan.branches}
    assert {replace(chain, batch=1) for chain in chains} == {c for c in chains if c.batch == 1}
    for chain in chains:
        forms = {form for plan in plans for c, form in plan.branches if c == chain}
        assert forms == {FLOAT, *FORMS[chain.kind]}
        assert chain.batch in BATCHES
