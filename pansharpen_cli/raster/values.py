"""Values as a file holds them: their type, what stands for nodata, their statistics, and what rounding loses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputError

DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Types of the output."""

VRT_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "int64": "Int64", "uint64": "UInt64", "float32": "Float32", "float64": "Float64",
}  # fmt: skip
"""GDAL's names of the types that are fused."""

CLIPPED, STEPS, FLOAT_STEPS = 1e-3, 16.0, 2.0**16
"""Share of the values beyond another type than the MS's that is reported, and the range of a band in its whole numbers
(of 98 % of the values), or in the steps of scaled floats, below which it is."""

MOST_OF_BAND = 10 * CLIPPED
"""The same share of one band of many."""

SOME = 128
"""Values of a band and a tile that tell its range."""

_ALIKE = 4 * float(np.finfo(np.float32).eps)
"""Share of the nodata value within which GDAL takes a float for it, also one of 64 bits (ARE_REAL_EQUAL)."""


def check_dtype(name: str) -> str:
    """The name of an output type. Raises InputError for one that there is not."""
    if name not in DTYPES:
        raise InputError(f"unknown --dtype '{name}'; choose from {', '.join(DTYPES)}")
    return name


_WRITTEN = 1 << 53
"""Largest nodata value of whole numbers that is written: GDAL writes larger ones of 64 bits with an exponent, and reads
9.2e18 as 9."""


def default_nodata(dtype: np.dtype) -> float:
    """What stands for nodata where no file says: 0, the minimum of signed types that is written, NaN."""
    if dtype.kind == "f":
        return float("nan")
    return 0.0 if dtype.kind == "u" else float(max(np.iinfo(dtype).min, -_WRITTEN))


class Statistics:
    """Minimum, maximum, mean and standard deviation of each band's valid values, as GDAL keeps them in a file. Sums
    over whole numbers of 16 bits are exact, whatever the tiles; of other types nine digits are kept."""

    def __init__(self, bands: int) -> None:
        self.count, self.sums, self.squares = [0] * bands, [0.0] * bands, [0.0] * bands
        self.low, self.high = [np.inf] * bands, [-np.inf] * bands

    def update(self, values: np.ndarray, places: Sequence[int]) -> None:
        """Take in (bands, pixels) of the bands at these places."""
        exact = values.astype(np.int64 if values.dtype.itemsize <= 2 else np.float64)
        low, high = values.min(1).tolist(), values.max(1).tolist()
        sums, squares = exact.sum(1).tolist(), np.einsum("bn,bn->b", exact, exact).tolist()
        for k, band in enumerate(places):
            self.count[band] += values.shape[1]
            self.low[band], self.high[band] = min(self.low[band], low[k]), max(self.high[band], high[k])
            self.sums[band] += sums[k]
            self.squares[band] += squares[k]

    def tags(self, area: int) -> Iterator[dict[str, str]]:
        """Tags of each band; `area`: pixels of the file."""
        for i, count in enumerate(self.count):
            mean = self.sums[i] / count
            yield {
                "STATISTICS_MINIMUM": f"{self.low[i]:.14g}",
                "STATISTICS_MAXIMUM": f"{self.high[i]:.14g}",
                "STATISTICS_MEAN": f"{mean:.9g}",
                "STATISTICS_STDDEV": f"{max(0.0, self.squares[i] / count - mean**2) ** 0.5:.9g}",
                "STATISTICS_VALID_PERCENT": f"{100 * count / area:.4g}",
            }


class Lift(NamedTuple):
    """Exponents of the powers of two that values of PAN and of the MS are multiplied with, which loses nothing."""

    pan: int = 0
    ms: int = 0


