"""Tuning in its parts: the float network runs once, the search's order and economy, the front, and the values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantkit.data import DataOptions
from quantkit.engines.bench_result import BenchResult, BenchSubject, Latency
from quantkit.errors import BackendError, DataError, UsageError
from quantkit.evaluation.paired import binary_difference
from quantkit.evaluation.result import Evaluation, IntervalMethod, MetricDifference, ModelKind, ModelScore
from quantkit.graph import Model
from quantkit.quantization.choice_record import Gain
from quantkit.rules.mse import Mse
from quantkit.sensitivity.result import LayerError
from quantkit.tuning import metric_trials as judging
from quantkit.tuning import pareto_front as front
from quantkit.tuning.json_document import tuning_document
from quantkit.tuning.memoized_rule import MemoizedRule
from quantkit.tuning.metric_trials import (
    MetricTrials,
    OutputCache,
    ReplayRunner,
    TrialRequest,
    holdout_parts,
    loss_of,
    standard_error,
)
from quantkit.tuning.options import TuneOptions
from quantkit.tuning.result import Figure, FrontPoint, Tuning, trial_cells
from quantkit.tuning.search import Search, SearchLimits
from quantkit.tuning.trial import RankingBasis, Recipe, Trial, TrialStatus
from quantkit.tuning.type_mix import LayerTypes
from quantkit.values import QuantizedType
from tests.support.qdq import model_of, noise

DROPS = st.floats(0.0, 5.0)


def lost(drop: float, error: float = 0.0) -> Figure:
    return Figure(0.9, drop, drop - 1.96 * error, drop + 1.96 * error, error)


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 500))
def test_the_standard_error_is_that_of_the_mean_of_the_losses(better: int, worse: int, samples: int) -> None:
    losses = np.zeros(samples)
    losses[:worse], losses[worse : worse + better] = 1.0, -1.0
    found = binary_difference(losses)
    assert standard_error(found, samples, 1.0) == pytest.approx(losses.std() / math.sqrt(samples), abs=1e-12)


def test_an_interval_gives_the_error_where_changes_are_not_counted() -> None:
    found = MetricDifference(1.0, 1.0 - 1.96, 1.0 + 1.96, 0.3, 0, 0, IntervalMethod.BOOTSTRAP_MEAN, 5000)
    assert standard_error(found, 100, 1.0) == pytest.approx(1.0, rel=1e-3)
    unknown = MetricDifference(1.0, math.nan, math.nan, math.nan, 0, 0, IntervalMethod.VALUE_ONLY)
    assert standard_error(unknown, 100, 1.0) == 0.0


def score(name: str, difference: MetricDifference | None, agreement: float | None) -> ModelScore:
    return ModelScore(name, ModelKind.QDQ, None, "", 0, {"top1": 0.8}, None, difference=difference, agreement=agreement)


def evaluation(*models: ModelScore, metric: str | None = "top1", samples: int = 100) -> Evaluation:
    return Evaluation(models, samples, metric, True, (), (), {}, 0.0)


def test_without_labels_the_loss_is_what_does_not_agree() -> None:
    candidate = score("INT8", None, 0.97)
    found = loss_of(evaluation(score("FP32", None, None), candidate, metric=None), candidate)
    assert found.drop == pytest.approx(3.0)
    assert 0.0 <= found.low < 3.0 < found.high
    with pytest.raises(UsageError, match="neither labels nor class scores"):
        loss_of(evaluation(metric=None), score("INT8", None, None))


# ── metric trials ──────────────────────────────────────────────────────────────────────────────────────────────────

TEXT = "(float[N, 6] x) => (float[N, 4] y) { y = MatMul(x, w) }"
X = np.random.default_rng(1).standard_normal((40, 6)).astype(np.float32)


def linear(tmp_path: Path, weight: Any) -> Model:
    import onnx

    made = model_of(TEXT, 17, w=weight)
    onnx.save(made.proto, tmp_path / "net.onnx")
    return replace(made, path=tmp_path / "net.onnx")


@pytest.fixture
def nets(tmp_path: Path) -> tuple[Model, Model]:
    weight = noise(6, 4)
    plain = linear(tmp_path, weight)
    return plain, linear(tmp_path, np.round(weight * 4) / 4)


def question(tmp_path: Path, weight_of: Model) -> TrialRequest:
    from onnx import numpy_helper

    weight = numpy_helper.to_array(weight_of.proto.graph.initializer[0])
    np.savez(tmp_path / "val.npz", x=X, labels=(X @ weight).argmax(axis=1))
    return TrialRequest(tmp_path / "val.npz")


def test_the_float_network_runs_once(
    nets: tuple[Model, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    original = judging.CachingRunner.submit
    monkeypatch.setattr(
        judging.CachingRunner, "submit", lambda self, batch, n: (opened.append("run"), original(self, batch, n))[1]
    )
    plain, coarse = nets
    metric_trials = MetricTrials(plain, question(tmp_path, plain), holdout_parts(0.5, DataOptions())[0])
    first = metric_trials.evaluation({"INT8": coarse})
    once = len(opened)
    second = metric_trials.evaluation({"INT8": coarse, "same": plain})
    assert len(opened) == once > 0
    assert metric_trials.evaluations == 4
    assert metric_trials.samples == first.samples == 20
    assert second.reference.metrics == first.reference.metrics == {"top1": 1.0}
    assert second.models[1].difference == first.models[1].difference
    assert second.models[2].agreement == 1.0


def test_the_parts_are_those_of_an_evaluation_of_all(nets: tuple[Model, Model], tmp_path: Path) -> None:
    """What both parts find right adds up to what all samples do."""
    from quantkit.evaluation.evaluate import evaluate

    plain, coarse = nets
    asked = question(tmp_path, plain)
    rights = []
    for part in holdout_parts(0.3, DataOptions()):
        found = MetricTrials(plain, asked, part).evaluation({"INT8": coarse})
        rights.append((found.models[1].metrics["top1"] * found.samples, found.samples))
    whole = evaluate([coarse.path], asked.data)
    assert sum(samples for _, samples in rights) == whole.samples == 40
    assert sum(right for right, _ in rights) == pytest.approx(whole.reference.metrics["top1"] * 40)


def test_several_score_outputs_need_a_choice(nets: tuple[Model, Model], tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    plain, _ = nets
    proto = onnx.ModelProto()
    proto.CopyFrom(plain.proto)
    first = proto.graph.output[0].name
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([-1]), "turn"))
    proto.graph.node.append(helper.make_node("Mul", [first, "turn"], ["aux"], "upside"))
    proto.graph.output.append(helper.make_tensor_value_info("aux", onnx.TensorProto.FLOAT, ["N", 4]))
    onnx.save(proto, tmp_path / "two.onnx")
    two = replace(plain, proto=proto, path=tmp_path / "two.onnx")
    asked = question(tmp_path, plain)
    part = holdout_parts(0.5, DataOptions())[0]
    with pytest.raises(
        UsageError, match=f"outputs '{first}' and 'aux' can hold class scores, and none of them is named"
    ) as caught:
        MetricTrials(two, asked, part).evaluation({"INT8": two})
    assert f"--metric top1@{first}" in caught.value.remedy
    named = replace(asked, metrics=("top1@aux",))
    assert MetricTrials(two, named, part).evaluation({"INT8": two}).reference.metrics["top1"] < 1.0


def test_too_many_outputs_are_not_kept(
    nets: tuple[Model, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "CACHE_BYTES", 100)
    plain, coarse = nets
    metric_trials = MetricTrials(plain, question(tmp_path, plain), holdout_parts(0.5, DataOptions())[0])
    found = [metric_trials.evaluation({"INT8": coarse}) for _ in range(2)]
    assert metric_trials.evaluations == 4  # the float network ran twice, and is counted twice
    assert found[0].models[1].difference == found[1].models[1].difference


def test_other_batches_in_a_later_pass_are_noticed() -> None:
    record = OutputCache()
    record.keep({"y": np.zeros((3, 4))})
    record.close()
    assert record.complete
    replayed = ReplayRunner([{"y": np.zeros((3, 4))}], None)
    with pytest.raises(DataError, match="batches differ"):
        replayed.submit({"x": np.zeros((2, 6))}, 2)
    with pytest.raises(DataError, match="batches differ"):
        ReplayRunner([], None).submit({"x": np.zeros((2, 6))}, 2)


def test_a_rule_searches_a_histogram_once() -> None:
    from quantkit.histogram import Histogram

    class Counting:
        name, calls = "mse", 0

        def threshold(self, histogram: Histogram) -> float:
            self.calls += 1
            return Mse().threshold(histogram)

    rule = Counting()
    known = MemoizedRule(rule)
    counts = np.zeros(2048, np.int64)
    counts[:100] = 5
    first, second = Histogram(counts, 1.0, 0.0, 0.9), Histogram(counts.copy(), 2.0, 0.0, 1.9)
    assert [known.threshold(h) for h in (first, second, first)] == [Mse().threshold(h) for h in (first, second, first)]
    assert rule.calls == 2


# ── the search ──────────────────────────────────────────────────────────────────────────────────────────────────────

NODES = [f"n{k}" for k in range(20)]


class FakeFactory:
    """Networks are recipes; their noise and their loss are functions of them."""

    def __init__(self, decibels: Callable[[Recipe], float]) -> None:
        self.proxies: dict[Recipe, float] = {}
        self.samples = 64
        self._decibels = decibels

    def measure(self, recipes: Sequence[Recipe]) -> Mapping[Recipe, float]:
        self.proxies |= {recipe: self._decibels(recipe) for recipe in recipes}
        return {recipe: self.proxies[recipe] for recipe in recipes}

    def model(self, recipe: Recipe) -> Recipe:
        return recipe

    def layers(self, recipe: Recipe) -> tuple[str, ...]:
        return tuple(node for node in NODES if node not in recipe.kept)

    def weights_in_float(self, recipe: Recipe) -> float:
        return len(recipe.kept) / len(NODES)

    def ranking(self, recipe: Recipe, _: int) -> tuple[tuple[LayerError, ...], str, RankingBasis]:
        layers = tuple(LayerError(n, "Conv", 20.0, 20.0, 0.0, 0.1, 20.0, 1) for n in NODES)
        return layers, "noise alone", RankingBasis(recipe, 20.0, 64)


class FakeMetricTrials:
    """Counts, and tells the loss of a recipe."""

    def __init__(self, loss: Callable[[Recipe], float]) -> None:
        self.evaluations, self._loss = 1, loss

    def evaluation(self, candidates: Mapping[str, Recipe]) -> Evaluation:
        self.evaluations += 1
        (recipe,) = candidates.values()
        value = self._loss(recipe)
        found = MetricDifference(value, value, value, 1.0, 0, 0, IntervalMethod.BOOTSTRAP_MEAN, 5000)
        return evaluation(score("FP32", None, None), score("INT8", found, 1.0))


def searched(
    decibels: Callable[[Recipe], float], loss: Callable[[Recipe], float], most: float = 0.5, evaluations: int = 17
) -> Any:
    rules, repairs = ("mse", "minmax", "entropy"), ("equalize", "bias")
    limits = SearchLimits(rules, repairs, 0.5, most, evaluations)
    metric_trials = FakeMetricTrials(loss)
    factory: Any = FakeFactory(decibels)
    found = Search(factory, metric_trials, limits, lambda _: None).run()  # type: ignore[arg-type]
    assert metric_trials.evaluations <= evaluations
    return found


def test_the_cheapest_candidate_within_the_budget_ends_the_search() -> None:
    found = searched(lambda _: 20.0, lambda _: 0.1)
    assert [trial.recipe.text() for trial in found.trials] == ["mse"]
    assert found.held


def test_a_rule_is_evaluated_only_if_its_noise_is_promising() -> None:
    noise = {"mse": 20.0, "minmax": 10.0, "entropy": 25.0}
    found = searched(lambda r: noise[r.rule], lambda r: 0.2 if r.rule == "entropy" else 3.0)
    tried = [trial.recipe.rule for trial in found.trials if trial.figure]
    assert tried == ["mse", "entropy"]
    assert found.chosen.recipe == Recipe("entropy")


def test_repairs_come_before_layers_and_cheap_ones_first() -> None:
    found = searched(lambda r: 20.0 + 3 * len(r.repairs), lambda r: 3.0 - 1.4 * len(r.repairs))
    assert [trial.recipe.repairs for trial in found.trials if trial.figure] == [(), ("bias",), ("equalize", "bias")]
    assert found.held
    assert found.chosen.recipe.kept == ()


def test_channels_are_not_scaled_where_that_leaves_more_noise() -> None:
    """`round` of (equalize, round): what scales channels is left out of the last repairs."""

    def noise(recipe: Recipe) -> float:
        return 20.0 + 3 * len(recipe.repairs) - 9 * ("equalize" in recipe.repairs)

    metric_trials, factory = FakeMetricTrials(lambda r: 3.0 - 2.9 * ("round" in r.repairs)), FakeFactory(noise)
    limits = SearchLimits(("mse",), ("equalize", "round", "bias"), 0.5, 0.5, 17)
    found = Search(factory, metric_trials, limits, lambda _: None).run()  # type: ignore[arg-type]
    assert [trial.recipe.repairs for trial in found.trials] == [(), ("bias",), ("round", "bias")]
    assert found.held


@settings(max_examples=40)
@given(enough=st.integers(1, 10), most=st.sampled_from([0.1, 0.25, 0.5]))
def test_the_fewest_layers_within_the_budget_are_kept(enough: int, most: float) -> None:
    """Where the ranking is right and each layer of it counts."""
    found = searched(
        lambda r: 20.0 + len(r.kept), lambda r: 0.0 if set(NODES[:enough]) <= set(r.kept) else 3.0, most=most
    )
    allowed = int(most * len(NODES))
    assert found.held == (enough <= allowed)
    if found.held:
        assert found.chosen.recipe.kept == tuple(NODES[:enough])
    assert all(len(trial.recipe.kept) <= allowed for trial in found.trials)


def test_kept_layers_that_do_not_help_are_quantized_again() -> None:
    needed = {"n0", "n3"}

    def decibels(recipe: Recipe) -> float:
        return 20.0 + 5 * len(needed & set(recipe.kept))

    found = searched(decibels, lambda r: 0.0 if needed <= set(r.kept) else 3.0)
    assert set(found.chosen.recipe.kept) == needed
    assert any(trial.step == "requantize" for trial in found.trials)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), evaluations=st.integers(2, 17))
def test_the_choice_is_never_worse_than_a_trial_that_was_cheaper(seed: int, evaluations: int) -> None:
    """Whatever networks do: what is chosen holds where anything does, and no other that does keeps fewer layers."""

    def random(recipe: Recipe, what: int) -> float:
        text = f"{seed}{recipe}{what}"
        return np.random.default_rng(list(text.encode())).uniform(0, 1)

    found = searched(lambda r: 20 + 5 * random(r, 0), lambda r: random(r, 1), evaluations=evaluations)
    judged = [trial for trial in found.trials if trial.figure]
    held = [trial for trial in judged if trial.figure.cautious_drop <= 0.5]
    assert found.held == bool(held)
    assert found.chosen in (held or judged)
    for trial in held:
        assert len(found.chosen.recipe.kept) <= len(trial.recipe.kept)


def test_too_close_to_the_budget_is_not_enough() -> None:
    assert lost(0.4, 0.2).cautious_drop > 0.5
    assert lost(0.4, 0.05).cautious_drop <= 0.5


# ── layers in float on top of a mix of types ────────────────────────────────────────────────────────────────────────


class FakeTypes(FakeFactory):
    """A network whose first layer is better in FP8, and which is still the worst."""

    def layer_types(self, _: Recipe) -> tuple[LayerTypes, ...]:
        return (LayerTypes("n0", "Conv", 10.0, 15.0, Gain(5.0, 0.1), 1.0),)

    def mix_gains(self, mixes: Sequence[Recipe], _: Recipe) -> dict[Recipe, Gain]:
        return dict.fromkeys(mixes, Gain(5.0, 0.1))

    def layers(self, recipe: Recipe) -> tuple[str, ...]:
        assert not set(recipe.fp8) & set(recipe.kept), "quantize refuses a type for what has none"
        return super().layers(recipe)


def searched_with_types(rule: str, needed: set[str]) -> Any:
    """The search where these layers have to be float."""
    factory: Any = FakeTypes(lambda r: 20.0 + 5 * len(needed & set(r.kept)))
    trials: Any = FakeMetricTrials(lambda r: 0.0 if needed <= set(r.kept) else 3.0)
    limits = SearchLimits((rule,), (), 0.5, 0.5, 17, mixes=True)
    return Search(factory, trials, limits, lambda _: None).run()


@pytest.mark.parametrize(
    ("needed", "chosen"),
    [
        ({"n0"}, Recipe("minmax", kept=("n0",))),
        ({"n0", "n1"}, Recipe("minmax", kept=("n0", "n1"))),
        ({"n1"}, Recipe("minmax", kept=("n1",), fp8=("n0",))),  # kept with n1 first, then quantized again, as it was
    ],
)
def test_a_layer_that_is_kept_in_float_has_no_type(needed: set[str], chosen: Recipe) -> None:
    found = searched_with_types("minmax", needed)
    assert [trial.recipe.fp8 for trial in found.trials if trial.step == "types"] == [("n0",)]
    assert found.held
    assert found.chosen.recipe == chosen


def test_what_was_not_tried_is_said_once() -> None:
    found = searched_with_types("entropy", {"n0"})
    assert found.held
    assert [note for note in found.notes if "FP8" in note] == ["FP8 was not tried: it has no rule of entropy"]


# ── the front ───────────────────────────────────────────────────────────────────────────────────────────────────────


def bench_of(times: Mapping[str, float]) -> BenchResult:
    subjects = tuple(BenchSubject(built(name), name, 1) for name in times)
    return BenchResult("GPU", True, subjects, tuple(Latency(built(n), 32, False, t, t, t, 9) for n, t in times.items()))


def built(name: str) -> str:
    """What `bench` calls an engine that it builds."""
    return f"{name}.0a1b2c3d.bench.engine"


def test_a_faster_engine_over_the_budget_is_not_called_slow() -> None:
    found = front.front_points([bench_of({"fp16": 0.9, "int8": 0.3})], {built("fp16"): 0.0, built("int8"): 0.6}, 0.5)
    assert front.advise_on_front(found, 0.5) == (
        "use FP16: int8.engine is 3.00× as fast, but loses 0.60, which is over the budget",
    )


@pytest.mark.parametrize(
    ("times", "drops", "taken"),
    [
        ({"fp32": 4.0, "fp16": 2.0, "int8": 1.0}, {"fp32": 0.0, "fp16": 0.0, "int8": 0.3}, "int8"),
        ({"fp32": 4.0, "fp16": 1.0, "int8": 0.99}, {"fp32": 0.0, "fp16": 0.0, "int8": 0.3}, "fp16"),
        ({"fp32": 4.0, "fp16": 2.0, "int8": 1.99}, {"fp32": 0.0, "fp16": 0.1, "int8": 0.8}, "fp16"),
        ({"fp16": 2.0, "int8": 1.0}, {"fp16": 0.9, "int8": 0.8}, None),
    ],
)
def test_the_fastest_within_the_budget_is_chosen(
    times: Mapping[str, float], drops: Mapping[str, float], taken: str | None
) -> None:
    points = front.front_points([bench_of(times)], {built(name): drop for name, drop in drops.items()}, 0.5)
    assert {p.name for p in points} == {f"{name}.engine" for name in times}
    assert [p.milliseconds for p in points] == sorted(times.values())
    assert [p.precision for p in points if p.chosen] == ([taken] if taken else [])
    said = {"int8": "", "fp16": "INT8 is not worth it here: FP16", None: "no engine is within the budget"}[taken]
    assert said in "".join(front.advise_on_front(points, 0.5))
    assert bool(front.advise_on_front(points, 0.5)) == (taken != "int8")


class Here:
    front, device, holdout = True, 0, 0.5


def made_of(model: Model) -> Any:
    """A quantized network with one operator in each type."""
    types = {"y": QuantizedType.INT8, "z": QuantizedType.FP8}
    return SimpleNamespace(proto=model.proto, types=types, left={"v": "excluded"})


def test_engines_are_timed_and_evaluated_on_a_gpu(
    nets: tuple[Model, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, coarse = nets
    asked: dict[str, Any] = {}

    def bench(subjects: Any, **settings: Any) -> BenchResult:
        precisions = settings["options"].precisions
        asked[",".join(precisions)] = [Path(subject).name for subject in subjects]
        assert all(Path(subject).is_file() for subject in subjects)
        return bench_of({precision: {"fp32": 3.0, "fp16": 2.0, "int8": 1.0}[precision] for precision in precisions})

    def evaluate(models: Any, data: Any, **settings: Any) -> Evaluation:
        asked["part"] = settings["options"].data.part
        names = [Path(model).name for model in models[1:]]
        drop = MetricDifference(0.2, 0.1, 0.3, 0.5, 0, 0, IntervalMethod.BOOTSTRAP_MEAN, 5000)
        return evaluation(score("FP32", None, None), *(score(name, drop, 1.0) for name in names))

    monkeypatch.setattr(front, "explain_no_gpu", lambda _: None)
    monkeypatch.setattr(front, "bench", bench)
    monkeypatch.setattr(front, "evaluate", evaluate)
    networks = {"untuned": made_of(coarse), "tuned": made_of(coarse)}
    made = front.measure_front(plain, tuning_of(lost(0.2)), networks, question(tmp_path, plain), Here(), lambda _: None)
    assert asked["fp32,fp16"] == ["net.onnx"]
    assert asked["int8"] == ["net.untuned.onnx", "net.tuned.onnx"]
    assert asked["part"].held
    assert [(p.precision, p.drop, p.chosen) for p in made.points] == [
        ("int8", 0.2, True),
        ("fp16", 0.2, False),
        ("fp32", 0.2, False),
    ]
    assert all(not point.types for point in made.points if point.precision != "int8")
    assert made.machine == "GPU"
    assert made.notes == ()


def test_points_name_the_types_of_their_operators() -> None:
    name = "net.tuned.int8.0a1b2c3d.bench.engine"
    timed = BenchResult("GPU", True, (BenchSubject(name, "int8", 1),), (Latency(name, 32, False, 1.0, 1.0, 1.0, 9),))
    types = {"tuned": {"y": "int8", "z": "fp8"}, "untuned": {"y": "int8"}}
    assert [point.types for point in front.front_points([timed], {}, 0.5, types)] == [types["tuned"]]


def test_without_a_gpu_the_weights_in_float_are_the_cost(
    nets: tuple[Model, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = question(tmp_path, nets[0])
    monkeypatch.setattr(front, "explain_no_gpu", lambda _: "there is no NVIDIA driver")
    made = front.measure_front(
        nets[0], tuning_of(lost(0.2)), {"tuned": made_of(nets[1])}, asked, Here(), lambda _: None
    )
    assert made.points == ()
    assert "25.0% of the weights" in made.notes[0]

    def fails(*_: Any, **__: Any) -> BenchResult:
        raise BackendError("the GPU is gone", remedy="look for it")

    monkeypatch.setattr(front, "explain_no_gpu", lambda _: None)
    monkeypatch.setattr(front, "bench", fails)
    made = front.measure_front(
        nets[0], tuning_of(lost(0.2)), {"tuned": made_of(nets[1])}, asked, Here(), lambda _: None
    )
    assert made.points == ()
    assert made.notes == ("latency was not measured: the GPU is gone",)


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def tuning_of(tuned: Figure, *, held: bool = True) -> Tuning:
    trial = Trial(Recipe("mse", ("bias",), ("a<b",)), "layers", "why", TrialStatus.MET, 21.0, tuned, 0.25)
    skipped = Trial(Recipe("minmax"), "rule", "", TrialStatus.SKIPPED, detail="more noise")
    ranking = (LayerError("a<b", "Conv", math.inf, 20.0, 0.0, 0.1, 20.0, 1),)
    report = evaluation(score("FP32", None, None), score("INT8", None, 0.9))
    return Tuning(
        model="net.onnx",
        metric="top1",
        share=True,
        max_drop=0.5,
        layers=20,
        reference=0.9,
        trials=(skipped, trial),
        chosen=trial,
        held=held,
        report=report,
        untuned=lost(4.0),
        tuned=tuned,
        samples=(50, 50),
        evaluations=6,
        ranking=ranking,
        rules={"x": "mse"},
        front=(FrontPoint("a.engine", "int8", None, 1.0),),
        notes=(),
        provenance={},
        seconds=1.0,
    )


@given(drop=st.floats(-2.0, 0.5), error=st.floats(0.0, 1.0))
def test_the_verdict_mentions_chance_and_gains(drop: float, error: float) -> None:
    made = tuning_of(lost(drop, error))
    assert ("not conclusively" in made.verdict) == (made.tuned.high > 0.5)
    assert ("gains" in made.verdict) == (round(drop, 2) < 0)
    assert "loses −" not in made.verdict


@given(drop=st.floats(-2.0, 5.0), held=st.booleans())
def test_the_verdict_covers_both_parts(drop: float, held: bool) -> None:
    made = tuning_of(lost(drop, 0.1), held=held)
    assert made.within_budget == (drop <= 0.5)
    assert ("This is within the budget" in made.verdict) == made.within_budget
    assert ("do not rely on it" in made.verdict) == (made.within_budget and not held)
    assert made.verdict.endswith("on the tuning part: evaluate more samples.") == (not made.within_budget and held)
    assert "1 of 20 layers in float" in made.verdict
    assert "50 held-out samples" in made.verdict


def test_every_trial_is_displayed_and_in_the_json() -> None:
    made = tuning_of(lost(0.2, 0.1))
    page = made._repr_html_()
    assert page.count("<tr>") == 3
    assert "a<b" not in page
    record = json.loads(json.dumps(tuning_document(made, {}), allow_nan=False))
    assert [trial["drop"] for trial in record["trials"]] == [None, 0.2]
    assert record["ranking"][0]["alone_db"] is None
    assert record["trials"][0]["proxy_db"] is None
    assert trial_cells(made.trials[0])[3] == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"holdout": 0.0}, "cannot hold out"),
        ({"most": 1.5}, "max_float is 1.5"),
        ({"evaluations": 4}, "too few"),
        ({"repairs": ("paint",)}, "unknown repair"),
        ({"rules": "kl"}, "unknown rule"),
        ({"policy": "none"}, "unknown policy"),
    ],
)
def test_invalid_options_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TuneOptions(**settings)
