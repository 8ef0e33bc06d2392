"""The roofline estimate: what makes it larger, and the figures of GPUs that it is made from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.backends.tensorrt_rtx.architectures import ARCHITECTURES
from quantkit.compiling.gpus import GPUS, USUAL, Gpu, check_gpus, gpu_architectures, parse_gpus, usual_gpus
from quantkit.compiling.roofline import LAUNCH, estimate_network
from quantkit.errors import UsageError
from tests.compiling.networks import convolution, network_of, quantized_chain, tensor

SOME = st.sampled_from(list(GPUS.values()))


@given(SOME, st.integers(1, 5))
def test_an_estimate_is_the_sum_of_its_kernels(gpu: Gpu, length: int) -> None:
    whole, one = (estimate_network(quantized_chain(n), {}, gpu) for n in (length, 1))
    assert whole.milliseconds == pytest.approx(length * one.milliseconds)
    assert whole.launch == pytest.approx(2 * length * LAUNCH / 1e3)
    assert whole.unknown == 0


@given(SOME, st.integers(1, 5))
def test_a_gpu_twice_as_good_takes_half_the_time_beside_launches(gpu: Gpu, length: int) -> None:
    network = quantized_chain(length)
    better = replace(gpu, bandwidth=2 * gpu.bandwidth, peaks={kind: 2 * peak for kind, peak in gpu.peaks.items()})
    theirs, ours = (estimate_network(network, {}, one) for one in (gpu, better))
    assert ours.compute + ours.memory == pytest.approx((theirs.compute + theirs.memory) / 2)
    assert ours.launch == theirs.launch


def test_the_larger_of_both_times_counts() -> None:
    """A convolution of float32, by hand, on a GPU with round figures."""
    network = network_of(convolution("conv", tensor("x", "FP32"), tensor("y", "FP32"), kind="FP32"))
    operations = 2 * 32 * 64 * 32 * 9
    moved = 4 * (2 * 32 * 64 + 32 * 32 * 9)
    gpu = replace(GPUS["h200"], peaks={"FP32": 1e-3, "TF32": 1e3, "FP16": 2e3}, bandwidth=1.0)
    slow = estimate_network(network, {}, gpu, float32="FP32")
    assert (slow.compute, slow.memory) == (pytest.approx(operations / 1e9 * 1e3), 0.0)
    fast = estimate_network(network, {}, gpu, float32="TF32")
    assert (fast.compute, fast.memory) == (0.0, pytest.approx(moved / 1e9 * 1e3))


# ── GPUs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("key", GPUS)
def test_figures_are_plausible_and_have_sources(key: str) -> None:
    gpu = GPUS[key]
    assert gpu.key == key
    assert gpu.architecture in ARCHITECTURES
    assert gpu.peaks["INT8"] >= gpu.peaks["FP16"] >= gpu.peaks["TF32"] >= gpu.peaks["FP32"] > 0
    assert 1.9 <= gpu.peaks["INT8"] / gpu.peaks["FP16"] <= 4.1
    assert 100 < gpu.bandwidth < 10_000
    assert all(source.startswith("http") for source in gpu.sources)


def test_gpus_are_parsed_as_people_write_them() -> None:
    assert parse_gpus("L4, RTX-4090,l4") == ("l4", "rtx4090")
    assert gpu_architectures(("h200", "t4")) == ("sm75", "sm89")
    assert usual_gpus(("sm121", "sm86")) == ("a40",)
    assert all(GPUS[gpu].architecture == name and not GPUS[gpu].nearest for name, gpu in USUAL.items())
    for wrong in ("orin", "", ",", "l4,x"):
        with pytest.raises(UsageError):
            parse_gpus(wrong)
    with pytest.raises(UsageError, match="no GPU"):
        check_gpus(())
