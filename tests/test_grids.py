"""MS files on grids of their own: each is fused as if it were alone, and all are written into one file."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasters import edited, pixels_of, random_weights, seen_through, seldom, write_pair

from pansharpen_cli.archive import names as naming
from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion import fit, loop, pan_relation
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs import fuse
from pansharpen_cli.jobs.pair import Pair
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene

pytestmark = pytest.mark.usefixtures("still")
VNIR, SWIR = ("Blue", "Green", "Red", "NIR1"), ("SWIR1", "SWIR2")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    _, _, truth = write_pair(folder, 384, 384, 8, noise=0.0)
    seen_through(truth, folder / "vnir.tif", (2, 3, 5, 7), 4, (1.25, -0.5), 0.3, VNIR)
    seen_through(truth, folder / "swir.tif", (4, 6), 12, (3.0, 5.5), 0.25, SWIR)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """`pan.tif`, `vnir.tif` of ratio 4 and `swir.tif` of ratio 12, each at a phase of its own."""
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


def fused(
    folder: Path, files: list[str], options: Options, name: str = "out.tif", score: bool = False, **opening
) -> dict:
    pair = Pair(str(folder / "pan.tif"), [str(folder / f) for f in files], OpenOptions(**opening))
    return fuse.fuse_scene(pair, fuse.FusionOutput(folder / name, overwrite=True), options, score)


def options_of(folder: Path, method: str) -> Options:
    if method != "glpnet":
        return Options(method=method)
    return Options(weights=str(random_weights(folder / "w.safetensors")), adapt="off", precision="float32")


@pytest.mark.parametrize("command", seldom(["fuse", "fuse --dry-run", "check", "evaluate"], ["fuse", "evaluate"]))
def test_each_input_is_opened_once_in_a_command(folder: Path, run, monkeypatch, command: str) -> None:
    for i, name in enumerate(VNIR):
        edited(folder / "vnir.tif", folder / f"{name}.tif", lambda p, i=i: p[i : i + 1], (name,))
    edited(folder / "pan.tif", folder / "fused.tif", lambda p: np.repeat(p, 6, 0))
    inputs = [str(folder / f"{name}.tif") for name in ("pan", *VNIR, "swir")]
    opened: Counter[str] = Counter()
    first = rasterio.open

    def counted(path, *args, **kwargs):
        opened[str(path)] += 1
        return first(path, *args, **kwargs)

    monkeypatch.setattr(rasterio, "open", counted)
    if command == "evaluate":
        files = [f"--{'ms' if i else 'pan'}={path}" for i, path in enumerate(inputs)]
        done = run("evaluate", folder / "fused.tif", *files, "--align=off")
    else:
        output = ["-o", folder / "out.tif", "--no-score"] if "fuse" in command else ["--no-score"]
        done = run(*command.split(), *inputs, "--method=exp", "--align=off", *output)
    assert done.code == 0
    assert {path: opened[path] for path in inputs} == dict.fromkeys(inputs, 1)


@pytest.mark.parametrize("of", ["pan.tif", "vnir.tif", "swir.tif"])
def test_a_mask_of_one_of_several_grids_masks_the_output(folder: Path, of: str) -> None:
    edited(folder / of, folder / "alpha.tif", lambda p: np.where(np.arange(p.shape[1]) < p.shape[1] // 4, 0, 255)
           .astype("uint8")[None, :, None].repeat(p.shape[2], 2), ("alpha",), nodata=None)  # fmt: skip
    report = fused(folder, ["alpha.tif", "vnir.tif", "swir.tif"], Options(method="exp", align="off"))
    out = pixels_of(folder / "out.tif")
    masked = {"pan.tif": range(6), "vnir.tif": range(4), "swir.tif": range(4, 6)}[of]
    assert report["scene"]["bands"] == len(out) == 6
    for band, values in enumerate(out):
        assert (values[:70] == report["scene"]["nodata"]).all() == (band in masked)
        assert (values[150:300, 100:300] != report["scene"]["nodata"]).all()


@pytest.mark.parametrize("south_up", [False, True])
def test_files_on_one_lattice_are_one_grid_over_their_common_part(folder: Path, south_up: bool) -> None:
    """Bands that cover more on one side or the other are fused as those of one file; also where they are warped, but
    for its edge, beyond which there is more for the kernel to see."""
    with rasterio.open(folder / "vnir.tif") as dataset:
        values, profile = dataset.read(), dataset.profile
    if south_up:
        values = values[:, ::-1]
        profile["transform"] @= rasterio.Affine.translation(0, values.shape[1]) @ rasterio.Affine.scale(1, -1)

    def written(name: str, bands: slice, rows: slice, cols: slice) -> str:
        part = values[bands, rows, cols]
        shape = {"count": len(part), "height": part.shape[1], "width": part.shape[2]}
        place = {"transform": profile["transform"] @ rasterio.Affine.translation(cols.start, rows.start)}
        with rasterio.open(folder / name, "w", **profile | shape | place) as dataset:
            dataset.write(part)
            dataset.descriptions = VNIR[bands]
        return name

    rows, cols = slice(5, 90), slice(7, 85)
    parts = [
        written("a.tif", slice(0, 2), slice(0, 90), slice(7, 96)),
        written("b.tif", slice(2, 3), slice(5, 96), slice(4, 90)),
        written("c.tif", slice(3, 4), slice(2, 93), slice(0, 85)),
    ]
    fused(folder, [written("one.tif", slice(0, 4), rows, cols)], Options(method="gsa", align="off"), "one_file.tif")
    report = fused(folder, parts, Options(method="gsa", align="off"))
    edge = slice(16, -16) if south_up else slice(None)
    out, expected = (pixels_of(folder / name)[:, edge, edge].astype(float) for name in ("out.tif", "one_file.tif"))
    assert abs(out - expected).max() <= (2 if south_up else 0)
    told = "a.tif b.tif c.tif is read where all of them lie"
    assert told in " ".join(report["warnings"]) and told not in " ".join(report["notes"])
    few = [written("d.tif", slice(0, 3), rows, slice(7, 86)), written("e.tif", slice(3, 4), rows, cols)]
    report = fused(folder, few, Options(method="exp", align="off"))
    assert "d.tif is read where all of them lie" in " ".join(report["notes"])
    assert not any("where all of them lie" in line for line in report["warnings"])
    # of one size, one of them elsewhere: it may be misplaced, and has a registration of its own
    moved = [written("f.tif", slice(0, 3), slice(0, 80), cols), written("g.tif", slice(3, 4), slice(4, 84), cols)]
    assert len(fused(folder, moved, Options(method="exp", align="off"))["groups"]) == 2


@pytest.mark.parametrize("method", seldom(["gsa", "glpnet"], ["gsa"]))
@pytest.mark.usefixtures("measured")
def test_each_file_is_fused_as_if_it_were_alone_to_the_last_bit(folder: Path, method: str) -> None:
    options = options_of(folder, method)
    facts = fused(folder, ["vnir.tif", "swir.tif"], options)
    with rasterio.open(folder / "out.tif") as dataset:
        together, names, interleaving = dataset.read(), dataset.descriptions, dataset.interleaving
    assert names == (*VNIR, *SWIR) and interleaving.value == "BAND"
    for file, places in (("vnir.tif", [0, 1, 2, 3]), ("swir.tif", [4, 5])):
        fused(folder, [file], options, "alone.tif", window=Window(*facts["scene"]["window"]))
        np.testing.assert_array_equal(together[places], pixels_of(folder / "alone.tif"))
    assert [g["scene"]["ratio"] for g in facts["groups"]] == [[4, 4], [12, 12]]


def test_bands_are_numbered_and_named_over_all_files_and_written_as_asked(folder: Path) -> None:
    options = options_of(folder, "gsa")
    fused(folder, ["vnir.tif", "swir.tif"], options)
    whole = pixels_of(folder / "out.tif")
    fused(folder, ["vnir.tif", "swir.tif"], options, "some.tif", bidx=["swir1", 3, "blue", 6])
    with rasterio.open(folder / "some.tif") as dataset:
        assert dataset.descriptions == ("SWIR1", "Red", "Blue", "SWIR2")
        np.testing.assert_array_equal(dataset.read(), whole[[4, 2, 0, 5]])
    pair = Pair(str(folder / "pan.tif"), [str(folder / "vnir.tif"), str(folder / "swir.tif")], OpenOptions(bidx=[5]))
    with pair.held() as held:
        assert [Path(each.ms[0]).name for each in held.parts.pairs] == ["swir.tif"]


def test_bands_come_in_the_order_of_their_files_whatever_their_grids(folder: Path) -> None:
    options = options_of(folder, "exp")
    edited(folder / "vnir.tif", folder / "blue.tif", lambda p: p[:1], VNIR[:1])
    edited(folder / "vnir.tif", folder / "rest.tif", lambda p: p[1:], VNIR[1:])
    facts = fused(folder, ["blue.tif", "swir.tif", "rest.tif"], options)
    assert facts["scene"]["band_names"] == ["Blue", "SWIR1", "SWIR2", "Green", "Red", "NIR1"]
    assert [g["scene"]["bands"] for g in facts["groups"]] == [4, 2]
    fused(folder, ["vnir.tif", "swir.tif"], options, "other.tif")
    np.testing.assert_array_equal(pixels_of(folder / "out.tif"), pixels_of(folder / "other.tif")[[0, 4, 5, 1, 2, 3]])


def test_what_is_written_tells_the_groups_and_gdal_knows_each_band(folder: Path) -> None:
    fused(folder, ["vnir.tif", "swir.tif"], options_of(folder, "gsa"))
    with rasterio.open(folder / "out.tif") as dataset:
        known = json.loads(dataset.tags(ns="PANSHARPEN")["GROUPS"])
        values = dataset.read(6, masked=True)
        assert float(dataset.tags(6)["STATISTICS_MEAN"]) == pytest.approx(values.mean(), rel=1e-6)
    assert [(g["ms"], g["band_numbers"]) for g in known] == [("vnir.tif", [1, 2, 3, 4]), ("swir.tif", [5, 6])]


def test_a_pixel_that_one_file_lacks_is_nodata_in_the_bands_of_that_file_only(folder: Path) -> None:
    def holed(pixels: np.ndarray) -> np.ndarray:
        pixels[:, 10:14, 10:14] = 0
        return pixels

    edited(folder / "swir.tif", folder / "holed.tif", holed, SWIR)
    fused(folder, ["vnir.tif", "holed.tif"], options_of(folder, "exp"))
    out = pixels_of(folder / "out.tif")
    assert (out[:4] > 0).all() and (out[4:] == 0).any() and ((out[4] == 0) == (out[5] == 0)).all()


def test_a_group_of_another_place_is_refused(folder: Path) -> None:
    with rasterio.open(folder / "swir.tif", "r+") as dataset:
        dataset.transform = rasterio.Affine.translation(90000, 0) @ dataset.transform
    with pytest.raises(InputError, match=r"no overlap: .*swir\.tif"):
        fused(folder, ["vnir.tif", "swir.tif"], options_of(folder, "gsa"))
    assert not (folder / "out.tif").exists()


def test_files_that_interleave_their_pixels_are_refused(folder: Path) -> None:
    pair = Pair(str(folder / "pan.tif"), [str(folder / f) for f in ("vnir.tif", "swir.tif")])
    output = fuse.FusionOutput(folder / "out.tif", creation_options=["INTERLEAVE=PIXEL"])
    with pytest.raises(InputError, match="INTERLEAVE"):
        fuse.fuse_scene(pair, output, options_of(folder, "gsa"), score=False)


@pytest.mark.slow
def test_check_tells_the_size_of_the_one_output_and_refuses_what_fuse_refuses(folder: Path, run, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    told = json.loads(run("check", "pan.tif", "vnir.tif", "swir.tif", "--method", "exp", "--json").out)
    fused(folder, ["vnir.tif", "swir.tif"], Options(method="exp"))
    written = pixels_of(folder / "out.tif")
    assert (told["output"]["bands"], told["output"]["rows"], told["output"]["cols"]) == written.shape
    assert told["prediction"]["raw_bytes"] == written.nbytes
    edited(folder / "swir.tif", folder / "reflectance.tif", lambda p: (p / 1e4).astype("float32"), SWIR)
    refused = [
        run(c, "pan.tif", "vnir.tif", "reflectance.tif", "-q", *o)
        for c, o in (("check", ()), ("fuse", ("-o", "x.tif")))
    ]
    assert {each.code for each in refused} == {2} and refused[0].err == refused[1].err
    assert "MS bands of different types" in refused[0].err


# Measuring ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("measured")
def test_each_grid_is_measured_apart_as_fuse_measured_it(folder: Path, run, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    with rasterio.open("swir.tif", "r+") as dataset:
        dataset.transform = dataset.transform @ rasterio.Affine.translation(0.25, 0)
    arguments = ["fuse", "pan.tif", "vnir.tif", "swir.tif", "-o", "out.tif", "--method", "gsa", "--json"]
    told = json.loads(run(*arguments).out)["groups"]
    pair = ("--pan", "pan.tif", "--ms", "vnir.tif", "--ms", "swir.tif")
    facts = json.loads(run("evaluate", "out.tif", *pair, "--json", "--map", "maps", "--report", "out.html").out)
    assert [r["ms"] for r in facts["results"]] == [["vnir.tif"], ["swir.tif"]]
    for result, group, part in zip(facts["results"], told, facts["groups"], strict=True):
        assert result["quality"]["fidelity"] == pytest.approx(group["quality"]["fidelity"], abs=1e-9)
        assert part["scene"]["band_names"] == group["scene"]["band_names"]
    applied = facts["groups"][1]["registration"]
    assert applied["source"] == "out.tif" and applied["applied"] == told[1]["registration"]["applied"] != [0, 0]
    assert {p.name for p in Path("maps").glob("*_hqnr.tif")} == {"out_vnir_hqnr.tif", "out_swir_hqnr.tif"}
    page = Path("out.html").read_text()
    assert "<h3>vnir.tif</h3>" in page and "<h3>swir.tif: out.tif</h3>" in page
    table = run("evaluate", "out.tif", *pair).out.splitlines()
    assert [line for line in table if line.startswith("MS ")] == ["MS  vnir.tif", "MS  swir.tif"]
    limited = run("evaluate", "out.tif", *pair, "--fail-under", "FIDELITY=0.999", "--csv")
    assert limited.code == 3 and "out.tif (swir.tif): FIDELITY is" in limited.err
    assert [line.split(",")[3] for line in limited.out.splitlines()] == ["ms", "vnir.tif", "swir.tif"]


@pytest.mark.slow
@pytest.mark.usefixtures("measured")
def test_walds_protocol_takes_each_grid_apart_and_leaves_out_what_is_too_small(folder: Path, run, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    edited(folder / "vnir.tif", folder / "other.tif", lambda p: p[1:2, 1:, 1:], ("Yellow",))
    with rasterio.open("other.tif", "r+") as dataset:  # on a grid of its own
        dataset.transform = dataset.transform @ rasterio.Affine.translation(1.25, 1.25)
    pair = ("evaluate", "--wald", "--methods", "exp,gsa", "--align", "off", "--pan", "pan.tif", "--json")
    files = ("--ms", "vnir.tif", "--ms", "swir.tif", "--ms", "other.tif")
    done = run(*pair, *files, "--bidx", "blue,green,red,swir1,7")
    facts = json.loads(done.out)
    assert [(r["ms"], r["rank"], r["name"]) for r in facts["results"]] == [
        (["vnir.tif"], 1, "gsa"), (["vnir.tif"], 2, "exp"), (["other.tif"], 1, "gsa"), (["other.tif"], 2, "exp")
    ]  # fmt: skip
    assert any(w.startswith("swir.tif is too small for Wald's protocol") for w in facts["warnings"])
    alone = json.loads(run(*pair, "--ms", "other.tif").out)["results"]
    assert facts["results"][2]["quality"]["q2n"] == pytest.approx(alone[0]["quality"]["q2n"], abs=0.02)


# What PAN tells -------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_noise(folder: Path) -> Path:
    """The last band of `vnir.tif` shows nothing that PAN sees, in smooth patches as a thermal band does."""

    def foreign(pixels: np.ndarray) -> np.ndarray:
        coarse = np.random.default_rng(5).uniform(500, 900, (32, 32))
        pixels[3] = np.kron(coarse, np.ones((3, 3)))[: pixels.shape[1], : pixels.shape[2]]
        return pixels

    edited(folder / "vnir.tif", folder / "odd.tif", foreign, VNIR)
    return folder


def test_r2_and_gain_of_a_band_are_those_that_it_was_made_with(folder: Path) -> None:
    with Scene.open(folder / "pan.tif", [folder / "vnir.tif"]) as scene:
        data = scene.read_ms(Window(0, 90, 0, 90))[0].astype(float)
    pan_like = data[:3].mean(0)
    edited(folder / "vnir.tif", folder / "known.tif", lambda p: np.stack([pan_like, 3 * pan_like]).astype("uint16"))
    with Scene.open(folder / "pan.tif", [folder / "known.tif"]) as scene:
        one, three = pan_relation.measure(scene)
    assert one.r2 > 0.8 and three.r2 == pytest.approx(one.r2, abs=0.01)
    assert three.gain == pytest.approx(3 * one.gain, rel=0.02)
    edited(folder / "pan.tif", folder / "small.tif", lambda p: (p * 1e-7).astype("float32"))
    with Scene.open(folder / "small.tif", [folder / "known.tif"]) as scene:  # a PAN in other units tells as much
        told = pan_relation.measure(scene)
    assert [each.r2 for each in told] == pytest.approx([one.r2, three.r2], abs=1e-3)
    assert told[0].gain == pytest.approx(1e7 * one.gain, rel=1e-2)


@pytest.mark.parametrize("method", ["gsa", "glpnet"])
@pytest.mark.slow
def test_a_band_that_pan_says_nothing_about_is_up_sampled_and_said_so(with_noise: Path, method: str) -> None:
    facts = fused(with_noise, ["odd.tif"], options_of(with_noise, method))
    sharpened, plain = pixels_of(with_noise / "out.tif"), with_noise / "plain.tif"
    fused(with_noise, ["odd.tif"], options_of(with_noise, "exp"), "plain.tif")
    np.testing.assert_array_equal(sharpened[3], pixels_of(plain)[3])
    assert (sharpened[0] != pixels_of(plain)[0]).mean() > 0.5
    assert [told["sharpened"] for told in facts["pan_tells"]] == [True, True, True, False]
    assert facts["pan_tells"][3]["r2"] < pan_relation.LEAST_R2 < facts["pan_tells"][0]["r2"]
    assert any("PAN tells nothing about NIR1" in note for note in facts["notes"])


@pytest.mark.usefixtures("measured")
@pytest.mark.slow
def test_a_file_of_such_bands_is_up_sampled_as_a_whole(with_noise: Path) -> None:
    edited(with_noise / "odd.tif", with_noise / "thermal.tif", lambda p: p[3:], ("Thermal",))
    facts = fused(with_noise, ["thermal.tif"], options_of(with_noise, "glpnet"))
    fused(with_noise, ["thermal.tif"], options_of(with_noise, "exp"), "plain.tif")
    np.testing.assert_array_equal(pixels_of(with_noise / "out.tif"), pixels_of(with_noise / "plain.tif"))
    assert not facts["pan_tells"][0]["sharpened"] and not facts["warnings"]
    scored = fused(with_noise, ["thermal.tif"], options_of(with_noise, "glpnet"), score=True)
    assert [remark["text"] for remark in scored["verdict"]] == ["as soft as the MS: PAN tells nothing about it"]
    with rasterio.open(with_noise / "out.tif") as dataset:
        assert dataset.tags(ns="PANSHARPEN")["UP_SAMPLED"] == "1"
    assert not scored["warnings"]  # PAN is no measure of it


def test_an_up_sampled_band_is_the_same_in_tiles_of_any_size(with_noise: Path) -> None:
    with Scene.open(with_noise / "pan.tif", [with_noise / "odd.tif"]) as scene:
        fuser = fit.fit(scene, Options(method="gsa"), only_upsampled=[3]).fuser
        whole, parts = (loop.fuse_array(scene, fuser, size)[0] for size in (512, 128))
    np.testing.assert_array_equal(whole, parts)


# A PAN of several bands -----------------------------------------------------------------------------------------------


@pytest.fixture
def fine(folder: Path) -> Path:
    """`fine.tif`, three bands on the PAN's grid, and each of them as a file of its own."""
    edited(folder / "truth.tif", folder / "fine.tif", lambda p: p[[1, 2, 4]], ("Blue", "Green", "Red"))
    for i in range(3):
        edited(folder / "fine.tif", folder / f"fine{i + 1}.tif", lambda p, i=i: p[i : i + 1], (f"Fine {i + 1}",))
    edited(folder / "fine.tif", folder / "mean.tif", lambda p: p.mean(0, keepdims=True).astype("float32"), nodata=None)
    return folder


