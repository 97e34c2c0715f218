"""The facts of reports and logs as types, so that no one misspells a key; `plain` makes of them what JSON holds.

Within a schema fields are added, never renamed or removed, and never change their meaning (docs/report.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NotRequired, TypedDict


def plain(value: Any) -> Any:
    """Facts as dicts, lists, texts and numbers; None for numbers that are not finite."""
    if is_dataclass(value):
        made: dict[str, Any] = {}
        for each in fields(value):
            given = getattr(value, each.name)
            if each.metadata.get("flat"):
                made |= plain(given or {})
            elif given is not None or not each.metadata.get("absent"):
                made[each.name] = plain(given)
        return made
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def absent() -> Any:
    """A field that JSON does not have while it is None."""
    return field(default=None, metadata={"absent": True})


def flat() -> Any:
    """A field whose entries stand beside the others."""
    return field(default_factory=dict, metadata={"flat": True})


# Reports of fusions and evaluations: dicts as JSON has them, whose keys the type checker knows


class Remark(TypedDict):
    """`level` (good, note, warning), `about` (registration, displacement, sharpness, colours, artefacts), `text`."""

    about: str
    level: str
    text: str


class SceneFacts(TypedDict):
    """A pair: `ratio` and `offset` in PAN pixels (rows, columns), `window` of the PAN file; `scale`: factor and offset
    that DN are written with."""

    pan: str
    pan_files: list[str]
    ms: list[str]
    bands: int
    band_names: list[str | None]
    standard_names: list[str | None]
    band_numbers: list[int]
    dtype: str
    scale: list[float]
    nodata: float | None
    crs: str | None
    ratio: list[float]
    offset: list[float]
    sensor: str
    sensor_recognised_in: str
    warped: bool
    window: list[int]
    fitted_bands: NotRequired[int]
    assumed_names: NotRequired[list[str | None]]


class OutputFacts(TypedDict):
    path: str
    driver: str
    rows: int
    cols: int
    valid_pixels: int
    bytes: NotRequired[int]


class MethodFacts(TypedDict):
    name: str
    weights: str | None
    weights_sha256: str | None
    scale: float | None
    mtf: str
    mtf_gains: list[float]
    band_offsets: list[list[float]]
    device: str
    precision: str
    tile_size: int
    seed: int


class AdaptationFacts(TypedDict):
    """`mode`, and after an adaptation what `adapt.tailor.Outcome` says."""

    mode: str
    kept: NotRequired[bool]
    tiles: NotRequired[int]
    reduced_tiles: NotRequired[int]
    epochs: NotRequired[int]
    seconds: NotRequired[float]
    before: NotRequired[dict[str, float]]
    after: NotRequired[dict[str, float]]
    reason: NotRequired[str]
    history: NotRequired[list[dict[str, float]]]


class RegistrationFacts(TypedDict):
    """Shifts in PAN pixels (rows, columns); of a measured one the fields of `fusion.shifts.Shift`."""

    mode: str
    source: str
    shift: list[float]
    applied: list[float]
    confidence: NotRequired[float]
    confident: NotRequired[bool]
    tiles: NotRequired[int]
    varies: NotRequired[float]
    field: NotRequired[list[tuple[float, float, float, float]]]
    bands: NotRequired[list[tuple[float, float]]]
    agreement: NotRequired[float]
    agreement_aligned: NotRequired[float]
    gains: NotRequired[list[float]]
    searched: NotRequired[float]


class PanRelationFacts(TypedDict):
    """What PAN tells about a band: `fusion.pan_relation.PanRelation`, and whether the band is sharpened by it."""

    band: str
    r2: float
    gain: float
    sharpened: bool


class SavedFitFacts(TypedDict, total=False):
    """A kept fit: the file that it was saved in, or the one that it was taken from."""

    saved_in: str
    taken_from: str
    sha256: str


class PictureFacts(TypedDict):
    path: str
    bytes: int
    stretch: dict[str, list[float]]
    gamma: float
    stretch_file: str | None


class ErrorFacts(TypedDict):
    """By band, in DN but for `relative`, a share of the band's mean; `pixels` of the MS."""

    rmse: list[float]
    bias: list[float]
    relative: list[float | None]
    pixels: int


