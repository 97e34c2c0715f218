"""PAN-Crafter: Do et al., "PAN-Crafter: Learning Modality-Consistent Alignment for PAN-Sharpening", ICCV 2025."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad, silu

from .base import Backbone, Inputs, SceneStats

HEAD = 16
"""Channels of an attention head."""
NEAR = 3
"""Side of the window that a pixel looks for its match in."""
MS, PAN = 0, 1
"""The modes: rebuild the sharp MS, or PAN."""


def groups(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels)


class ModalBlock(nn.Module):
    """norm, SiLU, conv, norm scaled and shifted by mode (eq. 5-6), SiLU, conv, added to the input."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = groups(channels), groups(out)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.scale, self.shift = nn.Parameter(torch.zeros(2, out)), nn.Parameter(torch.zeros(2, out))
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, mode: int) -> Tensor:
        inner = self.norm2(self.conv1(silu(self.norm1(x))))
        scale, shift = (t[mode][:, None, None].to(inner.dtype) for t in (self.scale, self.shift))
        return self.skip(x) + self.conv2(silu(inner * (1 + scale) + shift))


def match(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of each pixel (n, channels, rows, cols) to the 3 x 3 around it, by heads."""
    n, channels, rows, cols = query.shape
    heads = (n, channels // HEAD, HEAD, rows, cols)
    near = [(slice(r, r + rows), slice(c, c + cols)) for r in range(NEAR) for c in range(NEAR)]
    key, value = (pad(t, [NEAR // 2] * 4) for t in (key, value))
    likeness = torch.stack([(query * key[(..., *at)]).view(heads).sum(2, dtype=torch.float32) for at in near], 2)
    weights = (likeness / HEAD**0.5).softmax(2).to(value.dtype)
    found = sum(weights[:, :, i, None] * value[(..., *at)].reshape(heads) for i, at in enumerate(near))
    assert isinstance(found, Tensor)
    return found.flatten(1, 2)


class CrossModalAttention(nn.Module):
    """CM3A (eq. 7-12): features look for their match once among those with MS and once among those with PAN; what
    they find is mixed channel by channel, differently in each mode, then a feed-forward layer; both are added."""

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = groups(channels), groups(channels)
        self.query = nn.Conv2d(channels + bands, channels, 3, padding=1)
        self.from_ms = nn.Conv2d(channels + bands, 2 * channels, 3, padding=1)
        self.key_pan = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.value_pan = nn.Conv2d(channels + 2, channels, 3, padding=1)
        self.out_ms, self.out_pan = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.share_ms = nn.Parameter(torch.full((2, channels), 0.5))
        self.share_pan = nn.Parameter(torch.full((2, channels), 0.5))
        self.feed = nn.Sequential(nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1))

    def forward(self, x: Tensor, ms: Tensor, pan: Tensor, low: Tensor, mode: int) -> Tensor:
        normed = self.norm1(x)
        wanted = ms if mode == MS else low.expand_as(ms)
        ms, pan, low, wanted = (t.to(normed.dtype) for t in (ms, pan, low, wanted))
        query = self.query(torch.cat([normed, wanted], 1))
        found_ms = match(query, *self.from_ms(torch.cat([normed, ms], 1)).chunk(2, 1))
        key, value = self.key_pan(torch.cat([normed, pan], 1)), self.value_pan(torch.cat([normed, pan, pan - low], 1))
        found_pan = match(query, key, value)
        share_ms, share_pan = (t[mode][:, None, None].to(x.dtype) for t in (self.share_ms, self.share_pan))
        x = x + share_ms * self.out_ms(found_ms) + share_pan * self.out_pan(found_pan)
        return x + self.feed(self.norm2(x))


class Level(nn.Module):
    """Two residual blocks, and the attention between modalities except at full size."""

    def __init__(self, channels: int, out: int, bands: int, attention: bool) -> None:
        super().__init__()
        self.block1, self.block2 = ModalBlock(channels, out), ModalBlock(out, out)
        self.attention = CrossModalAttention(out, bands) if attention else None

    def forward(self, x: Tensor, images: tuple[Tensor, Tensor, Tensor], mode: int) -> Tensor:
        x = self.block2(self.block1(x, mode), mode)
        return x if self.attention is None else self.attention(x, *images, mode)


class PanCrafter(Backbone):
    """A U-Net that looks for what fits in both modalities, against misregistered PAN and MS.

    Four levels of `width` channels, a multiple of 16; the three smaller ones have the attention between modalities.
    `rebuild_pan` is the other mode of the paper's training: |P_hat - P| is added to the loss (eq. 4). Fusion uses the
    MS mode alone. Chosen here where our source leaves it open: the residual is added to Up(MS) (in the other
    mode to Up(Down(P))); images at the smaller levels are means of the large ones; levels are joined by a strided
    convolution and by nearest neighbours with a convolution; heads have 16 channels, a group norm at most 32 groups.

    The norms take statistics over the whole tile, hence blending.
    """

    halo = 24
    tile_bytes = (4000, 45)
    multiple_of = 8
    stitch = "blend"

    def __init__(self, bands: int, width: int = 128) -> None:
        super().__init__()
        if width < HEAD or width % HEAD:
            raise ValueError(f"width is a multiple of {HEAD}, not {width}")
        self.bands, self.features = bands, width
        self.input = nn.Conv2d(bands + 3, width, 3, padding=1)
        self.down = nn.ModuleList(Level(width, width, bands, i > 0) for i in range(3))
        self.shrink = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(3))
        self.middle = Level(width, width, bands, True)
        self.grow = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.up = nn.ModuleList(Level(2 * width, width, bands, i > 0) for i in range(3))
        self.norm = groups(width)
        self.output = nn.Conv2d(width, bands, 3, padding=1)

    def encode(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        inputs = stats.matched(inputs)
        low = inputs.pan_low.mean(1, keepdim=True)
        return torch.cat([inputs.expanded, inputs.pan, low, inputs.pan - low], 1) / stats.scale

    def extract(self, encoded: Tensor, mode: int = MS) -> Tensor:
        images = [encoded[:, :-1]]
        for _ in self.shrink:
            images.append(avg_pool2d(images[-1], 2))
        parts = [(i[:, :-2], i[:, -2:-1], i[:, -1:]) for i in images]
        x, skips = self.input(encoded), []
        for level, shrink, part in zip(self.down, self.shrink, parts[:-1], strict=True):
            skips.append(level(x, part, mode))
            x = shrink(skips[-1])
        x = self.middle(x, parts[-1], mode)
        for i in (2, 1, 0):
            x = self.grow[i](interpolate(x, scale_factor=2))
            x = self.up[i](torch.cat([x, skips[i]], 1), parts[i], mode)
        return x

    def map(self, features: Tensor) -> Tensor:
        return self.output(silu(self.norm(features)))

    def rebuild_pan(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        """PAN in units of the MS as the PAN mode rebuilds it from Up(Down(P)), (n, bands, rows, cols) (eq. 3)."""
        residual = self.map(self.extract(self.encode(inputs, stats), PAN))
        return stats.matched(inputs).pan_low.mean(1, keepdim=True) + self.spread(residual, inputs, stats)

    def auxiliary(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        """|P_hat - P| (eq. 4)."""
        error = self.rebuild_pan(inputs, stats) - stats.matched(inputs).pan
        return error.abs().mean() / (stats.pan_factor * stats.pan_std)
