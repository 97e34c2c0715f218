"""Figures of fused images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from ..arguments import plain_arguments
from ..errors import InputError
from ..fusion.options import Options
from ..jobs import evaluate as jobs
from ..jobs.opened import ALIGN
from ..progress import Progress, quiet
from .inputs import GivenFiles, Input
from .options import checked, file_of, one_of, opening_of
from .result import Fused

Results: TypeAlias = "Input | Fused | Sequence[Input | Fused] | Mapping[str, Input | Fused]"
"""One fused image, a list of several, or several by the names that the report calls them by."""


_MEASURED = {"fit_bands": "bidx", "measured": True}
"""How a pair is opened where nothing is written."""


def _fused(inputs: GivenFiles, fused: Results) -> list[str]:
    """The paths of fused images. Raises InputError if there is none."""
    if isinstance(fused, Mapping):
        named = [(str(name), each) for name, each in fused.items()]
    else:
        several = list(fused) if isinstance(fused, list | tuple) else [fused]
        named = [(_name_of(each, i), each) for i, each in enumerate(several, 1)]
    if not named:
        raise InputError("no fused image is given")
    paths: list[str] = []
    for name, each in named:
        path = inputs.path(each, name)
        is_called = isinstance(fused, Mapping) or path in inputs.labels
        while is_called and path in paths:  # one file by two names: another spelling for the second
            path = os.path.join(os.path.dirname(path), ".", os.path.basename(path))
        paths.append(path)
        inputs.labels |= {path: name} if is_called else {}
    inputs.labels |= {path: name for path, (name, _) in zip(paths, named, strict=True) if path in inputs.labels}
    return paths


def _name_of(each: Input | Fused, number: int) -> str:
    method = each.report["method"]["name"] if isinstance(each, Fused) else "fused array"
    return f"{method} {number}"


@plain_arguments
def evaluate(
    fused: Results,
    pan: Input,
    ms: Input | Sequence[Input],
    *,
    sensor: str = "auto",
    bidx: Sequence[int | str] | None = None,
    nodata: float | None = None,
    align: str = "auto",
    pan_from: Sequence[int | str] | None = None,
    height: float | None = None,
    dem: str | None = None,
    maps: str | os.PathLike | None = None,
    report: str | os.PathLike | None = None,
    show: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = quiet,
) -> dict:
    """Figures at full resolution of fused images, whoever made them: the dict of `pansharpen evaluate --json`.

    `fused`: an image, a list, or a dict of names and images, each on the PAN grid with the bands of the MS. `maps`: a
    folder for figures per block; `report`: an .html or .json file to write; `show`: names of up to eight images whose
    pictures are in the page. Raises InputError for an image that does not fit the pair.
    """
    one_of("align", align, ALIGN)
    opening = opening_of(locals() | _MEASURED | {"extent": "pan"})
    with GivenFiles() as inputs:
        pair, paths = inputs.pair(pan, ms, opening), _fused(inputs, fused)
        output = _output(inputs, report, maps, overwrite, show)
        return inputs.facts(jobs.evaluate(paths, pair, output, progress, align))


@plain_arguments
def evaluate_against(
    fused: Results,
    reference: Input,
    *,
    ratio: float = 4.0,
    peak: float | None = None,
    nodata: float | None = None,
    maps: str | os.PathLike | None = None,
    report: str | os.PathLike | None = None,
    show: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = quiet,
) -> dict:
    """Figures of fused images against the true bands on the same grid: `pansharpen evaluate --reference --json`.

    `ratio`: MS pixel size in PAN pixels, for ERGAS; `peak`: full value in DN, for PSNR and SSIM, by default that of the
    bit depth. The others as in `evaluate`. Raises InputError for an image that does not fit the reference.
    """
    if not 1 <= ratio <= 100:
        raise InputError(f"ratio is a number from 1 to 100, not {ratio}")
    _check_peak(peak)
    with GivenFiles() as inputs:
        truth, paths = inputs.path(reference, "reference"), _fused(inputs, fused)
        output = _output(inputs, report, maps, overwrite, show)
        return inputs.facts(jobs.evaluate_against(truth, paths, ratio, peak, output, progress, nodata))


@plain_arguments
def evaluate_wald(
    pan: Input,
    ms: Input | Sequence[Input],
    methods: str | Sequence[str],
    *,
    adapt: str = "fast",
    device: str = "auto",
    peak: float | None = None,
    sensor: str = "auto",
    bidx: Sequence[int | str] | None = None,
    nodata: float | None = None,
    align: str = "auto",
    pan_from: Sequence[int | str] | None = None,
    height: float | None = None,
    dem: str | None = None,
    maps: str | os.PathLike | None = None,
    report: str | os.PathLike | None = None,
    show: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = quiet,
) -> dict:
    """Wald's protocol: methods on the degraded pair against the MS itself: `pansharpen evaluate --wald --json`.

    `methods`: names, or "all". The others as in `evaluate_against`. Raises InputError for a method that does not take
    this scene.
    """
    _check_peak(peak)
    names = [name.lower() for name in ([methods] if isinstance(methods, str) else methods)]
    options = checked(Options(adapt=adapt, device=device, align=align, mtf="sensor"))
    opening = opening_of(locals() | _MEASURED)
    with GivenFiles() as inputs:
        pair, output = inputs.pair(pan, ms, opening), _output(inputs, report, maps, overwrite, show)
        return inputs.facts(jobs.evaluate_wald(pair, names, options, peak, output, progress))


def _check_peak(peak: float | None) -> None:
    if peak is not None and not 0 < peak < 1e15:
        raise InputError(f"peak is a positive value in DN, not {peak}")


def _output(inputs: GivenFiles, report, maps, overwrite: bool, show: Sequence[str]) -> jobs.EvaluationOutput:
    if isinstance(report, list):
        raise InputError(f"report takes a path, not {report}")
    folder = None if maps is None else Path(maps)
    return jobs.EvaluationOutput(file_of(report), folder, overwrite, show=inputs.called(show))
