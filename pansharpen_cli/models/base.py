"""What every network is given and what it declares about itself."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Literal, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .. import covariance
from ..physics import Offset, degrader, upsampler
from ..raster.geometry import Phase, Window
from ..raster.values import Lift

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Inputs:
    """A batch of tiles on the PAN grid, in DN: `pan` (n, 1, rows, cols), `expanded`, `pan_low` (n, bands, rows, cols).

    `expanded` is the MS up-sampled at the exact phase; `pan_low` is PAN degraded to the MS grid with each band's MTF
    and up-sampled again: what PAN looks like with the resolution of that band. `prepared`: what a network has made of
    them once and for all (`Backbone.prepare`).
    """

    pan: Tensor
    expanded: Tensor
    pan_low: Tensor
    prepared: Tensor | None = None

    def map(self, change) -> Inputs:
        known = None if self.prepared is None else change(self.prepared)
        return Inputs(change(self.pan), change(self.expanded), change(self.pan_low), known)


def concatenate(parts: Sequence[Inputs]) -> Inputs:
    """One batch of several of the same size."""
    pan, expanded, pan_low = (torch.cat([getattr(p, key) for p in parts]) for key in ("pan", "expanded", "pan_low"))
    return Inputs(pan, expanded, pan_low)


def inputs_at(
    phase: Phase, window: Window, pan: Tensor, pan_window: Window, ms: Tensor, ms_window: Window,
    gains: Sequence[float], offsets: Sequence[Offset] = (),
) -> Inputs:  # fmt: skip
    """Inputs of a window of PAN (n, 1, rows, cols) and MS (n, bands, rows, cols) that lie around it, on their device.

    `offsets` are those of the bands from the MS's grid, if any. The operators run in float64, so that a pixel comes out
    the same to the last float32 bit whatever the window around it.
    """
    up = upsampler(phase, window, ms_window, offsets).to(pan.device, torch.float64)
    down = degrader(phase, ms_window, pan_window, gains, offsets).to(pan.device, torch.float64)
    expanded, pan_low = up(ms.double(), torch.float32), up(down(pan.double()), torch.float32)
    return Inputs(pan[..., *window.within(pan_window)].float(), expanded, pan_low.expand_as(expanded))


@dataclass(frozen=True)
class SceneStats:
    """Statistics over the valid pixels of a scene, in DN; tensors of one value per band.

    `gain` is cov(E_b, P) / cov(P_L,b, P), the injection gain of MTF-GLP-FS (Vivone et al. 2018). `intensity` holds the
    ridge least-squares weights of the low-passed PAN on the bands, both averaged over `CELL` pixels, then the constant:
    in finer details a sharpened, aliased or displaced MS says other things than PAN, and draws the weights to zero.
    `haze` is the darkest of each band but for a thousandth: what it shows where nothing is seen.
    `scale` is the DN value of the MS that networks see as one; PAN times `pan_factor` plus `pan_offset` has the mean
    and the deviation of the bands. `lift`: all of these are of pixels that are so lifted, as are those that
    networks are given.
    `agreement`: share of the low-passed PAN's finest detail, its departures from means over `FINE` pixels, that the
    bands explain: 0.99 of simulated products, 0.88 to 0.95 of real ones. `spanned`: the same of its averages over
    `CELL` pixels, where neither aliasing nor displacement counts: what is missing to 1 is light that no band sees.
    """

    mean: Tensor
    std: Tensor
    gain: Tensor
    intensity: Tensor
    haze: Tensor
    pan_mean: float
    pan_std: float
    scale: float
    pan_factor: float = 1.0
    pan_offset: float = 0.0
    lift: Lift = Lift()
    agreement: float = 1.0
    spanned: float = 1.0

    def matched(self, inputs: Inputs) -> Inputs:
        """The inputs with PAN in the units of the MS: networks that subtract one from the other take them so."""
        pan, low = (t * self.pan_factor + self.pan_offset for t in (inputs.pan, inputs.pan_low))
        return Inputs(pan, inputs.expanded, low)

    @property
    def made_up(self) -> float:
        """How far the bands make up the light that PAN sees, from 0 to 1."""
        return min(1.0, max(0.0, (self.spanned - FOREIGN) / (OWN_LIGHT - FOREIGN)))

    @property
    def scale_in_dn(self) -> float:
        return math.ldexp(self.scale, -self.lift.ms)

    def to(self, device: torch.device | str) -> SceneStats:
        return replace(
            self, mean=self.mean.to(device), std=self.std.to(device), gain=self.gain.to(device),
            intensity=self.intensity.to(device), haze=self.haze.to(device),
        )  # fmt: skip

    @classmethod
    def fit(cls, inputs: Inputs) -> SceneStats:
        """Statistics of one batch of tiles that is wholly valid."""
        taken = SceneMoments(inputs.expanded.shape[1])
        taken.update(inputs)
        return taken.stats()


FOREIGN, OWN_LIGHT = 0.97, 0.99
"""Share of PAN's averages that the bands explain, up to which they make up none, and from which on all of its light: of
a PAN that sees other light, such as one of the near infrared over true colour, only the detail is the bands' own."""
HAZE = 0.001
"""Quantile of a band that is its haze."""
FINE = 9
"""Side in PAN pixels of the means that the finest detail of an MS is what departs from."""
CELL, LEAST_CELLS = 24, 100
"""Side in PAN pixels of what the intensity is fitted on, half overlapping, and how many of them that takes."""


