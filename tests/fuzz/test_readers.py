"""Every reader under changed documents: a value, or one error with a remedy, without a warning and at once.

`benchmarks/fuzz.py` reads many more; a fault that it finds is reproduced here by its kind and seed.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hostile import KINDS, document_of, kept_samples, outcome_of

FEW = 100
LONGEST = 20.0
"""Seconds for one document, on a machine with loaded cores."""
NOT_ACCEPTED = {"quantize": 1}
"""Kind → its samples that are refused: a network that is already quantized."""
FOUND = [
    ("quantize", 72),  # InferenceError of onnx's converter
    ("class names, JSON", 259),  # a name of spaces
    ("statistics, sealed", 51),  # a range beyond float32
    ("statistics, sealed", 18578),  # a name with half of a surrogate pair
    ("array", 10424),  # a header that Python 2 wrote
    ("model", 4640),  # a matrix product without operands
    ("lint", 4851),  # a Relu without an input
    ("quantize", 4640),
]
"""Documents that once made a fault."""


@pytest.mark.parametrize("name", KINDS)
def test_samples_are_accepted(name: str, tmp_path: Path) -> None:
    """Without a change the documents are valid, so that changed ones reach what is behind the first check."""
    kind = KINDS[name]
    refused = 0
    for content in kept_samples(kind):
        (tmp_path / kind.name).write_bytes(content)
        found = outcome_of(kind, tmp_path / kind.name)
        assert not found.text
        refused += found.refused
    assert refused == NOT_ACCEPTED.get(name, 0)


@pytest.mark.parametrize("name", KINDS)
def test_changed_documents_are_values_or_errors(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The law, for documents that stay the same from run to run."""
    kind = KINDS[name]
    for seed in range(5 if request.config.getoption("--fast") else FEW):
        (tmp_path / kind.name).write_bytes(document_of(kind, seed))
        started = time.monotonic()
        assert not outcome_of(kind, tmp_path / kind.name).text, f"seed {seed}"
        assert time.monotonic() - started < LONGEST


@pytest.mark.parametrize(("name", "seed"), FOUND)
def test_faults_do_not_come_back(name: str, seed: int, tmp_path: Path) -> None:
    """What the benchmark found once."""
    kind = KINDS[name]
    (tmp_path / kind.name).write_bytes(document_of(kind, seed))
    assert not outcome_of(kind, tmp_path / kind.name).text


@settings(max_examples=200)
@given(name=st.sampled_from(sorted(KINDS)), content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_value_or_an_error(name: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Documents that have nothing in common with a sample."""
    path = tmp_path_factory.getbasetemp() / KINDS[name].name
    path.write_bytes(content)
    assert not outcome_of(KINDS[name], path).text
