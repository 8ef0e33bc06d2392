"""Metrics: top-k against a sort, metrics of the user's own in their three forms, and the errors they make."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from quantkit import metrics
from quantkit.errors import DataError, QuantkitError, UsageError
from quantkit.metrics.metric import Metric, MetricResult
from quantkit.metrics.registry import (
    built_in_metrics,
    default_metric,
    is_reproducible,
    is_share_metric,
    metric_choices,
    metric_title,
    own_label_opener,
    resolve_metric,
    wants_class_labels,
)
from quantkit.metrics.torchmetrics_state import SampleStates
from quantkit.metrics.user_metric import FunctionMetric, ObjectMetric

RANDOM = np.random.default_rng(1)
SCORES = RANDOM.normal(size=(12, 7)).astype(np.float32)
LABELS = RANDOM.permutation(np.arange(12) % 7)
NAMES = [f"{i:02}.png" for i in range(12)]


def named(text: str, *outputs: str) -> Metric:
    return resolve_metric(text, outputs or ("logits",))()


def run(
    metric: Metric, scores: Any = SCORES, labels: Any = LABELS, batch: int = 5, output: str = "logits"
) -> MetricResult:
    for at in range(0, len(scores), batch):
        metric.add({output: scores[at : at + batch]}, labels[at : at + batch], NAMES[at : at + batch])
    return metric.result()


# Top-k ------------------------------------------------------------------------------------------------------------

few = st.sampled_from([-1.0, 0.0, 0.5, 2.0])  # so few values that ties are the rule


@given(arrays(np.float32, (12, 7), elements=few), st.integers(1, 6), st.integers(1, 12))
def test_top_k_is_a_stable_sort_and_batches_do_not_matter(scores: NDArray[Any], k: int, batch: int) -> None:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = (order == LABELS[:, None]).any(axis=1).astype(np.float64)
    found = run(named(f"top{k}"), scores, batch=batch)
    assert found.per_sample is not None
    assert np.array_equal(found.per_sample, expected)
    assert (found.value, found.samples) == (expected.mean(), 12)
    if k == 1:
        assert found.value == np.mean(scores.argmax(axis=1) == LABELS)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_every_number_type_and_trailing_ones_are_class_scores(dtype: Any) -> None:
    scores = np.rint(SCORES * 20).astype(dtype)
    assert run(named("top1"), scores).value == run(named("top1"), scores[:, :, None, None]).value
    assert run(named("top1"), scores, LABELS[:, None]).value == np.mean(scores.argmax(1) == LABELS)
    assert run(named("top1"), scores, [int(n) for n in LABELS]).value == np.mean(scores.argmax(1) == LABELS)


def test_infinite_scores_are_scores() -> None:
    scores = SCORES.copy()
    scores[:, 3] = -np.inf
    assert run(named("top1"), scores).value == np.mean(scores.argmax(1) == LABELS)


def test_the_output_is_named_where_several_could_be_meant() -> None:
    outputs = {"boxes": np.zeros((3, 4, 9)), "logits": SCORES[:3], "aux": SCORES[3:6]}
    with pytest.raises(UsageError, match=r"logits and aux could be.*boxes \[3, 4, 9\]") as caught:
        named("top1", *outputs).add(outputs, LABELS[:3], NAMES[:3])
    assert caught.value.remedy == "name the output: top1@logits"
    metric = named("top1@aux", *outputs)
    metric.add(outputs, LABELS[3:6], NAMES[3:6])
    assert metric.result().value == np.mean(SCORES[3:6].argmax(1) == LABELS[3:6])
    del outputs["aux"]
    metric = named("top1", *outputs)
    metric.add(outputs, LABELS[:3], NAMES[:3])
    assert metric.result().value == np.mean(SCORES[:3].argmax(1) == LABELS[:3])


def broken(row: int) -> NDArray[Any]:
    scores = SCORES.copy()
    scores[row, 2] = np.nan
    return scores


@pytest.mark.parametrize(
    ("scores", "labels", "problem"),
    [
        (SCORES, np.where(np.arange(12) == 8, 7, LABELS), r"08\.png: the label is 7, but output logits has 7 classes"),
        (SCORES, np.where(np.arange(12) == 2, -1, LABELS), r"02\.png: the label is -1"),
        (broken(6), LABELS, r"06\.png: output logits holds NaN"),
        (SCORES, ["cat"] * 12, r"labels .* are not 5 class indices \(from 00\.png\)"),
        (SCORES, LABELS.astype(float), "are not 5 class indices"),
        (SCORES, np.eye(7)[LABELS], r"\[5, 7\] are not 5 class indices"),
        (SCORES[:, :, None], LABELS, None),
        (SCORES.reshape(12, 7, 1).repeat(3, 2), LABELS, r"\[5, 7, 3\] holds no class scores"),
        (SCORES.argmax(1), LABELS, r"\[5\] holds no class scores"),
        (SCORES[:, :1], LABELS, "holds no class scores"),
    ],
)
def test_misfits_are_reported_with_the_samples_name(scores: Any, labels: Any, problem: str | None) -> None:
    if problem is None:
        assert 0 <= run(named("top1"), scores, labels).value <= 1
        return
    with pytest.raises((DataError, UsageError), match=problem):
        run(named("top1"), scores, labels)


def test_trivial_metrics_are_refused() -> None:
    with pytest.raises(UsageError, match=r"top7 is always right with 7 classes"):
        run(named("top7"))
    with pytest.raises(DataError, match="no sample"):
        named("top1").result()
    with pytest.raises(DataError, match=r"has 4 rows for 3 samples \(from 00"):
        named("top1").add({"logits": SCORES[:4]}, LABELS[:3], NAMES[:3])


@pytest.mark.parametrize("text", ["top", "top0", "accuracy", "", "top-1", ":x", "x:", ".a:b"])
def test_unknown_metrics_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unknown metric"):
        resolve_metric(text, ("logits",))
    with pytest.raises(UsageError, match="no output 'softmax'") as caught:
        resolve_metric("top1@softmax", ("logits", "aux"))
    assert caught.value.remedy == "use one of logits, aux"


# Metrics of the user's own ----------------------------------------------------------------------------------------

OWN = """
import numpy as np

