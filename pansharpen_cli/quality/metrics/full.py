"""Indices at full resolution, without a reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ...raster.geometry import Window
from .blocks import (
    DETAIL_REACH,
    DETAIL_SIGMA,
    ENERGY_SIZE,
    FLAT_SHARE,
    INDEX_BLOCK,
    MAPS,
    EnergySums,
    Index,
    as_bands,
    block_area,
    eroded,
    high_pass,
    into_blocks,
    kept_of,
    local_energy,
    mtf_filter,
    not_nan,
    or_note,
    same_shape,
    same_size,
    universal_index,
    whole_blocks,
    whole_of,
    with_margin,
)
from .errors import mean_correlation, spectral_angles
from .q2n import q2n_blocks, q2n_of_blocks

# Full resolution


def d_lambda_k(
    expanded: Tensor,
    fused: Tensor,
    gains: Sequence[float],
    ratio: float,
    valid: Tensor | None = None,
    *,
    scale: float = 1.0,
) -> float:
    """Spectral distortion of Khan: 1 - Q2n(expanded MS, fused blurred with the MS MTF), at PAN scale.

    Khan et al., "Pansharpening Quality Assessment Using the Modulation Transfer Functions of Instruments", 2009, as in
    the toolbox: not decimated. Images (bands, rows, cols) in DN; `gains` and `ratio` as in `mtf_filter`, `scale` as in
    `Q2n`. Trailing partial blocks (the toolbox refuses them) and blocks with an invalid pixel in `valid` (rows, cols)
    are left out; invalid pixels of `fused` must hold numbers, which the blur spreads. `InputError` when no block is
    left.
    """
    values = q2n_blocks(expanded, mtf_filter(fused, gains, ratio), scale=scale)
    if valid is not None:
        values = values[whole_blocks(valid)]
    return _mean_distortion(values.sum(), values.numel())


def d_s(fused: Tensor, expanded: Tensor, pan: Tensor, pan_low: Tensor, valid: Tensor | None = None) -> float:
    """Spatial distortion: mean over bands of |q(fused band, PAN) - q(expanded band, low-passed PAN)|, exponent 1.

    Alparone et al., "Multispectral and Panchromatic Data Fusion Assessment Without Reference", 2008; q is the mean of
    `universal_index`. `fused`, `expanded`: (bands, rows, cols); `pan` and `pan_low` (PAN reduced to the MS grid and
    expanded again) one band; all in DN on the PAN grid. Blocks with an invalid pixel in `valid` (rows, cols) and blocks
    without an index in one of the two terms, where the toolbox returns NaN, are left out of both; `InputError` when a
    band has no block left.
    """
    same_shape(fused, expanded)
    pairs = ((fused, pan), (expanded, pan_low))
    q, p = (_qualities(torch.cat([x, as_bands(y)]), valid)[:, :-1, -1] for x, y in pairs)
    return _gap(_gap_sums(q, p), "D_s")


def hqnr(d_lambda_k: float, d_s: float) -> float:
    """Hybrid QNR, (1 - D_lambda_K) (1 - D_s): Aiazzi et al., "Full-scale assessment of pansharpening methods", 2014."""
    return (1 - d_lambda_k) * (1 - d_s)


def d_lambda(fused: Tensor, expanded: Tensor, valid: Tensor | None = None) -> float:
    """Spectral distortion of QNR: mean over band pairs of |q(F_i, F_j) - q(E_i, E_j)|, exponent 1.

    Alparone et al. 2008. Images (bands, rows, cols) in DN on the PAN grid; q and the blocks left out as in `d_s`.
    `InputError` when there is one band only, or a pair without a block.
    """
    same_shape(fused, expanded)
    q, p = (_band_pairs(_qualities(x, valid)) for x in (fused, expanded))
    return _gap(_gap_sums(q, p), "D_lambda")


def qnr(d_lambda: float, d_s: float) -> float:
    """QNR, (1 - D_lambda) (1 - D_s), both exponents 1: Alparone et al. 2008."""
    return (1 - d_lambda) * (1 - d_s)


def _mean_distortion(total: float | Tensor, blocks: int) -> float:
    """D_lambda_K from the sum of Q2n over blocks."""
    if not blocks:
        raise InputError(f"D_lambda_K is undefined: there is no {INDEX_BLOCK} x {INDEX_BLOCK} block of valid pixels")
    return 1 - not_nan(total / blocks, "D_lambda_K")


def _qualities(x: Tensor, valid: Tensor | None) -> Tensor:
    """Universal index of all pairs of bands of (bands, rows, cols) in each valid block: (blocks, bands, bands)."""
    same_size(x, valid)
    blocks = into_blocks(x)
    blocks = blocks.flatten(0, 1) if valid is None else blocks[whole_blocks(valid)]
    return universal_index(blocks, blocks)


def _band_pairs(quality: Tensor) -> Tensor:
    """The pairs of different bands of (blocks, bands, bands): (blocks, pairs)."""
    bands = quality.shape[-1]
    first, second = torch.triu_indices(bands, bands, 1, device=quality.device)
    return quality[:, first, second]


def _gap_sums(q: Tensor, p: Tensor) -> Tensor:
    """Sums over blocks of two indices (blocks, bands) where both exist, and their number: (3, bands)."""
    both = ~(q.isinf() | p.isinf())
    return torch.stack([torch.where(both, x, 0.0).sum(0) for x in (q, p, torch.ones_like(q))])


def _gap(sums: Tensor, what: str) -> float:
    """Mean over bands of the absolute difference of the two means."""
    if not sums.shape[1]:
        raise InputError(f"{what} compares pairs of bands: it needs two bands or more")
    if not sums[2].all():
        raise InputError(
            f"{what} is undefined: a band has no {INDEX_BLOCK} x {INDEX_BLOCK} block of valid pixels that vary"
        )
    return not_nan((sums[0] - sums[1]).div(sums[2]).abs().mean(), what)


@dataclass(eq=False)
class FullResolution:
    """All figures without a reference, piece by piece: HQNR, QNR, their distortions, and the detail against PAN.

    `shape`: rows and columns of the image; `scale` as in `Q2n`. Blocks with an invalid pixel never enter an index,
    trailing partial blocks neither; the detail figures take all pixels. `notes` tells after `compute` why a figure is
    None.
    """

    shape: tuple[int, int]
    scale: float = 1.0
    blocks: int = field(default=0, init=False)
    notes: list[str] = field(default_factory=list, init=False)
    reach: ClassVar[int] = DETAIL_REACH + ENERGY_SIZE // 2

    def __post_init__(self) -> None:
        self._correlation, self._flat = DetailCorrelation(), FlatArea()
        self._q2n, self._ms_varies = 0.0, False
        self._with_pan, self._between_bands = (torch.zeros(3, 1, dtype=torch.float64) for _ in range(2))
        self._maps = np.full((len(MAPS), self.shape[0] // INDEX_BLOCK, self.shape[1] // INDEX_BLOCK), np.nan)

    def update(
        self,
        fused: Tensor,
        blurred: Tensor,
        expanded: Tensor,
        pan: Tensor,
        pan_low: Tensor,
        valid: Tensor | None = None,
        core: Window | None = None,
        at: tuple[int, int] = (0, 0),
        details: Details | None = None,
    ) -> None:
        """Add a piece whose first own pixel is at `at`, multiples of 32; it ends on multiples of 32 or with the image.

        `fused` (bands, rows, cols) in DN, `pan` (one band) and `valid` come with their margin; `valid` is false
        wherever one of the images is nodata or was filtered from nodata. `blurred` (fused through `mtf_filter`),
        `expanded`: (bands, own rows, own cols), and `pan_low` (PAN reduced to the MS grid and expanded again; one band)
        are of the own pixels alone. Images that are all float32 are filtered and blocks of them multiplied in float32,
        which costs an index about 1e-6; sums are float64. `details`: those of the piece, where they are known.
        Raises ValueError for shapes that do not match or a piece off the lattice.
        """
        pan, pan_low = as_bands(pan), as_bands(pan_low)
        same_size(fused, pan, valid)
        area = block_area(core or whole_of(fused), at, self.shape)
        own = (core or whole_of(fused)).slices
        same_shape(fused[:, *own], blurred, expanded)
        same_shape(pan[:, *own], pan_low)
        if any(image.dtype != torch.float32 for image in (fused, blurred, expanded, pan, pan_low)):
            fused, blurred, expanded, pan, pan_low = (i.double() for i in (fused, blurred, expanded, pan, pan_low))
        details = details or Details.of(fused, pan, valid, core)
        self._correlation.add(details)
        self._flat.add(details)
        mask = torch.ones_like(pan[0], dtype=torch.bool) if valid is None else valid
        whole = whole_blocks(mask[own])
        if not whole.any():
            return
        f, m, e = (
            _selected(x, whole)
            for x in (torch.cat([fused[:, *own], pan[:, *own]]), blurred, torch.cat([expanded, pan_low]))
        )
        energy = details.values[-1:].square()
        energy = energy if details.kept.all() else energy.masked_fill(~details.kept, math.nan)
        figures = [*self._add_blocks(f, m, e), _selected(energy, whole).nanmean((1, 2))]
        # Whole blocks only: a trailing partial one has no place in the maps.
        rows, cols = whole.shape
        place = Window.at(*area.corner, (rows, cols)).slices
        self._maps[:, *place][:, whole.cpu().numpy()] = torch.stack([x.double() for x in figures]).cpu().numpy()

    def _add_blocks(self, f: Tensor, m: Tensor, e: Tensor) -> list[Tensor]:
        """Add the indices of fused with PAN, blurred, and expanded with low-passed PAN: (blocks, bands, pixels).

        Returns the first four maps of these blocks.
        """
        bands = m.shape[1]
        ms = e[:, :bands]
        self._ms_varies = self._ms_varies or _varies(ms)
        q2n = q2n_of_blocks(ms, m, self.scale)
        of_fused, of_expanded = universal_index(f, f), universal_index(e, e)
        q, p = of_fused[:, :bands, bands], of_expanded[:, :bands, bands]
        pairs = (_band_pairs(x[:, :bands, :bands]) for x in (of_fused, of_expanded))
        self.blocks += len(m)
        self._q2n += float(q2n.sum())
        self._with_pan = self._with_pan + _gap_sums(q, p).cpu()
        self._between_bands = self._between_bands + _gap_sums(*pairs).cpu()
        spatial = (q - p).abs()
        spatial = spatial.masked_fill(~spatial.isfinite(), math.nan).nanmean(1)
        angles, exist = spectral_angles(e[:, :bands].transpose(0, 1), m.transpose(0, 1))
        angles = angles.masked_fill(~exist, math.nan).nanmean(1)
        return [q2n * (1 - spatial), 1 - q2n, spatial, angles]

    def _spectral_distortion(self) -> float:
        if not self._ms_varies:
            raise InputError("D_lambda_K is undefined: the MS is constant")
        return _mean_distortion(self._q2n, self.blocks)

    def _spatial_distortion(self) -> float:
        if not self._correlation.pan_varies:  # it would be 0, as if nothing were lost
            raise InputError("D_s is undefined: PAN is constant")
        return _gap(self._with_pan, "D_s")

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """Figures of each whole block (rows // 32, cols // 32), NaN unless all its pixels are valid.

        `hqnr`, `d_lambda_k` and `d_s` as in the indices, but of this block alone; `sam`: mean spectral angle between
        the expanded MS and the blurred result, in degrees; `detail`: mean square of PAN's high pass, DN^2, over the
        pixels whose kernel touches valid ones only.
        """
        return dict(zip(MAPS, self._maps, strict=True))

    def compute(self) -> dict[str, Any]:
        """`hqnr`, `d_lambda_k`, `d_s`, `qnr`, `d_lambda`, `pan_detail_correlation`, `flat_area_activity`, `blocks`.

        `blocks`: number of blocks used. A figure that this image does not define (QNR and D_lambda of a single band,
        say) is None and its reason is in `notes`. `InputError` when there was no whole valid block.
        """
        if not self.blocks:
            raise InputError(f"no quality figure: the scene has no {INDEX_BLOCK} x {INDEX_BLOCK} block of valid pixels")
        measures: dict[str, Callable[[], float]] = {
            "d_lambda_k": self._spectral_distortion,
            "d_s": self._spatial_distortion,
            "d_lambda": lambda: _gap(self._between_bands, "D_lambda"),
            "pan_detail_correlation": self._correlation.compute,
            "flat_area_activity": self._flat.compute,
        }
        self.notes.clear()
        figures = {name: or_note(measure, self.notes) for name, measure in measures.items()}
        spectral, spatial, between = figures["d_lambda_k"], figures["d_s"], figures["d_lambda"]
        return {
            "hqnr": None if spectral is None or spatial is None else hqnr(spectral, spatial),
            "qnr": None if between is None or spatial is None else qnr(between, spatial),
            **figures,
            "blocks": self.blocks,
        }


def _varies(x: Tensor) -> bool:
    """Whether a band of (blocks, bands, pixels) is more than one value and what filters make of it."""
    spread, least = x.amax((0, 2)) - x.amin((0, 2)), 1e-9 if x.dtype == torch.float64 else 1e-6
    return not bool((spread <= least * x.abs().amax()).all())


def _selected(x: Tensor, chosen: Tensor) -> Tensor:
    """The chosen blocks of (bands, rows, cols): (blocks, bands, pixels)."""
    blocks = into_blocks(x, x.dtype)
    return blocks.flatten(0, 1) if chosen.all() else blocks[chosen]


# Detail against PAN


@dataclass(frozen=True)
class Details:
    """High passes of the bands and of PAN, last, of a piece: x - gauss(x, sigma), edges of the image repeated.

    `sums` over `pixels`, those whose kernel touches valid ones only, and `products` of all pairs. `values`: of the own
    pixels (bands + 1, rows, cols), zero unless `kept` (rows, cols). `wide`: with their margin, of which `own` is the
    piece; `mask`: valid pixels of that.
    """

    pixels: int
    sums: Tensor
    products: Tensor
    values: Tensor
    kept: Tensor
    wide: Tensor
    mask: Tensor
    own: Window

    @classmethod
    def of(
        cls,
        fused: Tensor,
        pan: Tensor,
        valid: Tensor | None = None,
        core: Window | None = None,
        sigma: float = DETAIL_SIGMA,
        reach: int = DETAIL_REACH,
        margin: int = DETAIL_REACH + ENERGY_SIZE // 2,
    ) -> Details:
        """Of a piece, its own pixels `core`: `fused` (bands, rows, cols), `pan` one band, DN; `valid` bool (rows,
        cols). The Gaussian is cut at `reach` pixels; `margin`: pixels that `wide` has around the own ones."""
        pan = as_bands(pan)
        same_size(fused, pan, valid)
        area, own = with_margin(core, fused, max(margin, reach))
        mask = torch.ones_like(pan[0, *area.slices], dtype=torch.bool) if valid is None else valid[area.slices]
        wide = high_pass(torch.cat([fused[:, *area.slices], pan[:, *area.slices]]), mask, sigma, reach)
        values, kept = wide[:, *own.slices], eroded(mask, reach)[own.slices]
        whole = bool(kept.all())
        x = (values.flatten(1) if whole else values[:, kept]).double()
        values = values if whole else values.masked_fill(~kept, 0.0)
        return cls(x.shape[1], x.sum(1), x @ x.T, values, kept, wide, mask, own)


class _OfDetails(Index):
    """An index of high passes: `add` takes them, `update` images."""

    add: Callable[[Details], Any]

    def update(self, fused: Tensor, pan: Tensor, valid: Tensor | None = None, core: Window | None = None) -> None:
        """Add a piece: `fused` (bands, rows, cols), `pan` one band, DN; `valid` bool (rows, cols)."""
        self.add(Details.of(fused.double(), pan.double(), valid, core))


class DetailCorrelation(_OfDetails):
    """PAN detail correlation: mean over bands of the Pearson correlation of the high passes of each band and of PAN.

    High pass: x - gauss(x, sigma 2 pixels), cut at 4 sigma, edges of the image repeated. Pixels whose kernel touches an
    invalid one are left out. The true bands of a scene reach 0.81 to 0.94, so the largest figure is not the best.
    """

    reach = DETAIL_REACH
    _pixels = 0
    _sums = torch.zeros(3, 1, dtype=torch.float64)

    def add(self, details: Details) -> None:
        """Add the high passes of a piece."""
        products = details.products
        self._pixels += details.pixels
        self._add_up(details.sums, products.diagonal(), products[-1])

    @property
    def pan_varies(self) -> bool:
        """Whether PAN has shown any detail so far."""
        return bool(self._sums[1, -1] > 0)

    def compute(self) -> float:
        """The figure of all pieces so far. A band without any detail counts 0.

        `InputError` when PAN has none or no pixel is left.
        """
        if not self._pixels:
            raise _no_detail(self.reach)
        mean, square, product = self._sums / self._pixels
        variance, cov = square - mean**2, product - mean * mean[-1]
        what = "the PAN detail correlation"
        return mean_correlation(variance[:-1], variance[-1:], cov[:-1], what, "PAN")


class FlatArea(_OfDetails):
    """Flat-area activity: detail where PAN is flat, against PAN itself. 1: as calm as PAN; more: ringing or noise.

    High pass as in `DetailCorrelation`; flat are the 20 % of the valid pixels with the lowest 9 x 9 mean of PAN's
    squared high pass. Mean over bands of rms(flat) / rms(elsewhere), divided by the same of PAN. Pixels whose kernels
    touch an invalid one are left out.

    The quantile comes from a histogram whose bins are 0.1 % of the local energy wide; of the bin on the border, a
    share counts as flat.
    """

    reach = DETAIL_REACH + ENERGY_SIZE // 2

    def __init__(self) -> None:
        self._binned = EnergySums()

    def add(self, details: Details) -> None:
        """Add the high passes of a piece."""
        kept, wide, own = eroded(details.mask, self.reach), details.wide, details.own
        energy = kept_of(local_energy(wide[-1])[None], kept, own)[0]
        self._binned.add(energy, kept_of(wide, kept, own).square())

    def compute(self) -> float:
        """The figure of all pieces so far.

        `InputError` when no pixel is left, when PAN is constant over the flat pixels, or a band over the others.
        """
        pixels = float(self._binned.counts.sum())
        if not pixels:
            raise _no_detail(self.reach)
        wanted = math.ceil(FLAT_SHARE * pixels)
        share = self._binned.lowest(wanted)
        flat, elsewhere = self._binned.sums @ share, self._binned.sums @ (1 - share)
        not_nan(flat.sum() + elsewhere.sum(), "flat-area activity")
        if wanted == pixels or (elsewhere == 0).any():
            raise InputError("flat-area activity is undefined: an image is constant outside the flat pixels")
        ratios = (flat / wanted / (elsewhere / (pixels - wanted))).sqrt()
        if ratios[-1] < 1e-6:  # below that it is rounding noise
            raise InputError("flat-area activity is undefined: PAN is constant over its flattest fifth")
        return float(ratios[:-1].mean() / ratios[-1])


def _no_detail(reach: int) -> InputError:
    return InputError(f"no detail figure: no pixel is {reach} pixels or more away from invalid ones")