def intensity_of(bands: Tensor, stats: SceneStats) -> Tensor:
    """The weighted sum of bands (n, bands, rows, cols) that is most like PAN at the MS's scale (n, 1, rows, cols)."""
    return weighted(bands, stats.intensity[:-1]).add_(stats.intensity[-1])


def weighted(bands: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of bands (n, bands, rows, cols): no product of matrices, which autocast rounds and whose order
    of sums depends on the window."""
    (band, *bands_left), (weight, *others) = bands.split(1, 1), weights.tolist()
    total = band * weight
    for band, weight in zip(bands_left, others, strict=True):
        total = total.add_(band, alpha=weight)
    return total


def injected(inputs: Inputs, stats: SceneStats) -> Tensor:
    """The expanded MS with all that it lacks to be the PAN, by the scene's gains (n, bands, rows, cols): component
    substitution (GSA: Aiazzi et al., TGRS 2007). Of light that the bands do not make up it takes only the detail."""
    low = inputs.pan_low
    lacking = (inputs.pan - low) + stats.made_up * (low - intensity_of(inputs.expanded, stats))
    return inputs.expanded + stats.gain[:, None, None] * lacking


def carry(channels: int, *layers: nn.Conv2d) -> None:
    """Let fresh convolutions pass their first `channels` on as they are.

    A network that gives the result itself, not a residual, would otherwise spend most of a training on learning that.
    """
    with torch.no_grad():
        for layer in layers:
            assert layer.bias is not None
            layer.weight[:channels] = 0
            layer.bias[:channels] = 0
            for i in range(channels):
                layer.weight[i, i, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1


class SceneMoments:
    """Streaming statistics of PAN, the expanded bands and the low-passed PANs."""

    def __init__(self, bands: int) -> None:
        self.bands = bands
        self.sums = covariance.Covariance(pan=1, expanded=bands, pan_low=bands)
        self.cells = covariance.Covariance(expanded=bands, pan_low=1)
        self.fine = covariance.Covariance(expanded=bands, pan_low=1)
        self.thinned: list[Tensor] = []

    @property
    def count(self) -> int:
        return self.sums.count

    def update(self, inputs: Inputs, valid: Tensor | None = None, step: int = 1) -> None:
        """Take in every `step`-th row and column; `valid` (n, rows, cols) leaves pixels out."""
        valid = None if valid is None or bool(valid.all()) else valid
        self._take_cells(inputs, valid)
        every = (..., slice(None, None, step), slice(None, None, step))
        parts = [t[every].movedim(1, 0).cpu() for t in (inputs.pan, inputs.expanded, inputs.pan_low)]
        pixels = [p.flatten(1) if valid is None else p[:, valid[every].cpu()] for p in parts]
        pan, expanded, pan_low = pixels
        count = pan.shape[1]
        if count == 0:
            return
        self.sums.update(pan=pan, expanded=expanded, pan_low=pan_low)
        thin = slice(None, None, max(1, count // 20_000))
        self.thinned.append(expanded[:, thin])

    def _take_cells(self, inputs: Inputs, valid: Tensor | None) -> None:
        """Take in the cells that are wholly valid, and the detail of pixels with nothing but valid ones around."""
        if min(inputs.pan.shape[-2:]) < CELL:
            return
        parts = torch.cat([inputs.expanded, inputs.pan_low.mean(1, keepdim=True)], 1).double()

        def means(side: int, step: int) -> tuple[Tensor, Tensor | None]:
            known = None
            if valid is not None:
                known = torch.nn.functional.avg_pool2d(valid[:, None].double(), side, step)[:, 0].cpu() > 1 - 1e-9
            return torch.nn.functional.avg_pool2d(parts, side, step).movedim(1, 0).cpu(), known

        cells, whole = means(CELL, CELL // 2)
        self.cells.update(whole, expanded=cells[:-1], pan_low=cells[-1:])
        around, whole = means(FINE, 2)
        inner = (..., slice(FINE // 2, -(FINE // 2), 2), slice(FINE // 2, -(FINE // 2), 2))
        detail = parts[inner].movedim(1, 0).cpu() - around
        self.fine.update(whole, expanded=detail[:-1], pan_low=detail[-1:])

    @staticmethod
    def _explained(moments: covariance.Covariance) -> float:
        """Share of the low-passed PAN's variance that a regression on the bands explains; 1 of too few values."""
        explained = moments.explained("pan_low", "expanded") if moments.count >= LEAST_CELLS else None
        return 1.0 if explained is None else max(0.0, explained)

    def stats(self) -> SceneStats:
        """Raises ValueError if no pixel was taken in."""
        if self.count == 0:
            raise ValueError("no valid pixel to fit statistics on")
        mean, low_mean = self.sums.mean("expanded"), self.sums.mean("pan_low")
        pan_var = self.sums.cov("pan")[0, 0]
        low_cov = self.sums.cov("pan_low", "pan")[:, 0]
        some = torch.cat(self.thinned, 1).double()
        scale = max(float(np.quantile(some.abs().amax(0).numpy(), 0.995)), 1e-6)
        tiny = 1e-6 * scale
        pan_mean, pan_std = float(self.sums.mean("pan")), float(pan_var.clamp(min=0).sqrt())
        pan_tiny = max(1e-6 * math.hypot(pan_mean, pan_std), 1e-12)  # its units may be others
        usable = low_cov.abs() > 1e-6 * pan_var + pan_tiny**2
        gain = torch.where(usable, self.sums.cov("expanded", "pan")[:, 0] / torch.where(usable, low_cov, 1.0), 0.0)
        fitted = self.cells if self.cells.count >= LEAST_CELLS else self.sums
        cov = fitted.cov("expanded")
        ridge = 1e-4 * cov.diagonal().mean() + tiny**2
        weights = torch.linalg.solve(
            cov + ridge * torch.eye(self.bands, dtype=torch.float64), fitted.cov("expanded", "pan_low").mean(1)
        )
        constant = low_mean.mean() - weights @ mean
        std = self.sums.std("expanded").clamp(min=tiny)
        factor = float(std.mean()) / pan_std if pan_std > 1e-6 * abs(pan_mean) else 1.0
        intensity = torch.cat([weights, constant[None]]).float()
        haze = torch.from_numpy(np.quantile(some.numpy(), HAZE, axis=1)).float()  # torch's own sorts all of them
        return SceneStats(
            mean.float(), std.float(), gain.float(), intensity, haze, pan_mean, max(pan_std, pan_tiny), scale, factor,
            float(mean.mean()) - factor * pan_mean, agreement=self._explained(self.fine),
            spanned=self._explained(self.cells),
        )  # fmt: skip


@dataclass(frozen=True)
class Published:
    """How public checkpoints of a network name its tensors, where not as we do.

    `names` are pairs of a pattern and what it is replaced by; what matches `unused` takes no part in the network.
    """

    names: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = ()
    unused: str = r"(?!)"


BLOCKS_TWICE = Published(((r"^backbone\.(\d)\.", lambda found: f"res{int(found[1]) + 1}."),))
"""DLPan-Toolbox registers the residual blocks `res1` ... `res4` once more as `backbone.0` ... `backbone.3`."""


Anchor = Literal["frozen", "injected"]
"""What an adaptation stays near to: what the frozen network gives, or `injected`."""


class Adaptation(TypedDict, total=False):
    """Overrides of `adapt.tailor.Settings`: weights of the loss terms, and the schedule."""

    reduced: float
    colour: float
    sharpness: float
    consistency: float
    spectral: float
    spatial: float
    epochs: int
    rate: float
    held_to: Anchor


class Backbone(nn.Module):
    """A fusion network split into `extract` (frozen features) and `map` (features to residual bands).

    The fused tile is `base(inputs) + spread(map(extract(encode(inputs))))`; ERFT puts its tailor between extract and
    map. `encode` and `base` depend on the scene's statistics only.
    """

    bands: int | None
    """Number of bands the network is made for; None takes any."""
    features: int
    """Channels of the feature maps between extract and map."""
    halo: int
    """PAN pixels on each side that one output pixel depends on."""
    last_halo: int = 0
    """PAN pixels on each side that `prepare` and `base` depend on."""
    stride: int = 1
    """PAN pixels on a side of one pixel of the feature maps."""
    multiple_of: int = 1
    """Corners and sides of tiles, halo included, are multiples of this."""
    unpadded: ClassVar[bool] = False
    """Whether its maps may shrink layer by layer (`without_padding`): all its layers of stride 1 are `convolve`."""
    adaptation: ClassVar[Adaptation] = {}
    """What this network takes instead of the usual."""
    stitch: Literal["crop", "blend"] = "crop"
    """`crop`: tiles with their halo give the same pixels as the whole; `blend`: overlap and average."""
    tile_bytes: ClassVar[tuple[int, int]] = (320, 45)
    """Memory per PAN pixel of a tile in the making: of all bands together, and per band."""
    public: ClassVar[Published | None] = None
    """How public checkpoints name its tensors; None if there are none."""

    def prepare(self, inputs: Inputs, stats: SceneStats) -> Inputs:
        """The inputs with what `spread` makes of them alone, for whoever spreads several residuals over them."""
        return inputs

    def encode(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        """Normalised network input (m, channels, rows, cols), as `extract` takes it; m may be tiles times bands."""
        inputs = stats.matched(inputs)
        return torch.cat([inputs.expanded, inputs.pan], 1) / stats.scale

    def extract(self, encoded: Tensor) -> Tensor:
        """Features (k, features, rows / stride, cols / stride); k may be tiles times bands."""
        raise NotImplementedError

    def map(self, features: Tensor) -> Tensor:
        """Residual of the features, normalised."""
        raise NotImplementedError

    def base(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        """What the residual is added to, in DN (n, bands, rows, cols)."""
        return inputs.expanded

    def spread(self, residual: Tensor, inputs: Inputs, stats: SceneStats) -> Tensor:
        """The residual in DN, (n, bands, rows, cols)."""
        return residual.to(inputs.expanded.dtype) * stats.scale

    def finish(self, residual: Tensor, base: Tensor, inputs: Inputs, stats: SceneStats) -> Tensor:
        """The fused tiles in DN, (n, bands, rows, cols): the residual spread and added to its `base`, which stays."""
        return self.spread(residual, inputs, stats).add_(base)

    def auxiliary(self, inputs: Inputs, stats: SceneStats) -> Tensor | None:
        """A term of its own that a network adds to the loss in training, in units of bands' standard deviation."""
        return None

    def forward(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        """The frozen network's fused tiles in DN."""
        residual = self.map(self.extract(self.encode(inputs, stats)))
        return self.finish(residual, self.base(inputs, stats), inputs, stats)


def channels_last(module: Module) -> Module:
    """The module with its weights in the memory format that convolutions are fastest in."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class ResidualBlock(nn.Module):
    """conv3x3, ReLU, conv3x3, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv20 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv21 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.conv21, convolve(self.conv20, x, relu=True), add=x)


def product_type(x: Tensor) -> torch.dtype:
    """The type that convolutions of x are computed in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


_PADDED: ContextVar[bool] = ContextVar("padded", default=True)


@contextmanager
def without_padding() -> Iterator[None]:
    """Let layers of stride 1 give only what has all of its neighbours in the map: for tiles whose halo is cut away in
    the end, and is not worth a product."""
    before = _PADDED.set(False)
    try:
        yield
    finally:
        _PADDED.reset(before)


def centre(maps: Tensor, rows: int, cols: int) -> Tensor:
    """The middle of maps (..., rows, cols)."""
    top, left = (maps.shape[-2] - rows) // 2, (maps.shape[-1] - cols) // 2
    return maps[..., top : top + rows, left : left + cols]


def convolve(layer: nn.Conv2d, x: Tensor, *, add: Tensor | None = None, relu: bool = False) -> Tensor:
    """The convolution of x, what is added to it, and a ReLU: in one pass over the maps on a CPU, without gradients.

    Moving the maps takes as long as the products. Layers pad with zeros, by numbers; hooks on them are not called.
    Channels of x beyond those of the layer hold zeros. Without padding, what is larger of x and `add` is cut to fit.
    """
    padding = layer.padding
    if not _PADDED.get() and layer.stride == (1, 1):
        padding = (0, 0)
        if add is not None:
            lost = layer.kernel_size[0] - 1
            rows, cols = (min(a, b - lost) for a, b in zip(add.shape[-2:], x.shape[-2:], strict=True))
            add, x = centre(add, rows, cols), centre(x, rows + lost, cols + lost)
    dtype, beyond = product_type(x), x.shape[1] - layer.in_channels
    weight = nn.functional.pad(layer.weight, (0, 0, 0, 0, 0, beyond)) if beyond else layer.weight
    fused = one_pass_convolution(dtype) if x.device.type == "cpu" and not torch.is_grad_enabled() else None
    if fused is None:
        y = nn.functional.conv2d(x, weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)
        y = y if add is None else y.add_(add)
        return torch.relu_(y) if relu else y
    x = x.to(dtype, memory_format=torch.channels_last)  # else it takes several passes, and not in all types
    weight = weight.to(dtype, memory_format=torch.channels_last)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    given = weight, bias, padding, layer.stride, layer.dilation, layer.groups
    if add is None:
        return fused(x, *given, "relu" if relu else "none", [], "")
    return fused.binary(x, add.to(dtype), *given, "add", None, "relu" if relu else None, [], "")


@cache
def one_pass_convolution(dtype: torch.dtype) -> Any:
    """oneDNN's convolution with what follows it, a private part of torch; None where a build, a processor or a type has
    none."""
    if not torch.backends.mkldnn.is_available():
        return None
    convolution = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    takes_half = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    known = dtype == torch.float32 or (dtype == torch.bfloat16 and takes_half())
    return convolution if known and hasattr(convolution, "binary") else None
