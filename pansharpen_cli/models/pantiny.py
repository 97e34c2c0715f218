"""PanTiny: "Rethinking Pan-sharpening: Principled Design, Unified Training, and a Universal Loss Surpass Brute-Force
Scaling", arXiv 2025."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from .base import Backbone, Inputs, SceneStats

HEADS = 2


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of each pixel over its channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1).float()).to(x.dtype).movedim(-1, 1)


class ChannelAttention(nn.Module):
    """Channels mixed by how alike they are over all pixels: softmax(tau q k^T) v, q and k of unit length over space."""

    head: Tensor
    """To which head each channel belongs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(HEADS))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)
        self.register_buffer("head", torch.arange(channels) * HEADS // channels, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The attention of all heads is one matrix of channels, zero between heads, and goes into the projection."""
        pixels = self.qkv_dwconv(self.qkv(x)).movedim(1, -1).flatten(1, 2)
        q, k, v = pixels.chunk(3, -1)
        lengths = [torch.linalg.vector_norm(t, dim=1, dtype=torch.float32).clamp(min=1e-6) for t in (q, k)]
        alike = (q.transpose(1, 2) @ k).float() / lengths[0][:, :, None] / lengths[1][:, None]
        other = self.head[:, None] != self.head
        mixing = (self.temperature[self.head][:, None] * alike).masked_fill(other, -torch.inf).softmax(-1)
        projection = self.project_out.weight.flatten(1) @ mixing
        mixed = v @ projection.transpose(1, 2).to(v.dtype)
        return mixed.view(len(x), *x.shape[2:], -1).movedim(-1, 1)


class FeedForward(nn.Module):
    """1x1 to twice `hidden`, depth-wise 3x3, one half gating the other, 1x1 back."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, 1)
        gate = gate.contiguous(memory_format=torch.channels_last)  # else GELU runs pixel by pixel
        return self.project_out(gelu(gate) * value)


class Block(nn.Module):
    """Channel attention and feed-forward, each normalised before and added."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.attn, self.ffn = ChannelAttention(channels), FeedForward(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


def blocks(count: int, channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels, hidden) for _ in range(count)))


def conv3x3(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1, bias=False)


class PanTiny(Backbone):
    """One compact transformer for all sensors; 81 744 parameters at 4 bands.

    `bands` 0 takes any number of them: the network sees one band at a time (bands are batch entries, the same weights
    for all), in units of the band's standard deviation, with PAN brought to the band by its injection gain,
    g_b (P - mean) / s_b, and gives the residual of that one band; the cost grows with the number of bands. A fixed
    number is the paper's network, all bands at once, values divided by the scale.

    The attention between channels takes statistics over the whole tile, hence blending; `halo` is the reach of the
    convolutions. Tiles of the size of the training patches and large ones differ in how well these are known, not in
    kind.
    """

    features = 28
    halo = 17
    tile_bytes = (100, 210)
    stitch = "blend"

    def __init__(self, bands: int = 0) -> None:
        super().__init__()
        if bands < 0:
            raise ValueError(f"bands are counted, 0 for any number of them, not {bands}")
        self.bands = bands or None
        self.build(bands or 1, self.features)

    def build(self, bands: int, width: int) -> None:
        """Make the layers."""
        self.patch_embed = conv3x3(bands, width)
        self.encoder = blocks(3, width, 2 * width)
        self.fusion = nn.Sequential(conv3x3(width + 1, width), nn.ReLU(), conv3x3(width, width))
        self.refinement = blocks(3, width, 2 * width)
        self.advanced_refine = conv3x3(width, width)
        self.output = conv3x3(width, bands)

    def encode(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        """PAN and bands, (n, 1 + bands, rows, cols), or PAN and one band, (n * bands, 2, rows, cols)."""
        if self.bands:
            return torch.cat([stats.matched(inputs).pan, inputs.expanded], 1) / stats.scale
        mean, std, gain = (t[:, None, None] for t in (stats.mean, stats.std, stats.gain))
        pan, bands = gain / std * (inputs.pan - stats.pan_mean), (inputs.expanded - mean) / std
        return torch.stack([pan, bands], 2).flatten(0, 1)

    def extract(self, encoded: Tensor) -> Tensor:
        x = self.encoder(self.patch_embed(encoded[:, 1:]))
        x = self.fusion(torch.cat([x, encoded[:, :1].to(x.dtype)], 1))
        return self.advanced_refine(self.refinement(x))

    def map(self, features: Tensor) -> Tensor:
        return self.output(features)

    def spread(self, residual: Tensor, inputs: Inputs, stats: SceneStats) -> Tensor:
        unit = stats.scale if self.bands else stats.std[:, None, None]
        return residual.to(inputs.expanded.dtype).view_as(inputs.expanded) * unit


class PanTinySmall(PanTiny):
    """The paper's single encoder of 32 channels: PAN enters with the bands, and once more, gated, at the end; 48 269
    parameters at 4 bands."""

    features = 32
    halo = 8

    def build(self, bands: int, width: int) -> None:
        hidden = int(2.66 * width)
        self.patch_embed = conv3x3(bands + 1, width)
        self.latent = blocks(2, width, hidden)
        self.refinement = blocks(1, width, hidden)
        self.gate = nn.Sequential(
            nn.Conv2d(width + 1, width // 4, 1), nn.ReLU(), nn.Conv2d(width // 4, 1, 1), nn.Sigmoid()
        )
        self.join = nn.Conv2d(width + 1, width, 1, bias=False)
        self.output = conv3x3(width, bands)

    def extract(self, encoded: Tensor) -> Tensor:
        x = self.refinement(self.latent(self.patch_embed(encoded)))
        both = torch.cat([x, encoded[:, :1].to(x.dtype)], 1)
        return x + self.gate(both) * (self.join(both) - x)