def run_with(folder: Path, pan: str, files: list[str], name: str, **opening) -> np.ndarray:
    pair = Pair(str(folder / pan), [str(folder / f) for f in files], OpenOptions(**opening))
    fuse.fuse_scene(pair, fuse.FusionOutput(folder / name, overwrite=True), Options(method="gsa"), score=False)
    return pixels_of(folder / name)


@pytest.mark.usefixtures("measured")
@pytest.mark.slow
def test_the_mean_of_the_bands_on_the_finest_grid_stands_for_the_pan(fine: Path) -> None:
    expected = run_with(fine, "mean.tif", ["swir.tif"], "expected.tif")
    np.testing.assert_array_equal(run_with(fine, "fine.tif", ["swir.tif"], "a.tif"), expected)
    np.testing.assert_array_equal(
        run_with(fine, "fine1.tif", ["fine2.tif", "swir.tif", "fine3.tif"], "b.tif"), expected
    )


def test_pan_from_chooses_the_bands_by_number_or_name(fine: Path) -> None:
    expected = run_with(fine, "fine2.tif", ["swir.tif"], "expected.tif")
    for asked in ([2], ["green"]):
        np.testing.assert_array_equal(run_with(fine, "fine.tif", ["swir.tif"], "a.tif", pan_from=asked), expected)
    with pytest.raises(InputError, match="--pan-from 4 is out of range"):
        run_with(fine, "fine.tif", ["swir.tif"], "a.tif", pan_from=[4])
    with pytest.raises(InputError, match=r"--pan-from 'd' is no band of the PAN \(fine.tif\); it has Blue, Green, Red"):
        run_with(fine, "fine.tif", ["swir.tif"], "a.tif", pan_from=["d"])


