"""The networks that placements are compared on, as torch exports them. Nothing here needs quantkit."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0
PERIOD = 1021
"""Random weights repeat after so many values: their files compress a hundredfold, and are copied in seconds."""
CALIBRATION = 16
"""Made-up samples to calibrate a network on that has no data."""


@dataclass(frozen=True, slots=True)
class BenchmarkNetwork:
    """A network. timm: its name there; trained: its file lies among the trained models; side: pixels of its input;
    batches: those that are timed."""

    name: str
    side: int
    timm: str | None = None
    trained: bool = False
    labelled: bool = False
    batches: tuple[int, ...] = (1, 32)


NETWORKS = {
    network.name: network
    for network in (
        BenchmarkNetwork("resnet20", 32, trained=True, labelled=True),
        BenchmarkNetwork("resnet50", 224, "resnet50"),
        BenchmarkNetwork("yolov8n", 640, trained=True, batches=(1, 8)),
        BenchmarkNetwork("mobilenetv2", 32, trained=True, labelled=True),
        BenchmarkNetwork("efficientnet-b0", 224, "efficientnet_b0"),
        BenchmarkNetwork("deit-small", 224, "deit_small_patch16_224"),
        BenchmarkNetwork("shared-head", 512, batches=(1, 8)),
        BenchmarkNetwork("vit", 32, trained=True, labelled=True),
        BenchmarkNetwork("convnext-tiny", 224, "convnext_tiny"),
        BenchmarkNetwork("regnety", 224, "regnety_016"),
        BenchmarkNetwork("mobilenetv3", 224, "mobilenetv3_large_100"),
    )
}
"""By importance: if the time on the GPU ends, it ends the last ones."""


def write_network(network: BenchmarkNetwork, models: Path, target: Path) -> None:
    """Write a network as ONNX: trained, or with random weights of usual size, for which only times mean something."""
    if network.name == "yolov8n":
        write_resized(models / "yolov8n.onnx", target, network.side)
    elif network.trained:
        shutil.copyfile(models / f"{network.name}.onnx", target)
    else:
        export_network(network, target)


def export_network(network: BenchmarkNetwork, target: Path) -> None:
    """Export an architecture by torch as its users do: in evaluation mode, with BatchNorms folded."""
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(4)
    if network.timm:
        import timm

        module = timm.create_model(network.timm, pretrained=False).eval()
    else:
        from placements.shared_head import SharedHead

        module = SharedHead().eval()
    for part in module.modules():  # residual blocks begin with a scale of 0: TensorRT 8.6 builds no Q/DQ around zeros
        if isinstance(part, torch.nn.BatchNorm2d) and not part.weight.abs().max():
            torch.nn.init.constant_(part.weight, 0.5)
    pattern = torch.randn(PERIOD)
    for weight in module.parameters():
        if weight.dim() > 1 and weight.numel() > PERIOD:
            repeated = pattern.repeat(-(-weight.numel() // PERIOD))[: weight.numel()]
            weight.data = repeated.reshape(weight.shape) * weight.data.std()
    torch.onnx.export(
        module, torch.randn(1, 3, network.side, network.side), str(target), input_names=["image"],
        output_names=["out"], dynamic_axes={"image": {0: "N"}, "out": {0: "N"}}, opset_version=17, dynamo=False,
    )  # fmt: skip


def write_resized(source: Path, target: Path, side: int) -> None:
    """Write a detector, whose grid depends on its input's shape, for images of another size."""
    import onnx

    proto = onnx.load(str(source))
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = side
    del proto.graph.value_info[:]
    for dimension in proto.graph.output[0].type.tensor_type.shape.dim[1:]:
        dimension.Clear()
    onnx.save(proto, str(target))


def made_up_images(network: BenchmarkNetwork) -> np.ndarray[Any, Any]:
    """Return images of coarse and of fine noise: float32 [CALIBRATION, 3, side, side]."""
    random = np.random.default_rng(SEED)
    block = 16
    coarse = random.normal(0, 1, (CALIBRATION, 3, network.side // block, network.side // block))
    fine = random.normal(0, 1, (CALIBRATION, 3, network.side, network.side))
    return (coarse.repeat(block, 2).repeat(block, 3) + 0.2 * fine).astype(np.float32)
