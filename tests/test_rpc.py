"""Pairs that RPCs alone locate: the MS comes into the geometry of the PAN, whose pixels stay as they are."""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasters import edited, pixels_of, write_pair
from scipy import ndimage

from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs import fuse
from pansharpen_cli.jobs.evaluate import evaluate, evaluate_against
from pansharpen_cli.jobs.pair import Pair
from pansharpen_cli.physics import blur_matrix
from pansharpen_cli.raster import rpc
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene

SIDE, RATIO = 384, 4
OFFSET = (1.3, -2.2)
LON, LAT, DEGREES = 2.0, 41.0, 0.002

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@dataclass(frozen=True)
class Cameras:
    """PAN and MS that look at the same ground: the MS grid is bent by so many MS pixels from the middle to the corners,
    and a place `high` normalised heights above the usual one is seen `parallax` PAN pixels further down in the MS."""

    bend: float = 0.0
    parallax: float = 0.0

    def pan_of(self) -> RPC:
        half = SIDE / 2
        return _rpc({"1": half - 0.5, "y": -half, "h": 3.0}, {"1": half - 0.5, "x": half, "h": -1.0})

    def ms_of(self) -> RPC:
        half, middle = SIDE / 2 / RATIO, [(SIDE / 2 - o) / RATIO - 0.5 for o in OFFSET]
        rows = {"1": middle[0], "y": -half, "xy": self.bend, "h": (3.0 + self.parallax) / RATIO}
        cols = {"1": middle[1], "x": half, "yy": self.bend, "h": -1.0 / RATIO}
        return _rpc(rows, cols)

    def ms_at(self, rows: np.ndarray, cols: np.ndarray, height: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Where in the MS the places are that the PAN sees at rows and columns."""
        half = SIDE / 2
        y, x = (half - 0.5 + 3.0 * height - rows) / half, (cols - half + 0.5 + height) / half
        at = [(SIDE / 2 - o) / RATIO - 0.5 for o in OFFSET]
        far = half / RATIO
        return (
            at[0] - far * y + self.bend * x * y + (3.0 + self.parallax) * height / RATIO,
            at[1] + far * x + self.bend * y * y - height / RATIO,
        )

    def pan_at(self, rows: np.ndarray, cols: np.ndarray, height: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """The other way round."""
        r, c = RATIO * rows, RATIO * cols
        for _ in range(30):
            there = self.ms_at(r, c, height)
            r, c = r + RATIO * (rows - there[0]), c + RATIO * (cols - there[1])
        return r, c


_TERMS = ("1", "x", "y", "h", "xy", "xh", "yh", "xx", "yy", "hh")


def _rpc(rows: dict[str, float], cols: dict[str, float]) -> RPC:
    one = [1.0] + [0.0] * 19
    line, samp = ([given.get(t, 0.0) for t in _TERMS] + [0.0] * 10 for given in (rows, cols))
    return RPC(
        height_off=300, height_scale=100, lat_off=LAT, lat_scale=DEGREES, long_off=LON, long_scale=DEGREES, line_off=0,
        line_scale=1, samp_off=0, samp_scale=1, line_num_coeff=line, line_den_coeff=one, samp_num_coeff=samp,
        samp_den_coeff=one,
    )  # fmt: skip


def located(path: Path, pixels: np.ndarray, rpcs: RPC, names=()) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "nodata": 0}
        with rasterio.open(path, "w", driver="GTiff", dtype="uint16", **profile) as dataset:
            dataset.write(pixels.astype("uint16"))
            for i, name in enumerate(names, 1):
                dataset.set_band_description(i, name)
            dataset.rpcs = rpcs
    return path


def write_seen(folder: Path, cameras: Cameras, off: tuple[float, float] = (0.0, 0.0), height: float = 0.0) -> Pair:
    """A pair of basic products: the MS is the truth through its MTF, `off` PAN pixels from where its RPCs put it."""
    for name, content in _seen(cameras, off, height).items():
        (folder / name).write_bytes(content)
    return Pair(str(folder / "pan_1b.tif"), [str(folder / "ms_1b.tif")])


@lru_cache
def _seen(cameras: Cameras, off: tuple[float, float], height: float) -> dict[str, bytes]:
    """The files of such a pair, and of the one that it is made of."""
    with tempfile.TemporaryDirectory() as folder:
        _write_seen(Path(folder), cameras, off, height)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _write_seen(folder: Path, cameras: Cameras, off: tuple[float, float], height: float) -> None:
    pan, _, truth = write_pair(folder, SIDE, SIDE, 4, noise=0.0)
    sharp = pixels_of(truth).astype(float)
    blur = blur_matrix(RATIO, (0, SIDE), (0, SIDE), 0.3)
    soft = blur @ sharp @ blur.T
    rows, cols = np.meshgrid(*(np.arange(SIDE // RATIO, dtype=float),) * 2, indexing="ij")
    at = cameras.pan_at(rows, cols, height)
    places = [a - o for a, o in zip(at, off, strict=True)]
    ms = np.stack([ndimage.map_coordinates(band, places, order=3, mode="nearest") for band in soft])
    located(folder / "pan_1b.tif", pixels_of(pan), cameras.pan_of())
    located(folder / "ms_1b.tif", np.rint(ms), cameras.ms_of(), ("Blue", "Green", "Red", "NIR1"))


def fused(pair: Pair, output: Path, method: str = "exp", score: bool = False, **opening) -> dict:
    pair = Pair(pair.pan, pair.ms, OpenOptions(**opening))
    return fuse.fuse_scene(pair, fuse.FusionOutput(output, overwrite=True), Options(method=method), score)


def test_the_cameras_of_these_tests_are_those_of_their_rpcs() -> None:
    cameras = Cameras(bend=1.5, parallax=2.0)
    rows, cols = np.array([3.0, 200.5, 380.0]), np.array([370.0, 12.25, 191.5])
    terrain = rpc.Terrain(350.0)  # half a normalised height above
    there = rpc.Passage(rpc.Camera(cameras.pan_of(), "pan"), rpc.Camera(cameras.ms_of(), "ms"), terrain)(rows, cols)
    np.testing.assert_allclose(there, cameras.ms_at(rows, cols, 0.5), atol=1e-3)
    np.testing.assert_allclose(cameras.pan_at(*there, 0.5), (rows, cols), atol=1e-2)


@pytest.mark.slow
def test_a_bent_ms_is_brought_into_the_pans_geometry_and_registered(tmp_path: Path) -> None:
    """Off by known 0.9 and -1.4 PAN pixels, and bent by 1.5 MS pixels."""
    cameras, off = Cameras(bend=1.5), (0.9, -1.4)
    pair = write_seen(tmp_path, cameras, off)
    with pair.open() as scene:
        assert scene.warped and scene.phase.ratio == (RATIO, RATIO)
        window = Window(20, 60, 11, 77)
        rows, cols = scene.ms[0].places(window)
        centres = [a.ms_centres(s) for a, s in zip(scene.phase, window.spans, strict=True)]
        true = cameras.ms_at(*np.meshgrid(*centres, indexing="ij"))
        np.testing.assert_allclose((rows, cols), true, atol=0.02)
    facts = fused(pair, tmp_path / "out.tif")
    applied = np.array(facts["registration"]["applied"])
    # the MS shows what lies `off` before: it has to be moved back
    assert np.abs(applied + off).max() / RATIO < 0.1, applied
    soft = ndimage.gaussian_filter(pixels_of(tmp_path / "truth.tif").astype(float), (0, 1.9, 1.9))
    out, window = pixels_of(tmp_path / "out.tif").astype(float), Window(*facts["scene"]["window"])
    soft = soft[:, *window.within(Window(0, SIDE, 0, SIDE))]
    inside = np.s_[:, 48:-48, 48:-48]
    best = [shifted_likeness(out[inside], soft, r, c) for r, c in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
    assert np.argmax(best) == 0 and best[0] > 0.98


def shifted_likeness(image: np.ndarray, other: np.ndarray, row: int, col: int) -> float:
    part = other[:, 48 + row : other.shape[1] - 48 + row, 48 + col : other.shape[2] - 48 + col]
    return float(np.corrcoef(image.ravel(), part.ravel())[0, 1])


@pytest.mark.slow
def test_an_ms_that_differs_by_scale_and_offset_is_not_resampled(tmp_path: Path) -> None:
    """The pixels are those of the same pair on two grids."""
    pair = write_seen(tmp_path, Cameras())
    facts = fused(pair, tmp_path / "out.tif", "gsa")
    assert not facts["scene"]["warped"] and facts["scene"]["ratio"] == [RATIO, RATIO]
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6)}
    edited(tmp_path / "pan_1b.tif", tmp_path / "pan_g.tif", **place)
    moved = place["transform"] @ rasterio.Affine.translation(*OFFSET[::-1]) @ rasterio.Affine.scale(RATIO)
    edited(tmp_path / "ms_1b.tif", tmp_path / "ms_g.tif", **place | {"transform": moved})
    with_grids = Pair(str(tmp_path / "pan_g.tif"), [str(tmp_path / "ms_g.tif")])
    fused(with_grids, tmp_path / "grids.tif", "gsa")
    np.testing.assert_allclose(
        pixels_of(tmp_path / "out.tif").astype(int), pixels_of(tmp_path / "grids.tif").astype(int), atol=1
    )


@pytest.mark.usefixtures("still")
def test_the_output_carries_the_rpcs_of_the_pan_counted_from_its_own_corner(tmp_path: Path) -> None:
    cameras = Cameras()
    pair = write_seen(tmp_path, cameras)
    fused(pair, tmp_path / "part.tif", window=Window(40, 240, 60, 300))
    fused(pair, tmp_path / "whole.tif")
    with rasterio.open(tmp_path / "part.tif") as part, rasterio.open(tmp_path / "whole.tif") as whole:
        assert part.transform.is_identity and part.crs is None
        offsets = part.rpcs.line_off, part.rpcs.samp_off
        assert offsets == pytest.approx((-40, -60))
        top, left = -whole.rpcs.line_off, -whole.rpcs.samp_off
        inner = whole.read()[:, int(40 - top) : int(240 - top), int(60 - left) : int(300 - left)]
        np.testing.assert_array_equal(part.read(), inner)
    facts = evaluate([str(tmp_path / "part.tif")], pair, align="off")
    assert facts["results"][0]["quality"]["hqnr"] > 0.5
    against = evaluate_against(str(tmp_path / "whole.tif"), [str(tmp_path / "part.tif")], 4.0)
    assert against["results"][0]["quality"]["rmse"] == [0.0] * 4
    assert not any("different models" in warning for warning in against["warnings"])
    edited(tmp_path / "part.tif", tmp_path / "bare.tif")
    for other in ("off", "measure"):
        with pytest.raises(
            InputError, match=r"bare.tif has no RPCs and has 200 x 240 pixels, the PAN .*: nothing tells"
        ):
            evaluate([str(tmp_path / "bare.tif")], pair, align=other)
    with rasterio.open(tmp_path / "part.tif", "r+") as part:
        rpcs = part.rpcs
        rpcs.line_off += 0.5
        part.rpcs = rpcs
    with pytest.raises(InputError, match=r"by its RPCs its origin is 39.500, 60.000 PAN pixels off"):
        evaluate([str(tmp_path / "part.tif")], pair, align="off")
    with rasterio.open(tmp_path / "part.tif", "r+") as part:
        part.rpcs = RPC.from_gdal(rpcs.to_gdal() | {"LINE_OFF": "nan"})
    with pytest.raises(InputError, match=r"part.tif or of the PAN are damaged: LINE_OFF or SAMP_OFF is no number"):
        evaluate([str(tmp_path / "part.tif")], pair, align="off")
    with rasterio.open(tmp_path / "part.tif", "r+") as part:
        rpcs.height_off += 1
        part.rpcs = rpcs
    against = evaluate_against(str(tmp_path / "whole.tif"), [str(tmp_path / "part.tif")], 4.0)
    assert any("have RPCs of different models" in warning for warning in against["warnings"])


@pytest.mark.parametrize(("key", "value"), [("line_scale", 0.0), ("lat_off", np.nan)])
def test_a_number_of_rpcs_that_is_none_is_named(tmp_path: Path, key: str, value: float) -> None:
    pair = write_seen(tmp_path, Cameras())
    with rasterio.open(pair.ms[0], "r+") as dataset:
        rpcs = dataset.rpcs
        setattr(rpcs, key, value)
        dataset.rpcs = rpcs
    with pytest.raises(InputError, match=f"are damaged: {key.upper()} is 0 or no number"), pair.open():
        pass


@pytest.mark.slow
def test_a_basic_product_is_evaluated_at_the_height_that_it_was_fused_at(run, tmp_path: Path) -> None:
    pair = write_seen(tmp_path, Cameras(parallax=10.0), height=0.8)
    made = fused(pair, tmp_path / "out.tif", height=380.0, score=True)
    given = ("evaluate", tmp_path / "out.tif", "--pan", pair.pan, "--ms", pair.ms[0], "--json")
    at_height, elsewhere = (json.loads(run(*given, *o).out) for o in (("--height", "380"), ("--align", "off")))
    told, bad = (each["results"][0]["quality"]["fidelity"] for each in (at_height, elsewhere))
    assert told == pytest.approx(made["quality"]["fidelity"], abs=1e-9) and bad < told - 0.03


def heights(folder: Path, height: float, east: float = 0.0, pixel: float = 0.0005) -> str:
    """A raster of one height around the pair, moved to the east by degrees."""
    with rasterio.open(
        folder / "dem.tif", "w", driver="GTiff", count=1, height=20, width=20, dtype="float32", crs="EPSG:4326",
        transform=rasterio.Affine(pixel, 0, LON - 10 * pixel + east, 0, -pixel, LAT + 10 * pixel),
    ) as dataset:  # fmt: skip
        dataset.write(np.full((1, 20, 20), height, "float32"))
    return str(folder / "dem.tif")


@pytest.mark.usefixtures("still")
def test_the_way_to_orthorectify_that_the_docs_show(tmp_path: Path, monkeypatch) -> None:
    fused(write_seen(tmp_path, Cameras()), tmp_path / "fused_1b.tif")
    os.rename(heights(tmp_path, 0.0), tmp_path / "copernicus.tif")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent / "docs/howto/grids.md").read_text()
    exec(re.search(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1], {})
    with rasterio.open("ortho.tif") as ortho:
        assert ortho.crs.to_epsg() == 32631 and ortho.count == 4
        assert 0.9 < (ortho.read(1) > 0).mean() <= 1


@pytest.mark.parametrize(
    ("height", "east"), [(380, 1.0), (float("nan"), 0.0), (1e30, 0.0), (-32768, 0.0)],
    ids=["elsewhere", "NaN", "beyond the sky", "untagged"],
)  # fmt: skip
def test_a_model_without_heights_of_the_scene_is_refused(tmp_path: Path, height: float, east: float) -> None:
    pair = write_seen(tmp_path, Cameras())
    model = heights(tmp_path, height, east)
    with pytest.raises(InputError, match="has no heights where"), Scene.open(pair.pan, pair.ms, OpenOptions(dem=model)):
        pass


def test_what_a_model_of_heights_does_not_cover_is_told(tmp_path: Path) -> None:
    pair = write_seen(tmp_path, Cameras())
    with Scene.open(pair.pan, pair.ms, OpenOptions(dem=heights(tmp_path, 380, 0.005))) as scene:
        assert any("the rest is taken to lie at" in note for note in scene.warnings), scene.warnings
    with Scene.open(pair.pan, pair.ms, OpenOptions(dem=heights(tmp_path, 380))) as scene:
        assert not any("the rest is taken" in note for note in scene.warnings)


def test_of_a_model_of_heights_only_what_lies_on_the_scene_is_read(tmp_path: Path, monkeypatch) -> None:
    pair = write_seen(tmp_path, Cameras())
    model = heights(tmp_path, 380, pixel=1e-5)
    monkeypatch.setattr(rpc, "MOST_HEIGHTS", 100)
    with pytest.raises(InputError, match="make it coarser"), Scene.open(pair.pan, pair.ms, OpenOptions(dem=model)):
        pass
    with Scene.open(pair.pan, pair.ms, OpenOptions(dem=heights(tmp_path, 380, pixel=0.01))):
        pass


def test_a_model_of_heights_is_no_output(tmp_path: Path, run) -> None:
    pair = write_seen(tmp_path, Cameras())
    model = Path(heights(tmp_path, 380))
    before = model.read_bytes()
    for name in (str(model), f"file://{model}"):
        done = run("fuse", pair.pan, *pair.ms, "-o", model, "--dem", name, "--overwrite", "--no-score")
        assert done.code == 2 and "one of the inputs" in done.err, done.err
    assert model.read_bytes() == before


def test_a_height_above_the_sky_is_refused(tmp_path: Path) -> None:
    pair = write_seen(tmp_path, Cameras())
    with (
        pytest.raises(InputError, match="--height takes metres"),
        Scene.open(pair.pan, pair.ms, OpenOptions(height=1e6)),
    ):
        pass


@pytest.mark.parametrize("given", [pytest.param("height", marks=pytest.mark.slow), "dem"])
def test_heights_take_the_parallax_away(tmp_path: Path, given: str) -> None:
    """A plain 80 m above the usual height, which the MS sees 2.4 PAN pixels further down."""
    pair = write_seen(tmp_path, Cameras(parallax=3.0), height=0.8)
    away = fused(pair, tmp_path / "out.tif")["registration"]["shift"]
    assert away[0] == pytest.approx(-2.4, abs=0.2)
    opening: dict = {"height": 380.0}
    if given == "dem":
        opening = {"dem": heights(tmp_path, 380)}
    found = fused(pair, tmp_path / "out.tif", **opening)["registration"]["shift"]
    assert np.abs(found).max() < 0.2


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (3800.0, {"scales": (0.1,)}),
        (1380.0, {"offsets": (-1000.0,)}),
        (380.0, {"scales": (float("nan"),), "units": ("metres",)}),
        (380.0 / 0.3048, {"units": ("ft",)}),
        (380.0 / 0.3048, {"units": ("foot (International)",)}),
        (380.0 * 3937 / 1200, {"units": ("US survey foot",)}),
        (380.0 * 3937 / 1200, {"crs": "EPSG:4326+6360"}),
        (380.0, {"crs": "EPSG:4326+5773"}),
    ],
)
def test_a_model_of_heights_is_taken_in_the_metres_that_its_file_tells(tmp_path: Path, stored: float, told) -> None:
    pair = write_seen(tmp_path, Cameras())
    model = heights(tmp_path, stored)
    with rasterio.open(model, "r+") as dataset:
        for name, value in told.items():
            setattr(dataset, name, value)
    with Scene.open(pair.pan, pair.ms) as scene:
        terrain = rpc.terrain_of(scene.pan, None, model, [])
        assert terrain.at(np.array([LON]), np.array([LAT]))[0] == pytest.approx(380, abs=0.01)


def test_heights_in_another_unit_are_refused(tmp_path: Path) -> None:
    pair = write_seen(tmp_path, Cameras())
    model = heights(tmp_path, 380)
    with rasterio.open(model, "r+") as dataset:
        dataset.units = ("fathom",)
    with pytest.raises(InputError, match="heights in 'fathom'"), Scene.open(pair.pan, pair.ms, OpenOptions(dem=model)):
        pass


def test_what_cannot_work_says_so(tmp_path: Path) -> None:
    pair = write_seen(tmp_path, Cameras())
    pan, ms = Path(pair.pan), Path(pair.ms[0])
    with (
        pytest.raises(InputError, match=r"pan_1b\.tif is located by RPCs only and .*ms\.tif is not"),
        Scene.open(pan, [tmp_path / "ms.tif"]),
    ):
        pass
    with pytest.raises(InputError, match="use --window"), Scene.open(pan, [ms], OpenOptions(bbox=(0, 0, 1, 1))):
        pass
    far = _rpc({"1": 50.0, "y": -48.0}, {"1": 48.0, "x": 48.0})
    far.long_off += 1
    located(tmp_path / "far.tif", pixels_of(ms), far)
    with (
        pytest.raises(InputError, match=r"no overlap: by the RPCs .*far\.tif lies at rows"),
        Scene.open(pan, [tmp_path / "far.tif"]),
    ):
        pass
    located(tmp_path / "wrong.tif", pixels_of(ms), _rpc({"1": 1.0}, {"1": 1.0}))
    with (
        pytest.raises(InputError, match=r"RPCs of .*wrong\.tif lead to no place"),
        Scene.open(pan, [tmp_path / "wrong.tif"]),
    ):
        pass
    edited(ms, tmp_path / "bare_dem.tif", lambda p: p[:1])
    with (
        pytest.raises(InputError, match="has no CRS: its heights have no place"),
        Scene.open(pan, [ms], OpenOptions(dem=str(tmp_path / "bare_dem.tif"))),
    ):
        pass


@pytest.mark.parametrize("align", ["auto", "off"])
@pytest.mark.usefixtures("still")
def test_a_box_is_refused_as_there_is_no_crs_for_it(tmp_path: Path, align: str) -> None:
    pair = write_seen(tmp_path, Cameras())
    pair = Pair(pair.pan, pair.ms, OpenOptions(bbox=(0, 0, 1, 1)))
    with pytest.raises(InputError, match="no CRS for --bbox"):
        fuse.fuse_scene(pair, fuse.FusionOutput(tmp_path / "out.tif"), Options(method="exp", align=align), False)
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.usefixtures("still")
def test_rpcs_on_both_sides_of_180_degrees_are_of_one_place(tmp_path: Path) -> None:
    """The same camera told from the other side: its pixels are the same."""
    pair = write_seen(tmp_path, Cameras())
    expected = fused(pair, tmp_path / "out.tif") and pixels_of(tmp_path / "out.tif")
    for path, shift in ((pair.pan, 180 - LON), (pair.ms[0], -180 - LON)):
        with rasterio.open(path, "r+") as dataset:
            moved = dataset.rpcs
            moved.long_off += shift
            dataset.rpcs = moved
    fused(pair, tmp_path / "out.tif")
    np.testing.assert_allclose(pixels_of(tmp_path / "out.tif").astype(int), expected.astype(int), atol=1)


@pytest.mark.parametrize("asked", [{"height": 10.0}, {"dem": "missing.tif"}])
def test_heights_that_have_no_effect_are_said_aloud(tmp_path: Path, asked: dict) -> None:
    pan, ms, _ = write_pair(tmp_path, 64, 64, 1)
    with Scene.open(pan, [ms], OpenOptions(**asked)) as scene:
        assert f"--{next(iter(asked))} has no effect: {pan} is placed by its grid, not by RPCs" in scene.warnings
    with Scene.open(pan, [ms]) as scene:
        assert not any("no effect" in each for each in scene.warnings)
