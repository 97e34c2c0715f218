"""Registration: shifts of the MS against the PAN are found, corrected and told; none is invented."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasters import edited, painted, pixels_of, seldom, write_pair, write_scene

from pansharpen_cli import physics
from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion import register, shifts
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs import evaluate as evaluate_job
from pansharpen_cli.jobs import fuse as fusion_job
from pansharpen_cli.jobs import opened as jobs_opened
from pansharpen_cli.jobs.request import FusionOutput, Pair
from pansharpen_cli.raster.geometry import Phase, Window
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.report.verdict import UNEVEN
from pansharpen_cli.training.simulate import Simulation

MS_AT = (1.37, -2.2)


def written(folder: Path, **spec) -> tuple[Path, Path, Path]:
    """PAN, MS and truth of a simulated scene, aligned at a fractional phase."""
    settings = {"rows": 256, "cols": 256, "offset": MS_AT, "seed": 1} | spec
    return write_pair(folder, **settings)


def measured(pan: Path, ms: Path, shift=(0.0, 0.0), **options) -> shifts.Shift:
    """What is measured where the MS is said to lie `shift` PAN pixels further than it does."""
    with Scene.open(pan, [ms]) as scene:
        scene = scene.shifted(shift)
        return register.measure(scene, **options)


def error(found: shifts.Shift, shift) -> float:
    return max(abs(found.rows + shift[0]), abs(found.cols + shift[1]))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    return written(tmp_path_factory.mktemp("pair"))[:2]


@pytest.mark.parametrize(
    ("shift", "spec"),
    [
        ((2.5, -1.3), {}),
        pytest.param((-0.4, 0.7), {"seed": 2}, marks=pytest.mark.slow),
        pytest.param((-5.0, 3.3), {"ratio": 2.0}, marks=pytest.mark.slow),
        pytest.param((0.6, 5.0), {"ratio": 3.0}, marks=pytest.mark.slow),
        pytest.param((-3.5, -5.0), {"ratio": 2.76}, marks=pytest.mark.slow),
        pytest.param((4.4, 1.9), {"ratio": 6.0}, marks=pytest.mark.slow),
        ((-5.0, 2.0), {"bands": 1}),
        pytest.param((3.0, -4.5), {"bands": 8}, marks=pytest.mark.slow),
        pytest.param((1.2, 4.1), {"border": 60.0, "rows": 320, "cols": 320}, marks=pytest.mark.slow),
        pytest.param((-2.2, 1.1), {"dtype": "uint8"}, marks=pytest.mark.slow),
        pytest.param((1.6, -2.4), {"rows": 96, "cols": 800}, marks=pytest.mark.slow),
    ],
)
def test_an_injected_shift_is_recovered(tmp_path, shift, spec):
    found = measured(*written(tmp_path, **spec)[:2], shift)
    assert found.confident
    assert error(found, shift) < 0.15


@pytest.mark.parametrize(
    "spec",
    seldom(
        [{}, {"seed": 2, "ratio": 2.0}, {"seed": 4, "bands": 8}, {"seed": 6, "bands": 1}],
        [{}],
    ),
)
def test_no_shift_is_invented_on_an_aligned_scene(tmp_path, spec):
    found = measured(*written(tmp_path, **spec)[:2])
    assert found.confident and error(found, (0, 0)) < 0.1
    assert not shifts.is_correctable(found) and shifts.warnings_of(found, False) == []
    assert found.varies < 0.3


def test_a_band_too_unlike_pan_is_not_corrected(tmp_path):
    """Green alone over fields: brightness runs along other edges than PAN's, tile by tile another way."""
    found = measured(*written(tmp_path, seed=3, bands=1)[:2])
    assert not found.confident and not shifts.is_correctable(found)


def test_it_is_the_same_again_and_on_any_number_of_cores(pair):
    first = measured(*pair, (2.0, -1.0))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert measured(*pair, (2.0, -1.0)) == first
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_band_that_darkens_where_pan_brightens_does_not_mislead(pair, tmp_path):
    ms = edited(pair[1], tmp_path / "ms.tif", lambda x: np.concatenate([x[:3], 3000 - x[3:]]))
    found = measured(pair[0], ms, (2.5, -1.3))
    assert found.confident and error(found, (2.5, -1.3)) < 0.15


def test_clouds_and_a_dead_band_do_not_mislead(pair, tmp_path):
    def spoiled(x):
        x = x.copy()
        x[0] = 7
        x[:, 10:26, 30:50] = 2047
        return x

    found = measured(pair[0], edited(pair[1], tmp_path / "ms.tif", spoiled), (2.5, -1.3))
    assert found.confident and error(found, (2.5, -1.3)) < 0.15


def noise(seed):
    return lambda x: np.random.default_rng(seed).integers(400, 600, x.shape).astype(x.dtype)


def stripes(step, first):
    """Brightness that changes along the columns alone."""

    def change(x):
        wave = 500 + 200 * np.sin((step * np.arange(x.shape[2]) + first) / 7)
        return (wave + np.random.default_rng(step).normal(0, 2, x.shape)).astype(x.dtype)

    return change


