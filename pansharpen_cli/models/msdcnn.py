"""MSDCNN: Yuan et al., "A Multiscale and Multidepth CNN for Pansharpening of Remote Sensing Imagery", JSTARS 2018."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Backbone, Inputs, Published, SceneStats, carry, convolve

DEEP, SHALLOW = 30, 32
"""Channels that the two branches end with."""


def scales(channels: int) -> tuple[nn.Conv2d, ...]:
    """Convolutions of 3, 5 and 7 pixels, each with a third of the channels."""
    return tuple(nn.Conv2d(channels, channels // 3, side, padding=side // 2) for side in (3, 5, 7))


class MSDCNN(Backbone):
    """A deep branch with two multi-scale blocks and a shallow one (a PNN), added; 228 556 parameters at 8 bands.

    It gives the result itself, not negative, no residual. Parameter names are those of DLPan-Toolbox. The features are
    those of both branches. A fresh network gives Up(MS).
    """

    features = DEEP + SHALLOW
    halo = 12
    public = Published()

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.conv1 = nn.Conv2d(bands + 1, 60, 7, padding=3)
        self.conv2_1, self.conv2_2, self.conv2_3 = scales(60)
        self.conv3 = nn.Conv2d(60, DEEP, 3, padding=1)
        self.conv4_1, self.conv4_2, self.conv4_3 = scales(DEEP)
        self.conv5 = nn.Conv2d(DEEP, bands, 5, padding=2)
        self.shallow1 = nn.Conv2d(bands + 1, 64, 9, padding=4)
        self.shallow2 = nn.Conv2d(64, SHALLOW, 1)
        self.shallow3 = nn.Conv2d(SHALLOW, bands, 5, padding=2)
        carry(bands, self.shallow1, self.shallow2, self.shallow3)
        for parameter in self.conv5.parameters():
            nn.init.zeros_(parameter)

    def extract(self, encoded: Tensor) -> Tensor:
        x = convolve(self.conv1, encoded, relu=True)
        x = torch.relu(x + torch.cat([self.conv2_1(x), self.conv2_2(x), self.conv2_3(x)], 1))
        x = convolve(self.conv3, x, relu=True)
        deep = torch.relu(x + torch.cat([self.conv4_1(x), self.conv4_2(x), self.conv4_3(x)], 1))
        shallow = convolve(self.shallow2, convolve(self.shallow1, encoded, relu=True), relu=True)
        return torch.cat([deep, shallow], 1)

    def map(self, features: Tensor) -> Tensor:
        return convolve(self.conv5, features[:, :DEEP], add=self.shallow3(features[:, DEEP:]), relu=True)

    def base(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        return torch.zeros_like(inputs.expanded)
