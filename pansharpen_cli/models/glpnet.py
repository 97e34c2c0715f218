"""GLP-Net, the default: a learned correction of a scene-fitted injection, with one trunk for all bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import Backbone, Inputs, ResidualBlock, SceneStats, convolve

SHARED, OWN = 3, 4
"""Input channels. Shared: PAN, its detail, and how far low-passed PAN departs from the intensity. Of each band: the
expanded MS, the injected detail, that departure in the band's units (together the detail that component substitution
injects), and what the low-passed PAN leaves of the band, in which what both share of aliasing cancels."""
STRIDE = 4
"""PAN pixels on a side of one pixel of the features: a convolution costs a sixteenth, and reaches as far as the MS."""
OUT = 3
"""Output channels a pixel and band: a free residual, a change of the injection gain, a change of the share by which
what the bands lack scales them instead of being added. All of it is shared out: with less, trees and fields smear."""
DIMMED, BRIGHTEST = 0.8, 0.3
"""Share of it that dims the bands where PAN is darker than they are, and the network is trusted; all of it where it is
not. What is added there leaves the colours of bright neighbours, which the eye sees as red and blue rims of shadows.
And by how much bands are scaled up at most where the network asks for that."""
TINY = 1e-6
DOUBTED, TRUSTED, LEAST = 0.95, 0.985, 0.1
"""Agreement of MS and PAN in the finest detail up to which, and from which on, the share `LEAST`, and all, of what the
network adds is taken: where the MS shows other things there than the PAN, colours that were guessed from both are
fringes and casts to the eye. Simulated products are all above, real ones of full resolution mostly below."""
MOST, BESIDE, AROUND, WIDE = 0.08, 3.0, 9, 25
"""By how much what the bands lack at the MS's scale may change them: by that share of them where it is the same within
`WIDE` pixels, and what departs from that by so many times the mean detail that PAN injects within `AROUND` pixels, too.
Far more is no aliasing, blur or moved car, but a PAN that the bands do not make up there, beside saturated clouds for
one."""


class GLPNet(Backbone):
    """Any number of bands, any ratio; 279 696 parameters.

    Per pixel and band the network adds a free residual and PAN detail by a change of the injection gain of MTF-GLP-FS
    (Vivone et al., "Full Scale Regression-Based Injection Coefficients for Panchromatic Sharpening", TIP 2018) to the
    expanded MS: Y_b. What these bands then lack to be the PAN together, L = P - sum_b w_b Y_b, each gets by its gain,
    as component substitution does it with the up-sampled bands (GSA: Aiazzi et al., TGRS 2007): aliasing and softness
    of the MS cancel there. Where L is negative most of it dims them, Y_b - (Y_b - h_b) |L| / (sum_b w_b (Y_b - h_b)),
    as the haze-corrected Brovey transform does (BT-H: Lolli et al., GRSL 2017); h_b is the haze. Where the bands
    explain little of the PAN their gains are small, and so is what they get.
    Everything it sees and predicts is in units of the bands' own standard deviations, so no sensor's radiometry is
    built in.

    `width` channels in the trunk, `features` in each band's head, `blocks` residual blocks in the trunk, `own` in the
    head. Multiples of 32 fill the vectors of the processors that multiply bfloat16.
    """

    bands = None
    stride = STRIDE
    multiple_of = STRIDE
    adaptation: ClassVar[Mapping[str, float]] = {"consistency": 0.6, "rate": 1.5e-3}
    """It is good where it comes from: a scene teaches it little, and too much of what the MS shows is wrong."""

    def __init__(self, features: int = 32, width: int = 64, blocks: int = 3, own: int = 1) -> None:
        super().__init__()
        self.features = features
        self.halo = STRIDE * (2 * (blocks + own) + 1) + 2 + STRIDE - 1
        self.head = nn.Conv2d(OWN, features, 8, stride=STRIDE, padding=2)
        self.join = nn.Conv2d(SHARED, width, 8, stride=STRIDE, padding=2)
        self.join_bands = nn.Conv2d(features, width, 1, bias=False)
        self.trunk = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.shared = nn.Conv2d(width, features, 1)
        self.own = nn.Conv2d(features, features, 1)
        self.body = nn.Sequential(*(ResidualBlock(features) for _ in range(own)))
        self.tail = nn.Conv2d(features, OUT * STRIDE**2, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.bias)

    def encode(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        e, low, pan = inputs.expanded, inputs.pan_low, inputs.pan
        mean, std, gain = (t[:, None, None] for t in (stats.mean, stats.std, stats.gain))
        encoded = e.new_empty(len(e), SHARED + OWN * e.shape[1], *e.shape[2:])
        shared, own = encoded[:, :SHARED], encoded[:, SHARED:].unflatten(1, (-1, OWN))
        common, intensity = low.mean(1, keepdim=True), intensity_of(e, stats)
        shared[:, :1], shared[:, 1:2], shared[:, 2:] = pan - stats.pan_mean, pan - common, common - intensity
        shared /= stats.pan_std
        own[:, :, 0] = (e - mean) / std
        own[:, :, 1], own[:, :, 2] = gain / std * (pan - low), gain / std * (low - intensity)
        own[:, :, 3] = own[:, :, 0] - gain / std * (low - stats.pan_mean)
        return encoded

    def extract(self, encoded: Tensor) -> Tensor:
        tiles, bands = len(encoded), (encoded.shape[1] - SHARED) // OWN
        shared, own = encoded[:, :SHARED], encoded[:, SHARED:].unflatten(1, (bands, OWN)).flatten(0, 1)
        each = convolve(self.head, own, relu=True)
        parts = each.unflatten(0, (tiles, bands)).unbind(1)
        pooled = sum(parts[1:], parts[0]) / bands  # far faster than mean() in this memory format
        trunk = self.trunk(convolve(self.join, shared, add=self.join_bands(pooled), relu=True))
        common = torch.cat([tile for tile in self.shared(trunk).split(1) for _ in range(bands)])
        return self.body(convolve(self.own, each, add=common, relu=True))

    def map(self, features: Tensor) -> Tensor:
        return self.tail(features)

    def spread(self, residual: Tensor, inputs: Inputs, stats: SceneStats) -> Tensor:
        e, low = inputs.expanded, inputs.pan_low.mean(1, keepdim=True)
        std, gain, haze = (t[:, None, None] for t in (stats.std, stats.gain, stats.haze))
        # pixel_shuffle, in a quarter of its time
        cells = residual.movedim(1, -1).unflatten(-1, (OUT, STRIDE, STRIDE))
        trusted = min(1.0, max(LEAST, (stats.agreement - DOUBTED) / (TRUSTED - DOUBTED)))
        free, more, share = cells.permute(3, 0, 1, 4, 2, 5).reshape(OUT, *e.shape).to(e.dtype).mul(trusted)
        own = torch.addcmul(std * free, gain * more, inputs.pan - inputs.pan_low)
        bands = e + own
        whole = intensity_of(bands, stats)
        lacking = inputs.pan - whole + limited(low - intensity_of(e, stats), inputs.pan - low, e, stats)
        lit = (whole - intensity_of(haze.expand_as(e[:, :, :1, :1]), stats)).clamp_(min=0)
        scale = (lacking / (lit + TINY * stats.pan_std)).clamp(-1.0, BRIGHTEST)
        scaled = torch.addcmul((bands - haze) * scale, -gain, scale * lit)
        share = (share + (1 - (1 - DIMMED) * trusted) * (scale < 0)) * follows(stats, trusted)[:, None, None]
        return own.addcmul_(share, scaled).addcmul_(gain, lacking)


def follows(stats: SceneStats, trusted: float) -> Tensor:
    """Part of the dimming that suits each band (bands,): of a PAN that the bands do not make up, the part that they do,
    and of a band that follows PAN by less than its brightness, as the near infrared often does, the part by which it
    does, where the network is not `trusted` to know better."""
    weights, above = stats.intensity[:-1], (stats.mean - stats.haze).clamp(min=TINY)
    alike = (stats.gain * (weights @ above) / above).clamp(0.0, 1.0)
    return (weights @ stats.gain).clamp(0.0, 1.0) * (alike + (1 - alike) * trusted)


def limited(coarse: Tensor, detail: Tensor, e: Tensor, stats: SceneStats) -> Tensor:
    """How the limits change what bands `e` lack at the MS's scale, `coarse` (n, 1, rows, cols), beside PAN's `detail`,
    in PAN's units."""
    smooth, most = mean_around(coarse, WIDE), MOST * level_of(e, stats)
    kept = torch.minimum(torch.maximum(smooth, -most), most)
    most = most + BESIDE * mean_around(detail.abs(), AROUND)
    kept += torch.minimum(torch.maximum(coarse - smooth, -most), most)
    return kept.sub_(coarse)


def mean_around(image: Tensor, side: int) -> Tensor:
    """Means within squares; rows first, then columns, takes a tenth of the time."""
    for window in ((side, 1), (1, side)):
        image = torch.nn.functional.avg_pool2d(image, window, 1, [n // 2 for n in window], count_include_pad=False)
    return image


def intensity_of(bands: Tensor, stats: SceneStats) -> Tensor:
    """The weighted sum of bands (n, bands, rows, cols) that is most like PAN at the MS's scale (n, 1, rows, cols)."""
    weights = stats.intensity[:-1]
    level = stats.intensity[-1] + weights @ stats.mean
    return torch.einsum("nbhw,b->nhw", bands - stats.mean[:, None, None], weights)[:, None].add_(level)


def level_of(bands: Tensor, stats: SceneStats) -> Tensor:
    """How bright bands (n, bands, rows, cols) are in PAN's units, without its offset (n, 1, rows, cols)."""
    return torch.einsum("nbhw,b->nhw", bands, stats.intensity[:-1])[:, None].abs()
