"""The figures of a report: names, units, which is better, how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Figures


@dataclass(frozen=True)
class Figure:
    """How a figure is named, written and read. `better`: high, low, one (the nearer to 1) or no (none is best)."""

    name: str
    symbol: str
    digits: int
    better: str
    meaning: str
    unit: str = ""

    def rank(self, value: float) -> float:
        """The lower, the better; NaN where none is better."""
        return {"high": -value, "low": value, "one": abs(value - 1)}.get(self.better, math.nan)


FIGURES = {
    "fidelity": Figure(
        "fidelity", "fidelity", 4, "high",
        "How near the result is to the true bands, as far as PAN and MS tell: in the colours of the MS at its scale, "
        "and with the detail of the PAN below it. 1 is best; right colours without any detail have 0.5. It ranks the "
        "results.",
    ),
    "colour_error": Figure(
        "colour error", "colour error", 2, "low",
        "Result seen through the MTF that the scene shows and sampled on the MS grid, minus the MS: root mean square "
        "relative to the band’s, mean of the bands; 0 is best.",
        " %",
    ),
    "detail_error": Figure(
        "detail error", "detail error", 2, "low",
        "What is finer than the MS: weighted sum of the bands, which the PAN shows, minus the PAN: root mean square "
        "relative to the sum’s; 0 is best.",
        " %",
    ),
    "pan_sharpness": Figure(
        "sharpness", "sharpness", 3, "one",
        "Gain of the detail of that weighted sum on the PAN’s: 1 is as sharp as the PAN, less is softer, more is "
        "sharpened or has detail in the wrong place.",
    ),
    "hqnr": Figure(
        "HQNR", "HQNR", 4, "high",
        "Hybrid quality with no reference (Aiazzi et al. 2014): (1 − D_λ,K)(1 − D_S), from 0 to 1; higher is better. "
        "It rewards what resembles the up-sampled MS, its softness and ringing included: plain up-sampling reaches 0.8 "
        "to 0.9. Published tables have it; of two results it names the better one little more often than a coin.",
    ),
    "d_lambda_k": Figure(
        "D_lambda_K", "D_λ,K", 4, "low",
        "Spectral distortion (Khan et al. 2009): one minus the Q2n between the MS and the fused image blurred with the "
        "sensor’s MTF; 0 is best.",
    ),
    "d_s": Figure(
        "D_s", "D_S", 4, "low",
        "Spatial distortion (Alparone et al. 2008): how much the similarity of each band to PAN changes between the "
        "two resolutions; 0 is best.",
    ),
    "qnr": Figure(
        "QNR", "QNR", 4, "high",
        "Quality with no reference (Alparone et al. 2008): (1 − D_λ)(1 − D_S), from 0 to 1; higher is better. It "
        "rewards softness as HQNR does.",
    ),
    "d_lambda": Figure(
        "D_lambda", "D_λ", 4, "low",
        "Spectral distortion (Alparone et al. 2008): how much the similarity between the bands changes; 0 is best.",
    ),
    "pan_detail_correlation": Figure(
        "PAN detail", "PAN detail", 3, "no",
        "Correlation of the bands’ fine detail with PAN’s: low where the image is blurred or noisy. The true bands do "
        "not reach 1: what they differ in, no PAN shows.",
    ),
    "flat_area_activity": Figure(
        "flat-area activity", "flat-area activity", 2, "low",
        "Fine detail where PAN is flat against that elsewhere, relative to PAN’s own: 1 is as calm as PAN; well above "
        "1 is ringing or noise.",
    ),
    "reprojection": Figure(
        "reprojection", "reprojection", 2, "low",
        "Fused image blurred with the MTF and sampled on the MS grid, minus the MS: root mean square, relative to each "
        "band’s mean, mean of the bands; 0 is perfect consistency with what the sensor measured.",
        " %",
    ),
    "q2n": Figure(
        "Q2n", "Q2n", 4, "high",
        "Vector quality index over all bands (Alparone et al. 2004; Garzelli and Nencini 2009), from 0 to 1; higher is "
        "better.",
    ),
    "q": Figure(
        "Q", "Q", 4, "high",
        "Universal image quality index (Wang and Bovik 2002), mean of the bands, up to 1; higher is better.",
    ),
    "sam": Figure(
        "SAM", "SAM", 3, "low",
        "Spectral angle mapper (Kruse et al. 1993): mean angle between the spectra, in degrees; 0 is best.",
        "°",
    ),
    "ergas": Figure(
        "ERGAS", "ERGAS", 3, "low",
        "Relative global error (Wald 2000): root mean square error relative to the bands’ means, scaled by the ratio; "
        "0 is best.",
    ),
    "sharpness": Figure(
        "sharpness", "sharpness", 3, "one",
        "Energy of the finest detail (high pass, sigma 1 pixel) relative to the reference’s, mean of the bands; 1 is "
        "right, below it the image is soft, above it over-sharpened or noisy.",
    ),
    "edge_error": Figure(
        "beside edges", "error beside edges", 3, "low",
        "Error where PAN is calm beside its strong edges, less its mean nearby: halos, ringing, coloured glow. Root "
        "mean square in units of the band’s standard deviation, mean of the bands; 0 is best.",
    ),
    "scc": Figure(
        "SCC", "SCC", 4, "high", "Spatial correlation (Zhou et al. 1998): of the edges, up to 1; higher is better."
    ),
    "psnr": Figure("PSNR", "PSNR", 2, "high", "Peak signal to noise ratio; higher is better.", " dB"),
    "ssim": Figure(
        "SSIM", "SSIM", 4, "high", "Structural similarity (Wang et al. 2004), up to 1; higher is better."
    ),
    "cc": Figure("CC", "CC", 4, "high", "Correlation coefficient, mean of the bands, up to 1; higher is better."),
    "rmse": Figure(
        "RMSE", "RMSE", 4, "low", "Root mean square error in DN, mean of the bands; 0 is best."
    ),
    "bias": Figure(
        "bias", "|bias|", 4, "low", "Size of the mean difference in DN, mean of the bands; 0 is best."
    ),
}  # fmt: skip
"""All figures in the order in which they are shown."""


def value_of(key: str, quality: Mapping) -> float | None:
    """A figure as one number: that of a band list is the mean of the sizes; None if it was not measured."""
    value = quality.get(key)
    if key == "reprojection":
        value = [None if v is None else 100 * v for v in (value or {}).get("relative") or ()]
    if key in ("colour_error", "detail_error") and value is not None:
        value = [100 * v for v in (value if isinstance(value, list | tuple) else [value])]
    if isinstance(value, list | tuple):
        return sum(map(abs, value)) / len(value) if value and all(map(is_number, value)) else None
    return float(value) if value is not None and (is_number(value) or value == math.inf) else None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def text_of(key: str, quality: Mapping, missing: str = "-") -> str:
    """A figure as it is shown."""
    value, figure = value_of(key, quality), FIGURES[key]
    if value is None:
        return missing
    text = f"{value:.4g}" if key in ("rmse", "bias") else f"{value:.{figure.digits}f}"
    return text + figure.unit


def shown_figures(qualities: Iterable[Mapping]) -> list[str]:
    """The figures that any of the results has."""
    qualities = list(qualities)
    return [k for k in FIGURES if any(value_of(k, q) is not None for q in qualities)]


def best_of(key: str, qualities: Sequence[Mapping]) -> set[int]:
    """Which of the results are best, as far as the shown digits tell; none where there is nothing to compare."""
    ranks = {}
    for i, quality in enumerate(qualities):
        value = value_of(key, quality)
        rank = math.nan if value is None else FIGURES[key].rank(value)
        if not math.isnan(rank):
            ranks[i] = rank
    if not ranks:
        return set()
    first = text_of(key, qualities[min(ranks, key=lambda i: ranks[i])])
    best = {i for i in ranks if text_of(key, qualities[i]) == first}
    return best if len(best) < len(ranks) else set()
