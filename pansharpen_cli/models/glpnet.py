"""GLP-Net, the default: a learned correction of a scene-fitted injection, with one trunk for all bands."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..physics import sum_along
from .base import Adaptation, Backbone, Inputs, ResidualBlock, SceneStats, convolve, intensity_of, product_type

SHARED, OWN = 3, 4
"""Input channels. Shared: PAN, its detail, and how far low-passed PAN departs from the intensity. Of each band: the
expanded MS, the injected detail, that departure in the band's units (together the detail that component substitution
injects), and what the low-passed PAN leaves of the band, in which what both share of aliasing cancels."""
STRIDE = 4
"""PAN pixels on a side of one pixel of the features: a convolution costs a sixteenth, and reaches as far as the MS."""
OUT = 3
"""Output channels a pixel and band: a free residual, a change of the injection gain, a change of the share by which
what the bands lack scales them instead of being added. All of it is shared out: with less, trees and fields smear."""
DIMMED = 0.8
"""Share of what the bands lack that dims them by a factor where PAN is darker than they are and the network is trusted;
all of it where it is not. What is added there leaves the colours of bright neighbours: red and blue rims of shadows."""
BRIGHTEST = 0.3
"""Share of their values by which bands are scaled up at most where the network asks for that."""
FARTHEST = 3.0
"""Times the detail that is added to a band by which it may be dimmed: over forest, which is as dark as haze to the PAN,
noise would dim the bright near infrared by all or nothing."""
TINY = 1e-6
"""Floor of denominators."""
DOUBTED, TRUSTED = 0.95, 0.985
"""Agreement of MS and PAN in fine detail, up to which the share `LEAST_TAKEN`, and from which on all of what the
network adds is taken. Where the MS shows other things there than the PAN, colours that were guessed from both are
fringes and casts to the eye. Simulated products are all above, real ones of full resolution mostly below."""
LEAST_TAKEN = 0.1
"""Share of what the network adds that is always taken."""
TAKEN = 0.8
"""Share of what the network adds that is taken where it is trusted; 1 in training. Scenes are not samples: their truth
asks for 0.8 to 0.9, and the eye for less, as guessed colours turn trees purple in dark places."""
CRISP = 1.025
"""Factor that raises what the bands lack; 1 in training. What has the least error has less energy than the truth."""
MOST, WIDE = 0.08, 25
"""Share of their brightness by which what the bands lack at the MS's scale may change them, as its mean within `WIDE`
pixels."""
TIMES_DETAIL, AROUND = 3.0, 9
"""Times the mean detail that PAN injects within `AROUND` pixels, by which that change may depart further from its mean.
Far more is no aliasing, blur or moved car, but a PAN that the bands do not make up, beside saturated clouds for one."""


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
    last_halo = WIDE // 2
    unpadded = True
    tile_bytes = (50, 137)
    adaptation: ClassVar[Adaptation] = {"held_to": "frozen", "colour": 0.5, "consistency": 0.6, "epochs": 8}
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

    def prepare(self, inputs: Inputs, stats: SceneStats) -> Inputs:
        return replace(inputs, prepared=limited(inputs, stats))

    def encode(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        """(tiles, 1 + bands, channels, rows, cols), the channels innermost in memory, in the type of the products: the
        shared ones, of which one is empty, then those of each band."""
        e, low, pan = inputs.expanded, once(inputs.pan_low), inputs.pan
        tiles, bands, rows, cols = e.shape
        mean, std, gain = (t[:, None, None] for t in (stats.mean, stats.std, stats.gain))
        made = product_type(e)
        planes = e.new_empty(tiles, 1 + bands, rows, cols, OWN, dtype=made).movedim(-1, 2)
        shared, own, unit = planes[:, 0], planes[:, 1:].movedim(2, 0), gain / std
        common, intensity = mean_of(low), intensity_of(e, stats)
        for place, image in enumerate((pan - stats.pan_mean, pan - common, common - intensity)):
            shared[:, place : place + 1] = image.div_(stats.pan_std).to(made)
        shared[:, SHARED:] = 0
        # memory that is new costs as much as a sum; gradients need it
        some, cast = None if torch.is_grad_enabled() else torch.empty_like(e), torch.empty_like(e, dtype=made)
        own[0] = cast.copy_(torch.sub(e, mean, out=some).div_(std))
        own[1] = cast.copy_(torch.mul(pan - low, unit, out=some))
        own[2] = cast.copy_(torch.mul(low - intensity, unit, out=some))
        level = mean - gain * stats.pan_mean
        own[3] = cast.copy_(torch.sub(e, level, out=some).div_(std).addcmul_(low, -unit))
        return planes

    def extract(self, encoded: Tensor) -> Tensor:
        tiles, bands = len(encoded), encoded.shape[1] - 1
        each = convolve(self.head, encoded[:, 1:].flatten(0, 1), relu=True)
        pooled = mean_of(each.unflatten(0, (tiles, bands)))[:, 0]
        trunk = self.trunk(convolve(self.join, encoded[:, 0], add=self.join_bands(pooled), relu=True))
        common = torch.cat([tile for tile in self.shared(trunk).split(1) for _ in range(bands)])
        return self.body(convolve(self.own, each, add=common, relu=True))

    def map(self, features: Tensor) -> Tensor:
        return convolve(self.tail, features)

    def spread(self, residual: Tensor, inputs: Inputs, stats: SceneStats) -> Tensor:
        e, pan = inputs.expanded, inputs.pan
        std, gain, haze = (t[:, None, None] for t in (stats.std, stats.gain, stats.haze))
        trusted = min(1.0, max(LEAST_TAKEN, (stats.agreement - DOUBTED) / (TRUSTED - DOUBTED)))
        following = follows(stats, trusted)[:, None, None]
        free, more, share = shuffled(residual).unflatten(1, e.shape[:2])
        taken, raised = (trusted, 1.0) if self.training else (TAKEN * trusted, CRISP)
        detail = pan - once(inputs.pan_low)
        own = (free.to(e.dtype) * (taken * std)).addcmul_(more.to(e.dtype) * (taken * gain), detail)
        bands = e + own
        whole = intensity_of(bands, stats)
        limits = limited(inputs, stats) if inputs.prepared is None else inputs.prepared
        lacking = (pan - whole).add_(limits).mul_(raised)
        lit = (whole - intensity_of(haze.expand_as(e[:, :, :1, :1]), stats)).clamp_(min=0)
        scale = (lacking / (lit + TINY * stats.pan_std)).clamp(-1.0, BRIGHTEST)
        change = torch.maximum(bands.sub_(haze).mul_(scale), FARTHEST * gain.abs() * lacking.clamp(max=0))
        scaled = change.addcmul_(scale * lit, -gain)
        dimmed = (1 - (1 - DIMMED) * trusted) * (scale < 0)
        share = (share.to(e.dtype) * (trusted * following)).addcmul_(dimmed, following)
        return own.addcmul_(share, scaled).addcmul_(lacking, gain)


def shuffled(residual: Tensor) -> Tensor:
    """torch's pixel_shuffle, (k, OUT * STRIDE^2, rows, cols) to (OUT, k, rows * STRIDE, cols * STRIDE): for channels
    that are innermost in memory in an eighth of its time, as four values at once are moved."""
    pixels, rows = residual.movedim(1, -1).contiguous(), residual.shape[2] * STRIDE
    if residual.requires_grad or residual.element_size() > 4:
        moved = pixels.unflatten(-1, (OUT, STRIDE, STRIDE)).permute(3, 0, 1, 4, 2, 5)
        return moved.reshape(OUT, len(residual), rows, -1)
    fours = pixels.flatten().view({2: torch.int64, 4: torch.complex128}[residual.element_size()])
    moved = fours.view(*pixels.shape[:3], OUT, STRIDE).permute(3, 0, 1, 4, 2).flatten()
    return moved.view(residual.dtype).view(OUT, len(residual), rows, -1)


def follows(stats: SceneStats, trusted: float) -> Tensor:
    """Part of the dimming that suits each band (bands,): of a PAN that the bands do not make up, the part that they do,
    and of a band that follows PAN by less than its brightness, as the near infrared often does, the part by which it
    does, where the network is not `trusted` to know better."""
    weights, above = stats.intensity[:-1], (stats.mean - stats.haze).clamp(min=TINY)
    alike = (stats.gain * (weights @ above) / above).clamp(0.0, 1.0)
    return stats.made_up * (weights @ stats.gain).clamp(0.0, 1.0) * (alike + (1 - alike) * trusted)


def limited(inputs: Inputs, stats: SceneStats) -> Tensor:
    """How the limits change what the bands lack at the MS's scale (n, 1, rows, cols), in PAN's units."""
    low = mean_of(once(inputs.pan_low))
    intensity = intensity_of(inputs.expanded, stats)
    coarse = low - intensity
    # of how bright the bands are in PAN's units, without its offset
    smooth, most = mean_around(coarse, WIDE), MOST * (intensity - stats.intensity[-1]).abs_()
    kept = torch.minimum(torch.maximum(smooth, -most), most)
    most = most.add(mean_around((inputs.pan - low).abs(), AROUND), alpha=TIMES_DETAIL)
    kept += torch.minimum(torch.maximum(coarse - smooth, -most), most)
    kept *= stats.made_up
    return kept.sub_(coarse)


def once(bands: Tensor) -> Tensor:
    """The one plane that bands (n, bands, rows, cols) are views of, where they are; else the bands."""
    return bands[:, :1] if bands.stride(1) == 0 else bands


def mean_of(bands: Tensor) -> Tensor:
    """The mean along the second axis, which stays: in one order however it lies in memory, and faster than mean()."""
    first, *others = bands.split(1, 1)
    return sum(others, first) / bands.shape[1]


def mean_around(image: Tensor, side: int) -> Tensor:
    """Means within squares of an odd side, of what of them lies in the image (n, 1, rows, cols): rows first, then
    columns, in a fifth of the time of avg_pool2d."""
    around = (side // 2,) * 2
    for dim, pad in ((-2, (0, 0, *around)), (-1, around)):
        ones = image.new_ones(image.shape[dim], 1) if dim == -2 else image.new_ones(image.shape[dim])
        found, inside = (sum_along(nn.functional.pad(x, pad), side, dim) for x in (image, ones))
        image = found.div_(inside)
    return image
