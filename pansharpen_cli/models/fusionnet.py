"""FusionNet: Deng et al., "Detail Injection-Based Deep Convolutional Neural Networks for Pansharpening", TGRS 2020."""

from __future__ import annotations

from torch import Tensor, nn

from .base import BLOCKS_TWICE, Backbone, Inputs, ResidualBlock, SceneStats, convolve


class FusionNet(Backbone):
    """Residual network on PAN - Up(MS); 78 632 parameters at 8 bands. Parameter names are those of DLPan-Toolbox."""

    halo = 10
    public = BLOCKS_TWICE

    def __init__(self, bands: int, features: int = 32) -> None:
        super().__init__()
        self.bands, self.features = bands, features
        self.conv1 = nn.Conv2d(bands, features, 3, padding=1)
        self.res1, self.res2, self.res3, self.res4 = (ResidualBlock(features) for _ in range(4))
        self.conv3 = nn.Conv2d(features, bands, 3, padding=1)

    def encode(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        inputs = stats.matched(inputs)
        return (inputs.pan - inputs.expanded) / stats.scale

    def extract(self, encoded: Tensor) -> Tensor:
        x = convolve(self.conv1, encoded, relu=True)
        return self.res4(self.res3(self.res2(self.res1(x))))

    def map(self, features: Tensor) -> Tensor:
        return self.conv3(features)
