"""What the figures of a fused image mean in words: as sharp as the PAN, in its place, the colours of the MS, calm."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .facts import Remark

DEFAULT = "glpnet"
"""The method that is advised: in all that is warned of, none is better on the mean."""

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

APART: Remark = {
    "about": "registration",
    "level": "warning",
    "text": "PAN and MS do not show the same in the same place: no figure can be relied on",
}
"""What no index of full resolution shows."""

UNEVEN: Remark = {
    "about": "registration",
    "level": "warning",
    "text": "edges double where the MS lies beside the PAN: its shift varies over the scene",
}
"""Nor that."""

OTHER_UNITS: Remark = {
    "about": "colours",
    "level": "warning",
    "text": "in other units than the MS, as its tags say: no figure can be relied on",
}
"""Of a file of which figures are of the units."""

UP_SAMPLED: Remark = {"about": "sharpness", "level": "note", "text": "as soft as the MS: PAN tells nothing about it"}
"""The verdict on a file that is not sharpened, and that PAN is no measure of."""


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
        if self.method != DEFAULT:
            return f"try --method {DEFAULT}, the default"
        return "try --adapt best" if self.adapt != "best" else "pansharpen check tells whether PAN and MS fit"


def verdict(quality: Mapping[str, Any] | None, judged: Judged = Judged()) -> list[Remark]:
    """Remarks on a fused image by the figures of `fidelity.Fidelity` and the flat-area activity, a sentence each; the
    first warning that a method may be to blame for says what to try. Empty where nothing was measured."""
    if judged.mismatched:
        return [APART]
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
        apart = "colours and artefacts cannot be judged in a result this soft"
        found = [_sharpness(gain, soft, judged), _remark("colours", "note", apart)]
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


def _remark(about: str, level: str, text: str) -> Remark:
    return {"about": about, "level": level, "text": text}


def _soft_bands(quality: Mapping[str, Any]) -> dict[int, float]:
    """The bands that are far softer than the others, and how sharp they are."""
    values = map(_number, quality.get("band_sharpness") or ())
    return {band: value for band, value in enumerate(values) if value < SOFT_BAND}


def _share_of_pan(gain: float, quality: Mapping[str, Any]) -> float:
    """What the detail elsewhere is of that of PAN: a soft image is no measure of what its flat places ought to have."""
    known = [min(_number(v), 1.0) for v in quality.get("band_sharpness") or () if v is not None]
    shares = [gain, sum(known) / len(known) if known else 1.0]
    return max(0.0, min([1.0, *(share for share in shares if not math.isnan(share))]))


def _displacement(quality: Mapping[str, Any], judged: Judged) -> Remark | None:
    """Whether the whole or single bands lie beside the PAN."""

    def beside(place: Sequence[float] | None) -> bool:
        return place is not None and math.hypot(*place) >= DISPLACED

    def text(what: str, place: Sequence[float]) -> str:
        rows, cols = (round(moved, 1) + 0.0 for moved in place)  # no -0.0
        return f"{what}lies {rows:+.1f} rows and {cols:+.1f} columns beside the PAN"

    places = {b: p for b, p in enumerate(quality.get("band_displacement") or ()) if p is not None}
    wrong = {band: place for band, place in places.items() if beside(place)}
    whole = quality.get("displacement")
    if whole is not None and beside(whole) and len(wrong) == len(places):
        return _remark("displacement", "warning", f"{text('', whole)}: sharpness and colours are not judged")
    told = ", ".join(text(f"{judged.name(band)} ", place) for band, place in wrong.items())
    return _remark("displacement", "warning", told) if told else None


def _sharpness(gain: float, soft: Mapping[int, float], judged: Judged) -> Remark | None:
    if soft:
        names, shares = ", ".join(map(judged.name, soft)), ", ".join(f"{max(v, 0.0):.0%}" for v in soft.values())
        are = "is" if len(soft) == 1 else "are"
        return _remark("sharpness", "warning", f"{names} {are} softer than the other bands: {shares} of their detail")
    if math.isnan(gain):
        return None
    share = f"{max(gain, 0.0):.0%} of its detail"
    if gain < SHARP:
        return _remark("sharpness", "warning" if gain < SOFT else "note", f"softer than the PAN: {share}")
    if gain > HARSH:
        return _remark("sharpness", "warning" if gain >= OVERDONE else "note", f"harsher than the PAN: {share}")
    return _remark("sharpness", "good", f"as sharp as the PAN ({share})")


def _colours(errors: Mapping[int, float], judged: Judged, differs: bool) -> Remark | None:
    if not errors or any(map(math.isnan, errors.values())):
        return None
    worst = max(errors, key=errors.__getitem__)
    text = f"{errors[worst]:.1%} in {judged.name(worst)}"
    if errors[worst] <= KEPT:
        return _remark("colours", "good", f"the MS's colours are kept (off by {text} at most)")
    if errors[worst] < OFF:
        return _remark("colours", "note", f"colours are a little off: by {text}")
    why = "; PAN and MS differ (moving water, other dates?): no method keeps the colours here" if differs else ""
    return _remark("colours", "warning", f"colours are off: by {text}{why}")


def _artefacts(activity: float) -> Remark | None:
    if math.isnan(activity):
        return None
    times = f"{activity:.1f} times the detail of PAN"
    if activity <= CALM:
        return _remark("artefacts", "good", "calm where the PAN is")
    if activity < RESTLESS:
        return _remark("artefacts", "note", f"a little restless in flat places: {times}")
    return _remark("artefacts", "warning", f"rings, noise or fringes in flat places: {times}")


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