def test_a_pan_of_several_bands_that_is_no_finer_is_refused_as_before(fine: Path) -> None:
    with pytest.raises(InputError, match="3 bands, a PAN has one; are PAN and MS swapped"):
        run_with(fine, "fine.tif", ["mean.tif"], "a.tif")


# Names ----------------------------------------------------------------------------------------------------------------

S2 = "T31UFU_20200814T105031"
MAXAR = "012345678010_01_P001"


def found_in(*names: str) -> tuple[list[naming.Found], list[naming.LeftOver]]:
    found, _, left = naming.by_name([naming.File(f"/in/{n}", f"in/{n}") for n in sorted(names)])
    return found, left


@pytest.mark.parametrize("suffixes", [("", ""), ("_10m", "_20m")])
def test_the_10_m_bands_of_sentinel_2_are_the_pan_of_its_20_m_bands(suffixes: tuple[str, str]) -> None:
    fine = [f"{S2}_{band}{suffixes[0]}.jp2" for band in ("B02", "B03", "B04", "B08")]
    coarse = [f"{S2}_{band}{suffixes[1]}.jp2" for band in ("B05", "B06", "B07", "B8A", "B11", "B12")]
    (scene,), left = found_in(*fine, *coarse, f"{S2}_B09.jp2", f"{S2}_B03_60m.jp2")
    assert scene.pan == (f"/in/{fine[0]}",) and scene.further_pans == 3
    assert [layer[0] for layer in scene.ms] == [f"/in/{name}" for name in (*fine[1:], *coarse)]
    assert {Path(each.path).name for each in left} == {f"{S2}_B09.jp2", f"{S2}_B03_60m.jp2"}
    found, left = found_in(*fine, *coarse[1:])
    assert not found and {each.reason.partition(":")[0] for each in left} == {"band B05 is missing"}