class Quality(TypedDict, total=False):
    """Figures by the keys of `figures.FIGURES`, None if undefined, and what they were measured on (docs/report.md)."""

    fidelity: float | None
    colour_error: list[float] | None
    detail_error: float | None
    pan_sharpness: float | None
    band_sharpness: list[float | None] | None
    displacement: list[float] | None
    band_displacement: list[list[float] | None] | None
    hqnr: float | None
    d_lambda_k: float | None
    d_s: float | None
    qnr: float | None
    d_lambda: float | None
    pan_detail_correlation: float | None
    flat_area_activity: float | None
    reprojection: ErrorFacts | None
    q2n: float | None
    q: float | None
    sam: float | None
    ergas: float | None
    sharpness: float | None
    edge_error: float | None
    scc: float | None
    psnr: float | None
    ssim: float | None
    cc: float | None
    rmse: list[float] | None
    bias: list[float] | None
    pixels: int
    blocks: int
    blocks_in_all: int
    sampled: bool
    measured_on: str
    mtf_gains: list[float]
    ratio: float
    peak: float


class ComparedFacts(Quality):
    name: str


class ComparisonFacts(TypedDict):
    measured_on: str
    rows: list[ComparedFacts]


class ReportFacts(TypedDict):
    """What a report begins with, and what it tells its reader."""

    schema: str
    version: str
    command: str | None
    software: dict[str, str]
    warnings: list[str]
    notes: list[str]


class FusedFacts(TypedDict):
    """What was fused together, and how it came out."""

    scene: SceneFacts
    method: MethodFacts
    adaptation: AdaptationFacts
    quality: Quality | None
    registration: RegistrationFacts | None
    pan_tells: list[PanRelationFacts]
    verdict: list[Remark]


class PartFacts(FusedFacts):
    """The bands of MS files on one grid; `places`: theirs in the output, from 0."""

    places: list[int]


class FusionFacts(ReportFacts, FusedFacts):
    output: OutputFacts
    options: dict[str, Any]
    seconds: dict[str, Any]
    megapixels_per_second: float
    fit: SavedFitFacts | None
    comparison: ComparisonFacts | None
    groups: list[PartFacts]
    batch: NotRequired[Any]
    rgb: NotRequired[PictureFacts]


class ResultFacts(TypedDict):
    """`rank`: among those of the same `ms`, which are given where MS files lie on several grids."""

    rank: int
    name: str
    path: str | None
    quality: Quality
    verdict: list[Remark]
    ms: NotRequired[list[str]]


class MeasuredFacts(TypedDict):
    """What was measured together, of MS files on one grid."""

    scene: SceneFacts
    registration: RegistrationFacts | None


class EvaluationFacts(ReportFacts):
    kind: str
    scene: SceneFacts | None
    registration: RegistrationFacts | None
    groups: list[MeasuredFacts]
    results: list[ResultFacts]


# Batches


@dataclass(frozen=True)
class Record:
    """A line of `batch.jsonl`: what became of a scene.

    `ms`: the files of each layer of the MS, among the `inputs`. `bytes`, `mtime`: of an output that the batch has
    written; `verdict`: the worst remark on it; `refused`: it was not tried; `made`: size and time of each file that a
    batch has ever made for the scene, by its path, or None where they are not known; `others`: of a newer version.
    """

    schema: str
    scene: str
    status: str
    version: str | None = absent()
    when: str | None = absent()
    paired_by: str | None = absent()
    inputs: list | None = absent()
    ms: list | None = absent()
    options: str | None = absent()
    worker: int | str | None = absent()
    figures: Quality | None = absent()
    verdict: Remark | None = absent()
    rows: int | None = absent()
    cols: int | None = absent()
    valid_pixels: int | None = absent()
    bands: int | None = absent()
    sensor: str | None = absent()
    warnings: list | None = absent()
    notes: list | None = absent()
    bytes: int | None = absent()
    mtime: int | float | None = absent()
    error: str | None = absent()
    refused: bool | None = absent()
    seconds: int | float | None = absent()
    report: str | None = absent()
    quicklook: str | None = absent()
    page: str | None = absent()
    made: dict[str, list | None] | None = absent()
    others: Mapping[str, Any] = flat()

    @property
    def is_done(self) -> bool:
        return self.status == "done"

    @property
    def has_failed(self) -> bool:
        return self.status == "failed"


@dataclass(frozen=True)
class Seam:
    """Two outputs in the area that both cover (`megapixels`). `step`: their mean difference; `varies`: its variation.
    Both are shares of the mean, RMS over the bands. `ms_step`: the step between their MS; `added`: what the fusion adds
    to it. None where the MS cannot be read."""

    one: str
    other: str
    megapixels: float
    step: float
    varies: float
    ms_step: float | None
    added: float | None


@dataclass(frozen=True)
class FailedScene:
    scene: str
    error: str


@dataclass(frozen=True)
class BatchSummary:
    """The outcome of a batch; `failed_before`: not tried again, as --retry-failed was not given."""

    schema: str
    folder: str
    log: str
    scenes: int
    done: int
    done_before: int
    failed: list[FailedScene]
    failed_before: list[FailedScene]
    left_over: int
    seconds: float
    scenes_per_hour: float | None


