"""PanNet: Yang et al., "PanNet: A Deep Network Architecture for Pan-Sharpening", ICCV 2017."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from .base import BLOCKS_TWICE, Backbone, Inputs, ResidualBlock, SceneStats, convolve


def high_pass(image: Tensor) -> Tensor:
    """Each pixel less the mean of the 5 x 5 around it, at borders of those that exist."""
    return image - avg_pool2d(image, 5, 1, 2, count_include_pad=False)


class PanNet(Backbone):
    """Residual network on high-passed PAN and MS; 83 024 parameters at 8 bands. Parameter names of DLPan-Toolbox.

    The MS at its own size, which the network high-passes and up-samples itself, is sampled from Up(MS): the mean of the
    four central pixels of each 4 x 4 cell, at ratio 4 and phase 0 the MS up to the interpolation. At another ratio or
    phase it is the MS resampled.
    """

    halo = 22
    public = BLOCKS_TWICE
    multiple_of = 4

    def __init__(self, bands: int, features: int = 32) -> None:
        super().__init__()
        self.bands, self.features = bands, features
        self.deconv = nn.ConvTranspose2d(bands, bands, 8, stride=4, padding=2)
        self.conv1 = nn.Conv2d(bands + 1, features, 3, padding=1)
        self.res1, self.res2, self.res3, self.res4 = (ResidualBlock(features) for _ in range(4))
        self.conv3 = nn.Conv2d(features, bands, 3, padding=1)

    def encode(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        inputs = stats.matched(inputs)
        return torch.cat([inputs.expanded, high_pass(inputs.pan)], 1) / stats.scale

    def extract(self, encoded: Tensor) -> Tensor:
        expanded, pan = encoded[:, :-1], encoded[:, -1:]
        ms = avg_pool2d(expanded[..., 1:-1, 1:-1], 2, 4)
        detail = self.deconv(high_pass(ms))
        x = convolve(self.conv1, torch.cat([detail, pan.to(detail.dtype)], 1), relu=True)
        return self.res4(self.res3(self.res2(self.res1(x))))

    def map(self, features: Tensor) -> Tensor:
        return self.conv3(features)
