"""The search for a fast placement, on a GPU whose costs are known."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantkit.backends.tensorrt.layer_profile import ProfiledLayer
from quantkit.errors import BackendError
from quantkit.graph import Model, load_model
from quantkit.qdq.placement import Policy
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.tuning.speed.candidate import CandidateStatus, SpeedCandidate
from quantkit.tuning.speed.engine_choice import choose_candidate, relative_times, ties
from quantkit.tuning.speed.lab import LabEngine
from quantkit.tuning.speed.result import time_left_note
from quantkit.tuning.speed.search import SpeedSearch, TimeLimit
from tests.support.networks import BUNDLED
from tests.support.synthetic_gpu import PlainNetworks, SyntheticLab, weighted_names


@pytest.fixture(scope="module")
def model() -> Model:
    source = load_model(BUNDLED / "model.onnx")
    return replace(source, proto=fold_batch_norms(source).proto)


def searched(lab: SyntheticLab, seconds: float = 1e6) -> dict[str, SpeedCandidate]:
    limit = TimeLimit(seconds, lab.clock)
    return {c.name: c for c in SpeedSearch(PlainNetworks(lab.model), lab, lab.batches, limit).run()}


def made(model: Model, faster: float, slower: float, slow: list[str], **how: object) -> SyntheticLab:
    """A GPU on which INT8 takes `faster` of the time, but `slower` for the nodes `slow`."""
    costs = {name: (0.1, 0.1 * (slower if name in slow else faster)) for name in weighted_names(model)}
    return SyntheticLab(model, costs, **how)  # type: ignore[arg-type]


def test_nodes_that_are_slower_in_int8_stay_float(model: Model) -> None:
    slow = weighted_names(model)[6:12]
    lab = made(model, 0.5, 2.0, slow)
    found = searched(lab)
    assert set(found["cut"].placement.kept) & set(weighted_names(model)) == set(slow)
    assert lab.total("cut", 1) < 0.8 * min(lab.total("fp16", 1), lab.total("default", 1))
    assert found["cut"].predicted == pytest.approx(lab.total("cut", 1) / lab.total("fp16", 1), rel=0.02)
    assert choose_candidate(list(found.values())) == found["cut"]


def test_where_all_is_faster_in_int8_nothing_more_is_built(model: Model) -> None:
    lab = made(model, 0.5, 0.5, [])
    found = searched(lab)
    assert found["cut"].status is CandidateStatus.HOPELESS
    assert choose_candidate(list(found.values())) in (found["default"], found["own"]), "the table is just as fast"


def test_where_nothing_is_faster_fp16_is_the_answer(model: Model) -> None:
    lab = made(model, 1.2, 1.2, [])
    found = searched(lab)
    assert choose_candidate(list(found.values())) == found["fp16"]


def test_a_single_node_is_not_worth_its_borders(model: Model) -> None:
    names = weighted_names(model)
    lab = made(model, 1.2, 0.9, names[5:6], start=0.05)
    found = searched(lab)
    assert "cut" not in lab.built
    assert choose_candidate(list(found.values())) == found["fp16"]


def test_candidates_that_are_equal_are_built_once(model: Model) -> None:
    lab = made(model, 0.5, 0.5, [])
    names = [node.name for node in model.proto.graph.node]
    found = searched(replace(lab, costs=dict.fromkeys(names, (0.1, 0.05))))
    assert lab.built[:2] == ["fp16", "default"]
    assert (found["own"].status, found["own"].detail) == (CandidateStatus.SAME, "default")
    assert found["own"].times == {}


def test_tensorrt_11_has_no_table(model: Model) -> None:
    found = searched(made(model, 0.5, 2.0, weighted_names(model)[3:5], reads_tables=False, half=True))
    assert "table" not in found
    assert "own" not in found
    assert found["cut"].times


def test_a_candidate_that_cannot_be_built_is_told(model: Model) -> None:
    found = searched(made(model, 0.5, 2.0, weighted_names(model)[3:5], fails=frozenset({"default", "table"})))
    for name in ("default", "table"):
        assert found[name].outcome == "not built: TensorRT found no kernel for some layer"
    assert choose_candidate(list(found.values())) is not None


def test_no_layer_is_timed_when_the_time_is_over(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = made(model, 0.5, 2.0, weighted_names(model)[3:5])
    profiled: list[str] = []
    monkeypatch.setattr(lab, "profile", lambda built, _: profiled.append(built.name))
    found = searched(lab, 5.0)
    assert lab.built == ["fp16", "default"]
    assert not profiled
    assert found["cut"].status is CandidateStatus.NO_TIME


@pytest.mark.parametrize("error", [BackendError("no memory for a context", remedy=""), ValueError("no JSON")])
def test_layers_that_cannot_be_timed_cost_the_cut_alone(
    model: Model, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    lab = made(model, 0.5, 2.0, weighted_names(model)[3:5])

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(lab, "profile", fail)
    found = searched(lab)
    reason = "no memory for a context" if isinstance(error, BackendError) else "no JSON"
    assert found["cut"].outcome == f"not built: the layers could not be timed: {reason}"
    assert found["table"].times
    assert choose_candidate(list(found.values())) == found["own"], "the same as the table, in pairs"


def test_an_engine_that_does_not_fit_beside_the_others_costs_itself_alone(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = made(model, 0.5, 2.0, weighted_names(model)[3:5])
    whole = lab.time

    def crowded(room: int) -> Callable[..., object]:
        def time(built: Sequence[LabEngine]) -> object:
            if len(built) > room:
                raise BackendError("no memory for a context", remedy="close other programs")
            return whole(built)

        return time

    monkeypatch.setattr(lab, "time", crowded(3))
    found = searched(lab)
    assert [name for name, c in found.items() if c.times] == lab.built[:3]
    assert all("not timed beside the others: no memory" in found[name].outcome for name in lab.built[3:])
    monkeypatch.setattr(lab, "time", crowded(1))
    with pytest.raises(BackendError, match="could not be timed"):
        searched(lab)


def test_a_cut_whose_layers_cannot_be_timed_is_the_last(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = made(model, 0.5, 2.0, weighted_names(model)[6:12])
    whole = lab.profile

    def fail(built: LabEngine, batch: int) -> Sequence[ProfiledLayer]:
        if built.name == "cut":
            raise ValueError("no JSON")
        return whole(built, batch)

    monkeypatch.setattr(lab, "profile", fail)
    found = searched(lab)
    assert found["cut"].times
    assert found["cut 2"].outcome == "not built: the layers could not be timed: no JSON"


def test_other_policies_come_last(model: Model) -> None:
    lab = made(model, 0.5, 2.0, weighted_names(model)[3:5])
    found = searched(lab)
    assert list(found)[-2:] == ["conv-only", "all"]
    assert found["all"].placement.policy is Policy.ALL


def test_more_int8_is_hopeless_where_the_default_is_slower(model: Model) -> None:
    lab = made(model, 1.2, 1.2, [])
    found = searched(lab)
    assert found["all"].outcome == "not built: it promised no gain: the default is slower than FP16 already"
    assert "all" not in lab.built


@given(st.floats(0, 120), st.floats(1, 20))
@settings(max_examples=25, deadline=None)
def test_the_time_limit_is_kept(seconds: float, build: float) -> None:
    source = load_model(BUNDLED / "model.onnx")
    model = replace(source, proto=fold_batch_norms(source).proto)
    lab = made(model, 0.5, 2.0, weighted_names(model)[6:12], seconds=build)
    found = searched(lab, seconds)
    assert lab.built[:2] == ["fp16", "default"]
    needed = 2 * build + 5.0
    assert lab.clock.now <= max(seconds, needed)
    skipped = [c for c in found.values() if c.status is CandidateStatus.NO_TIME]
    assert all(c.times == {} for c in skipped)
    if seconds >= 20 * build + 60:
        assert skipped == []


def test_the_table_is_built_first_where_time_is_short(model: Model) -> None:
    lab = made(model, 0.5, 2.0, weighted_names(model)[6:12], seconds=10.0)
    searched(lab, 2 * 10.0 + 1.75 * 10.0 + 3.0)
    assert lab.built == ["fp16", "default", "table"]


@pytest.mark.parametrize("seconds", [5.0, 35.0, 50.0])
def test_the_note_names_a_time_that_is_enough(model: Model, seconds: float) -> None:
    labs = [made(model, 0.5, 2.0, weighted_names(model)[6:12]) for _ in range(2)]
    found = searched(labs[0], seconds)
    missing = {name for name, c in found.items() if c.status is CandidateStatus.NO_TIME}
    assert missing
    (note,) = time_left_note(tuple(found.values()), labs[0].clock.now)
    assert all(name in note for name in missing)
    (minutes,) = re.findall(r"--tune-time ([\d.]+)", note)
    again = searched(labs[1], 60.0 * float(minutes))
    assert not missing & {name for name, c in again.items() if c.status is CandidateStatus.NO_TIME}
    assert time_left_note(tuple(again.values())[:1], 0.0) == ()


@given(st.integers(0, 1 << 16), st.floats(0.3, 1.5), st.sampled_from([0.0, 0.01, 0.05]))
@settings(max_examples=25, deadline=None)
def test_the_answer_is_never_slower_than_fp16(seed: int, middle: float, noise: float) -> None:
    source = load_model(BUNDLED / "model.onnx")
    model = replace(source, proto=fold_batch_norms(source).proto)
    random = np.random.default_rng(seed)
    costs = {name: (0.1, 0.1 * middle * random.uniform(0.3, 2.0)) for name in weighted_names(model)}
    lab = SyntheticLab(model, costs, noise=noise, seed=seed, batches=(1, 8), start=float(random.uniform(0, 0.03)))
    found = searched(lab)
    answer = choose_candidate(list(found.values()))
    assert answer is not None
    for batch, times in answer.times.items():
        assert times.median <= 1.03 * found["fp16"].times[batch].median
    if not noise:
        least = min(relative_times(list(found.values())), key=lambda item: item.times.median)
        slower = any(lab.total(least.candidate.name, batch) > lab.total("fp16", batch) for batch in lab.batches)
        near = answer.name in (least.candidate.name, *ties(list(found.values()), least.candidate))
        assert least.times.median > 1 / 1.031 or slower or near


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_same_choice_when_repeated_or_a_tie(model: Model, noise: float) -> None:
    slow = weighted_names(model)[6:12]
    labs = [made(model, 0.5, 2.0, slow, noise=noise, seed=seed) for seed in range(3)]
    answers = [choose_candidate(list(searched(lab).values())) for lab in labs]
    totals = [lab.total(answer.name, 1) for lab, answer in zip(labs, answers, strict=True) if answer]
    assert len(totals) == 3
    assert max(totals) <= (1.0 + noise) * min(totals)
    if not noise:
        assert len({(answer.name, answer.placement.kept) for answer in answers if answer}) == 1


def test_ties_are_named(model: Model) -> None:
    found = list(searched(made(model, 0.5, 0.5, [], noise=0.02)).values())
    answer = choose_candidate(found)
    assert answer is not None
    assert {answer.name, *ties(found, answer)} == {"default", "table", "own"}
