"""A hole in the scene: what lies beside it is as good as if it were not there, and nothing of it leaks out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rasters import painted, seldom, write_scene
from scipy import ndimage

from pansharpen_cli import models, physics
from pansharpen_cli.adapt import sampling
from pansharpen_cli.fusion import fit, fusers, loop
from pansharpen_cli.models.base import SceneStats
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.raster.values import to_dtype
from pansharpen_cli.training import simulate as sim

CPU = torch.device("cpu")
SPECS = {
    "ratio 4": sim.Simulation(rows=240, cols=240, bands=4, ratio=4.0, offset=(1.37, 2.61), seed=3),
    "ratio 2.76": sim.Simulation(rows=220, cols=240, bands=4, ratio=2.76, offset=(-0.4, 1.2), seed=4),
    "ratio 2": sim.Simulation(rows=200, cols=200, bands=3, ratio=2.0, offset=(-1.0, -1.0), seed=6),
}
VALUES: list[tuple[float, str]] = [(65535, "uint16"), (np.nan, "float32"), (-3.4e38, "float32")]


def hole(rows: np.ndarray, cols: np.ndarray, spec: sim.Simulation) -> np.ndarray:
    """A ragged disc and a slanted border, at places in PAN pixels."""
    r, c = rows[:, None] - 0.5 * spec.rows, cols[None, :] - 0.6 * spec.cols
    disc = np.hypot(r, c) < 26 * (1 + 0.2 * np.sin(5 * np.arctan2(r, c)))
    return disc | (cols[None, :] < 14 + 0.1 * rows[:, None])


@dataclass
class Holed:
    """The same scene in two folders, whole and with the hole; `inside` marks the hole on the PAN and the MS grid."""

    made: sim.SimulatedScene
    whole: tuple[Path, Path]
    folder: Path
    inside: tuple[np.ndarray, np.ndarray]
    known: dict = field(default_factory=dict)

    def write(self, nodata: float, dtype: str = "uint16") -> tuple[Path, Path]:
        """PAN and MS with the hole, in which both hold `nodata`."""
        if (nodata, dtype) not in self.known:
            self.known[nodata, dtype] = self._written(nodata, dtype)
        return self.known[nodata, dtype]

    def statistics(self, paths: tuple[Path, Path]) -> SceneStats:
        if paths not in self.known:
            with Scene.open(paths[0], [paths[1]]) as scene:
                self.known[paths] = sampling.sample(scene, None, 0, CPU).stats
        return self.known[paths]

    def fused(self, paths: tuple[Path, Path], method: str) -> tuple[np.ndarray, np.ndarray, Scene]:
        """Pixels, valid mask and scene; with the statistics of its own for `injection`."""
        if (paths, method) not in self.known:
            self.known[paths, method] = fused(paths, method, self.statistics(paths))
        return self.known[paths, method]

    def _written(self, nodata: float, dtype: str) -> tuple[Path, Path]:
        images = [self.made.pan[None].astype(dtype), self.made.ms.astype(dtype)]
        for image, inside in zip(images, self.inside, strict=True):
            image[:, inside] = nodata
        folder = self.folder / f"{nodata} {dtype}"
        spec = replace(self.made.spec, nodata=nodata)
        truth = self.made.truth.astype(dtype)
        return write_scene(replace(self.made, spec=spec, pan=images[0][0], ms=images[1], truth=truth), folder)[:2]


@pytest.fixture(scope="module", params=seldom(SPECS, ["ratio 2.76"]))
def holed(request, tmp_path_factory) -> Holed:
    spec, folder = SPECS[request.param], tmp_path_factory.mktemp("hole")
    made = painted(spec)
    (rows, cols), (h, w) = made.pan.shape, made.ms.shape[1:]
    places = [spec.offset[i] + spec.ratio * (np.arange(n) + 0.5) for i, n in enumerate((h, w))]
    inside = hole(np.arange(rows) + 0.5, np.arange(cols) + 0.5, spec), hole(*places, spec)
    return Holed(made, write_scene(made, folder / "whole")[:2], folder, inside)


def fused(paths: tuple[Path, Path], method: str, stats: SceneStats | None) -> tuple[np.ndarray, np.ndarray, Scene]:
    with Scene.open(paths[0], [paths[1]]) as scene:
        fuser: fusers.Fuser = fit.fit_classical(scene, "exp")
        if method == "injection":
            assert stats is not None
            fuser = fusers.NetworkFuser(scene, models.create("glpnet", {}), stats, None, CPU, torch.float32)
        return (*loop.fuse_array(scene, fuser, 128), scene)


@pytest.mark.parametrize("method", seldom(["none", "injection"], ["injection"]))
def test_beside_a_hole_the_result_is_as_good_as_without_it(holed, method):
    without, all_valid, scene = holed.fused(holed.whole, method)
    beside, valid, _ = fused(holed.write(0), method, holed.statistics(holed.whole))
    assert all_valid.all()
    r0, r1, c0, c1 = scene.window
    at = np.s_[r0:r1, c0:c1]
    assert not valid[holed.inside[0][at]].any()
    assert valid.mean() > 0.7
    assert np.isfinite(beside[:, valid]).all()

    # no farther than the kernels reach: the up-sampler, and PAN's own blur and sampling for what is injected
    ratio = holed.made.spec.ratio
    reach = ratio * (physics.UPSAMPLE_REACH + 1) + (physics.MTF_REACH + 1 if method == "injection" else 0)
    away = ndimage.distance_transform_cdt(valid, metric="chessboard")
    changed = (without != beside).any(0) & valid
    assert changed.any()
    assert away[changed].max() <= reach + ratio

    truth = holed.made.truth[(slice(None), *at)].astype(float)
    before, after = (without - truth) ** 2, (beside - truth) ** 2
    near = valid & (away <= reach)
    ratio_near = np.sqrt(after[:, near].mean(1) / before[:, near].mean(1))
    assert ratio_near.max() < 1.2
    rim = valid & (away <= round(ratio))  # within an MS pixel of the hole, over all bands
    assert np.sqrt(after[:, rim].mean() / before[:, rim].mean()) < 1.2
    assert np.sqrt(after[:, rim].max() / before[:, rim].max()) < 1.5


@pytest.mark.parametrize(
    ("method", "nodata", "dtype"),
    seldom(
        ((method, *of) for method in ("none", "injection") for of in VALUES),
        [("none", *VALUES[0]), ("injection", *VALUES[1])],
    ),
)
def test_nothing_of_the_nodata_value_leaks(holed, method, nodata, dtype):
    """Whatever stands in the hole, valid pixels are the same to the last bit, and so are the statistics."""
    paths = holed.write(0), holed.write(nodata, dtype)
    stats = [holed.statistics(p) for p in paths]
    for name in ("mean", "std", "gain", "intensity"):
        torch.testing.assert_close(getattr(stats[1], name), getattr(stats[0], name), rtol=0, atol=0)
    expected, valid, _ = holed.fused(paths[0], method)
    other, other_valid, scene = holed.fused(paths[1], method)
    np.testing.assert_array_equal(valid, other_valid)
    np.testing.assert_array_equal(expected[:, valid], other[:, valid])

    written = to_dtype(other, valid, np.dtype(scene.dtype), scene.nodata)
    empty = np.isnan(written) if np.isnan(scene.nodata) else written == np.dtype(dtype).type(nodata)
    np.testing.assert_array_equal(empty, np.broadcast_to(~valid, written.shape))


def test_statistics_are_those_of_the_valid_pixels(holed):
    paths = holed.write(0)
    stats = holed.statistics(paths)
    expanded, valid, scene = holed.fused(paths, "none")
    pan = holed.made.pan[scene.window[0] : scene.window[1], scene.window[2] : scene.window[3]]
    assert stats.pan_mean == pytest.approx(pan[valid].mean(), rel=1e-5)
    assert stats.pan_std == pytest.approx(pan[valid].std(ddof=1), rel=1e-5)
    np.testing.assert_allclose(stats.mean.numpy(), expanded[:, valid].mean(1, dtype=float), rtol=1e-5)
    np.testing.assert_allclose(stats.std.numpy(), expanded[:, valid].std(1, ddof=1, dtype=float), rtol=1e-5)