def distance(outputs, labels):
    return np.abs(outputs[:, 0] - labels)
distance.higher_is_better = False

def both(outputs, labels):
    return (outputs["a"] == outputs["b"]).all(axis=1)
both.share = True

def raises(outputs, labels):
    raise KeyError("boxes")

def leaves(outputs, labels):
    raise SystemExit(5)

def silent(outputs, labels):
    pass

def single(outputs, labels):
    return 1.0

def wide(outputs, labels):
    return np.zeros((len(labels), 2))

def short(outputs, labels):
    return [1.0]

def nan(outputs, labels):
    return np.where(labels == 3, np.nan, 1.0)

def too_high(outputs, labels):
    return labels * 1.0
too_high.share = True

class Iou:
    share = True
    def __init__(self): self.cut, self.all = 0, 0
    def update(self, outputs, labels):
        self.cut += ((outputs > 0) & (labels[:, None] > 3)).sum()
        self.all += ((outputs > 0) | (labels[:, None] > 3)).sum()
    def compute(self): return self.cut / self.all

class Parts(Iou):
    def compute(self): return {"a": 1, "b": 2}

class Bad(Iou):
    def update(self, outputs, labels): raise ValueError("first line\\nsecond line")

class Infinite(Iou):
    def compute(self): return np.float32(np.inf)

class Needs(Iou):
    def __init__(self, classes): pass

class Vague(Iou):
    higher_is_better = np.zeros(2)
class Uncopied(Iou):
    def __deepcopy__(self, known): raise RuntimeError("one is enough")
class Undecided(Iou):
    higher_is_better = None

def make(): return Iou()
def nothing(): return 3
def three(a, b, c): return a
ready = Iou()
uncopied = Uncopied()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_metrics.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_metrics", None)


