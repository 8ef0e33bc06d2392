"""What the metadata of a network declare."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.metrics.task import NetworkFacts, Task, network_facts

ULTRALYTICS = {"author": "Ultralytics", "task": "pose", "stride": "32", "imgsz": "[640, 640]"}
NAMES = st.dictionaries(st.integers(0, 5), st.sampled_from(["cat", "driver's license", "no", "a: b", "é", "7"]))


@given(NAMES.map(lambda found: dict(enumerate(found.values()))))
def test_names_as_python_prints_them(names: dict[int, str]) -> None:
    found = network_facts({**ULTRALYTICS, "names": repr(names), "kpt_shape": "[17, 3]"})
    assert found == NetworkFacts(Task.POSE, tuple(names.values()), (17, 3))


def test_the_author_may_be_removed() -> None:
    facts = network_facts({"task": "detect", "stride": "32", "names": "['a', 'b']"})
    assert facts == NetworkFacts(Task.DETECT, ("a", "b"))


@pytest.mark.parametrize("metadata", [{}, {"task": "detect"}, {"author": "somebody", "names": "{0: 'a'}"}])
def test_metadata_of_others_declare_nothing(metadata: dict[str, str]) -> None:
    assert network_facts(metadata) == NetworkFacts()


@pytest.mark.parametrize("names", ["{1: 'a'}", "{'a': 0}", "[" * 9999, "{0: 'a'", "5", "", "{0: 'a', 0: 'b'}", "*x"])
@pytest.mark.parametrize("keypoints", ["[17]", "[17, 4]", "[-1, 3]", "[17.0, 3]", "[99999999, 3]", "17, 3", "(17, 3)"])
def test_damaged_entries_declare_nothing(names: str, keypoints: str) -> None:
    damaged = {**ULTRALYTICS, "task": "dance", "names": names, "kpt_shape": keypoints}
    assert network_facts(damaged) == NetworkFacts()
