"""Rasters, weights and folders for tests."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from safetensors.torch import save_file

from pansharpen_cli import models
from pansharpen_cli.fusion import register, shifts
from pansharpen_cli.physics import degrade_matrix
from pansharpen_cli.raster.geometry import Axis
from pansharpen_cli.training import landscape, simulate

T = TypeVar("T")
STILL = shifts.Shift(0.02, -0.03, 0.97, True, 30, 0.05, bands=((0.0, 0.01),) * 4)
"""What `still` has for measured."""
MEASURE = register.measure


def once(what: str, make: Callable[[], T]) -> T:
    """What is made, once in a run of the tests, whichever of its processes asks first."""
    kept = Path(os.environ["PANSHARPEN_TESTS"], f"{hashlib.sha256(what.encode()).hexdigest()}.pickle")
    if not kept.exists():
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_bytes(pickle.dumps(make()))
        part.replace(kept)
    return pickle.loads(kept.read_bytes())


@lru_cache(maxsize=4)
def _landscape(rows: int, cols: int, seed: int) -> np.ndarray:
    return once(f"landscape {rows} {cols} {seed}", lambda: landscape.landscape(rows, cols, seed))


def _simulated(spec: simulate.Simulation) -> simulate.SimulatedScene:
    """A simulated scene on a landscape that others may be on as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulate, "landscape", lambda *at: _landscape(*at).copy())
        return simulate.simulate(spec)


@lru_cache(maxsize=64)
def painted(spec: simulate.Simulation) -> simulate.SimulatedScene:
    """A simulated scene, painted once in a run; its arrays are read-only."""
    made = once(f"scene {spec}", lambda: _simulated(spec))
    for array in vars(made).values():
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    return made


def write_scene(made: simulate.SimulatedScene, folder: Path | str) -> tuple[Path, Path, Path]:
    """`pan.tif`, `ms.tif` and `truth.tif` of a scene, compressed as fast as may be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulate, "LEVEL", 1)
        return simulate.write_scene(made, folder)


@lru_cache(maxsize=64)
def _written(spec: simulate.Simulation) -> dict[str, bytes]:
    def files() -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            return {path.name: path.read_bytes() for path in write_scene(painted(spec), folder)}

    return once(f"files {spec}", files)


def write_pair(folder: Path, *given, **spec) -> tuple[Path, Path, Path]:
    """`pan.tif`, `ms.tif` and `truth.tif` of a `Simulation` in a folder: painted and written once in a run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _written(simulate.Simulation(*given, **spec)).items():
        (folder / name).write_bytes(content)
    return folder / "pan.tif", folder / "ms.tif", folder / "truth.tif"


def seen_through(
    truth: Path,
    target: Path,
    bands: Sequence[int],
    ratio: float,
    offset: tuple[float, float] = (0.0, 0.0),
    gain: float = 0.3,
    names: Sequence[str] = (),
) -> Path:
    """Bands (from 1) of a truth as an MS on a grid of its own: `ratio` and `offset` in pixels of the truth.

    All of its pixels lie within the truth.
    """
    with rasterio.open(truth) as dataset:
        sharp, transform, crs = dataset.read(list(bands)).astype(float), dataset.transform, dataset.crs
    axes = [Axis(ratio, o) for o in offset]
    spans = [(max(0, -int(o // ratio)), int((n - o) // ratio)) for n, o in zip(sharp.shape[1:], offset, strict=True)]
    rows, cols = (degrade_matrix(a, s, (0, n), gain) for a, s, n in zip(axes, spans, sharp.shape[1:], strict=True))
    place = Affine.translation(offset[1] + ratio * spans[1][0], offset[0] + ratio * spans[0][0])
    profile = {"count": len(bands), "height": len(rows), "width": len(cols), "dtype": "uint16", "crs": crs, "nodata": 0}
    with rasterio.open(
        target, "w", driver="GTiff", transform=transform @ place @ Affine.scale(ratio), **profile
    ) as out:
        out.write(np.rint(rows @ sharp @ cols.T).astype("uint16"))
        for i, name in enumerate(names, 1):
            out.set_band_description(i, name)
    return target


def edited(source: Path, target: Path, change=lambda pixels: pixels, names=(), **profile) -> Path:
    """A copy of a raster with other pixels, band names or profile, tags left behind."""
    with rasterio.open(source) as dataset:
        pixels = change(dataset.read())
        kept = {k: v for k, v in dataset.profile.items() if k in ("driver", "crs", "transform", "nodata")}
    kept |= {"count": pixels.shape[0], "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    with rasterio.open(target, "w", **kept | profile) as dataset:
        dataset.write(pixels)
        for i, name in enumerate(names, 1):
            dataset.set_band_description(i, name)
    return target


def pixels_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def random_weights(
    path: Path,
    seed: int = 0,
    config: dict[str, int] | None = None,
    network: str = "glpnet",
    change: Callable[[dict], object] = lambda state: None,
) -> Path:
    """Weights of a small network whose correction is not zero, so that every stage matters."""
    config = {"features": 8, "blocks": 1} if config is None else config
    generator = torch.Generator().manual_seed(seed)
    state = models.create(network, config).state_dict()
    state = {k: 0.2 * torch.randn(v.shape, generator=generator) for k, v in state.items()}
    change(state)
    save_file(state, path, {"network": network, "config": json.dumps(config)})
    return path


def seldom(every: Iterable[T], often: Collection[T]) -> list:
    """Parameters of a test, those that are not `often` looked at marked as slow: they ask the same of other code."""
    return [
        each if each in often else pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=pytest.mark.slow)
        for each in every
    ]


def inventory(folder: Path) -> dict[str, bytes | None]:
    """All that lies in a folder, with the content of the files."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
