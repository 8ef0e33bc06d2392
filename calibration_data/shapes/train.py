"""Rebuild the networks of this folder: draw shapes, train, export to ONNX as Ultralytics' exports look.

Needs Python 3.10 or newer and: pip install torch onnx pillow

    python train.py            train best.onnx, a detector of the YOLOv8 kind
    python train.py --segment  train segment.onnx, a semantic segmentation network
    python train.py --device cuda

Each takes two minutes on a GPU, an hour on two cores.

The images are those of draw.py, with seeds that neither its calibration nor its evaluation data have. The layout of the
detector (stem, C2f blocks, SPPF, feature pyramid, decoupled heads with distribution focal loss) follows the published
descriptions of YOLOv8; the code and the weights are this project's own, under its licence. On one machine a rebuild
gives the same weights; another CPU or another PyTorch may round differently. Run `python ../train.py --manifest-only`
afterwards.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from draw import HEIGHT, NAMES, WIDTH, Drawing, draw
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

FOLDER = Path(__file__).resolve().parent
SIDE = 96
"""Height and width of the input."""
FIRST_SEED = 1 << 24
"""Below it are the seeds of the data for calibration and evaluation."""
STRIDES = (4, 8, 16)
BINS = 8
"""Distances from a cell to the sides of its box are distributions over 0 … BINS − 1 strides."""
MOST = 6
"""Objects in an image."""
CHOSEN = 9
"""Cells that an object is learnt by."""
OPSET = 17

Array = npt.NDArray[np.float32]


# --- data -----------------------------------------------------------------------------------


def letterbox(pixels: npt.NDArray[np.uint8], filling: int, how: Image.Resampling) -> npt.NDArray[np.uint8]:
    """The image, scaled to the input's size with its proportions kept, on a canvas of one colour."""
    ratio = min(SIDE / WIDTH, SIDE / HEIGHT)
    wide, tall = round(WIDTH * ratio), round(HEIGHT * ratio)
    canvas = np.full((SIDE, SIDE, *pixels.shape[2:]), filling, np.uint8)
    left, top = (SIDE - wide) // 2, (SIDE - tall) // 2
    canvas[top : top + tall, left : left + wide] = np.asarray(Image.fromarray(pixels).resize((wide, tall), how))
    return canvas


def scenes(count: int, masks: bool) -> tuple[Tensor, Tensor]:
    """Images [N, 3, SIDE, SIDE] as bytes; objects [N, MOST, 5] as class and box, class −1 for none, or masks."""
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    with multiprocessing.Pool() as pool:
        drawings = pool.imap(draw, range(FIRST_SEED, FIRST_SEED + count), chunksize=64)
        return collected(drawings, images, masks)


def collected(drawings: Iterable[Drawing], images: Array, masks: bool) -> tuple[Tensor, Tensor]:
    """The drawings as tensors; `images` [N, SIDE, SIDE, 3] is filled."""
    count = len(images)
    objects = np.full((count, MOST, 5), -1, np.float32)
    classes = np.zeros((count, SIDE, SIDE), np.uint8)
    ratio, top = SIDE / WIDTH, (SIDE - round(HEIGHT * SIDE / WIDTH)) // 2
    for at, drawing in enumerate(drawings):
        images[at] = letterbox(drawing.pixels, 114, Image.Resampling.BILINEAR)
        if masks:
            classes[at] = letterbox(drawing.mask, 0, Image.Resampling.NEAREST)
        for row, shape in enumerate(drawing.shapes):
            objects[at, row] = [shape.kind, *(v * ratio + top * (i % 2) for i, v in enumerate(shape.box))]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.from_numpy(classes).long() if masks else torch.from_numpy(objects)


