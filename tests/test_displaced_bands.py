"""A band that lies MS pixels off the others, as in a faulty product, is told, and mended by networks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from rasters import edited, painted, write_scene

from pansharpen_cli.checks.check import check
from pansharpen_cli.fusion import register, shifts
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs.opened import opened_scene
from pansharpen_cli.jobs.request import Pair
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.training.simulate import Simulation


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    return write_scene(painted(Simulation(seed=2)), tmp_path_factory.mktemp("pair"))[:2]


def displaced(ms: Path, to: Path, by: dict[int, tuple[int, int]]) -> Path:
    """MS whose bands are moved by whole MS pixels."""

    def change(pixels):
        return np.stack([np.roll(p, by.get(band, (0, 0)), (0, 1)) for band, p in enumerate(pixels)])

    return edited(ms, to, change)


def measured(pan: Path, ms: Path) -> shifts.Shift:
    with Scene.open(pan, [ms]) as scene:
        return register.measure(scene)


@pytest.mark.parametrize(
    "by", [{1: (1, 0)}, {0: (0, -2)}, {2: (-3, 1)}, {0: (2, 2), 1: (2, 2)}, {1: (1, 1), 3: (-1, 2)}], ids=str
)
def test_a_band_that_lies_one_to_three_ms_pixels_off_is_measured(pair, tmp_path, by):
    found = measured(pair[0], displaced(pair[1], tmp_path / "ms.tif", by))
    wanted = [[-4 * n for n in by.get(band, (0, 0))] for band in range(4)]
    np.testing.assert_allclose(np.subtract(found.bands, found.bands[3]), np.subtract(wanted, wanted[3]), atol=0.5)
    np.testing.assert_allclose(np.add(found.bands, (found.rows, found.cols)), wanted, atol=0.5)
    assert found.confident
    told = [line for line in shifts.warnings_of(found, False) if line.startswith("MS band")]
    assert len(told) == len(by) and all("not corrected" in line for line in told)
    corrected = shifts.band_offsets(found)
    assert not any(line.startswith("MS band") for line in shifts.warnings_of(found, False, corrected))
    assert len([line for line in shifts.notes_of(found, False, corrected) if "corrected, but" in line]) == len(by)


@pytest.mark.parametrize(
    "other", [lambda band: np.rot90(band, 2), lambda band: np.full_like(band, 500)], ids=["another place", "constant"]
)
def test_a_band_that_shows_something_else_is_not_called_displaced(pair, tmp_path, other):
    def change(pixels):
        return np.concatenate([pixels[:3], other(pixels[0])[None]])

    found = measured(pair[0], edited(pair[1], tmp_path / "ms.tif", change))
    assert np.isnan(found.bands[3]).all() and np.abs(found.bands[:3]).max() < 0.5
    assert not shifts.shifted_bands(found)


def test_fuse_warns_of_a_displaced_band_or_mends_it_and_check_tells(pair, tmp_path):
    files = Pair(str(pair[0]), [str(displaced(pair[1], tmp_path / "ms.tif", {2: (2, -1)}))])
    with ExitStack() as stack:
        scene, _ = opened_scene(files, Options(method="gsa"), stack)
        assert any(line.startswith("MS band 3 lies ") for line in scene.warnings) and not scene.band_offsets
        scene, _ = opened_scene(files, Options(method="glpnet"), stack)
        assert not any("MS band" in line for line in scene.warnings)
        np.testing.assert_allclose(scene.band_offsets[2], (-8, 4), atol=0.5)
    told = {f.code: f.level for f in check(files, Options(method="gsa"), score=False).findings}
    assert told["band-offsets"] == "warning"
