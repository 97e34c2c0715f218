"""Seams between neighbouring outputs: how large they are, and how much of them the MS have themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from pansharpen_cli.archive import seams
from pansharpen_cli.archive.batch_log import SCHEMA, Log
from pansharpen_cli.report.facts import Record

SIDE, RATIO = 256, 4
GROUND = 1000 + 200 * np.random.default_rng(0).random((3, SIDE // 32, 3 * SIDE // 32)).repeat(32, 1).repeat(32, 2)
"""Values of the ground of which west shows the left two thirds and east the right two."""


def write(path: Path, values: np.ndarray, first: int, pixel: float = 1.0, **profile) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {"crs": "EPSG:32631", "transform": Affine(pixel, 0, 5e5 + first, 0, -pixel, 5e6), "nodata": 0}
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": "uint16"}
    with rasterio.open(path, "w", driver="GTiff", **known | shape | profile) as dataset:
        dataset.write(values.astype("uint16"))
    return path


def scene(folder: Path, name: str, first: int, factor: float = 1.0, ms_factor: float = 1.0) -> Record:
    """An output and its MS, whose values are those of the ground times a factor."""
    ground = GROUND[..., first : first + 2 * SIDE]
    write(folder / "out" / name, ground * factor, first)
    ms = write(folder / "in" / name, (ground * ms_factor)[:, ::RATIO, ::RATIO], first, RATIO)
    return Record(SCHEMA, name, "done", ms=[[str(ms)]])


def measured(folder: Path, *records: Record):
    return seams.measure(folder / "out", records)


def test_a_step_that_the_ms_have_is_not_the_fusions(tmp_path) -> None:
    (seam,) = measured(tmp_path, scene(tmp_path, "west.tif", 0), scene(tmp_path, "east.tif", SIDE, 1.05, 1.05))
    assert (seam.one, seam.other) == ("west.tif", "east.tif")
    assert seam.megapixels == pytest.approx(SIDE**2 / 1e6)
    assert seam.step == pytest.approx(0.05 / 1.025, rel=0.01) == seam.ms_step
    assert seam.added == pytest.approx(0, abs=2e-4)


def test_a_step_that_the_fusion_adds_is_told_and_comes_first(tmp_path) -> None:
    west, east = scene(tmp_path, "west.tif", 0), scene(tmp_path, "east.tif", SIDE, 1.03)
    again = scene(tmp_path, "again.tif", SIDE)
    found = measured(tmp_path, west, again, east)
    assert {(s.one, s.other) for s in found} >= {("west.tif", "east.tif"), ("west.tif", "again.tif")}
    steps = {frozenset((s.one, s.other)): s.added for s in found}
    assert steps[frozenset(("west.tif", "east.tif"))] == pytest.approx(0.03 / 1.015, rel=0.01)
    assert steps[frozenset(("west.tif", "again.tif"))] == pytest.approx(0, abs=2e-4)
    assert [s.added for s in found] == sorted((s.added for s in found), reverse=True)


def test_outputs_of_other_bands_have_no_seam(tmp_path) -> None:
    west, east = scene(tmp_path, "west.tif", 0), scene(tmp_path, "east.tif", SIDE)
    for name, bands in {"west.tif": ("Red", "Green", "Blue"), "east.tif": ("red", None, "blue")}.items():
        with rasterio.open(tmp_path / "out" / name, "r+") as dataset:
            dataset.descriptions = bands
    assert len(measured(tmp_path, west, east)) == 1
    with rasterio.open(tmp_path / "out" / "east.tif", "r+") as dataset:
        dataset.descriptions = ("swir1", None, "blue")
    assert measured(tmp_path, west, east) == []


def test_scenes_apart_or_in_another_crs_have_no_seam_and_lost_files_harm_none(tmp_path) -> None:
    west, east = scene(tmp_path, "west.tif", 0), scene(tmp_path, "east.tif", SIDE)
    write(tmp_path / "out" / "far.tif", GROUND[..., :SIDE], 5000)
    write(tmp_path / "out" / "zone.tif", GROUND[..., :SIDE], SIDE, crs="EPSG:32632")
    (tmp_path / "out" / "broken.tif").write_bytes(b"II*\0")
    others = [Record(SCHEMA, name, "done") for name in ("far.tif", "zone.tif", "broken.tif", "gone.tif", "../x.tif")]
    write(tmp_path / "x.tif", GROUND[..., :SIDE], 0)
    Path(west.ms[0][0]).unlink()
    (seam,) = measured(tmp_path, west, east, *others, replace(east, status="failed", scene="west.tif"))
    assert seam.ms_step is None and seam.added is None and seam.step == pytest.approx(0, abs=1e-9)


def test_pixels_that_are_valid_in_one_only_do_not_count(tmp_path) -> None:
    west, east = scene(tmp_path, "west.tif", 0), scene(tmp_path, "east.tif", SIDE)
    ground = GROUND[..., SIDE:].copy()
    ground[..., : SIDE // 2] = 0
    write(tmp_path / "out" / "east.tif", ground, SIDE)
    (seam,) = measured(tmp_path, west, east)
    assert seam.step == pytest.approx(0, abs=1e-9) and seam.megapixels == pytest.approx(SIDE**2 / 2e6, rel=0.05)


def test_the_page_and_the_terminal_tell_of_seams(run, tmp_path) -> None:
    records = [scene(tmp_path, "west.tif", 0), scene(tmp_path, "east.tif", SIDE, 1.03)]
    log = Log(tmp_path / "out")
    for record in records:
        log.add(record)
    done = run("batch", "report", tmp_path / "out")
    assert (done.code, done.out) == (0, f"{tmp_path / 'out' / 'index.html'}\n")
    assert "1 seams: the fusion adds 2.9" in done.err
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<h2>Seams</h2>" in page and "2.96 %" in page and 'class="failed"' in page
