"""What the figures of a fused image mean in words: as sharp as the PAN, the colours of the MS, clean beside edges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .facts import Remark

SHARP, SOFT, HARSH = 0.88, 0.8, 1.15
"""Gain of the result's detail on that of PAN from which on it counts as sharp, below which a user is warned, and from
which on it is harsher than PAN. On twelve real scenes GSA has 0.90 to 1.14, Brovey and PCA 0.59 to 0.92, up-sampling
0.06 to 0.27."""

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

UP_SAMPLED: Remark = {"about": "sharpness", "level": "note", "text": "as soft as the MS: PAN tells nothing about it"}
"""The verdict on a file that is not sharpened, and that PAN is no measure of."""


def verdict(
    quality: Mapping[str, Any] | None,
    bands: Sequence[str | None],
    method: str = "",
    mismatched: bool = False,
    up_sampled: bool = False,
) -> list[Remark]:
    """Remarks on a fused image by the figures of `fidelity.Fidelity` and the flat-area activity, a sentence each.

    `bands` are the names of the bands, `method` is what advice leaves out. `mismatched`: PAN and MS show different
    things, and that is all there is to say; `up_sampled`: PAN tells nothing about the bands, and is no measure of them.
    Empty where nothing was measured.
    """
    if mismatched:
        return [APART]
    if up_sampled:
        return [UP_SAMPLED]
    if not quality:
        return []
    found = (
        _sharpness(_number(quality.get("pan_sharpness")), method),
        _colours(quality.get("colour_error"), bands, method),
        _artefacts(_number(quality.get("flat_area_activity")), method),
    )
    return [remark for remark in found if remark]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _remark(about: str, level: str, text: str) -> Remark:
    return {"about": about, "level": level, "text": text}


def _sharpness(gain: float, method: str) -> Remark | None:
    if math.isnan(gain):
        return None
    if gain < SHARP:
        text = f"softer than the PAN: {gain:.0%} of its detail"
        return _remark("sharpness", *(("warning", f"{text}; {_try('gsa', method)}") if gain < SOFT else ("note", text)))
    if gain > HARSH:
        return _remark("sharpness", "note", f"harsher than the PAN: {gain:.0%} of its detail")
    return _remark("sharpness", "good", f"as sharp as the PAN ({gain:.0%} of its detail)")


def _colours(errors: Sequence[float] | None, bands: Sequence[str | None], method: str) -> Remark | None:
    if not errors or any(math.isnan(_number(e)) for e in errors):
        return None
    worst = max(range(len(errors)), key=lambda b: errors[b])
    name = (bands[worst] if worst < len(bands) else None) or f"band {worst + 1}"
    text = f"{errors[worst]:.1%} in {name}"
    if errors[worst] <= KEPT:
        return _remark("colours", "good", f"the MS's colours are kept (off by {text} at most)")
    if errors[worst] < OFF:
        return _remark("colours", "note", f"colours are a little off: by {text}")
    return _remark("colours", "warning", f"colours are off: by {text}; {_try('glpnet', method)}")


def _artefacts(activity: float, method: str) -> Remark | None:
    if math.isnan(activity):
        return None
    times = f"{activity:.1f} times the detail of PAN in flat places"
    if activity <= CALM:
        return _remark("artefacts", "good", "calm where the PAN is")
    if activity < RESTLESS:
        return _remark("artefacts", "note", f"a little restless beside edges: {times}")
    return _remark("artefacts", "warning", f"rings, noise or fringes beside edges: {times}; {_try('glpnet', method)}")


def _try(other: str, method: str) -> str:
    """What to do about it."""
    if method != other:
        return f"try --method {other}"
    return "try --adapt best" if other == "glpnet" else "is the MS of the same place? (pansharpen check)"


def warnings_of(remarks: Sequence[Remark]) -> list[str]:
    """What a user ought to be warned of; of the registration the scene's own warnings tell more."""
    warned = (r for r in remarks if r["level"] == "warning" and r["about"] != "registration")
    return [f"the result is doubtful: {r['text']}" for r in warned]
