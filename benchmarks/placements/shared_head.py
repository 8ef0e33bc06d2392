"""A detector whose head is shared over five levels, as in RetinaNet and FCOS: torch exports it with an Identity before
each weight that is used again."""

from __future__ import annotations

import torch
from torch import nn


def convolve(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution with BatchNorm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolve(inputs, outputs, 3, stride), *convolve(outputs, outputs)[:2])
        plain = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if plain else convolve(inputs, outputs, 1, stride)[:2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.skip(x))


class SharedHead(nn.Module):
    """ResNet-18, a feature pyramid of five levels, and two heads of five convolutions, the same for all levels."""

    def __init__(self, classes: int = 10, width: int = 256) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolve(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1), *self.stage(64, 64, 1))
        self.stages = nn.ModuleList([self.stage(64, 128, 2), self.stage(128, 256, 2), self.stage(256, 512, 2)])
        self.lateral = nn.ModuleList([nn.Conv2d(inputs, width, 1) for inputs in (128, 256, 512)])
        self.smooth = nn.ModuleList([nn.Conv2d(width, width, 3, 1, 1) for _ in range(3)])
        self.extra = nn.ModuleList([nn.Conv2d(512, width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1)])
        self.larger = nn.Upsample(scale_factor=2)
        self.heads = nn.ModuleList(
            [
                nn.Sequential(*[convolve(width, width) for _ in range(4)], nn.Conv2d(width, outputs, 3, 1, 1))
                for outputs in (classes * 9, 36)
            ]
        )

    @staticmethod
    def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        """Return two residual blocks."""
        return nn.Sequential(ResidualBlock(inputs, outputs, stride), ResidualBlock(outputs, outputs, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        levels = [lateral(features) for lateral, features in zip(self.lateral, found, strict=True)]
        for k in (1, 0):
            levels[k] = levels[k] + self.larger(levels[k + 1])
        levels = [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]
        levels.append(self.extra[0](found[-1]))
        levels.append(self.extra[1](torch.relu(levels[-1])))
        results = [torch.cat([head(level).flatten(2) for level in levels], 2) for head in self.heads]
        return torch.cat(results, 1)
