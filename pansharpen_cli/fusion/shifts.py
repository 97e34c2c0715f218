"""A measured shift of the MS: what of it is corrected, and what a user is told of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..raster.geometry import Offset

SEARCH, FAR = 8.0, 64.0
"""Largest shifts that are looked for on each axis, in PAN pixels: at first, and where PAN and MS do not agree there."""

LEAST_SHIFT = 0.1
"""PAN pixels from which on a shift of the MS, or of a single band, is corrected: what is less may be noise."""

OFF, LEFT, VARIES, BAND_OFF, DISPLACED = 0.25, 1.0, 1.0, 1.0, 2.0
"""PAN pixels from which on it is reported that the MS lies off, that it is left there, that the shift varies over
the scene, that bands lie apart, and that they lie farther apart than optics do and are left there."""

MEASURABLE = 0.1
"""Confidence below which no shift is named at all."""

DOUBTFUL, WRONG = 0.8, 0.4
"""R2 of the low-passed PAN by the bands below which they may, and surely do not, show the same in the same place."""


@dataclass(frozen=True)
class Shift:
    """Where the MS content lies, in PAN pixels (rows down, columns right) from where the georeferencing says.

    Correcting it adds (`rows`, `cols`) to the MS's phase offset. `confidence` is 0 to 1; `confident` says whether it is
    to be relied on (and `fuse --align auto` corrects it). `field` are (row, col, rows, cols) of single tiles, the
    place in PAN pixels; `varies` is how much the shift changes over the scene, in PAN pixels; `bands` are the offsets
    of each MS band from the others, (rows, cols) in PAN pixels. `agreement` is the R2 of the low-passed PAN by the
    bands where the georeferencing puts them, `agreement_aligned` where the shift does. `gains` are the MTF gains at
    Nyquist that the bands show: the sensor's, their kernels all wider or narrower by one factor. What cannot be
    measured is NaN, and `gains` are empty. `searched` is the largest shift that would have been found.
    """

    rows: float
    cols: float
    confidence: float
    confident: bool
    tiles: int
    varies: float = 0.0
    field: tuple[tuple[float, float, float, float], ...] = ()
    bands: tuple[tuple[float, float], ...] = ()
    agreement: float = math.nan
    gains: tuple[float, ...] = ()
    searched: float = SEARCH
    agreement_aligned: float = math.nan


def is_correctable(found: Shift) -> bool:
    """Whether a shift is to be relied on and large enough to be corrected."""
    return found.confident and math.hypot(found.rows, found.cols) >= LEAST_SHIFT


def band_offsets(found: Shift) -> tuple[Offset, ...]:
    """Offsets of the single bands that are to be relied on and large enough to be corrected, 0 for the others.

    Empty where none is. They are PAN pixels to be added to the phase of a band, beside the shift of the whole.
    """
    kept = tuple(o if found.confident and math.hypot(*o) >= LEAST_SHIFT else (0.0, 0.0) for o in found.bands)
    return kept if any(map(any, kept)) else ()


def displaced(offsets: Sequence[Offset]) -> tuple[Offset, ...]:
    """Of the offsets of single bands those of bands that lie apart, 0 for the others; empty where none does."""
    kept = tuple(o if math.hypot(*o) >= BAND_OFF else (0.0, 0.0) for o in offsets)
    return kept if any(map(any, kept)) else ()


def is_mismatched(found: Shift, corrected: bool) -> bool:
    """Whether PAN and MS show different things in the same place: no shift aligns them, or they are a PAN pixel or more
    apart and that is not `corrected`."""
    left = not corrected and math.hypot(found.rows, found.cols) >= LEFT
    return found.agreement < DOUBTFUL and (not found.confident or left)


def agreement_of(found: Shift, corrected: bool) -> float:
    """R2 of the low-passed PAN by the bands where the MS is taken to lie."""
    return found.agreement_aligned if corrected else found.agreement


def doubt(r2: float, in_place: bool = False) -> str | None:
    """What a low agreement of PAN and MS means, in words; None where it is as usual or not known. `in_place`: their
    shift is certain, so that they fit in part of the scene."""
    text = f"the MS bands explain {r2:.0%} of the low-passed PAN (R2 {r2:.2f})"
    if in_place and r2 < DOUBTFUL:
        return (
            f"{text}, 90 % and more is usual, though the two fit in places: clouds, another date or place in the rest, "
            "or bands that the PAN does not see?"
        )
    if r2 < WRONG:
        return f"{text}: not the same place or date, or far out of register"
    return f"{text}, 90 % and more is usual: misregistration, clouds or another date?" if r2 < DOUBTFUL else None


def described(shift: Offset) -> str:
    return f"{shift[0]:+.2f} rows and {shift[1]:+.2f} columns in PAN pixels"


def varied(found: Shift) -> str:
    """That a shift is not the same everywhere, by how much, and what is to be done about it."""
    return (
        f"the shift of the MS varies over the scene, by about {found.varies:.1f} PAN pixels or more: terrain, clouds "
        "that moved or another geometry; orthorectify PAN and MS with the same DEM"
    )


def shifted_bands(found: Shift) -> list[int]:
    """The bands, from 0, that lie apart from the others."""
    return [band for band, offset in enumerate(found.bands) if found.confident and math.hypot(*offset) >= BAND_OFF]


def is_displaced(offset: Offset, moved: Sequence[Offset]) -> bool:
    """Whether a band is displaced and left there; `moved`: `band_offsets` applied."""
    return not moved and math.hypot(*offset) >= DISPLACED


def _displaced_line(found: Shift, band: int, moved: Sequence[Offset]) -> str:
    offset = found.bands[band]
    done = "corrected" if moved else "not corrected (networks do, with --align auto and --mtf auto)"
    done += ", but for the border that it does not cover" if moved and math.hypot(*offset) >= DISPLACED else ""
    return f"MS band {band + 1} lies {described(offset)} off the other bands: {done}"


def _off(found: Shift) -> str:
    return f"{described((found.rows, found.cols))} off its georeferencing"


def mismatch(found: Shift) -> str:
    """That PAN and MS show different things in the same place, and why."""
    reach = f"{found.searched:g} PAN pixels"
    reach += "" if found.searched >= FAR else " (the scene is too small to show larger ones)"
    text = f"no shift of up to {reach} lays the MS on the PAN, and {doubt(found.agreement)}"
    if found.confident:
        text = f"the MS lies {_off(found)} and is left there (--align auto corrects it)"
    return (
        f"{text}; the indices of full resolution do not show that: do not use the result before you have looked at it"
    )


def warnings_of(found: Shift, corrected: bool, moved: Sequence[Offset] = ()) -> list[str]:
    """What a user ought to be warned of in a measured shift, a line each; `moved`: `band_offsets` applied."""
    notes, size = [], math.hypot(found.rows, found.cols)
    off = _off(found)
    if is_mismatched(found, corrected):
        notes.append(mismatch(found))
    elif is_correctable(found) and size >= OFF and not (corrected and size < SEARCH):
        done = "corrected (--align off leaves it)" if corrected else "not corrected (--align auto does)"
        notes.append(f"the MS lies {off}: {done}")
    elif size >= LEFT and not found.confident:
        notes.append(f"the MS may lie {off}: too uncertain to correct (confidence {found.confidence:.2f})")
    if not is_mismatched(found, corrected) and (doubts := doubt(agreement_of(found, corrected), found.confident)):
        notes.append(doubts)
    if found.varies >= VARIES:
        notes.append(f"{varied(found)}; {'only one is corrected' if corrected else 'none is corrected'}")
    displaced = [band for band in shifted_bands(found) if is_displaced(found.bands[band], moved)]
    return notes + [_displaced_line(found, band, moved) for band in displaced]


def notes_of(found: Shift, corrected: bool, moved: Sequence[Offset]) -> list[str]:
    """What is usual in a measured shift and was corrected as always, a line each; `moved`: `band_offsets` applied."""
    notes, shift = [], (found.rows, found.cols)
    if is_correctable(found) and corrected and OFF <= math.hypot(*shift) < SEARCH:
        notes.append(f"the MS lies {described(shift)} off its georeferencing: corrected (--align off leaves it)")
    usual = [band for band in shifted_bands(found) if not is_displaced(found.bands[band], moved)]
    return notes + [_displaced_line(found, band, moved) for band in usual]
