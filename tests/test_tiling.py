"""Tiles leave no trace: the same pixels for any tile size and any preview; blended networks have no seams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rasters import painted, seldom, write_scene
from scipy import ndimage
from torch import Tensor, nn

from pansharpen_cli import models
from pansharpen_cli.adapt import sampling
from pansharpen_cli.adapt.tailor import FeatureTailor
from pansharpen_cli.device import threads
from pansharpen_cli.fusion import fit, loop
from pansharpen_cli.fusion.fusers import NetworkFuser
from pansharpen_cli.models.base import Backbone, Inputs, SceneStats, channels_last
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.training import simulate as sim

CPU = torch.device("cpu")
SPEC = sim.Simulation(rows=230, cols=266, bands=4, ratio=4.0, offset=(1.37, 2.61), seed=4)
SPECS = {
    "ratio 4": SPEC,
    "ratio 2.76": replace(SPEC, ratio=2.76, offset=(0.37, -3.2)),
    "nodata": replace(SPEC, border=40.0),
}
SIZES = (64, 100, 512)
SMALL = {"blocks": 2, "features": 8}


def make_random(module: nn.Module) -> nn.Module:
    """Random weights everywhere, also where a fresh network has zeros."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.5 / fan_in) ** 0.5)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=seldom(SPECS, ["nodata"]))
def paths(request, tmp_path_factory) -> tuple[Path, Path]:
    """PAN and MS files; those with nodata have borders and holes, a wide one among them, that differ in the two."""
    spec = SPECS[request.param]
    made = painted(spec)
    if spec.border:
        made = replace(made, pan=made.pan.copy(), ms=made.ms.copy())
        made.pan[100:112, 60:260] = 0
        made.pan[:70, 130:200] = 0
        made.ms[:, 20:45, 34:50] = 0
    pan, ms, _ = write_scene(made, tmp_path_factory.mktemp("scene"))
    return pan, ms


def network_fuser(scene: Scene, name: str, tailored: bool, config: dict[str, int] | None = None) -> NetworkFuser:
    config = {"bands": scene.bands} if name == "fusionnet" else config or {}
    network = channels_last(make_random(models.create(name, config)))
    tailor = make_random(FeatureTailor(network.features, scene.bands)) if tailored else None
    stats = sampling.sample(scene, None, 0, CPU).stats
    return NetworkFuser(scene, network, stats, tailor, CPU, torch.float32)


@pytest.mark.parametrize(
    ("name", "config", "tailored"),
    seldom([("glpnet", {}, False), ("glpnet", SMALL, False), ("fusionnet", {}, True)], [("glpnet", SMALL, False)]),
)
def test_the_same_pixels_for_any_tile_size_and_preview(paths, name, config, tailored):
    pan, ms = paths
    with Scene.open(pan, [ms]) as scene:
        fuser = network_fuser(scene, name, tailored, config)
        whole, valid = loop.fuse_array(scene, fuser, SIZES[-1])
        assert np.isfinite(whole[:, valid]).all()
        assert valid.mean() > 0.5
        for size in SIZES[:-1]:
            tiled, tiled_valid = loop.fuse_array(scene, fuser, size)
            np.testing.assert_array_equal(tiled_valid, valid)
            np.testing.assert_array_equal(tiled[:, valid], whole[:, valid])
        full = scene.window
    for window in ((40, 133, 77, 201), (full[1] - 31, full[1], full[3] - 17, full[3])):
        with Scene.open(pan, [ms], OpenOptions(window=window)) as scene:
            assert scene.window == window
            preview, preview_valid = loop.fuse_array(scene, fuser, 64)
        at = np.s_[window[0] - full[0] : window[1] - full[0], window[2] - full[2] : window[3] - full[2]]
        np.testing.assert_array_equal(preview_valid, valid[at])
        np.testing.assert_array_equal(preview[:, preview_valid], whole[(slice(None), *at)][:, preview_valid])


