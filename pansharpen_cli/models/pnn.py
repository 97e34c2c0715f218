"""PNN: Masi et al., "Pansharpening by Convolutional Neural Networks", Remote Sensing 2016."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Backbone, Inputs, Published, SceneStats, carry, convolve


class PNN(Backbone):
    """Three convolutions of Up(MS) and PAN that give the result itself, no residual; 104 360 parameters at 8 bands.

    Parameter names and widths (64, 32) are those of DLPan-Toolbox, which convolves without padding: here the halo
    stands for it. The paper's spectral indices as further inputs are left out, as there. A fresh network gives Up(MS).
    """

    features = 32
    halo = 8
    public = Published()

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.conv1 = nn.Conv2d(bands + 1, 64, 9, padding=4)
        self.conv2 = nn.Conv2d(64, self.features, 5, padding=2)
        self.conv3 = nn.Conv2d(self.features, bands, 5, padding=2)
        carry(bands, self.conv1, self.conv2, self.conv3)

    def extract(self, encoded: Tensor) -> Tensor:
        return convolve(self.conv2, convolve(self.conv1, encoded, relu=True), relu=True)

    def map(self, features: Tensor) -> Tensor:
        return self.conv3(features)

    def base(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        return torch.zeros_like(inputs.expanded)
