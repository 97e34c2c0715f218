"""GLP-Net, the default: a learned correction on top of a scene-fitted MTF-GLP-FS injection, one band at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Backbone, Inputs, ResidualBlock, SceneStats


class GLPNet(Backbone):
    """Any number of bands, any ratio: every band is a batch entry of the same network; 42 769 parameters.

    With its correction at zero it is MTF-GLP-FS (Vivone et al., "Full Scale Regression-Based Injection Coefficients
    for Panchromatic Sharpening", TIP 2018): X_b = E_b + g_b (P - P_L,b). Everything the network sees and predicts is
    in units of the band's own standard deviation, so no sensor's radiometry is built in.
    """

    bands = None

    def __init__(self, features: int = 24, blocks: int = 4) -> None:
        super().__init__()
        self.features, self.halo = features, 2 * blocks + 2
        self.head = nn.Conv2d(4, features, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(features) for _ in range(blocks)))
        self.tail = nn.Conv2d(features, 1, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.bias)

    def encode(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        e, low = inputs.expanded, inputs.pan_low
        mean, std, gain = (t[:, None, None] for t in (stats.mean, stats.std, stats.gain))
        weights, constant = stats.intensity[:-1], stats.intensity[-1]
        intensity = torch.einsum("nbhw,b->nhw", e - mean, weights)[:, None] + (constant + weights @ stats.mean)
        pan = ((inputs.pan - stats.pan_mean) / stats.pan_std).expand_as(e)
        channels = ((e - mean) / std, pan, gain * (inputs.pan - low) / std, gain * (low - intensity) / std)
        return torch.stack(channels, 2).flatten(0, 1)

    def extract(self, encoded: Tensor) -> Tensor:
        return self.body(torch.relu(self.head(encoded)))

    def map(self, features: Tensor) -> Tensor:
        return self.tail(features)

    def base(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        return inputs.expanded + stats.gain[:, None, None] * (inputs.pan - inputs.pan_low)

    def spread(self, residual: Tensor, inputs: Inputs, stats: SceneStats) -> Tensor:
        return residual.to(inputs.expanded.dtype).view_as(inputs.expanded) * stats.std[:, None, None]