@pytest.mark.parametrize(
    ("pan", "ms"),
    [
        (noise(1), noise(2)),
        (lambda x: np.full_like(x, 500), lambda x: np.full_like(x, 500)),
        pytest.param(lambda x: x, lambda x: np.full_like(x, 500), marks=pytest.mark.slow),
        (lambda x: x, lambda x: x[:, ::-1, ::-1].copy()),
        pytest.param(
            lambda x: np.clip(500 + x // 400 + noise(3)(x) // 100, 1, None),
            lambda x: 500 + x // 400 + noise(4)(x) // 100,
            marks=pytest.mark.slow,
        ),
        (stripes(1, 0), stripes(4, 3.7)),
    ],
    ids=["noise", "constant", "constant MS", "another place", "low texture", "stripes"],
)
def test_what_cannot_be_measured_is_not_confident(pair, tmp_path, pan, ms):
    found = measured(edited(pair[0], tmp_path / "p.tif", pan), edited(pair[1], tmp_path / "m.tif", ms))
    assert not found.confident and found.confidence < 0.5
    assert not shifts.is_correctable(found)


def test_a_scene_too_small_to_compare_tiles_is_not_confident(tmp_path):
    found = measured(*written(tmp_path, rows=64, cols=64)[:2])
    assert found == shifts.Shift(math.nan, math.nan, 0.0, False, 0, math.nan)


def test_a_shift_beyond_the_search_is_not_confident(pair):
    assert not measured(*pair, (120.0, 0.0)).confident


def test_the_field_shows_where_a_shift_varies(pair, tmp_path):
    with rasterio.open(pair[1]) as dataset:
        wide = dataset.transform @ Affine.scale(1.01)  # 2.6 PAN pixels over the scene
    found = measured(pair[0], edited(pair[1], tmp_path / "ms.tif", transform=wide))
    assert 1.2 < found.varies < 4
    rows, _, moved, _ = np.array(found.field).T
    assert np.polyfit(rows, moved, 1)[0] == pytest.approx(-0.01, abs=0.004)
    assert any("varies" in line for line in shifts.warnings_of(found, True))


def test_a_shift_that_varies_too_much_to_be_one_is_told(pair, tmp_path):
    """As of terrain: no one shift is certain then, but the tiles are certain of theirs."""

    def warped(pixels):
        size = pixels.shape[-1]
        cols = np.clip(np.arange(size) + 0.5 * np.sin(3 * np.pi * np.arange(size) / size), 0, size - 1)
        low = np.minimum(cols.astype(int), size - 2)
        return (pixels[..., low] * (1 - (cols - low)) + pixels[..., low + 1] * (cols - low)).astype(pixels.dtype)

    found = measured(pair[0], edited(pair[1], tmp_path / "warped.tif", warped))
    assert not found.confident and 2 < found.varies < 6
    assert any("the shift of the MS varies" in line for line in shifts.warnings_of(found, False))
    assert jobs_opened.Registration("auto", found=found).remarks == [UNEVEN]
    both, fused = Pair(str(pair[0]), [str(tmp_path / "warped.tif")]), tmp_path / "fused.tif"
    fusion_job.fuse_scene(both, FusionOutput(fused), Options("gsa"), score=False)
    assert UNEVEN in evaluate_job.evaluate([str(fused)], both)["results"][0]["verdict"]


@pytest.mark.parametrize(("band", "offset"), seldom([(1, (1.2, -0.9)), (3, (0.8, 1.4))], [(3, (0.8, 1.4))]))
def test_the_offset_of_a_band_from_the_others_is_recovered(tmp_path, band, offset):
    made = painted(Simulation(offset=MS_AT, seed=4))
    pan, ms, _ = write_scene(made, tmp_path)
    phase = Phase.of((4.0, 4.0), MS_AT).moved(offset)
    low = physics.degrader(phase, Window.at(0, 0, made.ms.shape[1:]), Window(0, 256, 0, 256), [0.3])
    pixels = made.ms.copy()
    pixels[band] = low(torch.from_numpy(made.truth[band : band + 1].astype(float))).round().numpy()
    found = measured(pan, edited(ms, tmp_path / "moved.tif", lambda _: pixels))
    np.testing.assert_allclose(found.bands[band], offset, atol=0.3)
    assert np.abs(np.delete(found.bands, band, 0)).max() < 0.3
    (note,) = shifts.notes_of(found, False, ())
    assert note.startswith(f"MS band {band + 1} ") and "not corrected" in note
    (note,) = shifts.notes_of(found, False, shifts.band_offsets(found))
    assert note.endswith(": corrected")


def test_moving_the_ms_moves_its_grid_and_the_overlap(pair):
    with Scene.open(pair[0], [pair[1]]) as scene:
        moved = scene.shifted((6.0, -3.5))
        assert moved.phase.offset == (scene.phase.offset[0] + 6.0, scene.phase.offset[1] - 3.5)
        assert moved.pan_grid == scene.pan_grid
        phase = moved.pan_grid.phase_of(moved.ms_grid)
        assert phase.offset == pytest.approx(moved.phase.offset, abs=1e-6)
        assert moved.full == moved.pan_grid.overlap(moved.phase, moved.ms_grid)
        assert moved.full[0] == 7 and scene.full[0] == 1


# How soft the MS is


@pytest.mark.parametrize(
    ("gain", "spec"),
    [
        pytest.param(0.08, {}, marks=pytest.mark.slow),
        (0.02, {}),
        pytest.param(0.2, {}, marks=pytest.mark.slow),
        pytest.param(0.3, {}, marks=pytest.mark.slow),
        pytest.param(0.45, {}, marks=pytest.mark.slow),
        pytest.param(0.08, {"ratio": 2.0}, marks=pytest.mark.slow),
        (0.45, {"ratio": 2.0}),
        pytest.param(0.2, {"ratio": 2.76, "seed": 2}, marks=pytest.mark.slow),
        pytest.param(0.08, {"ratio": 6.0}, marks=pytest.mark.slow),
        pytest.param(0.45, {"ratio": 6.0}, marks=pytest.mark.slow),
        pytest.param(0.3, {"bands": 8}, marks=pytest.mark.slow),
        pytest.param(0.2, {"border": 40.0, "seed": 5}, marks=pytest.mark.slow),
    ],
)
def test_the_mtf_of_the_ms_is_measured(tmp_path, gain, spec):
    found = measured(*written(tmp_path, gains=gain, **spec)[:2], (1.6, -0.7))
    assert len(found.gains) == spec.get("bands", 4) and found.gains[:3] == pytest.approx((gain,) * 3, rel=0.12)


@pytest.mark.parametrize(("gain", "most"), [(0.7, 0.1), pytest.param(0.06, 0.25, marks=pytest.mark.slow)])
def test_bands_of_an_ms_that_is_crisper_or_softer_than_the_table_are_where_they_are(tmp_path, gain, most):
    """They are laid on PAN as that MTF sees it: through the table's, infrared lay off by 0.23 and 0.49 pixels."""
    assert np.abs(measured(*written(tmp_path, gains=gain, seed=1)[:2]).bands).max() < most


def test_bands_keep_the_relation_of_their_gains(tmp_path):
    """A QuickBird whose kernels are all wider by one factor: -log(gain) is the square of the width."""
    table = np.array([0.34, 0.32, 0.30, 0.22])
    softer = tuple(np.exp(1.3 * np.log(table)))
    pan, ms, _ = written(tmp_path, gains=softer)
    with Scene.open(pan, [ms], OpenOptions(sensor="quickbird")) as scene:
        assert register.measure(scene).gains == pytest.approx(softer, rel=0.08)


@pytest.mark.slow
def test_the_mtf_is_measured_where_the_scene_shows_something(tmp_path, monkeypatch):
    """Of nine blocks the first rows are flat."""
    monkeypatch.setattr(register, "SAMPLED_BLOCK", 224)
    pan, ms, _ = written(tmp_path, rows=660, cols=660, gains=0.2)
    flat = [edited(p, tmp_path / f"flat-{p.name}", flattened) for p in (pan, ms)]
    assert measured(*flat).gains == pytest.approx((0.2,) * 4, rel=0.12)


def flattened(pixels: np.ndarray) -> np.ndarray:
    """The upper half as a flat sea with a little noise."""
    pixels, rows = pixels.copy(), pixels.shape[1] // 2
    pixels[:, :rows] = 200 + np.random.default_rng(0).integers(0, 3, pixels[:, :rows].shape)
    return pixels


@pytest.mark.parametrize("gain", [0.7, 0.95])
@pytest.mark.slow
def test_a_crisp_ms_is_not_called_less_crisp(tmp_path, gain):
    assert measured(*written(tmp_path, gains=gain)[:2]).gains == pytest.approx((gain,) * 4, rel=0.12)


def test_no_mtf_is_measured_where_the_shift_varies(pair, monkeypatch):
    monkeypatch.setattr(register, "fitted_plane", lambda places, shifts, weights: (shifts, 1.5))
    assert measured(*pair).gains == ()


def test_no_mtf_is_invented(tmp_path):
    pan, ms, _ = written(tmp_path)
    other = edited(ms, tmp_path / "noise.tif", noise(3))
    assert measured(pan, other).gains == ()
    small = written(tmp_path / "small", rows=64, cols=64)
    assert measured(*small[:2]).gains == ()


def test_bands_that_lie_off_the_others_are_named_with_their_offset():
    found = shifts.Shift(0.1, 0.0, 1.0, True, 9, bands=((0.04, 0.05), (0.0, -0.7), (math.nan, math.nan), (0.0, 0.0)))
    assert shifts.band_offsets(found) == ((0.0, 0.0), (0.0, -0.7), (0.0, 0.0), (0.0, 0.0))
    assert shifts.band_offsets(replace(found, confident=False)) == ()
    assert shifts.band_offsets(replace(found, bands=((0.04, 0.05),) * 4)) == ()


# From the command line

PLAIN = ("--method", "mtf-glp-fs", "--json")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """A scene `pan.tif`, `ms.tif`, `truth.tif`, and its MS with a geotransform 2.5 PAN pixels off, `off.tif`."""
    folder = tmp_path_factory.mktemp("scenes")
    _, ms, _ = written(folder, rows=320, cols=320, seed=4)
    with rasterio.open(ms) as dataset:
        moved = Affine.translation(-1.5, 2.0) @ dataset.transform  # metres: 2 rows up, 1.5 columns left
        names = dataset.descriptions
    edited(ms, folder / "off.tif", names=names, transform=moved)
    return folder


@pytest.fixture(scope="module")
def fused() -> dict[tuple, tuple[Path, dict, list[str]]]:
    """What was fused already, by what was asked for."""
    return {}


@pytest.fixture
def fuse(scenes, run, fused):
    """Fuses, each once, and gives the file's path, the facts and the lines on stderr. The file is not to be changed."""

    def fuse(ms: str, align: str, *options: object) -> tuple[Path, dict, list[str]]:
        asked = ms, align, *options
        if asked not in fused:
            made = scenes / str(len(fused)) / f"{Path(ms).stem}-{align}.tif"
            result = run("fuse", scenes / "pan.tif", scenes / ms, "-o", made, "--align", align, *PLAIN, *options)
            assert result.code == 0, result.err
            fused[asked] = made, json.loads(result.out), result.err.splitlines()
        return fused[asked]

    return fuse


def tags_of(path: Path) -> dict[str, str]:
    with rasterio.open(path) as dataset:
        return dataset.tags(ns="PANSHARPEN")


@pytest.mark.slow
def test_an_aligned_scene_is_fused_as_without_it(fuse):
    (auto, facts, said), (off, plain, _) = fuse("ms.tif", "auto"), fuse("ms.tif", "off")
    np.testing.assert_array_equal(pixels_of(auto), pixels_of(off))
    assert said == [] and facts["quality"] == plain["quality"] and facts["scene"] == plain["scene"]
    assert facts["registration"]["confident"] and facts["registration"]["applied"] == [0, 0]
    assert plain["registration"] is None
    assert tags_of(auto)["ALIGN"] == "auto" and "ALIGN_SHIFT" not in tags_of(auto)
    assert tags_of(off)["ALIGN"] == "off"


def test_a_shifted_scene_is_corrected_and_says_so(fuse, scenes, run):
    (straight, expected, _), (auto, facts, said) = fuse("ms.tif", "auto"), fuse("off.tif", "auto")
    (note,) = facts["notes"]
    assert said == [] and "corrected" in note and "the MS lies +" in note
    found = facts["registration"]
    assert found["mode"] == "auto" and found["source"] == "measured"
    np.testing.assert_allclose(found["applied"], (2.0, 1.5), atol=0.1)
    np.testing.assert_allclose(facts["scene"]["offset"], MS_AT, atol=0.1)
    assert [float(v) for v in tags_of(auto)["ALIGN_SHIFT"].split()] == found["applied"]
    assert facts["quality"]["hqnr"] == pytest.approx(expected["quality"]["hqnr"], rel=0.01)
    # against the truth as well: as good as the scene that never was off, and far better than uncorrected
    off = fuse("off.tif", "off")[0]
    result = run("evaluate", straight, auto, off, "--reference", scenes / "truth.tif", "--json")
    quality = {Path(r["path"]).stem: r["quality"] for r in json.loads(result.out)["results"]}
    for figure in ("q2n", "ergas"):
        assert quality["off-auto"][figure] == pytest.approx(quality["ms-auto"][figure], rel=0.01)
    assert quality["off-off"]["ergas"] > 1.2 * quality["ms-auto"]["ergas"]


def test_check_tells_of_a_shift_once(scenes, run):
    facts = json.loads(run("check", scenes / "pan.tif", scenes / "off.tif", "--method", "exp", "--json").out)
    assert [f["code"] for f in facts["findings"] if "PAN pixels" in f["text"]] == ["shift"]


@pytest.mark.slow
def test_what_is_corrected_as_usual_is_a_note_and_what_is_not_a_warning(scenes, run, tmp_path):
    options = (
        "-o",
        tmp_path / "f.tif",
        "--overwrite",
        "--method",
        "exp",
        "--no-score",
        "--report",
        tmp_path / "r.html",
    )
    told = run("fuse", scenes / "pan.tif", scenes / "off.tif", *options, "-v")
    assert re.search(r"note: the MS lies \+(1\.9|2\.0)", told.err) and "warning:" not in told.err
    assert re.search(r"the MS lies \+(1\.9|2\.0)", (tmp_path / "r.html").read_text())
    assert run("fuse", scenes / "pan.tif", scenes / "off.tif", *options).err == ""
    left = run("fuse", scenes / "pan.tif", scenes / "off.tif", *options, "--align", "measure").err
    assert re.search(r"warning: the MS lies \+(1\.9|2\.0)", left)
    checked = run("check", scenes / "pan.tif", scenes / "off.tif", "--method", "exp", "--no-score", "--json").out
    levels = {f["code"]: f["level"] for f in json.loads(checked)["findings"]}
    assert levels["shift"] == "note"
    far = shifts.Shift(9.0, 1.0, 1.0, True, 9, agreement=0.5)
    assert shifts.warnings_of(far, True) and not shifts.notes_of(far, True, ())


def test_measuring_changes_no_pixel(fuse):
    (only, facts, said), (off, _, nothing) = fuse("off.tif", "measure"), fuse("off.tif", "off")
    np.testing.assert_array_equal(pixels_of(only), pixels_of(off))
    said, nothing = ([line for line in lines if "doubtful" not in line] for lines in (said, nothing))
    assert len(said) == 1 and "not corrected" in said[0] and nothing == []
    np.testing.assert_allclose(facts["registration"]["shift"], (2.0, 1.5), atol=0.1)
    assert facts["registration"]["applied"] == [0, 0]


def test_a_window_is_a_part_of_the_whole(fuse):
    small = pixels_of(fuse("off.tif", "auto", "--window", "100,120,90,80")[0])
    whole = fuse("off.tif", "auto")[0]
    with rasterio.open(whole) as dataset:
        left, top = (round(v) for v in ~dataset.transform @ (431200.0 + 100, 4583600.0 - 120))
        np.testing.assert_array_equal(dataset.read()[:, top : top + 80, left : left + 90], small)


@pytest.mark.slow
def test_the_report_shows_it(fuse, tmp_path, scenes, run):
    page = tmp_path / "report.html"
    fuse("off.tif", "auto", "--report", page)
    assert "Registration" in page.read_text() and "corrected" in page.read_text()
    result = run("fuse", scenes / "pan.tif", scenes / "off.tif", "-o", tmp_path / "t.tif", "--method", "exp", "-v")
    assert re.search(r"registration  MS \+(1\.9|2\.0).*, confidence 1.00, corrected", result.out)


@pytest.mark.slow
def test_an_evaluation_sees_the_ms_where_the_file_says(fuse, scenes, run):
    made, facts, _ = fuse("off.tif", "auto")
    pair = ("--pan", scenes / "pan.tif", "--ms", scenes / "off.tif", "--json")

    def evaluated(path: Path, *options: object) -> dict:
        result = run("evaluate", path, *pair, *options)
        assert result.code == 0, result.err
        return json.loads(result.out)

    found = evaluated(made)
    assert found["registration"]["source"] == str(made)
    assert found["registration"]["applied"] == facts["registration"]["applied"]
    assert found["results"][0]["quality"]["hqnr"] == pytest.approx(facts["quality"]["hqnr"], abs=1e-9)
    unmoved = evaluated(made, "--align", "off")
    assert unmoved["registration"] is None
    assert unmoved["results"][0]["quality"]["reprojection"]["rmse"][1] > 2 * facts["quality"]["reprojection"]["rmse"][1]
    off, plain, _ = fuse("off.tif", "off")
    assert evaluated(off)["results"][0]["quality"]["hqnr"] == pytest.approx(plain["quality"]["hqnr"], abs=1e-9)
    other = edited(made, made.with_name("other.tif"))  # another tool's: no tags
    found = evaluated(other)
    assert found["registration"]["source"] == "measured" and any(found["registration"]["applied"])
    assert not any(evaluated(other, "--align", "measure")["registration"]["applied"])


@pytest.mark.slow
def test_a_band_that_was_put_in_its_place_is_right_there(scenes, run, tmp_path):
    """And one that a method leaves where the file has it is not, by `fuse` and by `evaluate`."""
    edited(scenes / "ms.tif", tmp_path / "ms.tif", lambda ms: np.stack([*ms[:2], np.roll(ms[2], 2, 0), *ms[3:]]))

    def fused(name: str, ms: Path, *options: str) -> dict:
        ended = run("fuse", scenes / "pan.tif", ms, "-o", tmp_path / name, "--json", *options)
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    clean = fused("clean.tif", scenes / "ms.tif", "--adapt", "off")["quality"]
    moved = fused("moved.tif", tmp_path / "ms.tif", "--adapt", "off")
    left = fused("left.tif", tmp_path / "ms.tif", "--method", "gsa")
    assert moved["quality"]["fidelity"] == pytest.approx(clean["fidelity"], abs=0.02)
    assert moved["quality"]["colour_error"] == pytest.approx(clean["colour_error"], rel=0.2)
    told = [float(v) for v in tags_of(tmp_path / "moved.tif")["ALIGN_BANDS"].split()]
    assert told[4:6] == pytest.approx([-8, 0], abs=0.3)
    edited(tmp_path / "moved.tif", tmp_path / "other.tif")  # another tool's: no tags
    for names in (["left.tif", "moved.tif"], ["other.tif"]):
        ended = run("evaluate", *(tmp_path / name for name in names), "--pan", scenes / "pan.tif",
                    "--ms", tmp_path / "ms.tif", "--json")  # fmt: skip
        best = json.loads(ended.out)["results"][0]
        assert best["path"] == str(tmp_path / names[-1])
        assert best["quality"]["fidelity"] == pytest.approx(moved["quality"]["fidelity"], abs=0.02)
    assert left["quality"]["fidelity"] > 0.5, "the method has put it where the file has it, and the run says so"


@pytest.mark.parametrize("method", ["mtf-glp-fs", "glpnet"])
@pytest.mark.slow
def test_a_shift_beyond_the_search_is_said_and_not_called_zero(fuse, scenes, run, tmp_path, method):
    with rasterio.open(scenes / "ms.tif") as dataset:
        moved, names = Affine.translation(90.0, -85.0) @ dataset.transform, dataset.descriptions
    edited(scenes / "ms.tif", tmp_path / "far.tif", names=names, transform=moved)
    page = tmp_path / "r.html"
    common = ("fuse", scenes / "pan.tif", tmp_path / "far.tif", "--no-score", "--adapt", "off")
    ended = run(*common, "-o", tmp_path / "f.tif", "--method", method, "--report", page, "-v")
    said = [line for line in ended.err.splitlines() if line.startswith("warning")]
    assert ended.code == 0 and len(said) == 1 and "not the same place or date, or far out of register" in said[0]
    assert "registration  not measurable, confidence 0.0" in ended.out
    assert "not measurable" in page.read_text() and "+0.00, +0.00" not in page.read_text()
    facts = json.loads(run(*common, "-o", tmp_path / "g.tif", "--method", method, "--json").out)["registration"]
    assert facts["shift"] == [None, None] and facts["varies"] is None and facts["agreement"] < 0.4
    checked = run("check", scenes / "pan.tif", tmp_path / "far.tif", "--method", method, "--adapt", "off", "--no-score")
    assert checked.code == 0 and "shift" in checked.out and "not measurable" in checked.out


@pytest.mark.parametrize("kind", ["water", "checkerboard"])
def test_where_there_is_nothing_to_compare_the_shift_is_not_measurable(pair, run, tmp_path, kind):
    def emptied(size: int):
        cell = np.indices((size, size)).sum(0) // (size // 32) % 2
        return noise(size) if kind == "water" else lambda x: np.where(cell[: x.shape[1], : x.shape[2]], x, 0)

    files = []
    for name, path in zip("pm", pair, strict=True):
        with rasterio.open(path) as dataset:
            size = max(dataset.shape)
        files.append(edited(path, tmp_path / f"{name}.tif", emptied(size), nodata=0))
    ended = run("fuse", *files, "-o", tmp_path / "f.tif", "--method", "exp", "--no-score", "--json")
    assert json.loads(ended.out)["registration"]["shift"] == [None, None], ended.err
    assert ("far out of register" in ended.err) == (kind == "water")


@pytest.mark.slow
def test_walds_protocol_starts_from_the_corrected_pair(scenes, run):
    def ergas(ms: str, *options: object) -> float:
        pair = ("--pan", scenes / "pan.tif", "--ms", scenes / ms)
        result = run("evaluate", "--wald", *pair, "--methods", "mtf-glp-fs", "--json", *options)
        assert result.code == 0, result.err
        return json.loads(result.out)["results"][0]["quality"]["ergas"]

    assert ergas("off.tif") == pytest.approx(ergas("ms.tif"), rel=0.02)
    assert ergas("off.tif", "--align", "off") > 1.1 * ergas("ms.tif")


def test_bad_choices_are_refused(scenes, run, tmp_path):
    result = run("fuse", scenes / "pan.tif", scenes / "ms.tif", "-o", tmp_path / "x.tif", "--align", "maybe")
    assert result.code == 2 and not (tmp_path / "x.tif").exists()
    result = run("evaluate", scenes / "truth.tif", "--reference", scenes / "truth.tif", "--align", "off")
    assert result.code == 2 and "--align" in result.err
    pair = Pair(str(scenes / "pan.tif"), [str(scenes / "ms.tif")])
    with pytest.raises(InputError, match="unknown --align 'maybe'"):
        fusion_job.fuse_scene(pair, FusionOutput(tmp_path / "x.tif"), Options("exp", align="maybe"))


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (shifts.Shift(math.nan, math.nan, 0.0, False, 9, 4.0, agreement=0.95), ["the same DEM; none is corrected"]),
        (shifts.Shift(0.1, 0.2, 1.0, True, 9), []),
        (shifts.Shift(2.0, 1.0, 0.3, False, 9), ["too uncertain to correct"]),
        (shifts.Shift(0.3, 0.2, 0.3, False, 9), []),
        (shifts.Shift(math.nan, math.nan, 0.0, False, 9, math.nan), []),
        (shifts.Shift(math.nan, math.nan, 0.0, False, 9, math.nan, agreement=0.9), []),
        (shifts.Shift(math.nan, math.nan, 0.0, False, 9, math.nan, agreement=0.7), ["explain 70% of"]),
        (shifts.Shift(math.nan, math.nan, 0.0, False, 9, math.nan, agreement=0.2), ["far out of register"]),
        (shifts.Shift(0.1, 0.2, 1.0, True, 9, agreement=0.2), ["fit in places"]),
        (shifts.Shift(0.1, 0.2, 1.0, True, 9, agreement=0.85), []),
        (shifts.Shift(3.0, 0.2, 1.0, True, 9, agreement=0.9), ["not corrected"]),
        (shifts.Shift(3.0, 0.2, 1.0, True, 9, agreement=0.2), ["is left there"]),
        (shifts.Shift(0.0, 0.0, 1.0, True, 9, bands=((math.nan, math.nan), (0.0, 1.3))), []),
    ],
)
def test_remarks_tell_what_matters(shift, said):
    lines = shifts.warnings_of(shift, False)
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True))


