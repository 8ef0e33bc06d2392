"""The architectures, of torchvision and timm where they have them, small enough to be trained in minutes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import timm
import torch
from torch import nn
from torchvision.models import DenseNet, EfficientNet, MobileNetV3, RegNet, ShuffleNetV2, SqueezeNet, SwinTransformer
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams

CLASSES = 10


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network to train. task: `classes` of CIFAR-10's images; `masks` or `boxes` of compositions of `side` pixels.
    rate: the highest learning rate."""

    name: str
    make: Callable[[], nn.Module]
    task: str = "classes"
    side: int = 32
    rate: float = 2e-3


def densenet() -> nn.Module:
    """DenseNet, 24 layers that are concatenated."""
    made = DenseNet(growth_rate=16, block_config=(6, 8, 10), num_init_features=32, num_classes=CLASSES)
    made.features.conv0 = nn.Conv2d(3, 32, 3, 1, 1, bias=False)
    made.features.pool0 = nn.Identity()
    return made


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1: Fire modules, pools that round up, no BatchNorm."""
    made = SqueezeNet("1_1", num_classes=CLASSES, dropout=0.1)
    made.features[0] = nn.Conv2d(3, 64, 3, 1, 1)
    return made


def regnet() -> nn.Module:
    """RegNetY: grouped convolutions with squeeze-and-excitation."""
    blocks = BlockParams.from_init_params(depth=9, w_0=24, w_a=28.0, w_m=2.2, group_width=8, se_ratio=0.25)
    made = RegNet(blocks, num_classes=CLASSES, stem_width=24)
    made.stem[0] = nn.Conv2d(3, 24, 3, 1, 1, bias=False)
    return made


def efficientnet() -> nn.Module:
    """EfficientNet: depthwise convolutions of 3 and 5 pixels, SiLU, squeeze-and-excitation."""
    stages = [
        (1, 3, 1, 16, 16, 1),
        (6, 3, 1, 16, 24, 2),
        (6, 5, 2, 24, 40, 2),
        (6, 3, 2, 40, 64, 2),
        (6, 5, 1, 64, 96, 2),
    ]
    made = EfficientNet([MBConvConfig(*stage) for stage in stages], dropout=0.2, num_classes=CLASSES)
    made.features[0][0] = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    return made


def mobilenetv3() -> nn.Module:
    """MobileNetV3: Hardswish and Hardsigmoid."""
    block = partial(InvertedResidualConfig, dilation=1, width_mult=1.0)
    stages = [
        block(16, 3, 16, 16, False, "RE", 1),
        block(16, 3, 64, 24, False, "RE", 2),
        block(24, 3, 72, 24, False, "RE", 1),
        block(24, 5, 96, 40, True, "HS", 2),
        block(40, 5, 240, 40, True, "HS", 1),
        block(40, 5, 240, 96, True, "HS", 2),
        block(96, 5, 480, 96, True, "HS", 1),
    ]
    made = MobileNetV3(stages, last_channel=512, num_classes=CLASSES)
    made.features[0][0] = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    return made


def shufflenet() -> nn.Module:
    """ShuffleNetV2: channels that are divided, concatenated and shuffled."""
    made = ShuffleNetV2([3, 5, 3], [24, 64, 128, 256, 512], num_classes=CLASSES)
    made.conv1[0] = nn.Conv2d(3, 24, 3, 1, 1, bias=False)
    made.maxpool = nn.Identity()
    return made


def convnext() -> nn.Module:
    """ConvNeXt: depthwise convolutions of 7 pixels, LayerNorm, GELU, layer scales."""
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(num_classes=CLASSES, depths=(2, 2, 4, 2), dims=(32, 64, 128, 224), patch_size=2)


def swin() -> nn.Module:
    """Swin Transformer: attention in shifted windows."""
    return SwinTransformer(
        patch_size=[2, 2], embed_dim=48, depths=[2, 4, 2], num_heads=[2, 4, 8], window_size=[4, 4],
        stochastic_depth_prob=0.1, num_classes=CLASSES,
    )  # fmt: skip


class Enlarged(nn.Module):
    """A network behind nearest-neighbour upsampling."""

    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.larger, self.network = nn.Upsample(scale_factor=factor), network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(self.larger(x))


def mobilevit() -> nn.Module:
    """MobileViT: convolutions and attention over patches, on images enlarged twice."""
    return Enlarged(timm.create_model("mobilevit_xxs", num_classes=CLASSES), 2)


def mixer() -> nn.Module:
    """MLP-Mixer: products over channels and over positions."""
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=CLASSES, img_size=32, patch_size=4, num_blocks=6, embed_dim=160)


def convolve(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return two convolutions with BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for source, step in ((inputs, stride), (outputs, 1)):
        layers += [nn.Conv2d(source, outputs, 3, step, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net of four levels, with transposed convolutions: class scores of every pixel."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 128)) -> None:
        super().__init__()
        self.down = nn.ModuleList([convolve(i, o) for i, o in zip((3, *widths), widths, strict=False)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(o, i, 2, 2) for i, o in pairwise(widths)])
        self.join = nn.ModuleList([convolve(2 * width, width) for width in widths[:-1]])
        self.pool, self.last = nn.MaxPool2d(2), nn.Conv2d(widths[0], 1 + CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: list[torch.Tensor] = []
        for level, down in enumerate(self.down):
            x = down(self.pool(x) if level else x)
            found.append(x)
        for level in reversed(range(len(self.up))):
            x = self.join[level](torch.cat([self.up[level](x), found[level]], 1))
        return self.last(x)


class Detector(nn.Module):
    """A single-shot detector without anchors: a pyramid of three levels, and a head that all levels share.

    Outputs: scores [N, cells, CLASSES] and boxes [N, cells, 4] in pixels; scores before the sigmoid while training.
    """

    STRIDES = (4, 8, 16)

    def __init__(self, side: int, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolve(3, 24, 2), convolve(24, 48, 2))
        self.stages = nn.ModuleList([convolve(48, 64), convolve(64, 96, 2), convolve(96, 128, 2)])
        self.lateral = nn.ModuleList([nn.Conv2d(inputs, width, 1) for inputs in (64, 96, 128)])
        self.smooth = nn.ModuleList([nn.Conv2d(width, width, 3, 1, 1) for _ in range(3)])
        self.larger = nn.Upsample(scale_factor=2)
        self.tower = nn.ModuleList([convolve(width, width) for _ in range(2)])
        self.scores, self.sides = nn.Conv2d(width, CLASSES, 3, 1, 1), nn.Conv2d(width, 4, 3, 1, 1)
        nn.init.constant_(self.scores.bias, -4.0)
        cells = [self.cells(side // stride) * stride for stride in self.STRIDES]
        self.register_buffer("centres", torch.cat(cells))
        steps = [torch.full((len(c), 1), float(s)) for c, s in zip(cells, self.STRIDES, strict=True)]
        self.register_buffer("steps", torch.cat(steps))

    @staticmethod
    def cells(count: int) -> torch.Tensor:
        """Return the centres of a square of cells, x before y: [count², 2]."""
        places = torch.arange(count) + 0.5
        y, x = torch.meshgrid(places, places, indexing="ij")
        return torch.stack([x, y], -1).reshape(-1, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for k in (1, 0):
            levels[k] = levels[k] + self.larger(levels[k + 1])
        levels = [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]
        scores = torch.cat([self.scores(self.tower[0](level)).flatten(2) for level in levels], 2).transpose(1, 2)
        sides = torch.cat([self.sides(self.tower[1](level)).flatten(2) for level in levels], 2).transpose(1, 2)
        reach = sides.clamp(-4, 4).exp() * self.steps
        boxes = torch.cat([self.centres - reach[..., :2], self.centres + reach[..., 2:]], -1)
        return scores if self.training else scores.sigmoid(), boxes


ARCHITECTURES = {
    made.name: made
    for made in (
        Architecture("densenet", densenet),
        Architecture("squeezenet", squeezenet, rate=5e-4),
        Architecture("regnet", regnet),
        Architecture("efficientnet", efficientnet),
        Architecture("mobilenetv3", mobilenetv3),
        Architecture("shufflenet", shufflenet),
        Architecture("convnext", convnext, rate=1e-3),
        Architecture("swin", swin, rate=1e-3),
        Architecture("mobilevit", mobilevit),
        Architecture("mixer", mixer, rate=1e-3),
        Architecture("unet", UNet, "masks", 64),
        Architecture("detector", partial(Detector, 96), "boxes", 96),
    )
}
