"""`pansharpen evaluate` and what scores a scene: one and many files, references, Wald's protocol, maps, limits."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import whole as of_whole
from affine import Affine
from rasters import edited, seldom, write_pair

from pansharpen_cli import physics
from pansharpen_cli.errors import InputError, PansharpenError
from pansharpen_cli.fusion import fit, loop
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs import evaluate as evaluating
from pansharpen_cli.jobs import fuse
from pansharpen_cli.quality import assess, wald
from pansharpen_cli.quality.rasters import Raster, array_reader
from pansharpen_cli.quality.reference import Radiometry, radiometry
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene

pytestmark = pytest.mark.usefixtures("still")
UTM = Affine(1, 0, 431200, 0, -1, 4583600)
ALIGNED = ("--pan", "pan.tif", "--ms", "ms.tif")
PAIR = (*ALIGNED, "--align", "off")
PLAIN = ("--method", "none", "--align", "off")


def make(folder: Path, rows: int = 192, cols: int = 192, offset=(1.3, 2.6), border: float = 16.0, **other) -> None:
    write_pair(folder, rows, cols, 4, offset=offset, border=border, **other)


@pytest.fixture
def scene(tmp_path, monkeypatch) -> Path:
    """The working folder with pan.tif, ms.tif (4 bands, a nodata border) and truth.tif."""
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def known() -> dict[tuple, bytes]:
    """Files that were fused already, by options."""
    return {}


@pytest.fixture
def fuse_as(scene: Path, run, known):
    """Fuses the scene into a file, without figures: with the same options once for all tests."""

    def fuse_as(name: str, *options: str) -> None:
        if options not in known:
            assert run("fuse", "pan.tif", "ms.tif", "-o", name, *options, "--no-score").code == 0
            known[options] = Path(name).read_bytes()
        Path(name).write_bytes(known[options])

    return fuse_as


def results(finished) -> list[dict]:
    assert finished.code == 0, finished.err
    facts = json.loads(finished.out)
    assert facts["schema"] == "pansharpen-evaluation/1"
    return facts["results"]


def quality_of(run, *arguments) -> dict:
    (result,) = results(run("evaluate", *arguments, "--json"))
    return result["quality"]


# Full resolution


@pytest.mark.usefixtures("measured")
def test_evaluate_repeats_what_fuse_reported(scene: Path, run) -> None:
    fused = json.loads(run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--method", "gsa", "--json").out)
    assert fused["quality"] == quality_of(run, "out.tif", *ALIGNED)
    assert 0 < fused["quality"]["fidelity"] < 1
    assert f"{fused['quality']['fidelity']:.4f}" in run("evaluate", "out.tif", *ALIGNED).out


@pytest.mark.slow
def test_a_page_shows_eight_results_or_those_that_are_chosen(scene: Path, fuse_as, run) -> None:
    fuse_as("r0.tif", *PLAIN)
    files = [f"r{i}.tif" for i in range(10)]
    for name in files[1:]:
        shutil.copy("r0.tif", name)
    page = Path("page.html")
    done = run("evaluate", *files, *PAIR, "--report", page)
    assert done.code == 0 and all(name in done.out for name in files)
    assert set(re.findall(r'data-label="(r\d\.tif)"', page.read_text())) == set(files[:8])
    chosen = run("evaluate", *files, *PAIR, "--report", page, "--overwrite", "--show", "r9.tif", "--show", "r3")
    assert chosen.code == 0, chosen.err
    shown = set(re.findall(r'data-label="(r\d\.tif)"', page.read_text()))
    assert shown == {"r3.tif", "r9.tif"}
    for wrong, said in {("--show", "r99"): "none of", ("--report", "a.json", "--show", "r1"): "HTML"}.items():
        refused = run("evaluate", *files, *PAIR, *(() if "--report" in wrong else ("--report", "b.html")), *wrong)
        assert refused.code == 2 and said in refused.err
    refused = run("evaluate", *files, *PAIR, "--report", "b.html", *(x for name in files[:9] for x in ("--show", name)))
    assert refused.code == 2 and "up to 8" in refused.err


def test_a_part_of_the_scene_is_scored_on_that_part(scene: Path, run) -> None:
    part = run("fuse", "pan.tif", "ms.tif", "-o", "part.tif", *PLAIN, "--window", "40,20,128,96", "--json")
    whole = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *PLAIN, "--json")
    scored = quality_of(run, "part.tif", *PAIR)
    assert scored == json.loads(part.out)["quality"]
    assert scored["blocks"] == 12 < json.loads(whole.out)["quality"]["blocks"]


def test_a_larger_file_of_another_type_is_scored_like_the_scene(scene: Path, run) -> None:
    fused = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *PLAIN, "--extent", "pan", "--json")
    edited(
        scene / "out.tif",
        scene / "big.tif",
        lambda p: np.pad(p, ((0, 0), (9, 30), (7, 2))).astype("float32"),
        transform=UTM @ Affine.translation(-7, -9),
    )
    assert quality_of(run, "big.tif", *PAIR) == json.loads(fused.out)["quality"]


def test_many_files_are_ranked_the_same_in_json_csv_and_table(scene: Path, fuse_as, run) -> None:
    for method in ("exp", "mtf-glp-fs"):
        fuse_as(f"{method}.tif", "--method", method)
    edited(scene / "exp.tif", scene / "noise.tif", noisy)
    files = ("noise.tif", "exp.tif", "mtf-glp-fs.tif")
    found = results(run("evaluate", *files, *PAIR, "--json"))
    assert [r["rank"] for r in found] == [1, 2, 3]
    assert found[-1]["name"] == "noise.tif"
    scores = [r["quality"]["fidelity"] for r in found]
    assert scores == sorted(scores, reverse=True)
    rows = list(csv.DictReader(io.StringIO(run("evaluate", *files, *PAIR, "--csv").out)))
    assert [r["name"] for r in rows] == [r["name"] for r in found]
    assert [float(r["fidelity"]) for r in rows] == pytest.approx(scores)
    table = run("evaluate", *files, *PAIR).out
    assert sorted(files, key=table.index) == [r["name"] for r in found]


def noisy(pixels: np.ndarray) -> np.ndarray:
    spread = np.random.default_rng(0).normal(0, 60, pixels.shape)
    return np.where(pixels > 0, np.clip(pixels + spread, 1, 65535), 0).astype(pixels.dtype)


def test_a_reference_in_other_units_is_told(scene: Path, run) -> None:
    edited(scene / "truth.tif", scene / "reflectance.tif", lambda p: (p / 10_000).astype("float32"), nodata=0)
    for reference, warned in (("truth.tif", False), ("reflectance.tif", True)):
        told = run("evaluate", "truth.tif", "--reference", reference, "--ratio", "4")
        assert told.code == 0
        assert ("truth.tif has 1e+04 times the level of reflectance.tif" in told.err) is warned


@pytest.mark.slow
def test_scoring_by_tiles_equals_scoring_in_one_piece(tmp_path: Path, monkeypatch) -> None:
    make(tmp_path, 230, 260, border=40.0)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        fused, valid = loop.fuse_array(scene, fit.fit(scene, Options(method="gsa")).fuser)
        read = array_reader(fused, valid, (scene.window[0], scene.window[2]))
        whole = assess.full_resolution(scene, read)
        monkeypatch.setattr(assess, "SCORED_TILE", 64)
        tiled = assess.full_resolution(scene, read)
    places = np.array(tiled.figures.pop("detail_places")), np.array(whole.figures.pop("detail_places"))
    np.testing.assert_allclose(*places, atol=5e-3)  # a peak between pixels that tiles have a little less of
    assert tiled.figures.pop("displacement") == pytest.approx(whole.figures.pop("displacement"), abs=5e-3)
    assert tiled.figures.pop("detail_gains") == pytest.approx(whole.figures.pop("detail_gains"), rel=1e-6)
    reprojection = whole.figures.pop("reprojection"), tiled.figures.pop("reprojection")
    assert tiled.figures.pop("colour_error") == pytest.approx(whole.figures.pop("colour_error"), rel=1e-6)
    # images are filtered in float32, and of the detail error most cancels out
    assert tiled.figures.pop("detail_error") == pytest.approx(whole.figures.pop("detail_error"), rel=1e-4)
    assert tiled.figures == pytest.approx(whole.figures, rel=1e-6)
    for key, values in reprojection[0].items():
        assert reprojection[1][key] == pytest.approx(values, rel=1e-6, abs=1e-4), key
    for name, values in whole.maps.items():
        np.testing.assert_allclose(tiled.maps[name], values, rtol=1e-5, atol=3e-6, err_msg=name)


@pytest.mark.parametrize(("window", "count"), [(Window(0, 900, 0, 1500), 15), (Window(7, 407, 40, 2640), 12)])
def test_a_sample_takes_a_tile_from_each_part_of_a_window_and_then_the_others(monkeypatch, window, count) -> None:
    monkeypatch.setattr(assess, "SAMPLED_TILE", 64)
    sampling = assess.Sampling(3, count * 64**2)
    tiles, taken = assess.tiles_to_score(window, sampling)
    assert taken == count < len(tiles) == len(set(tiles))
    assert sum(tile.area for tile in tiles) == window.area
    assert all((t[0] - window[0]) % 32 == (t[2] - window[2]) % 32 == 0 for t in tiles)
    thirds = {(t[2] - window[2]) * 3 // (window[3] - window[2]) for t in tiles[:count]}
    halves = {(t[0] - window[0]) * 2 // (window[1] - window[0]) for t in tiles[:count]}
    assert thirds == {0, 1, 2} and halves == {0, 1}
    assert assess.tiles_to_score(window, sampling)[0] == tiles
    assert assess.tiles_to_score(window, assess.Sampling(4, count * 64**2))[0][:count] != tiles[:count]
    assert [tile.area for tile in assess.tiles_to_score(Window(0, 512, 0, 512), None)[0]] == [256**2] * 4
    small = assess.tiles_to_score(Window(0, 600, 0, 600), assess.Sampling(3, 600 * 600))
    assert small == ([(0, 512, 0, 512), (0, 512, 512, 600), (512, 600, 0, 512), (512, 600, 512, 600)], 4)


def test_tiles_that_one_block_of_the_output_holds_come_first() -> None:
    window = Window(5, 5 + 2048, 40, 40 + 3000)
    tiles, count = assess.tiles_to_score(window, assess.Sampling(0))
    assert count == 32 and sum(tile.area for tile in tiles) == window.area
    wide = [tile.widened(assess.MARGIN).seen_from(window) for tile in tiles]
    inside = [all(a // 512 == (b - 1) // 512 for a, b in each.spans) for each in wide]
    assert sum(inside[:24]) == 24 == 4 * 6 and {tile.shape for tile in tiles[:24]} == {(256, 256)}


def test_a_sample_measures_its_blocks_as_the_whole_does(tmp_path: Path, monkeypatch) -> None:
    make(tmp_path, 256, 320, offset=(0.0, 0.0), border=0.0)
    monkeypatch.setattr(assess, "SAMPLED_TILE", 64)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        fused, valid = loop.fuse_array(scene, fit.fit(scene, Options(method="gsa")).fuser)
        origin = (scene.window[0], scene.window[2])
        whole = assess.full_resolution(scene, array_reader(fused, valid, origin))
        sampling = assess.Sampling(1, 8 * 64**2)
        sample = assess.full_resolution(scene, array_reader(fused, valid, origin), sampling=sampling)
        valid[:, 100:] = False
        more = assess.Sampling(1, 16 * 64**2)
        left = assess.full_resolution(scene, array_reader(fused, valid, origin), sampling=more)
    assert sample.sampled and not whole.sampled
    assert sample.blocks_in_all == whole.blocks_in_all == whole.figures["blocks"] == 80
    measured = np.isfinite(sample.maps["d_lambda_k"])
    assert measured.sum() == sample.figures["blocks"] == 32
    for name, values in whole.maps.items():
        np.testing.assert_allclose(sample.maps[name][measured], values[measured], rtol=1e-5, atol=3e-6, err_msg=name)
    assert sample.figures["d_lambda_k"] == pytest.approx(whole.maps["d_lambda_k"][measured].mean(), abs=1e-6)
    assert sample.figures["fidelity"] == pytest.approx(whole.figures["fidelity"], abs=0.05)
    assert left.figures["blocks"] == 3 * 8  # all that there are, wherever they are in the order


@pytest.mark.slow
def test_the_report_of_a_large_scene_says_that_its_figures_are_those_of_a_sample(scene: Path, run, monkeypatch) -> None:
    monkeypatch.setattr(fuse, "Sampling", partial(assess.Sampling, pixels=96 * 96))
    monkeypatch.setattr(assess, "SAMPLED_TILE", 32)
    qualities = []
    for number, seed in enumerate((1, 1, 2)):
        made = run("fuse", "pan.tif", "ms.tif", "-o", f"{number}.tif", *PLAIN, "--seed", seed, "--json")
        qualities.append(json.loads(made.out)["quality"])
    assert qualities[0] == qualities[1] != qualities[2]
    told = f"sampled: {qualities[0]['blocks']} of {qualities[0]['blocks_in_all']} blocks"
    assert qualities[0]["sampled"] and 0 < qualities[0]["blocks"] <= 9 < qualities[0]["blocks_in_all"]
    assert "sample" in qualities[0]["measured_on"]
    table = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *PLAIN, "--seed", 1, "--report", "r.html", "-v").out
    assert f"({told})" in table and told in (scene / "r.html").read_text()
    whole = quality_of(run, "0.tif", *PAIR)
    assert not whole["sampled"] and whole["blocks"] > 9 and "sample" not in whole["measured_on"]


def test_reprojection_compares_the_degraded_image_with_the_ms(tmp_path: Path) -> None:
    make(tmp_path, 128, 160, offset=(0.5, 0.25), border=0.0)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        fused = np.random.default_rng(1).uniform(200, 900, (4, 128, 160)).astype(np.float32)
        read = array_reader(fused, np.ones((128, 160), bool), (0, 0))
        found = assess.full_resolution(scene, read, Window(0, 128, 0, 160)).figures["reprojection"]
        # the MS pixels whose kernels stay inside the image
        spans = [
            (int(np.ceil((20 - a.offset + 0.5) / 4 - 0.5)), int(np.floor((n - 20.5 - a.offset) / 4 - 0.5)) + 1)
            for a, n in zip(scene.phase, (128, 160), strict=True)
        ]
        inner = Window.of(*spans)
        down = physics.degrader(scene.phase, inner, Window(0, 128, 0, 160), scene.gains)
        ms, _ = scene.read_ms(inner)
        error = down(torch.from_numpy(fused).double()).numpy() - ms
    assert found["pixels"] == error[0].size
    assert found["bias"] == pytest.approx(error.mean((1, 2)), rel=1e-6)
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean((1, 2))), rel=1e-6)


# Files that do not fit


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crs": "EPSG:3857"}, ("EPSG:3857", "EPSG:32631")),
        ({"transform": UTM @ Affine.translation(0.5, 0)}, ("not on the PAN grid", "0.5")),
        pytest.param({"transform": UTM @ Affine.scale(2)}, ("not on the PAN grid", "2 x 2"), marks=pytest.mark.slow),
        pytest.param(
            {"transform": UTM @ Affine.rotation(30)}, ("not on the PAN grid", "rotated"), marks=pytest.mark.slow
        ),
        ({"transform": UTM @ Affine.translation(5000, 0)}, ("does not overlap",)),
        ({"change": lambda p: p[:3]}, ("has 3 bands", "has 4")),
        ({"names": ("red", "green", "blue", "nir")}, ("red, green, blue, nir", "blue, green, red, nir", "--bidx")),
        ({"change": lambda p: p[[3, 1, 2, 0]]}, ("another order", "4,2,3,1")),
    ],
)
def test_files_that_do_not_fit_the_scene_are_refused(scene: Path, fuse_as, run, change: dict, words) -> None:
    with rasterio.open(scene / "pan.tif") as dataset:
        assert dataset.crs.to_string() == "EPSG:32631"
    fuse_as("out.tif", "--extent", "pan", *PLAIN)
    edited(scene / "out.tif", scene / "bad.tif", **change)
    finished = run("evaluate", "out.tif", "bad.tif", *PAIR)
    assert (finished.code, finished.out) == (2, "")
    assert len(finished.errors) == 1
    for word in ("bad.tif", *words) if "--bidx" in words or "change" not in change else words:
        assert word in finished.errors[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", ("fused", "--wald")),
        ("out.tif", ("--pan", "--reference")),
        ("out.tif --pan pan.tif", ("--ms",)),
        ("out.tif --reference truth.tif --pan pan.tif --ms ms.tif", ("--reference",)),
        ("--wald --pan pan.tif --ms ms.tif", ("--methods",)),
        ("out.tif --wald --pan pan.tif --ms ms.tif --methods exp", ("--wald",)),
        ("out.tif --pan pan.tif --ms ms.tif --methods exp", ("--methods", "--wald")),
        ("out.tif --pan pan.tif --ms ms.tif --json --csv", ("--json", "--csv")),
        ("out.tif --pan pan.tif --ms ms.tif --ratio 4", ("--ratio",)),
        ("out.tif --pan pan.tif --ms ms.tif --peak 4", ("--peak",)),
        ("out.tif --reference truth.tif --peak -1", ("--peak",)),
        ("out.tif --reference truth.tif --peak inf", ("--peak",)),
        ("out.tif --reference truth.tif --ratio inf", ("--ratio",)),
        ("out.tif --pan pan.tif --ms ms.tif --report a.json --map a.json", ("--report", "--map")),
        ("out.tif --pan pan.tif --ms ms.tif --fail-under Q2N=0.9", ("--fail-under", "HQNR", "Q2N")),
        ("out.tif --pan pan.tif --ms ms.tif --fail-under D_S=0.9", ("--fail-under", "D_S")),
        ("out.tif --pan pan.tif --ms ms.tif --fail-under HQNR", ("--fail-under", "FIGURE=VALUE")),
        ("out.tif --pan pan.tif --ms ms.tif --fail-under HQNR=nan", ("--fail-under", "HQNR=nan")),
        ("out.tif --pan pan.tif --ms ms.tif --report out.pdf", ("--report", ".html")),
        ("out.tif --pan pan.tif --ms ms.tif --report nowhere/out.html", ("nowhere",)),
        ("out.tif --pan pan.tif --ms ms.tif --map ms.tif", ("ms.tif",)),
        ("--wald --pan pan.tif --ms ms.tif --methods magic", ("magic", "gsa")),
        ("--wald --pan pan.tif --ms ms.tif --methods exp,../x", ("../x", "gsa")),
        ("--wald --pan pan.tif --ms ms.tif --methods ,", ("no method", "gsa")),
        ("out.tif --reference truth.tif --bidx 1", ("--bidx",)),
        ("out.tif --reference truth.tif --sensor generic", ("--sensor",)),
        ("out.tif --pan pan.tif --ms ms.tif --adapt off", ("--adapt", "--wald")),
        ("out.tif --reference truth.tif --device cpu", ("--device", "--wald")),
        ("out.tif --reference truth.tif --pan nope.tif", ("nope.tif", "no such file")),
        ("out.tif --reference truth.tif --pan pan.tif --fail-under edge_error=0.1", ("SHARPNESS", "EDGE_ERROR")),
        ("nope.tif --pan pan.tif --ms ms.tif --map maps", ("nope.tif",)),
        ("out.tif --reference nope.tif", ("nope.tif", "no such file")),
    ],
)
def test_what_does_not_go_together_is_refused(scene: Path, run, arguments: str, words) -> None:
    (scene / "out.tif").write_bytes((scene / "truth.tif").read_bytes())
    before = sorted(scene.iterdir())
    finished = run("evaluate", *arguments.split())
    assert (finished.code, finished.out) == (2, "")
    assert len(finished.errors) == 1
    for word in words:
        assert word in finished.errors[0]
    assert sorted(scene.iterdir()) == before


# Against a reference


def test_a_reference_measures_what_the_functions_measure(scene: Path, fuse_as, run) -> None:
    fuse_as("out.tif", "--method", "gsa", "--extent", "pan")
    found = quality_of(run, "out.tif", "--reference", "truth.tif")
    with rasterio.open("truth.tif") as truth, rasterio.open("out.tif") as out:
        assert truth.shape == out.shape
        valid = torch.from_numpy((truth.dataset_mask() > 0) & (out.dataset_mask() > 0))
        g, f = (torch.from_numpy(d.read().astype(float)) for d in (truth, out))
        peak = float((1 << int(g[:, torch.from_numpy(truth.dataset_mask() > 0)].max()).bit_length()) - 1)
    assert (found["peak"], found["ratio"], found["pixels"]) == (peak, 4.0, int(valid.sum()))
    assert found["sam"] == pytest.approx(of_whole.sam(g, f, valid), rel=1e-9)
    assert found["ergas"] == pytest.approx(of_whole.ergas(g, f, 4.0, valid), rel=1e-9)
    assert found["psnr"] == pytest.approx(of_whole.psnr(g, f, peak, valid), rel=1e-9)
    assert found["q"] == pytest.approx(of_whole.q_average(g, f, valid), rel=1e-9)
    assert found["q2n"] == pytest.approx(of_whole.q2n(g, f, valid), rel=1e-9)
    assert found["scc"] == pytest.approx(of_whole.scc(g, f, valid), rel=1e-9)
    assert found["rmse"] == pytest.approx(of_whole.rmse(g, f, valid).tolist(), rel=1e-9)
    assert found["sharpness"] == pytest.approx(of_whole.sharpness(g, f, valid), rel=1e-9)
    assert found["edge_error"] is None


@pytest.mark.slow
def test_the_error_beside_edges_needs_the_pan(scene: Path, fuse_as, run, monkeypatch) -> None:
    monkeypatch.setattr("pansharpen_cli.quality.reference.SCORED_TILE", 64)  # it streams
    fuse_as("out.tif", "--method", "gsa", "--extent", "pan")
    edited(scene / "pan.tif", scene / "holed.tif", lambda p: np.where(np.indices(p.shape)[1] < 40, 0, p), nodata=0)
    with rasterio.open("truth.tif") as truth, rasterio.open("out.tif") as out:
        both = (truth.dataset_mask() > 0) & (out.dataset_mask() > 0)
        g, f = (torch.from_numpy(d.read().astype(float)) for d in (truth, out))
    for name in ("pan.tif", "holed.tif"):
        with rasterio.open(name) as dataset:
            pan, valid = dataset.read().astype(float), both & (dataset.dataset_mask() > 0)
        found = quality_of(run, "out.tif", "--reference", "truth.tif", "--pan", name, "--ratio", 2)
        expected = of_whole.edge_error(g, f, torch.from_numpy(pan), 2, torch.from_numpy(valid))
        assert found["edge_error"] == pytest.approx(expected, rel=1e-9)
        assert found["pixels"] == both.sum()  # the other figures do not see PAN
    against = ("evaluate", "out.tif", "truth.tif", "--reference", "truth.tif")
    assert "beside edges" not in run(*against).out
    table = run(*against, "--pan", "pan.tif").out
    assert "sharpness" in table and "beside edges" in table
    rows = list(csv.DictReader(io.StringIO(run(*against, "--pan", "pan.tif", "--csv").out)))
    assert float(rows[0]["sharpness"]) == 1 and float(rows[0]["edge_error"]) == 0 < float(rows[1]["edge_error"])
    run(*against, "--pan", "pan.tif", "--report", "page.html")
    assert "beside edges" in (scene / "page.html").read_text()


@pytest.mark.parametrize(
    ("pan", "words"), [("truth.tif", ("truth.tif has 4 bands",)), ("ms.tif", ("ms.tif", "not on the reference grid"))]
)
def test_a_pan_that_is_none_or_on_another_grid_than_the_reference_is_refused(scene: Path, run, pan, words) -> None:
    finished = run("evaluate", "truth.tif", "--reference", "truth.tif", "--pan", pan)
    assert finished.code == 2 and len(finished.errors) == 1
    for word in words:
        assert word in finished.errors[0]


def test_the_truth_against_itself_is_perfect_and_ranks_first(scene: Path, fuse_as, run) -> None:
    (scene / "same.tif").write_bytes((scene / "truth.tif").read_bytes())
    fuse_as("out.tif", *PLAIN)
    first, second = results(run("evaluate", "out.tif", "same.tif", "--reference", "truth.tif", "--json"))
    assert (first["name"], second["name"]) == ("same.tif", "out.tif")
    assert first["quality"]["q2n"] == pytest.approx(1)
    assert (first["quality"]["sam"], first["quality"]["ergas"], first["quality"]["psnr"]) == (0, 0, None)
    assert second["quality"]["q2n"] < 0.95


def test_a_result_with_holes_says_on_how_much_it_was_measured(scene: Path, run) -> None:
    def half(pixels: np.ndarray) -> np.ndarray:
        pixels[:, :, 96:] = 0
        return pixels

    edited(scene / "truth.tif", scene / "half.tif", half, nodata=0)
    finished = run("evaluate", "half.tif", "--reference", "truth.tif")
    assert finished.code == 0
    assert "half.tif" in finished.err and "% of the reference" in finished.err


def test_the_nodata_option_holds_for_the_fused_file_too(scene: Path, fuse_as, run) -> None:
    def half(pixels: np.ndarray) -> np.ndarray:
        pixels[:, :, 96:] = 0
        return pixels

    fuse_as("out.tif", "--method", "gsa", "--extent", "pan")
    edited(scene / "out.tif", scene / "half.tif", half, nodata=None)
    for against in (PAIR, ("--reference", "truth.tif")):
        whole, tagged = (quality_of(run, "half.tif", *against, *option) for option in ((), ("--nodata", "0")))
        assert 0 < tagged["blocks"] < whole["blocks"]


def minus_9999(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.astype("float32")
    pixels[:, 64:, 96:] = -9999
    return pixels


@pytest.mark.parametrize("against", [PAIR, ("--reference", "truth.tif")], ids=["full", "reference"])
def test_a_nodata_value_counts_in_the_files_that_can_hold_it(scene: Path, run, against) -> None:
    edited(scene / "truth.tif", scene / "untagged.tif", minus_9999, nodata=None)
    edited(scene / "truth.tif", scene / "tagged.tif", minus_9999, nodata=-9999)
    done = run("evaluate", "untagged.tif", *against, "--nodata", "-9999", "--json")
    assert quality_of(run, "tagged.tif", *against) == results(done)[0]["quality"]
    held = "truth.tif" if against[0] == "--reference" else "ms.tif"
    assert f"{held} holds uint16, which --nodata -9999 does not fit" in done.err
    refused = run("evaluate", "truth.tif", *against, "--nodata", "-9999")
    assert refused.code == 2 and "no file" in refused.err and "truth.tif (uint16)" in refused.err


@pytest.mark.parametrize("against", [PAIR, ("--reference", "truth.tif")], ids=["full", "reference"])
def test_untagged_fill_of_a_fused_file_is_said_aloud(scene: Path, run, against) -> None:
    edited(scene / "truth.tif", scene / "floats.tif", minus_9999, nodata=None)
    edited(scene / "truth.tif", scene / "zeros.tif", lambda p: minus_9999(p).clip(0).astype("uint16"), nodata=None)
    said = run("evaluate", "floats.tif", "zeros.tif", *against).err
    for name, value in {"floats.tif": "-9999 in band 1", "zeros.tif": "areas of 0 in all bands"}.items():
        assert f"{name} holds values that look like nodata and are not tagged as such ({value})" in said, said


@pytest.mark.parametrize("hidden", seldom(["pan.tif", "ms.tif"], ["ms.tif"]))
def test_what_a_fused_file_holds_where_the_pair_is_nodata_moves_no_figure(scene: Path, fuse_as, run, hidden) -> None:
    def holed(pixels: np.ndarray) -> np.ndarray:
        at = pixels.shape[1] // 3
        pixels[:, at : at + 8, at:-at] = 0
        return pixels

    edited(scene / hidden, scene / hidden, holed, nodata=0)
    assert run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *PLAIN, "--no-score").code == 0
    edited(scene / "out.tif", scene / "filled.tif", lambda p: np.where(p == 0, 30000, p), nodata=None)
    assert quality_of(run, "filled.tif", *PAIR) == quality_of(run, "out.tif", *PAIR)


def test_a_reference_is_compared_with_the_dn_of_scaled_files(scene: Path, run) -> None:
    names = {"plain.tif": (), "scaled.tif": ("--scale", "3,100"), "f.tif": ("--scale", "1e-4", "--dtype", "float32")}
    for name, options in names.items():
        assert run("fuse", "pan.tif", "ms.tif", "-o", name, *PLAIN, "--no-score", *options).code == 0
    done = run("evaluate", *names, "--reference", "truth.tif", "--json")
    assert "units" not in done.err
    figures = [(r["quality"]["q2n"], r["quality"]["ergas"]) for r in results(done)]
    np.testing.assert_allclose(figures, figures[:1] * 3, rtol=2e-3)
    assert quality_of(run, "plain.tif", "--reference", "scaled.tif")["ergas"] < 0.05


def test_a_reference_whose_tags_tell_other_units_is_said_aloud(scene: Path, run) -> None:
    for name, scales in {"tagged.tif": 1e-4, "other.tif": 1e-3}.items():
        shutil.copy(scene / "truth.tif", scene / name)
        with rasterio.open(scene / name, "r+") as dataset:
            dataset.scales = [scales] * dataset.count
    assert "units" not in run("evaluate", "tagged.tif", "--reference", "tagged.tif").err
    said = run("evaluate", "tagged.tif", "--reference", "other.tif").err
    assert "tagged.tif and other.tif may differ in their units" in said and "0.0001, 0, and 0.001, 0" in said, said


@pytest.mark.slow
def test_a_file_whose_tags_tell_other_units_than_the_ms_is_said_aloud(scene: Path, run) -> None:
    """As one whose scale is carried by its tags, but not by ours, which other tools drop."""
    made = {"plain": (), "scaled": ("--scale", "2,100"), "real": ("--scale", "1e-4", "--dtype", "float32")}
    for name, options in made.items():
        assert run("fuse", "pan.tif", "ms.tif", "-o", f"{name}.tif", *PLAIN, "--no-score", *options).code == 0
        with rasterio.open(scene / f"{name}.tif") as dataset:
            told = {"scales": dataset.scales, "offsets": dataset.offsets}
        edited(scene / f"{name}.tif", scene / f"{name}2.tif")
        with rasterio.open(scene / f"{name}2.tif", "r+") as dataset:
            dataset.scales, dataset.offsets = told.values()
    done = run("evaluate", "plain2.tif", "scaled.tif", "scaled2.tif", "real2.tif", *PAIR, "--json")
    said = done.err
    for result in results(done):
        judged = {remark["text"].partition(",")[0] for remark in result["verdict"]}
        assert (judged == {"in other units than the MS"}) == (result["name"] in ("scaled2.tif", "real2.tif"))
    assert said.count("may differ in their units") == 2
    assert "scaled2.tif and ms.tif may" in said and "real2.tif and ms.tif may" in said
    with rasterio.open(scene / "ms.tif", "r+") as dataset:
        dataset.scales = [1e-4] * dataset.count
    said = run("evaluate", "plain2.tif", "real.tif", "real2.tif", *PAIR).err
    assert "plain2.tif and" not in said and "real.tif and" not in said and "real2.tif and ms.tif may" in said


@pytest.mark.slow
def test_results_on_different_pixels_are_pointed_out(scene: Path, fuse_as, run) -> None:
    fuse_as("out.tif", *PLAIN)
    run("fuse", "pan.tif", "ms.tif", "-o", "part.tif", *PLAIN, "--no-score", "--window", "40,20,128,96")
    assert "different parts" in run("evaluate", "out.tif", "part.tif", *PAIR).err
    with rasterio.open(scene / "out.tif") as dataset:
        rows, cols = dataset.shape
    for name, window in (
        ("less.tif", f"0,1,{cols},{rows - 1}"),
        ("lower.tif", "64,76,96,96"),
        ("upper.tif", "64,64,96,96"),
    ):
        run("fuse", "pan.tif", "ms.tif", "-o", name, *PLAIN, "--no-score", "--window", window)
    assert "parts" not in run("evaluate", "out.tif", "less.tif", *PAIR).err
    said = run("evaluate", "upper.tif", "lower.tif", *PAIR).err
    assert "upper.tif 9 in rows 64-160, columns 64-160" in said and "lower.tif 9 in rows 76-172" in said
    (scene / "copy.tif").write_bytes((scene / "out.tif").read_bytes())
    assert "parts" not in run("evaluate", "out.tif", "copy.tif", *PAIR).err


def test_ergas_takes_the_ratio(scene: Path, fuse_as, run) -> None:
    fuse_as("out.tif", *PLAIN)
    four, two = (quality_of(run, "out.tif", "--reference", "truth.tif", "--ratio", r) for r in (4, 2))
    assert two["ergas"] == pytest.approx(2 * four["ergas"])


def garbled(pixels: np.ndarray) -> np.ndarray:
    return pixels[::-1, ::-1, ::-1].copy()


@pytest.mark.parametrize("outlier", [None, 1e20])
def test_garbage_in_reflectances_scores_low_whatever_the_peak(scene: Path, run, outlier) -> None:
    def reflectance(pixels: np.ndarray) -> np.ndarray:
        values = (pixels / 10000).astype("float32")
        if outlier:
            values[:, 90, 90] = outlier
        return values

    edited(scene / "truth.tif", scene / "gt.tif", reflectance, nodata=0)
    edited(scene / "truth.tif", scene / "bad.tif", lambda p: garbled(p / 10000).astype("float32"), nodata=0)
    for option in ((), ("--peak", "10000")):
        finished = run("evaluate", "bad.tif", "--reference", "gt.tif", "--json", *option)
        assert json.loads(finished.out)["results"][0]["quality"]["q2n"] < 0.5
        assert ("flatter" in finished.err) == (outlier is not None and not option)


def test_the_same_pixels_of_another_type_have_the_same_figures(scene: Path, fuse_as, run) -> None:
    fuse_as("out.tif", "--method", "gsa", "--extent", "pan")
    edited(scene / "truth.tif", scene / "float.tif", lambda p: p.astype("float32"))
    first, second = (quality_of(run, "out.tif", "--reference", name) for name in ("truth.tif", "float.tif"))
    assert first == second


@pytest.mark.parametrize(("factor", "told"), [(1.0, False), (1e-4, True)])
def test_pan_and_ms_in_different_units_are_told(scene: Path, run, factor: float, told: bool) -> None:
    for name in ("ms.tif", "truth.tif"):
        edited(scene / name, scene / f"f_{name}", lambda p: (p * factor).astype("float32"))
    done = run("evaluate", "f_truth.tif", "--pan", "pan.tif", "--ms", "f_ms.tif")
    assert done.code == 0 and ("are in different units" in done.err) == told


def test_complex_values_are_refused(scene: Path, run) -> None:
    edited(scene / "truth.tif", scene / "complex.tif", lambda p: (p + 500j).astype("complex64"), nodata=None)
    for arguments in (("complex.tif", *PAIR), ("truth.tif", "--reference", "complex.tif")):
        finished = run("evaluate", *arguments)
        assert finished.code == 2 and "complex.tif holds complex64 values" in finished.errors[0]


def test_values_beyond_float32_are_named_and_refused(scene: Path, run) -> None:
    def huge(pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.astype("float64")
        pixels[0, 80, 80] = 1e200
        return pixels

    edited(scene / "truth.tif", scene / "huge.tif", huge)
    finished = run("evaluate", "huge.tif", *PAIR)
    assert finished.code == 2
    assert "huge.tif holds values beyond" in finished.errors[0] and "--nodata" in finished.errors[0]


# of the other methods: test_degenerate_data_give_finite_pixels
@pytest.mark.parametrize("method", seldom(["brovey", "c-bdsd", "glpnet"], ["glpnet"]))
@pytest.mark.parametrize("part", [(), ("--window", "32,32,64,64")], ids=["whole", "a window"])
@pytest.mark.usefixtures("measured")
def test_a_constant_pan_gives_the_up_sampled_ms_and_says_so(scene: Path, run, method: str, part) -> None:
    edited(scene / "pan.tif", scene / "flat.tif", lambda p: np.where(p > 0, 300, 0).astype(p.dtype), nodata=0)
    fused = run("fuse", "flat.tif", "ms.tif", "-o", "out.tif", "--method", method, "--no-score", *part)
    assert fused.code == 0 and fused.err.count("is constant") == 1 and "tells nothing" not in fused.err
    run("fuse", "flat.tif", "ms.tif", "-o", "exp.tif", "--method", "exp", "--align", "off", "--no-score", *part)
    with rasterio.open("out.tif") as out, rasterio.open("exp.tif") as expanded:
        np.testing.assert_array_equal(out.read(), expanded.read())


def test_a_constant_pan_is_fused_with_no_fit_of_another_scene(scene: Path, run) -> None:
    edited(scene / "pan.tif", scene / "flat.tif", lambda p: np.where(p > 0, 300, 0).astype(p.dtype), nodata=0)
    pixels = []
    for pan, *more in (
        ("pan.tif", "--method", "gsa", "--save-fit", "of.safetensors"),
        ("flat.tif", "--method", "gsa", "--fit", "of.safetensors"),
        ("flat.tif", "--method", "exp"),
    ):
        assert run("fuse", pan, "ms.tif", "-o", f"{len(pixels)}.tif", "--no-score", "--align", "off", *more).code == 0
        with rasterio.open(f"{len(pixels)}.tif") as dataset:
            pixels.append(dataset.read())
    np.testing.assert_array_equal(pixels[1], pixels[2])


@pytest.mark.usefixtures("measured")
def test_a_constant_ms_has_no_spectral_figure(scene: Path, run) -> None:
    edited(scene / "ms.tif", scene / "flat.tif", lambda p: np.where(p > 0, 300, 0).astype(p.dtype), nodata=0)
    run("fuse", "pan.tif", "flat.tif", "-o", "out.tif", "--method", "exp", "--no-score")
    found = quality_of(run, "out.tif", "--pan", "pan.tif", "--ms", "flat.tif")
    assert found["hqnr"] is None and found["d_lambda_k"] is None


# Wald's protocol


def test_valid_zeros_of_the_ms_stay_zeros_in_the_reference(tmp_path: Path) -> None:
    make(tmp_path, 128, 128, offset=(0.0, 0.0), border=0.0)
    edited(tmp_path / "ms.tif", tmp_path / "zeros.tif", lambda p: np.where(p < np.median(p), 0, p), nodata=None)
    edited(tmp_path / "pan.tif", tmp_path / "p.tif", nodata=None)
    with Scene.open(tmp_path / "p.tif", [tmp_path / "zeros.tif"]) as scene:
        pair = wald.degrade(scene, tmp_path)
    with rasterio.open(pair.reference) as reference, rasterio.open(tmp_path / "zeros.tif") as ms:
        np.testing.assert_array_equal(reference.read(), ms.read())


@pytest.mark.slow
def test_the_degraded_pair_has_the_phase_of_the_pair_and_is_made_by_the_operators(tmp_path: Path, monkeypatch) -> None:
    make(tmp_path, 250, 210, offset=(1.25, 2.75), border=0.0)
    monkeypatch.setattr(wald, "SCORED_TILE", 64)
    (tmp_path / "low").mkdir()
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"], OpenOptions(sensor="quickbird")) as scene:
        pair = wald.degrade(scene, tmp_path / "low")
        phase = scene.phase
        with Scene.open(pair.pan, [pair.ms], OpenOptions(sensor="quickbird")) as low:
            assert low.phase.ratio == phase.ratio
            with rasterio.open(pair.reference) as reference:
                truth, place = reference.read(), ~scene.ms_grid.transform @ reference.transform
            col, row = round(place.c), round(place.f)
            # the offset as far as whole pixels, since both windows begin with whole pixels
            for own, given, first in zip(low.phase.offset, phase.offset, (row, col), strict=True):
                assert (own + first - given) % 4 == pytest.approx(0, abs=1e-6)
            window = low.pan_grid.whole.moved(row, col)
            np.testing.assert_array_equal(truth, scene.read_ms(window)[0])
            down = physics.degrader(phase, window, Window(0, 250, 0, 210), [scene.sensor.pan_gain])
            pan = scene.pan.read(Window(0, 250, 0, 210))[0]
            expected = down(torch.from_numpy(pan.astype(float))).numpy()
            assert np.abs(low.pan.read(low.pan_grid.whole)[0] - expected).max() <= 0.5 + 1e-6
            coarse, _ = low.read_ms(low.ms_grid.whole)
            shifted = low.phase.moved((row, col))
            down = physics.degrader(shifted, low.ms_grid.whole, scene.ms_grid.whole, scene.gains)
            ms, _ = scene.read_ms(scene.ms_grid.whole)
            assert np.abs(coarse - down(torch.from_numpy(ms.astype(float))).numpy()).max() <= 0.5 + 1e-6


@pytest.mark.usefixtures("measured")
def test_wald_ranks_injection_above_up_sampling_and_leaves_nothing_behind(scene: Path, run) -> None:
    before = sorted(scene.iterdir())
    finished = run("evaluate", "--wald", *PAIR, "--methods", "exp,gsa,mtf-glp-fs", "--json")
    found = results(finished)
    assert {r["name"] for r in found} == {"exp", "gsa", "mtf-glp-fs"}
    assert found[-1]["name"] == "exp"
    assert found[0]["quality"]["ergas"] < found[-1]["quality"]["ergas"]
    assert sorted(scene.iterdir()) == before


@pytest.mark.slow
@pytest.mark.usefixtures("measured")
def test_wald_with_all_methods_names_what_it_leaves_out(scene: Path, run) -> None:
    make(scene, 256, 256)
    finished = run("evaluate", "--wald", *PAIR, "--methods", "all", "--adapt", "off", "--bidx", "1,2,3", "--json")
    names = {r["name"] for r in results(finished)}
    assert {"exp", "brovey", "gsa", "bt-h", "pracs", "mtf-glp-hpm", "bdsd-pc", "glpnet"} <= names
    assert "fusionnet" not in names
    assert "warning: fusionnet is left out" in finished.err


def test_a_scene_too_small_to_degrade_is_refused(tmp_path: Path, run, monkeypatch) -> None:
    make(tmp_path, 64, 64, border=0.0)
    monkeypatch.chdir(tmp_path)
    finished = run("evaluate", "--wald", *PAIR, "--methods", "exp")
    assert finished.code == 2
    assert "too small for Wald's protocol" in finished.errors[0]


# Outputs


def test_maps_lie_on_the_scene_and_average_to_the_figures(scene: Path, fuse_as, run) -> None:
    fuse_as("out.tif", "--method", "gsa")
    found = quality_of(run, "out.tif", *PAIR, "--map", "maps")
    assert {p.name for p in (scene / "maps").iterdir()} == {
        f"out_{name}.tif" for name in ("hqnr", "d_lambda_k", "d_s", "sam")
    }
    with rasterio.open("out.tif") as out, rasterio.open("maps/out_d_lambda_k.tif") as quality_map:
        assert quality_map.crs == out.crs
        assert quality_map.transform == out.transform @ Affine.scale(32)
        values = quality_map.read(1, masked=True)
        assert values.count() == found["blocks"]
        assert values.mean() == pytest.approx(found["d_lambda_k"], abs=1e-6)
    again = run("evaluate", "out.tif", *PAIR, "--map", "maps")
    assert again.code == 2 and "--overwrite" in again.errors[0]
    assert run("evaluate", "out.tif", *PAIR, "--map", "maps", "--overwrite").code == 0


def test_maps_against_a_reference(scene: Path, fuse_as, run) -> None:
    fuse_as("out.tif", "--method", "gsa")
    quality_of(run, "out.tif", "--reference", "truth.tif", "--map", "maps")
    with rasterio.open("maps/out_sam.tif") as angles:
        assert 0 < np.nanmean(angles.read(1)) < 20


def test_fail_under_gives_3_and_the_table(scene: Path, fuse_as, run) -> None:
    fuse_as("out.tif", *PLAIN)
    fuse_as("gsa.tif", "--method", "gsa")
    good = run("evaluate", "out.tif", *PAIR, "--fail-under", "HQNR=0.01", "--fail-under", "qnr=0.01")
    assert good.code == 0 and not good.errors
    low = run("evaluate", "out.tif", "gsa.tif", *PAIR, "--fail-under", "HQNR=0.999")
    assert low.code == 3 and "out.tif" in low.out
    assert len(low.errors) == 1 and all(f"{name}: HQNR is 0." in low.errors[0] for name in ("out.tif", "gsa.tif"))
    assert run("evaluate", "out.tif", *PAIR, "--fail-under", "HQNR=0.999", "--fail-under", "hqnr=0.1").code == 3
    against = run("evaluate", "out.tif", "--reference", "truth.tif", "--fail-under", "Q2n=0.999")
    assert against.code == 3 and "Q2N is 0." in against.err
    soft = run("evaluate", "out.tif", "--reference", "truth.tif", "--fail-under", "sharpness=0.9")
    assert soft.code == 3 and "SHARPNESS is 0." in soft.err


@pytest.mark.parametrize(
    "what", [pytest.param(("out.tif", *PAIR), marks=pytest.mark.slow), ("out.tif", "--reference", "truth.tif")]
)
def test_reports_are_written_and_not_overwritten(scene: Path, fuse_as, run, what) -> None:
    fuse_as("out.tif", *PLAIN)
    page = run("evaluate", *what, "--report", "page.html")
    assert page.code == 0 and not page.errors
    text = (scene / "page.html").read_text()
    assert "<html" in text and "out.tif" in text and "data:image" in text
    facts = run("evaluate", *what, "--report", "page.json", "--json")
    assert json.loads((scene / "page.json").read_text())["results"] == json.loads(facts.out)["results"]
    again = run("evaluate", *what, "--report", "page.html")
    assert again.code == 2 and "--overwrite" in again.errors[0]


def test_peak_of_a_reference_is_the_end_of_its_bit_depth(tmp_path: Path) -> None:
    for value, peak in ((255, 255), (256, 511), (1500, 2047), (2047, 2047)):
        with rasterio.open(tmp_path / "x.tif", "w", driver="GTiff", width=4, height=4, count=1, dtype="uint16") as d:
            d.write(np.full((1, 4, 4), value, "uint16"))
        with Raster.open(tmp_path / "x.tif") as raster:
            assert radiometry(raster) == Radiometry(peak, 1.0, [])


def test_a_reference_without_a_positive_value_is_refused(tmp_path: Path) -> None:
    with rasterio.open(tmp_path / "x.tif", "w", driver="GTiff", width=4, height=4, count=1, dtype="uint16") as d:
        d.write(np.zeros((1, 4, 4), "uint16"))
    with Raster.open(tmp_path / "x.tif") as raster, pytest.raises(InputError, match="positive"):
        radiometry(raster)


@pytest.mark.parametrize("options", [(), ("--window", "40,20,96,96")])
@pytest.mark.slow
@pytest.mark.usefixtures("measured")
def test_the_comparison_of_a_report_holds_each_method_once_and_as_it_is(scene: Path, run, options) -> None:
    made = run(
        "fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--method", "mtf-glp-fs", "--report", "r.html", "--json", *options
    )
    facts = json.loads(made.out)
    assert [r["name"] for r in facts["comparison"]["rows"]] == ["this result", "exp"]
    run("fuse", "pan.tif", "ms.tif", "-o", "exp.tif", "--method", "exp", "--no-score", *options)
    assert facts["comparison"]["rows"][1]["hqnr"] == quality_of(run, "exp.tif", *PAIR)["hqnr"]


def test_a_comparison_that_cannot_be_made_costs_no_result(scene: Path, run, monkeypatch) -> None:
    monkeypatch.setattr(fuse, "COMPARED_SIDE", 32)
    monkeypatch.setattr(fuse, "richest_part", lambda window, detail: Window(0, 32, 0, 32))
    made = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--method", "gsa", "--report", "r.html", "--json")
    assert made.code == 0
    assert json.loads(made.out)["comparison"] is None
    assert "no comparison" in made.err
    assert (scene / "out.tif").is_file() and (scene / "r.html").is_file()


def test_the_part_that_is_compared_is_measured_and_rich(monkeypatch) -> None:
    detail = np.ones((100, 100))
    detail[:40] = np.nan
    detail[60:70, 50:60] = 9
    r0, r1, c0, c1 = fuse.richest_part(Window(64, 64 + 3200, 32, 32 + 3200), detail)
    assert (r1 - r0, c1 - c0) == (1024, 1024)
    assert r0 - 64 >= 40 * 32 and r0 - 64 <= 60 * 32 and r1 - 64 >= 70 * 32
    assert c0 - 32 <= 50 * 32 and c1 - 32 >= 60 * 32
    assert fuse.richest_part(Window(64, 664, 32, 932), detail[:18, :28]) == (64, 664, 32, 932)


# The documented schema


def keys_of(value, inside: str = "") -> set[str]:
    """All keys of a report; the insides of `options`, `before`, `after` and `history` are named by others."""
    if isinstance(value, list):
        return set().union(*(keys_of(v, inside) for v in value))
    if not isinstance(value, dict) or inside in ("options", "before", "after", "history"):
        return set()
    if inside == "seconds":
        return {"total"}
    return set(value).union(*(keys_of(v, k) for k, v in value.items()))


@pytest.mark.usefixtures("measured")
def test_every_key_of_a_report_is_documented(scene: Path, run) -> None:
    page = (Path(__file__).parent.parent / "docs" / "report.md").read_text()
    first, second = page.split("## `pansharpen-evaluation/1`")
    fused = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--adapt-seconds", "0.1", "--report", "r.html", "--json")
    full = run("evaluate", "out.tif", *ALIGNED, "--json")
    against = run("evaluate", "out.tif", "--reference", "truth.tif", "--json")
    for finished, text in ((fused, first), (full, page), (against, page)):
        assert finished.code == 0
        facts = json.loads(finished.out)
        assert facts["schema"] in text
        missing = {key for key in keys_of(facts) if f"`{key}`" not in text}
        assert not missing


def test_maps_that_cannot_be_written_leave_no_folder(scene: Path, run, monkeypatch) -> None:
    def full(*arguments, **options):
        raise PansharpenError("no space left on the disk")

    monkeypatch.setattr(evaluating, "raster_writer", full)
    result = run("evaluate", "truth.tif", "--pan", "pan.tif", "--ms", "ms.tif", "--map", "m")
    assert (result.code, (scene / "m").exists()) == (1, False), result.err


def test_a_part_without_a_place_is_refused_and_not_laid_on_the_corner(scene, run):
    """Beside files without one; what `fuse` makes has a geotransform, but for a part at the corner."""
    place = {"crs": None, "transform": Affine.identity()}
    for name, kept in (
        ("pan", slice(0, 192)),
        ("ms", slice(0, 48)),
        ("truth", slice(0, 192)),
        ("truth", slice(60, 160)),
    ):
        edited(scene / f"{name}.tif", scene / f"{name}_{kept.stop}.tif", lambda p, kept=kept: p[:, kept, kept], **place)
    pair = ("--pan", "pan_192.tif", "--ms", "ms_48.tif", "--align", "off")
    for against in (pair, ("--reference", "truth_192.tif")):
        assert run("evaluate", "truth_192.tif", *against).code == 0
        ended = run("evaluate", "truth_160.tif", *against)
        assert ended.code == 2 and "truth_160.tif has no georeferencing" in ended.err
        assert "100 x 100 pixels" in ended.err and "nothing tells which part it is" in ended.err
    edited(scene / "truth.tif", scene / "near.tif", lambda p: p[:, :-4], **place)
    assert "was laid on the upper left corner of the PAN" in run("evaluate", "near.tif", *pair).err
    for corner in (0, 8):
        part = ("--window", f"{corner},{corner},120,120", "--method", "exp", "--align", "off", "--overwrite")
        assert run("fuse", "pan_192.tif", "ms_48.tif", "-o", "part.tif", *part, "--no-score").code == 0
        ended = run("evaluate", "part.tif", *pair)
        assert ended.code == 0 and "laid on" not in ended.err
