"""Training on one GPU: images stay in its memory, seeds are fixed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from architectures.compositions import DEVIATION, MEAN, compose
from architectures.networks import Architecture, Detector

BATCH = 256
SEED = 0
COMPOSED = 8192
"""Compositions to train on; those to test on have another seed."""
TESTED = 2000
TEST_SEED = 1

Batch = tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Images, uint8 [N, 3, H, W], and what a network should say of them, on the GPU."""

    images: torch.Tensor
    targets: Batch


def training_data(made: Architecture, objects: tuple[Any, Any], count: int, seed: int) -> TrainingData:
    """Return the data of a network's task, made of objects of CIFAR-10."""
    if made.task == "classes":
        return on_gpu(objects[0], objects[1])
    found = compose(*objects, count, made.side, seed)
    if made.task == "masks":
        return on_gpu(found.images, found.masks)
    return on_gpu(found.images, found.boxes, found.classes)


def on_gpu(images: Any, *targets: Any) -> TrainingData:
    """Move arrays to the GPU, channels first."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().cuda()
    return TrainingData(pixels, tuple(torch.from_numpy(target).cuda() for target in targets))


def normalized(images: torch.Tensor) -> torch.Tensor:
    """Return what the networks read: float32, normalized."""
    mean, deviation = (torch.from_numpy(v).cuda().view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return (images.float() / 255 - mean) / deviation


def augmented(images: torch.Tensor) -> torch.Tensor:
    """Move every image by up to four pixels, mirror half of them, and grey out a square of ten pixels."""
    n, _, height, width = images.shape
    padded = functional.pad(images.float(), (4, 4, 4, 4), mode="reflect")
    x, y = torch.randint(0, 9, (2, n, 1), device="cuda")
    columns = torch.arange(width, device="cuda") + x
    columns = torch.where(torch.rand(n, 1, device="cuda") < 0.5, columns.flip(1), columns)
    rows = torch.arange(height, device="cuda") + y
    moved = padded[torch.arange(n, device="cuda")[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    cx, cy = torch.randint(0, width, (2, n, 1, 1), device="cuda")
    across = (torch.arange(width, device="cuda") - cx).abs() < 5
    down = (torch.arange(height, device="cuda")[:, None] - cy).abs() < 5
    return torch.where((across & down)[:, None], 128.0, moved.permute(0, 3, 1, 2))


def loss_of(made: Architecture, network: nn.Module, images: torch.Tensor, targets: Batch) -> torch.Tensor:
    """Return the mean loss of a batch."""
    if made.task == "boxes":
        return box_loss(network, normalized(images), *targets)
    if made.task == "classes":
        return functional.cross_entropy(network(normalized(augmented(images))), targets[0])
    return functional.cross_entropy(network(normalized(images)), targets[0].long())


def box_loss(network: Detector, images: torch.Tensor, boxes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Focal loss of the scores, and 1 − IoU of the boxes of cells inside an object of their level's size."""
    scores, found = network(images)
    centres, steps = network.centres, network.steps.squeeze(1)
    inside = torch.stack(
        [centres[None, :, None] - boxes[:, None, :, :2], boxes[:, None, :, 2:] - centres[None, :, None]]
    )
    size = (boxes[..., 2] - boxes[..., 0])[:, None]  # [N, 1, objects]
    level = torch.where(size <= 20, 4.0, torch.where(size <= 40, 8.0, 16.0))
    own = (inside.amin(dim=(0, 4)) > 0.2 * size) & (level == steps[None, :, None]) & (classes >= 0)[:, None]
    hit, which = own.max(2)
    wanted = torch.zeros_like(scores)
    label = classes.gather(1, which).clamp(min=0)
    wanted.scatter_(2, label[..., None], hit.float()[..., None])
    cross = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    chance = torch.sigmoid(scores)
    focal = ((wanted - chance).abs() ** 2 * cross * torch.where(wanted > 0, 0.5, 0.5)).sum()
    target = boxes.gather(1, which[..., None].expand(-1, -1, 4))[hit]
    overlap = iou(found[hit], target)
    return (focal + (1 - overlap).sum()) / hit.sum().clamp(min=1)


def iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return intersection over union of boxes in pairs: [n, 4], [n, 4] → [n]."""
    low, high = torch.maximum(one[:, :2], other[:, :2]), torch.minimum(one[:, 2:], other[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    areas = [(v[:, 2:] - v[:, :2]).clamp(min=0).prod(1) for v in (one, other)]
    return common / (areas[0] + areas[1] - common).clamp(min=1e-6)


def right(made: Architecture, network: nn.Module, data: TrainingData) -> float:
    """Return the share of images, or of pixels, whose class is right; of a detector, of object cells."""
    network.eval()
    hits = total = 0
    with torch.no_grad():
        for k in range(0, len(data.images), BATCH):
            predictions = network(normalized(data.images[k : k + BATCH]))
            if made.task == "boxes":
                scores, _ = predictions
                boxes, classes = (target[k : k + BATCH] for target in data.targets)
                middle = (boxes[..., :2] + boxes[..., 2:]) / 2
                nearest = (network.centres[None, :, None] - middle[:, None]).square().sum(-1)
                size = (boxes[..., 2] - boxes[..., 0])[:, None]
                level = torch.where(size <= 20, 4.0, torch.where(size <= 40, 8.0, 16.0))
                nearest = nearest + 1e9 * (level != network.steps[None])
                cell = nearest.argmin(1)
                guess = scores.gather(1, cell[..., None].expand(-1, -1, scores.shape[2])).argmax(2)
                counted = classes >= 0
                hits += int(((guess == classes) & counted).sum())
                total += int(counted.sum())
            else:
                wanted = data.targets[0][k : k + BATCH]
                hits += int((predictions.argmax(1) == wanted).sum())
                total += wanted.numel()
    return hits / total


def train(made: Architecture, data: TrainingData, epochs: int, say: Callable[[str], None]) -> nn.Module:
    """Train a network from its seed."""
    torch.manual_seed(SEED)
    network = made.make().cuda().train()
    steps = epochs * (len(data.images) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), made.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, made.rate, total_steps=steps, pct_start=0.2)
    begun, total = time.monotonic(), torch.zeros((), device="cuda")
    for epoch in range(epochs):
        total.zero_()
        order = torch.randperm(len(data.images), device="cuda")
        for part in order[: len(order) // BATCH * BATCH].split(BATCH):
            loss = loss_of(made, network, data.images[part], tuple(target[part] for target in data.targets))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.detach()
        if epoch % 20 == 19:
            mean = float(total) / (len(order) // BATCH)
            say(f"{made.name}: epoch {epoch + 1}, loss {mean:.3f}, {time.monotonic() - begun:.0f} s")
    return network


def export(made: Architecture, network: nn.Module, target: Path) -> None:
    """Export by torch as its users do: in evaluation mode, with BatchNorms folded and a dynamic batch."""
    outputs = ["scores", "boxes"] if made.task == "boxes" else ["masks"] if made.task == "masks" else ["logits"]
    torch.onnx.export(
        network.cpu().eval(), torch.randn(2, 3, made.side, made.side), str(target), input_names=["image"],
        output_names=outputs, dynamic_axes={name: {0: "N"} for name in ("image", *outputs)}, opset_version=17,
        dynamo=False,
    )  # fmt: skip