class Losses:
    """What becomes of each band's values that are scaled, or of another type than the MS's and written as whole
    numbers. `names` of the bands, as messages call them."""

    def __init__(self, dtype: np.dtype, source: str, scaled: bool, names: Sequence[str]) -> None:
        self.dtype, self.source, self.scaled, self.names = dtype, source, scaled, names
        bands = len(names)
        self.count, self.beyond, self.low, self.high = [0] * bands, [0] * bands, [np.inf] * bands, [-np.inf] * bands
        self.some: list[list[np.ndarray]] = [[] for _ in names]

    def update(self, values: np.ndarray, places: Sequence[int]) -> None:
        """Take in (bands, pixels), at least one, of the bands at these places."""
        for band, each in zip(places, values, strict=True):
            self.low[band] = min(self.low[band], float(each.min()))
            self.high[band] = max(self.high[band], float(each.max()))
            self.some[band].append(each[:: -(-each.size // SOME)].copy())
            self.count[band] += each.size
            if self.dtype.kind != "f":
                limits = np.iinfo(self.dtype)
                self.beyond[band] += int(((each < limits.min - 0.5) | (each > limits.max + 0.5)).sum())

    def notes(self) -> list[str]:
        seen = [band for band, count in enumerate(self.count) if count]
        if self.dtype.kind == "f":
            coarse = [band for band in seen if self.high[band] - self.low[band] < FLOAT_STEPS * self._step(band)]
            if not coarse:
                return []
            step = max(map(self._step, coarse))
            return [
                f"{self._values(coarse)} are rounded to steps of {step:.2g} of {self.dtype}: another --scale, or "
                "--dtype float64 with it, keeps them"
            ]
        limits = np.iinfo(self.dtype)
        advice = f"--scale FACTOR brings them into its range, without --dtype they keep the MS's type ({self.source})"
        if self.scaled:
            advice = "another --scale, or --dtype float32 with it, keeps them"
        notes = []
        least = CLIPPED if sum(self.beyond) > CLIPPED * sum(self.count) else MOST_OF_BAND
        if beyond := [band for band in seen if self.beyond[band] > least * self.count[band]]:
            share = sum(self.beyond[band] for band in beyond) / sum(self.count[band] for band in beyond)
            notes.append(
                f"{share:.1%} of the values{self._of(beyond)} lie outside of {limits.min} to {limits.max} and are "
                f"clipped to {self.dtype}: {advice}{'' if self.scaled else '; for 8-bit pictures use --rgb'}"
            )
        whole = not self.scaled and np.dtype(self.source).kind != "f"
        if narrow := [] if whole else [band for band in seen if band not in beyond and self._spread(band) < STEPS]:
            notes.append(
                f"{self._values(narrow)} are rounded to whole numbers of {self.dtype}, which keep little of them: "
                f"{advice}"
            )
        return notes

    def _step(self, band: int) -> float:
        """Between the largest value of a band and the next of the type, a float."""
        return float(np.spacing(self.dtype.type(max(abs(self.low[band]), abs(self.high[band])))))

    def _spread(self, band: int) -> float:
        """The range of most values of a band: a few far off would hide that the others are alike."""
        low, high = np.percentile(np.concatenate(self.some[band]), (1, 99))
        return float(high - low)

    def _of(self, bands: Sequence[int]) -> str:
        """Which bands; nothing if all."""
        return "" if len(bands) == len(self.names) else f" of {', '.join(self.names[band] for band in bands)}"

    def _values(self, bands: Sequence[int]) -> str:
        low, high = min(self.low[band] for band in bands), max(self.high[band] for band in bands)
        return f"values{self._of(bands)} from {low:.9g} to {high:.9g}"


def fits(kind: np.dtype, value: float) -> bool:
    """Can values of a type be equal to this one?"""
    if kind.kind == "f":
        return not np.isfinite(value) or bool(abs(value) <= np.finfo(kind).max)
    limits = np.iinfo(kind)
    return bool(limits.min <= value <= limits.max and float(value).is_integer())


def is_written(kind: np.dtype, value: float) -> bool:
    """Can a file of this type have this nodata value?"""
    return fits(kind, value) and (kind.kind == "f" or abs(value) <= _WRITTEN)


def nodata_for(kinds: Sequence[str], asked: float | None, label: str, notes: list[str]) -> float | None:
    """What `--nodata` asks for, if bands of these types may hold it: a file that cannot keeps its own value, and
    `notes` say so."""
    if asked is None or all(fits(np.dtype(kind), asked) for kind in kinds if np.dtype(kind).kind in "iuf"):
        return asked
    notes.append(
        f"{label} holds {kinds[0]}, which --nodata {asked:g} does not fit: its own nodata value counts, if any"
    )
    return None


def is_nodata(values: np.ndarray, nodata: float) -> np.ndarray:
    """Where values stand for nodata, as every reader by GDAL takes them: floats next to the value, too."""
    if np.isnan(nodata):
        return np.isnan(values)
    if values.dtype.kind != "f" or not nodata or np.isinf(nodata):
        return values == nodata
    with np.errstate(over="ignore"):
        ends = values.dtype.type(nodata * (1 - _ALIKE)), values.dtype.type(nodata * (1 + _ALIKE))
    return (values == values.dtype.type(nodata)) | ((values > min(ends)) & (values < max(ends)))


def to_dtype(fused: np.ndarray, valid: np.ndarray, dtype: np.dtype, nodata: float) -> np.ndarray:
    """Round half to even and clip to the dtype; nodata where `valid` is false and nowhere else."""
    if dtype.kind == "f":
        data = fused.astype(dtype)
        nearest = None
        if np.isfinite(nodata):  # twice as far as what counts as nodata
            nearest = np.nextafter(dtype.type(nodata * (1 - 2 * _ALIKE)), dtype.type(not nodata))
    else:
        limits = np.iinfo(dtype)
        exact = fused if dtype.itemsize < 4 else fused.astype(np.float64)
        with np.errstate(invalid="ignore"):
            data = np.clip(np.rint(exact), limits.min, limits.max).astype(dtype)
        nearest = dtype.type(nodata + 1 if nodata < limits.max else nodata - 1)
    if nearest is not None:
        data[is_nodata(data, nodata)] = nearest
    data[:, ~valid] = nodata
    return data