@pytest.mark.usefixtures("own")
def test_a_function_gives_each_sample_a_score() -> None:
    metric = named("own_metrics:distance")
    found = run(metric)
    assert (metric.name, metric.share, metric.higher_is_better) == ("distance", False, False)
    assert found.per_sample is not None
    assert np.allclose(found.per_sample, np.abs(SCORES[:, 0] - LABELS))
    assert found.value == found.per_sample.mean()


@pytest.mark.usefixtures("own")
def test_of_several_outputs_a_mapping_is_given_or_the_named_one() -> None:
    outputs = {"a": np.eye(3), "b": np.eye(3)[[0, 2, 1]]}
    metric = named("own_metrics:both", "a", "b")
    metric.add(outputs, LABELS[:3], NAMES[:3])
    assert metric.share
    assert metric.result().value == pytest.approx(1 / 3)
    metric = named("own_metrics:distance@b", "a", "b")
    metric.add(outputs, [0, 0, 0], NAMES[:3])
    assert metric.result().value == pytest.approx(1 / 3)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("text", ["Iou", "make", "ready"])
def test_an_object_with_update_and_compute_comes_in_three_ways_and_is_each_models_own(text: str) -> None:
    maker = resolve_metric(f"own_metrics:{text}", ("logits",))
    first, second = maker(), maker()
    found = run(first)
    positive, high = SCORES > 0, LABELS[:, None] > 3
    assert found.value == (positive & high).sum() / (positive | high).sum()
    assert (found.per_sample, found.resample, found.samples) == (None, None, 12)
    assert first.share
    with pytest.raises(DataError, match="there were no samples"):
        second.result()


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("text", "kind", "problem"),
    [
        (
            "raises",
            DataError,
            r"metric raises failed, samples from 00\.png on: KeyError: 'boxes' \(own_metrics\.py, line \d+\)",
        ),
        ("leaves", DataError, r"metric leaves failed, samples from 00\.png on: SystemExit: 5"),
        (
            "Bad",
            DataError,
            r"metric Bad failed, samples from 00\.png on: ValueError: first line \(own_metrics\.py, line \d+\)\n  →",
        ),
        ("short", DataError, r"metric short returned 1 score for 5 samples \(from 00\.png\)"),
        ("nan", DataError, r"\.png: metric nan returned nan"),
        ("too_high", DataError, r"\.png: metric too_high returned \d, but declares itself a share"),
        ("silent", DataError, r"metric silent failed, samples from 00\.png on: TypeError: it returned None\n"),
        ("single", DataError, r"metric single returned one number for 5 samples \(from 00\.png\)"),
        ("wide", DataError, r"metric wide returned an array 5×2 for 5 samples"),
        (
            "Parts",
            DataError,
            r"Parts: compute failed: TypeError: compute returned 2 values \(a, b\) instead of one\n  → compute",
        ),
        ("Infinite", DataError, "metric Infinite is inf"),
        ("Needs", UsageError, "calling it without arguments failed: TypeError"),
        ("Undecided", UsageError, "does not declare whether higher is better"),
        ("Vague", UsageError, "metric Vague: its attribute higher_is_better is neither true nor false: ValueError"),
        ("uncopied", UsageError, "cannot be copied, for a metric of each model: RuntimeError: one is enough"),
        ("nothing", UsageError, "returns a value of type int without update and compute"),
        ("three", UsageError, "calling it without arguments failed"),
        ("absent", UsageError, "own_metrics has no callable 'absent'"),
    ],
)
def test_a_metric_that_fails_is_one_clear_line(text: str, kind: type[QuantkitError], problem: str) -> None:
    with pytest.raises(kind, match=problem) as caught:
        run(named(f"own_metrics:{text}"))
    if text in ("raises", "Bad", "Needs"):
        assert isinstance(caught.value.__cause__, Exception)  # the user's own traceback is not lost
    if text == "nan":
        assert caught.value.problem.startswith(NAMES[int(np.flatnonzero(LABELS == 3)[0])])


