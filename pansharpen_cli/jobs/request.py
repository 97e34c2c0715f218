"""What a fusion is asked for: a pair, where to write. What cannot be done is refused before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..fusion.options import Options, check_method
from ..fusion.saved_fit import SUFFIX, SavedFit
from ..publish import TIFF, check_place, family
from ..raster.creation import parse_creation_options
from ..raster.messages import gdal_messages
from ..raster.scene import Scene
from ..raster.source import open_raster
from .pair import Pair as Pair
from .picture import Request, path_beside

PICTURES = (".png", ".jpg", ".jpeg")
"""How the names of quicklooks end."""


@dataclass(frozen=True)
class FusionOutput:
    """Where and how to write: all of it is published together, or nothing.

    `command` is what the reports say was called; `batch`: what they say of the scene in a batch. `rgb` asks for an
    8-bit picture beside the output or in its place, `save_fit` for a file that keeps the fit. `keeps`: whether a file
    that is there in the end stays; where it is not given, all do without `overwrite`.
    """

    path: Path
    driver: str = "GTiff"
    creation_options: Sequence[str] = ()
    overviews: bool | None = None
    overwrite: bool = False
    quicklook: Path | None = None
    reports: Sequence[Path] = ()
    command: str | None = None
    batch: Mapping[str, object] | None = None
    rgb: Request | None = None
    save_fit: Path | None = None
    keeps: Callable[[Path], bool] | None = None

    @property
    def picture_alone(self) -> bool:
        """Is the picture in the place of the data?"""
        return self.rgb is not None and self.rgb.alone

    @property
    def picture(self) -> Path:
        """Where the picture is, if one is asked for."""
        return self.path if self.picture_alone else path_beside(self.path)


def is_html(path: Path | None) -> bool:
    """Which kind of report a path asks for. Raises InputError if its ending says neither."""
    if path is None or path.suffix.lower() == ".json":
        return False
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--report takes a .html or a .json file, not {path}")
    return True


def targets_of(output: FusionOutput) -> list[tuple[Path, Sequence[str]]]:
    """All paths that are going to be written, each with what its name may end in; anything if empty."""
    targets: list[tuple[Path, Sequence[str]]] = [(output.path, TIFF), *((p, ()) for p in output.reports)]
    targets += [(output.quicklook, PICTURES)] if output.quicklook else []
    targets += [(output.save_fit, (SUFFIX,))] if output.save_fit else []
    if output.rgb is not None:
        targets += [] if output.picture_alone else [(output.picture, TIFF)]
        if (kept := output.rgb.kept_in) is not None and not kept.exists():
            targets.append((kept, (".json",)))
    return targets


def check_name(path: Path) -> None:
    """Raises InputError for a path that GDAL cannot write to."""
    try:
        os.path.realpath(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"cannot write {path}: its path is no text in UTF-8; choose another one") from error


def check_targets(output: FusionOutput, options: Options, scene: Scene, several: bool = False) -> None:
    """Raises InputError if `fuse_scene` could not write its output, report or quicklook, but for files that are there.

    `several`: `scene` is what is written of several scenes.
    What is going to be removed, as it would be read with the output, is among the scene's warnings.
    """
    targets = targets_of(output)
    if len({os.path.realpath(p) for p, _ in targets}) < len(targets):
        raise InputError("the output, the report, the quicklook, the picture and the fit need different paths")
    if options.fit is not None:
        if output.save_fit is not None:
            raise InputError("--fit and --save-fit exclude each other: a fit that is taken is kept already")
        if not several:
            SavedFit.read_for(options.fit, scene, options)
    if output.picture_alone and output.creation_options:
        raise InputError("--co is of the data, and --rgb-only writes none; leave it out")
    if output.rgb is not None:
        output.rgb.check(scene)
    for path in output.reports:
        is_html(path)
    read = scene.files() | {name for name in (options.fit, options.weights) if name}
    for path, endings in targets:
        check_name(path)
        check_place(path, read, output.overwrite, endings, makes_folders=True)
        for part in () if path.exists() else family(path):
            scene.warnings.append(f"{part} is removed: without {path.name} it was a part of nothing")


def refuse_files(files: Sequence[str], pair: Pair | None = None) -> None:
    """Raises InputError for files that GDAL cannot open, or a pair that cannot be fused."""
    with gdal_messages(), ExitStack() as stack:
        for each in stack.enter_context(pair.held()).parts.pairs if pair is not None else ():
            stack.enter_context(each.open())
        for path in files:
            stack.enter_context(open_raster(path, rpcs=True))


def refuse(pair: Pair, output: FusionOutput, options: Options) -> None:
    """Raises InputError for what `fuse_scene` would refuse before it measures anything: it takes a tenth of a second,
    and torch a whole one."""
    parse_creation_options(output.creation_options)
    check_method(options)
    with gdal_messages(), pair.held() as pair:
        check_written(pair, output, options)


def check_written(pair: Pair, output: FusionOutput | None, options: Options) -> list[str]:
    """What is to be told before a pair that is held is aligned. Raises InputError for parts that make no output, or not
    this one, as `check_targets` does."""
    parts = pair.parts
    several = len(parts.pairs) > 1
    if output is None and not several:
        return []
    with ExitStack() as stack:
        scenes = parts.scenes(stack, options.align)
        written = parts.together(scenes) if several else scenes[0]
        known = len(written.warnings)
        if output is not None:
            check_targets(output, options, written, several)
        return written.warnings[known:]