def test_a_halo_that_is_not_computed_changes_no_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of a tile give only what has all of its neighbours; a tile that is padded keeps what is cut away."""
    pan, ms, _ = write_scene(painted(SPEC), tmp_path)
    with Scene.open(pan, [ms]) as scene:
        fuser = network_fuser(scene, "glpnet", True)
        lean = loop.fuse_array(scene, fuser, 128)[0]
        monkeypatch.setattr(models.glpnet.GLPNet, "unpadded", False)
        padded = loop.fuse_array(scene, fuser, 128)[0]
    np.testing.assert_array_equal(lean, padded)


def test_fewer_tiles_than_cores_are_shared_out_among_them(tmp_path: Path) -> None:
    pan, ms, _ = write_scene(painted(replace(SPEC, border=20.0)), tmp_path)
    with Scene.open(pan, [ms]) as scene:
        fuser = network_fuser(scene, "glpnet", False)
        whole = fuser(scene.read(*fuser.windows(scene.window)), scene.window)
        for cores, rows in ((1, [229]), (2, [128, 101]), (9, [128, 101])):
            seen = []
            with threads(cores):
                for window, pixels, valid in loop.fused_tiles(scene, fuser, 512):
                    seen.append(window.shape[0])
                    at = window.within(scene.window)
                    np.testing.assert_array_equal(pixels[:, valid], whole[:, *at][:, valid])
            assert seen == rows and sum(rows) == scene.grid.height


@pytest.mark.parametrize("size", SIZES[:-1])
def test_the_same_up_sampling_for_any_tile_size(paths, size):
    pan, ms = paths
    with Scene.open(pan, [ms]) as scene:
        fuser = fit.fit_classical(scene, "exp")
        whole, valid = loop.fuse_array(scene, fuser)
        tiled, tiled_valid = loop.fuse_array(scene, fuser, size)
    np.testing.assert_array_equal(tiled_valid, valid)
    np.testing.assert_array_equal(tiled[:, valid], whole[:, valid])


class Attention(Backbone):
    """Bands weighted by what the whole tile looks like: no halo makes tiles agree, so they are blended."""

    halo, multiple_of, stitch = 4, 8, "blend"

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands, self.features = bands, 8
        self.first = nn.Conv2d(bands + 1, 8, 3, padding=1)
        self.squeeze = nn.Linear(8, 8)
        self.last = nn.Conv2d(8, bands, 3, padding=1)
        self.sides: set[tuple[int, int]] = set()

    def encode(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        bands = inputs.expanded - stats.mean[:, None, None]
        return torch.cat([inputs.pan - inputs.pan_low[:, :1], bands], 1) / stats.scale

    def extract(self, encoded: Tensor) -> Tensor:
        self.sides.add((encoded.shape[-2], encoded.shape[-1]))
        folded = nn.functional.pixel_unshuffle(encoded, self.multiple_of)  # raises unless the sides are multiples
        x = torch.relu(self.first(nn.functional.pixel_shuffle(folded, self.multiple_of)))
        return x * torch.sigmoid(20 * self.squeeze(x.mean((-2, -1))))[..., None, None]

    def map(self, features: Tensor) -> Tensor:
        return self.last(features)

    def spread(self, residual: Tensor, inputs: Inputs, stats: SceneStats) -> Tensor:
        return residual * stats.scale


def seam_steps(image: np.ndarray, window: Window, size: int) -> tuple[float, float]:
    """Mean absolute step across the tile borders, over the median of the steps everywhere; rows and columns."""
    steps = []
    for axis, length in ((1, window[1] - window[0]), (2, window[3] - window[2])):
        step = abs(np.diff(image, axis=axis)).mean((0, 3 - axis))
        seams = np.arange(size, length, size) - 1
        steps.append(float(step[seams].max() / np.median(step)))
    return steps[0], steps[1]


def without_overlap(scene: Scene, fuser: NetworkFuser, size: int) -> np.ndarray:
    fuser.overlap = 0
    return loop.fuse_array(scene, fuser, size)[0]


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 80, 100, 127])
def test_a_network_with_global_attention_is_blended_without_seams(tmp_path, size):
    """The last tiles are narrower than the overlap in some of these sizes."""
    spec = replace(SPEC, rows=259, cols=263, offset=(0.0, 0.0), seed=9)
    pan, ms, _ = write_scene(painted(spec), tmp_path)
    with Scene.open(pan, [ms]) as scene:
        network = make_random(Attention(4))
        fuser = NetworkFuser(scene, network, sampling.sample(scene, None, 0, CPU).stats, None, CPU, torch.float32)
        fused, valid = loop.fuse_array(scene, fuser, size)
        assert valid.all()
        assert np.isfinite(fused).all()
        assert all(rows % 8 == 0 and cols % 8 == 0 for rows, cols in network.sides)
        # what attention changes from tile to tile, without the picture's own edges
        base = loop.fuse_array(scene, NetworkFuser(scene, network, fuser.stats, None, CPU, torch.float32), 512)[0]
        difference = fused - base
        assert difference.std() > 0.5
        assert max(seam_steps(difference, scene.window, size)) < 3.5
        hard = without_overlap(scene, fuser, size) - base
        assert max(seam_steps(hard, scene.window, size)) > 6


def test_blended_tiles_have_the_right_nodata(tmp_path):
    spec = replace(SPEC, border=50.0)
    pan, ms, _ = write_scene(painted(spec), tmp_path)
    with Scene.open(pan, [ms]) as scene:
        expected = loop.fuse_array(scene, fit.fit_classical(scene, "exp"))[1]
        network = make_random(Attention(4))
        fuser = NetworkFuser(scene, network, sampling.sample(scene, None, 0, CPU).stats, None, CPU, torch.float32)
        fused, valid = loop.fuse_array(scene, fuser, 80)
        whole = loop.fuse_array(scene, fuser, 512)[0]
    np.testing.assert_array_equal(valid, expected)
    assert 0.5 < valid.mean() < 0.95
    difference = abs(fused - whole).max(0)
    beside = ndimage.distance_transform_edt(valid) <= 8
    # what attention changes from tile to tile is no more beside nodata: nothing invalid is blended in
    assert difference[valid & beside].max() < 1.5 * difference[valid & ~beside].max()