def test_a_corrected_shift_is_judged_by_what_agrees_once_corrected():
    corrected = shifts.Shift(3.0, 0.2, 1.0, True, 9, agreement=0.2, agreement_aligned=0.95)
    assert shifts.warnings_of(corrected, True) == []
    (line,) = shifts.warnings_of(replace(corrected, agreement_aligned=0.5), True)
    assert "explain 50% of" in line and "fit in places" in line


@pytest.mark.slow
def test_an_ms_of_which_a_part_shows_another_place_is_told_by_fuse_as_by_check(scenes, run, tmp_path):
    """The rest makes the shift certain, and no index of full resolution tells."""

    def elsewhere(image: np.ndarray) -> np.ndarray:
        third = image.shape[2] // 3
        image[:, :, :third] = np.roll(image[:, :, :third], image.shape[1] // 2, 1)
        return image

    edited(scenes / "ms.tif", tmp_path / "part.tif", elsewhere)
    left = ("--adapt", "off", "--align", "off", "--window", "100,100,32,32")
    ended = run("fuse", scenes / "pan.tif", tmp_path / "part.tif", "-o", tmp_path / "left.tif", *left, "--no-score")
    assert ended.code == 0 and "though the two fit in places" in ended.err
    for ms, is_told in ((tmp_path / "part.tif", True), (scenes / "ms.tif", False)):
        for command in ("fuse", "check"):
            written = ("-o", tmp_path / f"{ms.name}.tif") if command == "fuse" else ()
            ended = run(command, scenes / "pan.tif", ms, *written, "--method", "exp", "--no-score")
            assert ended.code == 0
            assert ("though the two fit in places" in " ".join((ended.err + ended.out).split())) == is_told


def test_a_window_may_lie_where_only_the_aligned_ms_reaches(scenes, run, tmp_path):
    """By its georeferencing the MS begins 7 columns further right than it does."""
    with rasterio.open(scenes / "ms.tif") as dataset:
        moved, names = Affine.translation(7.0, 0.0) @ dataset.transform, dataset.descriptions
    edited(scenes / "ms.tif", tmp_path / "right.tif", names=names, transform=moved)
    with Scene.open(scenes / "pan.tif", [tmp_path / "right.tif"]) as scene:
        first = scene.full[2]
    asked = (scenes / "pan.tif", tmp_path / "right.tif", "--window", f"{first - 4},100,4,60", "--method", "exp")
    common = ("fuse", *asked, "--no-score", "-o", tmp_path / "part.tif")
    ended = run(*common, "--align", "off")
    assert ended.code == 2 and "does not touch" in ended.err
    assert "does not touch" in run("check", *asked, "--align", "off").errors[0]
    for command in (common, ("check", *asked, "--no-score")):
        ended = run(*command)
        assert ended.code == 0, ended.err
    assert pixels_of(tmp_path / "part.tif").shape[1:] == (60, 4)


@pytest.mark.parametrize("command", seldom(["check", "fuse --dry-run"], ["fuse --dry-run"]))
def test_what_is_foretold_is_of_the_aligned_scene(fuse, scenes, run, tmp_path, command):
    made = fuse("off.tif", "auto")[0]
    name, *options = command.split()
    options += ["-o", tmp_path / "out.tif"] if options else []
    ended = run(name, scenes / "pan.tif", scenes / "off.tif", *options, "--method", "exp", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)["output"]
    assert (told["rows"], told["cols"]) == pixels_of(made).shape[1:]


@pytest.mark.parametrize("shift", seldom(["1 nan", "inf 0", "1000 0", "1", "a b"], ["1 nan"]))
def test_tags_of_others_are_not_trusted(fuse, scenes, run, tmp_path, shift):
    made = Path(shutil.copy(fuse("off.tif", "auto")[0], tmp_path))
    with rasterio.open(made, "r+") as dataset:
        dataset.update_tags(ns="PANSHARPEN", ALIGN_SHIFT=shift)
    ended = run("evaluate", made, "--pan", scenes / "pan.tif", "--ms", scenes / "off.tif", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["registration"]["source"] == "measured"


@pytest.fixture(scope="module")
def soft(tmp_path_factory) -> Path:
    """A scene whose MS is softer than the table of unknown sensors has it."""
    folder = tmp_path_factory.mktemp("soft")
    written(folder, rows=320, cols=320, seed=4, gains=0.2)
    return folder


def fused_at(folder: Path, target: Path, **options) -> dict:
    pair = Pair(str(folder / "pan.tif"), [str(folder / "ms.tif")], OpenOptions(extent="pan"))
    return fusion_job.fuse_scene(
        pair, FusionOutput(target, overwrite=True), Options(adapt="off", **options), score=False
    )


@pytest.mark.slow
def test_a_network_fuses_with_the_measured_mtf(soft, tmp_path):
    made = {mtf: tmp_path / f"{mtf}.tif" for mtf in ("auto", "sensor")}
    facts = {mtf: fused_at(soft, path, mtf=mtf) for mtf, path in made.items()}
    assert facts["sensor"]["method"]["mtf"] == "sensor" and facts["sensor"]["method"]["mtf_gains"] == [0.3] * 4
    method, tags = facts["auto"]["method"], tags_of(made["auto"])
    assert method["mtf"] == tags["MTF"] == "auto" and method["mtf_gains"] == pytest.approx([0.2] * 4, abs=0.03)
    assert [float(v) for v in tags["MTF_GAINS"].split()] == method["mtf_gains"]
    assert list(facts["auto"]["registration"]["gains"]) == method["mtf_gains"]
    with rasterio.open(soft / "truth.tif") as dataset:
        truth = dataset.read()[:, 16:-16, 16:-16].astype(float)
    error = {
        mtf: np.sqrt(np.mean((pixels_of(path)[:, 16:-16, 16:-16] - truth) ** 2, axis=(1, 2)))
        for mtf, path in made.items()
    }
    assert (error["auto"][:3] < error["sensor"][:3]).all()
    assert error["auto"][:3].mean() < 0.98 * error["sensor"][:3].mean()


@pytest.mark.slow
def test_the_mtf_does_not_depend_on_the_alignment(soft, tmp_path):
    unaligned = fused_at(soft, tmp_path / "off.tif", align="off")
    assert unaligned["registration"] is None
    aligned = fused_at(soft, tmp_path / "auto.tif")
    assert unaligned["method"]["mtf_gains"] == aligned["method"]["mtf_gains"]
    assert not unaligned["method"]["band_offsets"]


def test_classical_methods_keep_the_table(soft, tmp_path):
    made = [tmp_path / f"{mtf}.tif" for mtf in ("auto", "sensor")]
    facts = [fused_at(soft, path, method="mtf-glp", mtf=path.stem) for path in made]
    assert [f["method"]["mtf_gains"] for f in facts] == [[0.3] * 4] * 2
    np.testing.assert_array_equal(*map(pixels_of, made))


def test_an_unknown_mtf_is_refused(soft, tmp_path):
    with pytest.raises(InputError, match="unknown --mtf 'best'; choose from auto, sensor"):
        fused_at(soft, tmp_path / "t.tif", mtf="best")


@pytest.mark.parametrize("shift", [(14.0, 0.0), pytest.param((-33.0, 30.0), marks=pytest.mark.slow)])
def test_a_large_shift_is_looked_for_where_pan_and_ms_do_not_agree(tmp_path, shift):
    found = measured(*written(tmp_path, rows=320, cols=320, seed=4)[:2], shift)
    assert found.confident and error(found, shift) < 0.15
    assert found.searched == shifts.FAR
    assert shifts.is_mismatched(found, corrected=False) and not shifts.is_mismatched(found, corrected=True)


def test_a_scene_too_small_for_large_shifts_does_not_claim_that_there_is_none(tmp_path):
    found = measured(*written(tmp_path, rows=256, cols=256, seed=4)[:2], (14.0, 9.0))
    assert not found.confident and found.searched == shifts.SEARCH
    told = " ".join(shifts.warnings_of(found, True))
    assert "no shift of up to 8 PAN pixels (the scene is too small to show larger ones)" in told


@pytest.mark.parametrize("align", seldom(["auto", "off"], ["off"]))
def test_a_network_is_not_adapted_to_a_pair_that_does_not_agree(pair, tmp_path, align):
    moved = edited(pair[1], tmp_path / "ms.tif", lambda x: x[:, ::-1, ::-1].copy())
    output, options = FusionOutput(tmp_path / "out.tif"), Options(align=align, mtf="sensor")
    facts = fusion_job.fuse_scene(Pair(str(pair[0]), [str(moved)]), output, options)
    assert facts["adaptation"]["mode"] == "off" and "same place" in facts["adaptation"]["reason"]
    (told,) = (w for w in facts["warnings"] if "lays the MS on the PAN" in w)
    assert re.search(r"no shift of up to (8|64) PAN pixels", told) and "do not use the result" in told
    assert [remark["about"] for remark in facts["verdict"]] == ["registration"]
    assert align == "off" or facts["registration"]["searched"] in (8.0, 64.0)


@pytest.mark.parametrize("align", ["off", "measure"])
@pytest.mark.slow
def test_a_network_is_not_adapted_to_a_pair_that_is_left_apart(scenes, run, tmp_path, align):
    with rasterio.open(scenes / "ms.tif") as dataset:
        moved, names = Affine.translation(14.0, 0.0) @ dataset.transform, dataset.descriptions
    edited(scenes / "ms.tif", tmp_path / "far.tif", names=names, transform=moved)
    files = (scenes / "pan.tif", tmp_path / "far.tif", "--align", align)
    ended = run("fuse", *files, "-o", tmp_path / "f.tif", "--json", "--no-score")
    facts = json.loads(ended.out)
    assert facts["adaptation"]["mode"] == "off" and [r["about"] for r in facts["verdict"]] == ["registration"]
    assert ended.err.count("is left there (--align auto corrects it)") == ended.err.count("warning:") == 1
    for command in (("check",), ("fuse", "-o", tmp_path / "g.tif", "--dry-run")):
        told = json.loads(run(command[0], *files, *command[1:], "--json", "--no-score").out)
        assert told["adaptation"]["mode"] == "off"
        assert any(f["code"] == "adaptation" and f["level"] == "warning" for f in told["findings"])
        causes = [f["text"] for f in told["findings"] if f["code"] == "agreement"]
        assert len(causes) == 1 and f"warning: {causes[0]}\n" in ended.err


def test_single_bands_of_hundreds_are_measured_against_the_nearest(monkeypatch, tmp_path: Path) -> None:
    """With all of the others the time grows with the cube of their number: minutes for a scene of 128 x 128 pixels."""
    pan, ms, _ = write_pair(tmp_path, 128, 128, 4)
    edited(ms, tmp_path / "many.tif", lambda pixels: np.repeat(pixels, 16, 0))
    sizes, explained = [], register.explained_share

    def noted(energy, products, cross):
        sizes.append(len(products))
        return explained(energy, products, cross)

    monkeypatch.setattr(register, "explained_share", noted)
    with Scene.open(str(pan), [str(tmp_path / "many.tif")]) as scene:
        found = register.measure(scene)
    of_bands = [size for size in sizes if size < 64]
    assert max(of_bands) == register.NEIGHBOURS + 1 and len(of_bands) <= max(register.TURNS, 2 * 64) + 2 * 64
    assert len(found.bands) == 64