def flipped(images: Tensor, truth: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch mirrored and recoloured by chance; the canvas is mirrored with it, which changes nothing."""
    images = images.float() / 255
    images = images[:, torch.randperm(3, generator=generator)]
    if torch.rand(1, generator=generator) < 0.5:
        images = images.flip(3)
        if truth.ndim == 3 and truth.shape[2] == 5:
            left = truth[..., 1].clone()
            truth = truth.clone()
            truth[..., 1], truth[..., 3] = SIDE - truth[..., 3], SIDE - left
        else:
            truth = truth.flip(2)
    return images, truth


# --- network --------------------------------------------------------------------------------


class Conv(nn.Module):
    """Convolution, batch normalization, SiLU."""

    def __init__(self, inward: int, outward: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inward, outward, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outward, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, inward, H, W] to [N, outward, H/stride, W/stride]."""
        return self.act(self.bn(self.conv(x)))


class C2f(nn.Module):
    """Split, one residual bottleneck on a half, concatenation of all parts."""

    def __init__(self, inward: int, outward: int, shortcut: bool = True) -> None:
        super().__init__()
        half = outward // 2
        self.cv1, self.cv2 = Conv(inward, outward, 1), Conv(3 * half, outward, 1)
        self.m = nn.Sequential(Conv(half, half), Conv(half, half))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[N, inward, H, W] to [N, outward, H, W]."""
        first, second = self.cv1(x).chunk(2, 1)
        third = self.m(second)
        return self.cv2(torch.cat([first, second, second + third if self.shortcut else third], 1))


class SPPF(nn.Module):
    """Three max-pools after one another, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(channels, channels // 2, 1), Conv(channels * 2, channels, 1)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        found = [self.cv1(x)]
        for _ in range(3):
            found.append(self.m(found[-1]))
        return self.cv2(torch.cat(found, 1))


class Pyramid(nn.Module):
    """Features at strides 4, 8 and 16, from the image down and up and down again."""

    CHANNELS = (12, 16, 24)

    def __init__(self) -> None:
        super().__init__()
        a, b, c = self.CHANNELS
        self.stem, self.down1, self.c2f1 = Conv(3, 8, 3, 2), Conv(8, a, 3, 2), C2f(a, a)
        self.down2, self.c2f2 = Conv(a, b, 3, 2), C2f(b, b)
        self.down3, self.sppf = Conv(b, c, 3, 2), SPPF(c)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top1, self.top2 = C2f(c + b, b, False), C2f(b + a, a, False)
        self.down4, self.out2 = Conv(a, a, 3, 2), C2f(a + b, b, False)
        self.down5, self.out3 = Conv(b, b, 3, 2), C2f(b + c, c, False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, H, W] to three maps."""
        four = self.c2f1(self.down1(self.stem(image)))
        eight = self.c2f2(self.down2(four))
        sixteen = self.sppf(self.down3(eight))
        eight = self.top1(torch.cat([self.up(sixteen), eight], 1))
        four = self.top2(torch.cat([self.up(eight), four], 1))
        eight = self.out2(torch.cat([self.down4(four), eight], 1))
        return [four, eight, self.out3(torch.cat([self.down5(eight), sixteen], 1))]


class Detect(nn.Module):
    """For every cell of three maps a box and a score for each class."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.cv2 = nn.ModuleList(nn.Sequential(Conv(c, 12), nn.Conv2d(12, 4 * BINS, 1)) for c in channels)
        self.cv3 = nn.ModuleList(
            nn.Sequential(Conv(c, c, 3, groups=c), Conv(c, 16, 1), nn.Conv2d(16, len(NAMES), 1)) for c in channels
        )
        for head in self.cv3:
            nn.init.constant_(head[-1].bias, -4.0)
        cells = [
            (torch.stack(torch.meshgrid(a, a, indexing="xy")), s) for s in STRIDES if len(a := torch.arange(SIDE // s))
        ]
        self.register_buffer("cells", torch.cat([c.reshape(2, -1) + 0.5 for c, _ in cells], 1), persistent=False)
        strides = torch.cat([torch.full((1, c[0].numel()), float(s)) for c, s in cells], 1)
        self.register_buffer("strides", strides, persistent=False)
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32).reshape(1, BINS, 1, 1), persistent=False)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The distributions [N, 4·BINS, A] and the classes' logits [N, C, A]."""
        sides = [head(x).flatten(2) for head, x in zip(self.cv2, maps, strict=True)]
        classes = [head(x).flatten(2) for head, x in zip(self.cv3, maps, strict=True)]
        return torch.cat(sides, 2), torch.cat(classes, 2)

    def corners(self, sides: Tensor) -> Tensor:
        """Boxes [N, 4, A] as x1, y1, x2, y2 in pixels of the input."""
        count, _, anchors = sides.shape
        shares = sides.view(count, 4, BINS, anchors).transpose(1, 2).softmax(1)
        distances = (shares * self.bins).sum(1)
        near, far = self.cells - distances[:, :2], self.cells + distances[:, 2:]
        return torch.cat([near, far], 1) * self.strides


class Detector(nn.Module):
    """A pyramid and its heads."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.detect = Pyramid(), Detect(Pyramid.CHANNELS)

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, 4 + C, A]: centre, size in pixels of the input, and scores."""
        sides, classes = self.detect(self.model(image))
        corners = self.detect.corners(sides)
        centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        return torch.cat([centre, size, classes.sigmoid()], 1)


class Segmenter(nn.Module):
    """A small encoder and decoder: a class for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down1, self.down2 = Conv(3, 8, 3, 2), Conv(8, 16, 3, 2), Conv(16, 24, 3, 2)
        self.middle = C2f(24, 24)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.merge1, self.merge2 = Conv(40, 12), Conv(20, 12)
        self.head = nn.Conv2d(12, 1 + len(NAMES), 1)

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] to logits [N, 1 + C, H, W]."""
        half = self.stem(image)
        quarter = self.down1(half)
        x = self.up(self.middle(self.down2(quarter)))
        x = self.up(self.merge1(torch.cat([x, quarter], 1)))
        return self.up(self.head(self.merge2(torch.cat([x, half], 1))))


# --- loss -----------------------------------------------------------------------------------


def box_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU of boxes [..., 4] (Zheng et al., AAAI 2020)."""
    near, far = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    common = (far - near).clamp(min=0).prod(-1)
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    union = size_a.prod(-1) + size_b.prod(-1) - common + 1e-7
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).square().sum(-1) + 1e-7
    apart = ((a[..., :2] + a[..., 2:]) - (b[..., :2] + b[..., 2:])).square().sum(-1) / 4
    angle = torch.atan2(size_b[..., 0], size_b[..., 1] + 1e-7) - torch.atan2(size_a[..., 0], size_a[..., 1] + 1e-7)
    shape = (2 / np.pi * angle).square() / 4
    iou = common / union
    with torch.no_grad():
        weight = shape / (1 - iou + shape + 1e-7)
    return iou - apart / hull - weight * shape


def assign(scores: Tensor, boxes: Tensor, truth: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """For every cell the object that it learns, [N, A] (−1: none), and how good it is for it (TOOD, ICCV 2021)."""
    kinds, objects = truth[..., 0].long(), truth[..., 1:]
    inside = (centres > objects[:, :, None, :2]).all(-1) & (centres < objects[:, :, None, 2:]).all(-1)
    near = ((centres - (objects[:, :, None, :2] + objects[:, :, None, 2:]) / 2).abs() < 4).all(-1)
    possible = (inside | near) & (kinds >= 0)[..., None]
    fit = box_overlap(boxes[:, None], objects[:, :, None]).clamp(min=0) * possible
    chance = scores.gather(2, kinds.clamp(min=0)[:, None].expand(-1, scores.shape[1], -1)).transpose(1, 2)
    value = chance.sqrt() * fit.pow(6) + 1e-9 * possible
    best = torch.zeros_like(value).scatter_(2, value.topk(CHOSEN, 2).indices, 1.0) * possible
    value, fit = value * best, fit * best
    target = value / value.amax(2, keepdim=True).clamp(min=1e-12) * fit.amax(2, keepdim=True)
    quality, chosen = target.max(1)
    _, chosen = (value + best * 1e-12).max(1)
    return torch.where(best.amax(1) > 0, chosen, -1), quality


def detection_loss(network: Detector, images: Tensor, truth: Tensor) -> Tensor:
    """Box, distribution and class losses in YOLOv8's proportions."""
    detect = network.detect
    sides, logits = detect(network.model(images))
    boxes, scores = detect.corners(sides).transpose(1, 2), logits.transpose(1, 2)
    with torch.no_grad():
        chosen, quality = assign(scores.sigmoid(), boxes, truth, (detect.cells * detect.strides).T)
    taken = chosen >= 0
    mine = truth.gather(1, chosen.clamp(min=0)[..., None].expand(-1, -1, 5))
    goal = torch.zeros_like(scores)
    goal.scatter_(2, mine[..., :1].long().clamp(min=0), (quality * taken)[..., None])
    total = goal.sum().clamp(min=1.0)
    loss = 0.5 * functional.binary_cross_entropy_with_logits(scores, goal, reduction="sum") / total
    weight = goal.sum(2)[taken]
    loss = loss + 7.5 * ((1 - box_overlap(boxes[taken], mine[taken][:, 1:])) * weight).sum() / total
    cells, strides = (
        detect.cells.T.expand(len(images), -1, -1)[taken],
        detect.strides.T.expand(len(images), -1, -1)[taken],
    )
    object_ = mine[taken][:, 1:] / strides
    distances = torch.cat([cells - object_[:, :2], object_[:, 2:] - cells], 1).clamp(0, BINS - 1.01)
    low = distances.long()
    share = distances - low
    spread = sides.transpose(1, 2)[taken].view(-1, 4, BINS).transpose(1, 2)
    left = functional.cross_entropy(spread, low, reduction="none") * (1 - share)
    right = functional.cross_entropy(spread, low + 1, reduction="none") * share
    return loss + 1.5 * ((left + right).mean(1) * weight).sum() / total


def segmentation_loss(network: Segmenter, images: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy over the pixels."""
    return functional.cross_entropy(network(images), truth)


# --- all of it ------------------------------------------------------------------------------


def train(segment: bool, count: int, epochs: int, device: str, batch: int = 64) -> nn.Module:
    """A network trained on `count` images, its weights averaged over the last steps, in evaluation mode."""
    torch.manual_seed(8)
    generator = torch.Generator().manual_seed(8)
    images, truth = scenes(count, segment)
    images, truth = images.to(device), truth.to(device)
    network: nn.Module = (Segmenter() if segment else Detector()).to(device)
    print(f"{sum(p.numel() for p in network.parameters())} parameters, {count} images")
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3, weight_decay=1e-2)
    steps = epochs * (count // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps, pct_start=0.1)
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    for epoch in range(epochs):
        started, total, order = time.monotonic(), 0.0, torch.randperm(count, generator=generator)
        for at in range(0, count - batch + 1, batch):
            pick = order[at : at + batch].to(device)
            x, y = flipped(images[pick], truth[pick], generator)
            loss = (segmentation_loss if segment else detection_loss)(network, x, y)  # type: ignore[operator]
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(network)
            total += loss.item()
        print(
            f"epoch {epoch + 1}/{epochs}  loss {total / (count // batch):.4f}  {time.monotonic() - started:.0f} s",
            flush=True,
        )
    return averaged.module.eval().cpu()


def export(network: nn.Module, path: Path, segment: bool) -> None:
    """Write the network with its batch axis dynamic, and the metadata that tells what it is."""
    for module in list(network.modules()):
        if isinstance(module, Conv):
            module.conv = nn.utils.fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    axes = {"images": {0: "batch"}, "output0": {0: "batch"}}
    torch.onnx.export(
        network, (torch.zeros(1, 3, SIDE, SIDE),), str(path), dynamo=False, opset_version=OPSET,
        input_names=["images"], output_names=["output0"], dynamic_axes=axes,
    )  # fmt: skip
    model = onnx.load(path)
    names = dict(enumerate(("background", *NAMES) if segment else NAMES))
    metadata = {
        "description": "quantkit's network of drawn shapes",
        "license": "Apache-2.0",
        "task": "semantic" if segment else "detect",
        "stride": str(8 if segment else max(STRIDES)),
        "batch": "1",
        "imgsz": str([SIDE, SIDE]),
        "names": str(names),
        "channels": "3",
    }
    onnx.helper.set_model_props(model, metadata)
    shape = (
        [1 + len(NAMES), SIDE, SIDE] if segment else [4 + len(NAMES), sum((SIDE // stride) ** 2 for stride in STRIDES)]
    )
    output = onnx.helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, ["batch", *shape])
    model.graph.output[0].CopyFrom(output)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    print(f"{path.name}: {path.stat().st_size} bytes")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Train the networks of the shapes.")
    parser.add_argument("--segment", action="store_true", help="the segmentation network rather than the detector")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--output", type=Path, help="default: best.onnx or segment.onnx in this folder")
    options = parser.parse_args()
    network = train(options.segment, options.images, options.epochs, options.device)
    path = options.output or FOLDER / ("segment.onnx" if options.segment else "best.onnx")
    export(network, path, options.segment)


if __name__ == "__main__":
    main()