def test_swir_joins_the_pan_and_ms_of_its_order() -> None:
    pan, ms = f"PAN/15JUN12053804-P2AS-{MAXAR}.TIF", f"MUL/15JUN12053803-M2AS-{MAXAR}.TIF"
    swir = f"SWIR/15JUN12053803-A2AS-{MAXAR}.TIF"
    (scene,), left = found_in(pan, ms, swir)
    assert (scene.pan, scene.ms) == ((f"/in/{pan}",), ((f"/in/{ms}",), (f"/in/{swir}",))) and not left
    (scene,), left = found_in(pan, ms, swir.replace(MAXAR, "999999999010_01_P001"))
    assert len(scene.ms) == 1 and "no PAN with MS for it" in left[0].reason


def test_a_swir_file_is_of_a_sensor_of_its_own(folder: Path) -> None:
    edited(folder / "swir.tif", folder / f"15JUN12053803-A2AS-{MAXAR}.tif", lambda p: np.repeat(p, 4, 0))
    with Scene.open(folder / "pan.tif", [folder / f"15JUN12053803-A2AS-{MAXAR}.tif"]) as scene:
        assert scene.sensor.name == "worldview-3-swir"
        assert scene.standard_names == tuple(f"swir{i}" for i in range(1, 9))


def test_landsats_thermal_band_is_a_group_of_its_own_with_its_own_mtf(folder: Path) -> None:
    stem = "LC08_L1TP_180031_20200814_20200822_02_T1_B"
    for number in (2, 3, 10):
        edited(folder / "vnir.tif", folder / f"{stem}{number}.TIF", lambda p: p[:1])
    pair = Pair(str(folder / "pan.tif"), [str(folder / f"{stem}{n}.TIF") for n in (2, 10, 3)])
    with pair.held() as held:
        first, second = held.parts.pairs
        assert [Path(p).stem[-3:] for p in (*first.ms, *second.ms)] == ["_B2", "_B3", "B10"]
        with second.open() as scene:
            assert scene.standard_names == ("thermal",) and scene.sensor.name == "landsat-8"
            assert 0 < scene.gains[0] < 1e-5