@dataclass(frozen=True)
class PlannedScene:
    """A scene of a dry run: `state` says why it would be fused, or why not; `fit` is the file of a fit that scenes
    share; `pan_beside`: further files of the PAN."""

    output: str
    pan: list[str]
    ms: list[list[str]]
    paired_by: str
    state: str
    fit: str | None = None
    pan_beside: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class LeftOver:
    """A file that is in no pair, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class BatchPlan:
    schema: str
    folder: str | None
    scenes: list[PlannedScene]
    left_over: list[LeftOver]


# Checks


@dataclass
class FileFacts:
    """An input as its headers tell; `pixel_size`: width and height in units of the CRS; `role`: pan or ms."""

    path: str
    role: str
    driver: str
    rows: int
    cols: int
    bands: int
    dtype: str
    nodata: float | None
    nodata_is_nan: bool
    crs: str | None
    pixel_size: list[float]
    band_names: list[str | None]
    compression: str | None
    lossy: bool
    block: list[int]
    acquired: str | None


@dataclass
class OverlapFacts:
    """What PAN and MS have in common: PAN pixels, and shares of both."""

    rows: int
    cols: int
    pan_share: float
    ms_share: float


@dataclass
class SampleFacts:
    """What was looked at: blocks of `side` x `side` PAN pixels."""

    blocks: int
    blocks_in_all: int
    side: int
    pixels: int
    valid_share: float


@dataclass
class BandValues:
    """Figures of a band's valid pixels, in DN; shares are of the valid pixels (docs/check.md)."""

    minimum: float
    maximum: float
    mean: float
    std: float
    median: float
    p98: float
    bits: int | None
    step: int | None
    ceiling_share: float
    floor_share: float
    dark: float
    haze: float | None
    missing_levels: float | None
    stripes: int
    dead_lines: int


@dataclass
class BandFacts:
    """A band of PAN or MS; `values` is None where no pixel is valid."""

    name: str
    dtype: str
    pixels: int
    nodata_share: float
    values: BandValues | None = field(default=None, metadata={"flat": True})


@dataclass
class AgreementFacts:
    """How well the MS bands explain the low-passed PAN."""

    r2: float | None
    correlations: list[float | None]
    pixels: int


@dataclass
class ShiftFacts:
    """A `fusion.shifts.Shift`, whose fields stand beside the others, and what `fuse --align` does about it."""

    found: Any = field(metadata={"flat": True})
    align: str
    action: str


@dataclass
class MtfFacts:
    """MTF gains at Nyquist: those that are fused with, the sensor's, and the measured ones."""

    gains: list[float]
    table: list[float]
    measured: list[float]


@dataclass
class PlannedMethod:
    name: str
    weights: str | None
    device: str | None
    precision: str | None
    tile_size: int
    tiles: int
    tiles_at_once: int


@dataclass
class PlannedAdaptation:
    """`tiles`, `epochs`: at most; `possible`: are there enough valid tiles."""

    mode: str
    tiles: int
    epochs: int
    possible: bool


@dataclass
class PlannedOutput:
    path: str | None
    driver: str
    rows: int
    cols: int
    bands: int
    dtype: str
    nodata: float | None


@dataclass
class PixelCount:
    rows: int
    cols: int


@dataclass
class Prediction:
    """What fusing takes, measured on the part `trial`; `seconds` by stage, and `total`."""

    seconds: dict[str, float]
    memory_bytes: int
    raw_bytes: int
    stored_bytes: int
    trial: PixelCount


@dataclass(frozen=True)
class Finding:
    """Something that the user should know, and what to do about it: `level` (error, warning or note), `code` for
    programs, and `text`."""

    level: str
    code: str
    text: str


@dataclass
class CheckFacts:
    """All that can be told of a pair before it is fused; `refused`: why `fuse` would refuse it. None: not known.

    `groups`: of MS files on several grids, what is told of each; the rest is that of the first, and of the one output.
    """

    schema: str
    version: str
    kind: str
    refused: str | None = None
    files: list[FileFacts] = field(default_factory=list)
    scene: SceneFacts | None = None
    overlap: OverlapFacts | None = None
    sample: SampleFacts | None = None
    bands: list[BandFacts] | None = None
    agreement: AgreementFacts | None = None
    pan_tells: list[PanRelationFacts] | None = None
    shift: ShiftFacts | None = None
    mtf: MtfFacts | None = None
    method: PlannedMethod | None = None
    adaptation: PlannedAdaptation | None = None
    output: PlannedOutput | None = None
    prediction: Prediction | None = None
    findings: list[Finding] = field(default_factory=list)
    groups: list[CheckFacts] = field(default_factory=list)
