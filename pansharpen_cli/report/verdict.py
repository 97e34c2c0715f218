"""What the figures of a fused image mean: as sharp as the PAN, in its place, the colours of the MS, calm.

verdict.toml has the words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .. import tables
from ..models import DEFAULT
from .facts import Quality, Remark

SHARP, SOFT, HARSH, OVERDONE = 0.88, 0.8, 1.15, 1.3
"""Gain of the result's detail on that of PAN from which on it counts as sharp, below which a user is warned, from which
on it is harsher than PAN, and from which on a user is warned of that. On twelve real scenes GSA has 0.90 to 1.14,
Brovey and PCA 0.59 to 0.92, up-sampling 0.06 to 0.27."""

SOFT_BAND = 0.45
"""Sharpness of a band, the median band's being 1, below which a user is warned. On real scenes the bands of methods
have 0.6 and more, a band blurred by 2 pixels 0.03 to 0.2."""

ALONE = 0.5
"""Sharpness below which neither colours nor artefacts can be told from softness."""

DISPLACED = 0.25
"""PAN pixels by which a result lies beside the PAN from which on a user is warned: methods have up to 0.02."""

KEPT, OFF = 0.04, 0.06
"""Colour error of a band up to which colours count as kept, and from which on a user is warned: what an MS has of noise
and aliasing comes to 0.005 to 0.05, Brovey and PCA reach 0.06 to 0.3."""

CALM, RESTLESS = 1.25, 1.6
"""Flat-area activity up to which flat places count as clean, and from which on a user is warned."""

_TOLD = tables.read(__file__)


def _remark(what: str, level: str = "", **values: object) -> Remark:
    """What verdict.toml says, with these values; of a `level` of its own where it has none there."""
    told = _TOLD[what]
    return {"about": told["about"], "level": level or told["level"], "text": told["text"].format(**values)}


MISMATCHED, UNEVEN, OTHER_UNITS, UP_SAMPLED = map(_remark, ("mismatched", "uneven", "other_units", "up_sampled"))


@dataclass(frozen=True)
class Judged:
    """What is judged: the names of its `bands`; the `method` and the adaptation that made it, as far as known.

    `mismatched`: PAN and MS show different things, and that is all there is to say. `differ`: they are of one place,
    but their detail is not. `up_sampled`: PAN tells nothing about the bands, and is no measure of them.
    """

    bands: Sequence[str | None] = ()
    method: str = ""
    adapt: str = ""
    mismatched: bool = False
    differ: bool = False
    up_sampled: bool = False

    def name(self, band: int) -> str:
        return (self.bands[band] if band < len(self.bands) else None) or f"band {band + 1}"

    @property
    def advice(self) -> str:
        """What to try where the method may be to blame."""
        if self.differ:
            return "pansharpen check tells whether PAN and MS fit"
        if self.method != DEFAULT:
            return f"try --method {DEFAULT}, the default"
        return "try --adapt best" if self.adapt != "best" else "pansharpen check tells whether PAN and MS fit"


def verdict(quality: Quality | None, judged: Judged = Judged()) -> list[Remark]:
    """Remarks on a fused image by the figures of `fidelity.Fidelity` and the flat-area activity, a sentence each; the
    first warning that a method may be to blame for says what to try. Empty where nothing was measured."""
    if judged.mismatched:
        return [MISMATCHED]
    if judged.up_sampled:
        return [UP_SAMPLED]
    if not quality:
        return []
    gain, soft = _number(quality.get("pan_sharpness")), _soft_bands(quality)
    activity = _number(quality.get("flat_area_activity")) * _share_of_pan(gain, quality)
    displaced, differs = _displacement(quality, judged), False
    if displaced:
        found = [displaced, _artefacts(activity)]
    elif gain < ALONE and not soft:
        found = [_sharpness(gain, soft, judged), _remark("unjudged")]
    else:
        errors = [_number(error) for error in quality.get("colour_error") or ()]
        differs = judged.differ and min(errors, default=0.0) >= OFF
        colours = _colours({b: e for b, e in enumerate(errors) if b not in soft}, judged, differs)
        found = [_sharpness(gain, soft, judged), colours, _artefacts(activity)]
    remarks = [remark for remark in found if remark]
    for i, remark in enumerate(remarks):
        if remark["level"] == "warning" and remark is not displaced and not (differs and remark["about"] == "colours"):
            remarks[i] = {**remark, "text": f"{remark['text']}; {judged.advice}"}
            break
    return remarks


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _soft_bands(quality: Quality) -> dict[int, float]:
    """The bands that are far softer than the others, and how sharp they are."""
    values = map(_number, quality.get("band_sharpness") or ())
    return {band: value for band, value in enumerate(values) if value < SOFT_BAND}


def _share_of_pan(gain: float, quality: Quality) -> float:
    """What the detail elsewhere is of that of PAN: a soft image is no measure of what its flat places ought to have."""
    known = [min(_number(v), 1.0) for v in quality.get("band_sharpness") or () if v is not None]
    shares = [gain, sum(known) / len(known) if known else 1.0]
    return max(0.0, min([1.0, *(share for share in shares if not math.isnan(share))]))


def _displacement(quality: Quality, judged: Judged) -> Remark | None:
    """Whether the whole or single bands lie beside the PAN."""

    def is_off(place: Sequence[float] | None) -> bool:
        return place is not None and math.hypot(*place) >= DISPLACED

    def text(what: str, place: Sequence[float]) -> str:
        rows, cols = (round(moved, 1) + 0.0 for moved in place)  # no -0.0
        return f"{what}lies {rows:+.1f} rows and {cols:+.1f} columns beside the PAN"

    places = {b: p for b, p in enumerate(quality.get("band_displacement") or ()) if p is not None}
    wrong = {band: place for band, place in places.items() if is_off(place)}
    whole = quality.get("displacement")
    if whole is not None and is_off(whole) and len(wrong) == len(places):
        return _remark("all_displaced", place=text("", whole))
    told = ", ".join(text(f"{judged.name(band)} ", place) for band, place in wrong.items())
    return _remark("displaced", places=told) if told else None


def _sharpness(gain: float, soft: Mapping[int, float], judged: Judged) -> Remark | None:
    if soft:
        names, shares = ", ".join(map(judged.name, soft)), ", ".join(f"{max(v, 0.0):.0%}" for v in soft.values())
        are = "is" if len(soft) == 1 else "are"
        return _remark("soft_bands", names=names, are=are, shares=shares)
    if math.isnan(gain):
        return None
    if gain < SHARP:
        return _remark("softer", "warning" if gain < SOFT else "note", gain=max(gain, 0.0))
    if gain > HARSH:
        return _remark("harsher", "warning" if gain >= OVERDONE else "note", gain=gain)
    return _remark("sharp", gain=gain)


def _colours(errors: Mapping[int, float], judged: Judged, differs: bool) -> Remark | None:
    if not errors or any(map(math.isnan, errors.values())):
        return None
    worst = max(errors, key=errors.__getitem__)
    error, band = errors[worst], judged.name(worst)
    off = "colours_differ" if differs else "colours_off"
    return _remark("colours_kept" if error <= KEPT else "colours_near" if error < OFF else off, error=error, band=band)


def _artefacts(activity: float) -> Remark | None:
    if math.isnan(activity):
        return None
    what = "calm" if activity <= CALM else "restless" if activity < RESTLESS else "ringing"
    return _remark(what, activity=activity)


def worst(remarks: Sequence[Remark]) -> Remark | None:
    """The first of the worst remarks."""
    order = ("warning", "note", "good")
    return min(remarks, key=lambda remark: order.index(remark["level"]), default=None)


def in_short(text: str) -> str:
    """A remark without its figures and advice."""
    return re.split(r": |; | \(", text)[0]


def warnings_of(remarks: Sequence[Remark]) -> list[str]:
    """What a user ought to be warned of; of the registration the scene's own warnings tell more."""
    warned = (r for r in remarks if r["level"] == "warning" and r["about"] != "registration")
    return [f"the result is doubtful: {r['text']}" for r in warned]