@pytest.mark.usefixtures("own")
def test_a_missing_module_is_reported() -> None:
    with pytest.raises(UsageError, match="metric=\"nowhere_at_all:x\": there is no module 'nowhere_at_all'"):
        named("nowhere_at_all:x")


# torchmetrics -----------------------------------------------------------------------------------------------------


@pytest.fixture
def classification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Metric]]:
    pytest.importorskip("torchmetrics")
    text = "from functools import partial\nfrom torchmetrics.classification import *\n"
    text += "accuracy = partial(MulticlassAccuracy, num_classes=7)\nready = MulticlassF1Score(7)\n"
    text += "iou = lambda: MulticlassJaccardIndex(7)\nauroc = lambda: MulticlassAUROC(7, thresholds=None)\n"
    (tmp_path / "torch_metrics_of_mine.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield lambda name: named(f"torch_metrics_of_mine:{name}")
    sys.modules.pop("torch_metrics_of_mine", None)


def test_a_broken_resample_is_one_error() -> None:
    class Broken:
        def update(self, outputs: Any, labels: Any) -> None: ...
        def compute(self) -> float:
            return 0.5

        def resample(self, indices: Any) -> float:
            raise KeyError(f"no states of {len(indices)} samples")

    metric = ObjectMetric("mine", Broken(), None)
    metric.add({"logits": SCORES}, LABELS, NAMES)
    resample = metric.result().resample
    assert resample is not None
    with pytest.raises(DataError, match="metric mine: resample failed"):
        resample(np.arange(12))


def test_what_a_metric_changes_in_its_arguments_stays_its_own() -> None:
    def score(outputs: Any, labels: Any) -> Any:
        outputs -= outputs.max(axis=1, keepdims=True)
        labels[:] = 0
        return outputs[:, 0]

    scores, labels = SCORES.copy(), LABELS.copy()
    FunctionMetric("mine", score, None).add({"logits": scores}, labels, NAMES)
    assert np.array_equal(scores, SCORES)
    assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize("score", [1e308, np.inf, 1j])
def test_scores_whose_mean_is_no_number_are_refused(score: Any) -> None:
    metric = FunctionMetric("mine", lambda _outputs, labels: np.full(len(labels), score), None)
    with pytest.raises(DataError, match="returned"):
        metric.add({"logits": SCORES}, LABELS, NAMES)


@pytest.mark.parametrize("text", ["accuracy", "ready", "iou"])
def test_torchmetrics_with_summed_states_has_a_figure_for_any_choice(
    text: str, classification: Callable[[str], Metric]
) -> None:
    metric = classification(text)
    found = run(metric)
    assert (metric.share, metric.higher_is_better, found.per_sample) == (True, True, None)
    assert found.resample is not None
    assert found.resample(np.arange(12)) == pytest.approx(found.value)
    chosen = np.array([0, 0, 3, 7, 7, 7, 11])
    alone = run(classification(text), SCORES[chosen], LABELS[chosen])
    assert found.resample(chosen) == pytest.approx(alone.value)
    assert found.resample(np.arange(12)) == pytest.approx(found.value)  # asking changes nothing


def test_torchmetrics_with_other_states_has_a_value_alone(
    classification: Callable[[str], Metric], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(classification("auroc"))
    assert 0 < found.value < 1
    assert found.resample is None
    monkeypatch.setattr("quantkit.metrics.torchmetrics_state.STATE_BYTES", 1_000)
    assert run(classification("accuracy")).resample is None


class State:
    """A torch tensor's double: what `SampleStates` asks of it."""

    def __init__(self, value: Sequence[float]) -> None:
        self.value = np.asarray(value, np.float64)

    def cpu(self) -> NDArray[np.float64]:
        return self.value


def dim_zero_sum() -> None:
    """Named as torchmetrics' reduction."""


def dim_zero_cat() -> None:
    """Named as torchmetrics' reduction."""


@pytest.mark.parametrize(("reduction", "kept"), [(dim_zero_sum, True), (dim_zero_cat, False), (None, False)])
def test_only_sums_are_kept(reduction: Any, kept: bool) -> None:
    class Metric:
        _reductions = {"hits": reduction}  # noqa: RUF012
        hits = State([0.0])

    assert (SampleStates.of(Metric()) is not None) == kept


# The registry -----------------------------------------------------------------------------------------------------

COUNTING = """
from quantkit.metrics.metric import BuiltInMetric, MetricLabels, MetricResult

class Counting:
    name, share, higher_is_better = "counting", False, True
    def add(self, outputs, labels, names):
        self.labels = list(labels)
    def result(self):
        return MetricResult(float(sum(self.labels)), None, None, len(self.labels))

METRIC = BuiltInMetric(
    examples={"count": "of things"},
    pattern="count(ing)?",
    create=lambda match, output: Counting,
    open_labels=lambda request: MetricLabels("names", lambda names: [len(name) for name in names]),
    label_kind="things",
    title=lambda match: "number of things",
)
"""


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A metric in a file of its own in the folder of metrics."""
    (tmp_path / "counting_metric.py").write_text(COUNTING, encoding="utf-8")
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    built_in_metrics.cache_clear()
    yield
    sys.modules.pop("quantkit.metrics.counting_metric", None)
    built_in_metrics.cache_clear()


@pytest.mark.usefixtures("counting")
def test_a_metric_is_one_file() -> None:
    assert metric_choices() == "top1, top5, count, keypoint-map, map, map50, mask-map, miou, or module:callable"
    assert "count (of things)" in metric_choices(remarks=True)
    assert resolve_metric("counting", ("logits",))().name == "counting"
    assert (metric_title("count"), metric_title("count@logits")) == ("number of things", "number of things@logits")
    assert not is_share_metric("count")
    opener = own_label_opener(["count"])
    assert opener is not None
    with pytest.raises(UsageError, match="count needs things as labels, top1 does not"):
        own_label_opener(["top1", "count"])
    with pytest.raises(
        UsageError,
        match=r"unknown metric 'cont'\n  → did you mean count[?] All are top1, top5, count, keypoint-map, map",
    ):
        resolve_metric("cont", ("logits",))


def test_the_registry_describes_the_metrics() -> None:
    assert default_metric() == "top1"
    assert (metric_title("top5"), metric_title("top1@a"), metric_title("mAP50-95")) == ("top-5", "top-1@a", "mAP50-95")
    assert wants_class_labels(["own:metric", "top3"])
    assert not wants_class_labels(["own:metric", "yolo"])
    assert own_label_opener(["top1", "own:metric"]) is None
    assert is_share_metric("top1@a")
    assert not is_share_metric("own:metric")


@pytest.mark.parametrize(
    ("texts", "labels_given", "reproducible"),
    [
        (["top1", "top5@a"], False, True),
        (["yolo:v8"], False, False),
        (["yolo:v8"], True, True),
        (["top1", "own:metric"], True, False),
    ],
)
def test_only_known_code_and_labels_are_reproducible(texts: list[str], labels_given: bool, reproducible: bool) -> None:
    assert is_reproducible(texts, labels_given=labels_given) is reproducible


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Top-1", "top1"), ("accuracy", "top1"), ("acc", "top1"), ("coco", "map"), ("mAP_50", "map50"),
        ("mask_mAP", "mask-map"), ("segm", "mask-map"), ("oks", "keypoint-map"), ("keypoint", "keypoint-map"),
        ("yolo50", "map50"),        ("mapp", "map"), ("xyz", None), ("", None), ("²" * 1000, None),
    ],
)  # fmt: skip
def test_the_metric_that_is_meant_is_suggested(text: str, meant: str | None) -> None:
    with pytest.raises(UsageError, match="unknown metric") as caught:
        resolve_metric(text, ("out",))
    remedy = str(caught.value.remedy)
    assert remedy.startswith(f"did you mean {meant}? All are top1") if meant else remedy.startswith("top1")
