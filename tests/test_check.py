"""`check` and `fuse --dry-run`: each finding where it belongs and nowhere else, refusals as `fuse` words them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter

import numpy as np
import pytest
import rasterio
from rasters import MEASURE, STILL, edited, inventory, painted, write_scene

from pansharpen_cli import tables
from pansharpen_cli.checks import check, judge, look, predict
from pansharpen_cli.fusion import register, shifts
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs.request import Pair
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.report import text as texts
from pansharpen_cli.report.facts import plain
from pansharpen_cli.training import simulate

pytestmark = pytest.mark.usefixtures("still")
PLAIN = Options(method="none")
NAMES = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A clean pair of four named bands, 256 x 256 PAN pixels, without nodata."""
    folder = tmp_path_factory.mktemp("pair")
    spec = simulate.Simulation(256, 256, 4, offset=(1.3, 2.6), nodata=None, seed=2)
    write_scene(painted(spec), folder)
    return folder


@pytest.fixture
def scene(made, tmp_path, monkeypatch) -> Path:
    """The working folder with a copy of the pair, its clipped levels spread a little."""
    monkeypatch.chdir(tmp_path)
    for name in ("pan.tif", "ms.tif"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    return tmp_path


def inspected(folder: Path, pan: str = "pan.tif", ms: str = "ms.tif", **options) -> dict:
    return plain(check.check(Pair(str(folder / pan), [str(folder / ms)], OpenOptions(**options)), PLAIN, score=False))


def codes(facts: dict) -> list[str]:
    return [f["code"] for f in facts["findings"]]


# Findings -----------------------------------------------------------------------------------------------------------


def placeholders(text: str) -> set[str]:
    return {field.partition(".")[0] for _, field, _, _ in Formatter().parse(text) if field}


def test_what_is_found_has_a_level_and_words_with_its_values() -> None:
    """Every call of `Findings.add`: of a code, or of one of the other codes that its function names."""
    told, seen = tables.read(judge.__file__), set()
    for module in (check, judge, predict):
        for function in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            calls = [c for c in ast.walk(function) if isinstance(c, ast.Call) and ast.unparse(c.func) == "found.add"]
            direct = {c.args[0].value for c in calls if isinstance(c.args[0], ast.Constant)}
            others = {c.value for c in ast.walk(function) if isinstance(c, ast.Constant) and c.value in told} - direct
            for call in calls:
                codes_of_it = others if isinstance(call.args[0], ast.Name) else {call.args[0].value}
                keywords, has_level = {keyword.arg for keyword in call.keywords}, len(call.args) > 1
                seen |= {
                    code
                    for code in codes_of_it
                    if placeholders(told[code]["text"]) <= keywords and has_level != ("level" in told[code])
                }
            assert direct <= seen
    assert seen == set(told)


@dataclass(frozen=True)
class Case:
    """A change of one file and the finding that it has to bring about."""

    code: str
    level: str
    words: str
    file: str = "pan"
    change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels
    profile: dict | None = None
    names: tuple[str, ...] = NAMES


def with_block(value: float, size: int = 60) -> Callable[[np.ndarray], np.ndarray]:
    def change(pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.copy()
        pixels[:, :size, :size] = value
        return pixels

    return change


def with_line(offset: int | None) -> Callable[[np.ndarray], np.ndarray]:
    """A row that is brighter throughout, or dead."""

    def change(pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.copy()
        pixels[:, 100] = 3 if offset is None else pixels[:, 99:102].max(1) + offset
        return pixels

    return change


def dead(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.copy()
    pixels[1] = 77
    return pixels


def clipped(pixels: np.ndarray) -> np.ndarray:
    return np.minimum(pixels, np.percentile(pixels, 90).astype(pixels.dtype))


def raised(pixels: np.ndarray) -> np.ndarray:
    return np.maximum(pixels, np.percentile(pixels, 10).astype(pixels.dtype))


def stretched(pixels: np.ndarray) -> np.ndarray:
    """Eight bits whose levels a contrast table has spread."""
    low, high = np.percentile(pixels, (1, 99))
    narrow = ((pixels.clip(low, high) - low) / (high - low) * 150).astype(np.uint8)
    return (narrow * (250 / 150)).astype(np.uint8)


def lone(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.copy()
    pixels[:, ::5, ::5] = 0
    return pixels


def lone_nan(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.astype(np.float32)
    pixels[:, ::5, ::5] = np.nan
    return pixels


def as_float(value: float, size: int = 60) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: with_block(value, size)(pixels.astype(np.float32))


def mirrored(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, ::-1, ::-1]


CASES = {
    "absurd value in floats": Case("untagged-nodata", "error", "--nodata -1e+20", change=as_float(-1e20)),
    "-9999 in floats": Case("untagged-nodata", "error", "--nodata -9999", "ms", as_float(-9999, 3)),
    "zero border": Case("untagged-nodata", "warning", "--nodata 0", change=with_block(0)),
    "dead band": Case("dead-band", "error", "MS green", "ms", dead),
    "constant PAN": Case("flat-pan", "error", "constant", change=lambda p: np.full_like(p, 500)),
    "saturation": Case("ceiling", "warning", "PAN 1", change=clipped),
    "cut off below": Case("floor", "warning", "PAN 1", change=raised),
    "8 bits in 16": Case("step", "note", "multiples of 8 in PAN", change=lambda p: p // 8 * 8),
    "stretched": Case("stretched", "warning", "PAN 4", change=stretched),
    "stripe": Case("stripes", "warning", "PAN 1", change=with_line(30)),
    "dead line": Case("dead-lines", "warning", "PAN 1", change=with_line(None)),
    "haze": Case("haze", "note", "green", "ms", lambda p: p + 4000),
    "lone nodata": Case("lone-nodata", "warning", "PAN", change=lone, profile={"nodata": 0}),
    "lone NaN": Case("lone-nodata", "warning", "PAN: most invalid pixels are single ones (NaN", change=lone_nan),
    "nodata in one file": Case("nodata-tags", "note", "ms.tif none", profile={"nodata": 0}),
    "mostly nodata": Case("nodata-share", "note", "valid", change=with_block(0, 220), profile={"nodata": 0}),
    "other place": Case("agreement", "error", "R2", change=mirrored),
    "no names": Case("band-names", "note", "no names", "ms", names=()),
    "other type": Case("dtype", "note", "PAN is float32", change=lambda p: p.astype(np.float32)),
    "fewer bits": Case("depth", "note", "PAN uses 8 bits", change=lambda p: (p // 8).astype(np.uint8)),
}  # fmt: skip

ALSO = {
    "constant PAN": {"agreement"},  # nothing of it is explained
    "other place": {"pan-tells-nothing"},
    "saturation": {"agreement"},
    "zero border": {"agreement"},
    "-9999 in floats": {"agreement", "dtype"},
    "absurd value in floats": {"agreement", "dtype"},
    "stretched": {"dtype", "ceiling", "floor", "depth"},
    "8 bits in 16": set(),
    "fewer bits": {"dtype"},
    "lone NaN": {"dtype"},
    "lone nodata": {"nodata-tags", "untagged-nodata"},
    "mostly nodata": {"nodata-tags"},
    "other type": set(),
    "haze": {"depth"},
    "dead line": {"floor"},
}  # fmt: skip
"""What the change entails besides."""


def test_a_clean_pair_has_nothing_wrong(scene) -> None:
    facts = inspected(scene)
    assert codes(facts) == ["sensor"]
    assert facts["refused"] is None
    assert facts["agreement"]["r2"] > 0.9
    assert facts["sample"]["valid_share"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_found_and_nothing_else(scene, case) -> None:
    fault = CASES[case]
    source, target = scene / f"{fault.file}.tif", scene / "faulty.tif"
    names = fault.names if fault.file == "ms" else ()
    edited(source, target, fault.change, names, **fault.profile or {})
    facts = inspected(scene, **{fault.file: "faulty.tif"})
    found = [f for f in facts["findings"] if f["code"] == fault.code]
    assert [f["level"] for f in found[:1]] == [fault.level], facts["findings"]
    assert fault.words in found[0]["text"]
    assert set(codes(facts)) <= {"sensor", fault.code} | ALSO.get(case, set())


def test_a_constant_pan_sharpens_no_band(scene) -> None:
    edited(scene / "pan.tif", scene / "flat.tif", lambda p: np.full_like(p, 500), ())
    pair = Pair(str(scene / "flat.tif"), [str(scene / "ms.tif")])
    facts = plain(check.check(pair, Options(), score=False))
    assert [each["sharpened"] for each in facts["pan_tells"]] == [False] * 4
    assert facts["method"]["weights"] is None and facts["adaptation"]["mode"] == "off"


def damaged(path: Path, row: int) -> None:
    """Overwrite the block in which a row begins."""
    edited(path, path.with_name("packed.tif"), compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    path.with_name("packed.tif").replace(path)
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item(f"BLOCK_OFFSET_0_{row // 64}", "TIFF", bidx=1))
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 500)


@pytest.mark.parametrize("method", ["none", "glpnet"])
@pytest.mark.parametrize("measured", [True, False])
def test_pixels_that_cannot_be_read_are_a_finding(scene, run, monkeypatch, method: str, measured: bool) -> None:
    damaged(scene / "pan.tif", 130)
    if measured:
        monkeypatch.setattr(register, "measure", MEASURE)
    command = ["pan.tif", "ms.tif", "--method", method]
    fused, checked = run("fuse", *command, "-o", "out.tif"), run("check", *command, "--json")
    facts = json.loads(checked.out)
    found = [f["text"] for f in facts["findings"] if f["code"] == "fails"]
    assert (fused.code, checked.code, checked.err) == (1, 0, "")
    assert len(found) == 1 and fused.errors[0].removeprefix("error: ") in found[0] and "pan.tif" in found[0]
    assert facts["refused"] is None and facts["prediction"] is None and facts["bands"] is None
    assert facts["scene"]["bands"] == 4 and facts["overlap"]["rows"] == 255
    assert "error  fuse fails" in run("check", *command).out


@pytest.mark.parametrize(("value", "method"), [(-1e20, "glpnet"), (1e38, "gsa"), (-3.4e38, "none")])
def test_values_that_overflow_are_refused_as_by_fuse_and_leave_the_rest(scene, run, value: float, method: str) -> None:
    for name in ("pan.tif", "ms.tif"):
        edited(scene / name, scene / f"spoilt_{name}", as_float(value, 40), NAMES if name == "ms.tif" else ())
    command = ["spoilt_pan.tif", "spoilt_ms.tif", "--method", method]
    fused, result = run("fuse", *command, "-o", "out.tif"), run("check", *command, "--json")
    facts = json.loads(result.out)
    assert fused.code == result.code == 2 and result.err == fused.err == f"error: {facts['refused']}\n"
    assert "untagged-nodata" in codes(facts) and "scene" not in codes(facts)
    assert facts["prediction"] is None and len(facts["bands"]) == 5


def tagged(path: Path, when: str, **domains) -> None:
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=when, **domains)


@pytest.mark.parametrize(
    ("when", "level"),
    [("2024-06-21 10:52:10", None), ("2024-06-21 11:10:00", "warning"), ("2024-07-01 10:52:07", "error")],
)
def test_another_time_of_acquisition(scene, when: str, level: str | None) -> None:
    tagged(scene / "ms.tif", when)
    found = [f["level"] for f in inspected(scene)["findings"] if f["code"] == "times"]
    assert found == [level] * (level is not None)


def test_a_ratio_that_the_sensor_does_not_have(scene) -> None:
    assert "sensor-ratio" not in codes(inspected(scene, sensor="geoeye-1"))
    assert "sensor-ratio" in codes(inspected(scene, sensor="landsat-8"))


def test_a_mask_band_is_told(scene) -> None:
    mask = np.full((1, 64, 64), 255, np.uint8)
    edited(
        scene / "ms.tif",
        scene / "m.tif",
        lambda p: np.concatenate([(p // 8).clip(1, 250).astype(np.uint8)[:, :64, :64], mask]),
        NAMES,
    )
    with rasterio.open(scene / "m.tif", "r+") as dataset:
        dataset.colorinterp = [*dataset.colorinterp[:4], rasterio.enums.ColorInterp.alpha]
    facts = inspected(scene, ms="m.tif")
    assert "alpha" in codes(facts)
    assert facts["scene"]["bands"] == 4


def test_lossy_compression_is_told(scene) -> None:
    edited(scene / "pan.tif", scene / "jpeg.tif", lambda p: (p // 8).clip(0, 255).astype(np.uint8), compress="jpeg")
    facts = inspected(scene, pan="jpeg.tif")
    assert "lossy" in codes(facts) and facts["files"][0]["lossy"]
    assert not facts["files"][1]["lossy"]


@pytest.mark.parametrize(
    ("shift", "align", "expected"),
    [
        (STILL, "auto", None),
        (replace(STILL, rows=0.5), "auto", ("note", "shift")),
        (replace(STILL, rows=2.5), "auto", ("note", "shift")),
        (replace(STILL, rows=9.0), "auto", ("warning", "shift")),
        (replace(STILL, rows=0.5), "off", ("warning", "shift")),
        (replace(STILL, rows=2.5, confident=False, confidence=0.2), "auto", ("note", "shift-unknown")),
        (replace(STILL, varies=1.2), "auto", ("warning", "shift-varies")),
        (replace(STILL, varies=5.0, confident=False, confidence=0.0), "auto", ("warning", "shift-varies")),
        (replace(STILL, bands=(*STILL.bands[:3], (0.0, 1.1))), "auto", ("note", "band-offsets")),
    ],
)
def test_the_measured_shift_is_judged(scene, monkeypatch, shift, align: str, expected) -> None:
    monkeypatch.setattr(register, "measure", lambda scene, seed=0, progress=None: shift)
    pair = Pair(str(scene / "pan.tif"), [str(scene / "ms.tif")])
    facts = plain(check.check(pair, replace(PLAIN, align=align), score=False))
    found = [(f["level"], f["code"]) for f in facts["findings"] if f["code"].startswith(("shift", "band-"))]
    assert found == ([] if expected is None else [expected])
    assert facts["shift"]["rows"] == shift.rows
    assert facts["shift"]["action"].startswith("moves") == (align == "auto" and shifts.is_correctable(shift))


@pytest.mark.parametrize(
    ("rows", "nir", "moved", "action"),
    [
        (0.02, 0.23, True, "moves NIR1 by 0.23 and leaves the rest: it is within what may be noise"),
        (0.02, 0.23, False, "nothing: it is within what may be noise"),
        (0.5, 1.23, True, "moves the MS by it, and NIR1 by 1.23"),
        (0.5, 1.23, False, "moves the MS by it"),
    ],
)
def test_what_becomes_of_the_offset_of_a_band_is_told(scene, rows: float, nir: float, moved: bool, action: str) -> None:
    shift, found = replace(STILL, rows=rows, bands=(*STILL.bands[:3], (nir, 0.0))), judge.Findings()
    with Scene.open(scene / "pan.tif", [scene / "ms.tif"]) as opened:
        opened = opened.with_gains((), shifts.band_offsets(shift) if moved else ())
        assert judge.shift_facts(opened, shift, "auto", found).action == action
    told = [f.text for f in found if f.code == "band-offsets"]
    assert [t.endswith(f"; fuse {'corrects' if moved else 'does not correct'} that") for t in told] == [True] * (
        nir > 1
    )


@pytest.mark.parametrize(("gain", "words"), [(0.07, "softer"), (0.6, "crisper"), (0.2, ""), (None, "")])
def test_an_ms_that_no_optics_make_is_told(scene, monkeypatch, gain: float | None, words: str) -> None:
    gains = () if gain is None else (gain,) * 4
    monkeypatch.setattr(register, "measure", lambda *_, **__: replace(STILL, gains=gains))
    facts = inspected(scene)
    told = [f["text"] for f in facts["findings"] if f["code"] == "mtf"]
    assert len(told) == bool(words) and all(words in t for t in told)
    assert facts["mtf"] == {"gains": [0.3] * 4, "table": [0.3] * 4, "measured": list(gains)}


def test_the_mtf_that_a_network_would_take_is_told(scene, monkeypatch) -> None:
    monkeypatch.setattr(register, "measure", lambda *_, **__: replace(STILL, gains=(0.07,) * 4))
    pair = Pair(str(scene / "pan.tif"), [str(scene / "ms.tif")])
    for mtf, gain in (("auto", 0.07), ("sensor", 0.3)):
        options = Options(adapt="off", mtf=mtf, align="off")
        facts = plain(check.check(pair, options, score=False))
        assert facts["mtf"]["gains"] == pytest.approx([gain] * 4, abs=0.01)
        assert ("aligning" in facts["prediction"]["seconds"]) == (mtf != "sensor")


def test_the_most_serious_comes_first(scene) -> None:
    edited(scene / "ms.tif", scene / "faulty.tif", dead, NAMES, nodata=5)
    levels = [f["level"] for f in inspected(scene, ms="faulty.tif")["findings"]]
    assert levels == sorted(levels, key=judge.LEVELS.index) and {"error", "note"} <= set(levels)


# Figures ------------------------------------------------------------------------------------------------------------


def test_figures_of_the_bands_are_those_of_their_pixels(scene) -> None:
    facts = inspected(scene)
    with rasterio.open(scene / "pan.tif") as dataset:
        pan = dataset.read(1)[2:, 3:]  # the overlap
    band = facts["bands"][0]
    assert (band["minimum"], band["maximum"]) == (pan.min(), pan.max())
    assert (band["mean"], band["std"]) == pytest.approx((pan.mean(), pan.std()), rel=0.01)
    assert band["bits"] == int(pan.max()).bit_length()
    assert band["dark"] == pytest.approx(np.percentile(pan, 0.1), abs=2)


def test_overlap_of_both_footprints(scene) -> None:
    overlap = inspected(scene)["overlap"]
    assert (overlap["rows"], overlap["cols"]) == (255, 253)
    assert overlap["pan_share"] == pytest.approx(255 * 253 / 256**2)
    assert 0.95 < overlap["ms_share"] <= 1


def test_a_large_scene_is_sampled(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(look, "LOOKED_AT", 3)
    monkeypatch.setattr("pansharpen_cli.raster.blocks.SAMPLED_BLOCK", 32)
    monkeypatch.setattr("pansharpen_cli.raster.blocks.MAX_BLOCKS", 3)
    spec = simulate.Simulation(256, 256, 3, border=60.0, seed=2)
    write_scene(painted(spec), tmp_path)
    sample = inspected(tmp_path)["sample"]
    assert 3 <= sample["blocks"] < sample["blocks_in_all"] == 64
    assert sample["pixels"] <= sample["blocks"] * 32**2


# Prediction ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        Options(method="gsa"),
        pytest.param(Options(adapt="off"), marks=pytest.mark.slow),
        pytest.param(Options(adapt="fast"), marks=pytest.mark.slow),
    ],
)
def test_time_memory_and_size_are_predicted(scene, options: Options) -> None:
    facts = plain(check.check(Pair(str(scene / "pan.tif"), [str(scene / "ms.tif")]), options))
    predicted = facts["prediction"]
    assert predicted["seconds"]["total"] == pytest.approx(
        sum(v for k, v in predicted["seconds"].items() if k != "total")
    )
    own = {"fitting"} if options.method != "glpnet" else {"reading", "adapting"}
    stages = {"start", "aligning", "fusing", "scoring"} | own
    assert set(predicted["seconds"]) == stages | {"total"}
    assert predicted["seconds"]["total"] > predict.START_SECONDS
    assert predicted["memory_bytes"] > 3e8
    assert predicted["raw_bytes"] == 255 * 253 * 4 * 2
    assert 0.2 * predicted["raw_bytes"] < predicted["stored_bytes"] < 1.2 * predicted["raw_bytes"]


def test_more_tiles_at_once_take_more_memory(scene) -> None:
    pair = Pair(str(scene / "pan.tif"), [str(scene / "ms.tif")])
    small, large = (check.check(pair, replace(PLAIN, tile_size=side), score=False) for side in (64, 256))
    assert small.prediction.memory_bytes < large.prediction.memory_bytes
    assert (small.method.tiles, large.method.tiles) == (16, 1)


# The command line ---------------------------------------------------------------------------------------------------


REFUSED = {
    "swapped": "ms.tif pan.tif",
    "missing": "none.tif ms.tif",
    "same resolution": "pan.tif pan.tif",
    "bidx": "pan.tif ms.tif --bidx 9",
    "window": "pan.tif ms.tif --window 9000,0,5,5",
    "method": "pan.tif ms.tif --method nosuch",
    "device": "pan.tif ms.tif --device cuda:77",
    "sensor": "pan.tif ms.tif --sensor nosuch",
    "adapt": "pan.tif ms.tif --weights nosuch.safetensors",
    "weights of a method without": "pan.tif ms.tif --method gsa --weights nosuch.safetensors",
    "nodata": "pan.tif ms.tif --nodata 0.5",
    "all nodata": "pan.tif blank.tif",
    "window of nodata": "pan.tif part.tif --window 0,0,80,80",
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_as_fuse_refuses(scene, run, case: str) -> None:
    edited(scene / "ms.tif", scene / "blank.tif", np.zeros_like, NAMES, nodata=0)
    edited(scene / "ms.tif", scene / "part.tif", with_block(0, 30), NAMES, nodata=0)
    arguments = REFUSED[case].split()
    if "--method" not in arguments and "--weights" not in arguments:
        arguments += ["--method", "none"]
    fused = run("fuse", *arguments, "-o", "out.tif")
    checked = run("check", *arguments)
    planned = run("fuse", *arguments, "-o", "out.tif", "--dry-run")
    assert fused.code == checked.code == planned.code == 2
    assert fused.errors == checked.errors == planned.errors
    facts = json.loads(run("check", *arguments, "--json").out)
    assert f"error: {facts['refused']}" == fused.errors[0]


def test_a_window_with_few_valid_pixels_is_not_refused(scene, run) -> None:
    edited(scene / "ms.tif", scene / "part.tif", with_block(0, 30), NAMES, nodata=0)
    command = ["check", "pan.tif", "part.tif", "--method", "none", "--window", "0,0,130,130", "--json"]
    result = run(*command)
    assert result.code == 0 and json.loads(result.out)["output"]["rows"] < 130


@pytest.mark.parametrize(("case", "code"), [("swapped", "swapped"), ("same resolution", "same-resolution")])
def test_a_refusal_is_explained(scene, run, case: str, code: str) -> None:
    result = run("check", *REFUSED[case].split(), "--json")
    assert code in codes(json.loads(result.out))


@pytest.mark.parametrize(
    "arguments",
    ["-o pan.tif", "-o there.tif", "-o there.tif/such.tif", "-o out.tif --co NO=SENSE", "-o out.tif --driver PNG",
     "-o out.tif --report out.doc", "-o out.tif --quicklook out.tif"],
)  # fmt: skip
def test_a_dry_run_refuses_what_could_not_be_written(scene, run, arguments: str) -> None:
    (scene / "there.tif").touch()
    before = inventory(scene)
    command = ["fuse", "pan.tif", "ms.tif", "--method", "none", *arguments.split()]
    planned = run(*command, "--dry-run")
    assert inventory(scene) == before
    fused = run(*command)
    assert planned.code == fused.code == 2
    assert planned.errors == fused.errors


@pytest.mark.parametrize("extra", ["", "--driver COG --overwrite --report r.html --quicklook q.png"])
def test_a_dry_run_prints_the_plan_and_writes_nothing(scene, run, extra: str) -> None:
    before = inventory(scene)
    command = ["fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--method", "none", "--dry-run", *extra.split()]
    text, machine = run(*command), run(*command, "--json")
    assert text.code == machine.code == 0
    assert "out.tif" in text.out and "about" in text.out
    facts = json.loads(machine.out)
    assert (facts["schema"], facts["kind"]) == (check.SCHEMA, "plan")
    assert facts["output"]["path"] == "out.tif" and facts["bands"] is None
    assert inventory(scene) == before


@pytest.mark.usefixtures("measured")
def test_a_dry_run_warns_of_an_ms_of_another_place_with_every_method(scene, run) -> None:
    edited(scene / "ms.tif", scene / "other.tif", lambda pixels: pixels[:, ::-1, ::-1])
    planned = run("fuse", "pan.tif", "other.tif", "-o", "out.tif", "--method", "gsa", "--dry-run", "--json")
    assert planned.code == 0, planned.err
    told = [f for f in json.loads(planned.out)["findings"] if f["code"] == "agreement"]
    assert [f["level"] for f in told] == ["error"] and "not the same place or date" in told[0]["text"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dtype", "uint8"], "% of the values lie outside of 0 to 255 and are clipped to uint8"),
        (["--scale", "0.001", "--dtype", "int16"], "are rounded to whole numbers of int16"),
        (["--dtype", "float32"], ""),
    ],
)
@pytest.mark.parametrize("command", [["check"], ["fuse", "-o", "out.tif", "--dry-run", "--method", "exp"]])
def test_what_another_type_does_not_hold_is_told_before(scene, run, command, options, words: str) -> None:
    checked = run(command[0], "pan.tif", "ms.tif", *command[1:], *options, "--json")
    assert checked.code == 0, checked.err
    told = [f for f in json.loads(checked.out)["findings"] if f["code"] == "type"]
    assert [f["level"] for f in told] == ["warning"] * bool(words)
    assert all(words in f["text"] and f["text"].startswith("in the part that is fused for a trial") for f in told)


def test_the_tile_size_is_rounded_alike_in_the_forecast_and_in_the_run(scene, run) -> None:
    sizes = {}
    for asked in (100, 512, 700):
        options = ("pan.tif", "ms.tif", "--method", "none", "--no-score", "--json", "--tile-size", asked)
        commands = (("check",), ("fuse", "-o", f"{asked}.tif", "--dry-run"), ("fuse", "-o", f"{asked}.tif"))
        sizes[asked] = {json.loads(run(c[0], *options, *c[1:]).out)["method"]["tile_size"] for c in commands}
    assert sizes == {100: {64}, 512: {512}, 700: {1024}}


def test_the_report_fits_the_terminal_and_says_what_json_says(scene, run) -> None:
    command = ["check", "pan.tif", "ms.tif", "--method", "none"]
    text, machine = run(*command), run(*command, "--json")
    assert text.code == machine.code == 0 and not text.err
    assert max(map(len, text.out.splitlines())) <= texts.WIDTH
    facts = json.loads(machine.out)
    assert facts["schema"] == check.SCHEMA and facts["refused"] is None
    keys = {"schema", "version", "kind", "refused", "files", "scene", "overlap", "sample", "bands", "agreement",
            "pan_tells", "shift", "mtf", "method", "adaptation", "output", "prediction", "findings",
            "groups"}  # fmt: skip
    assert set(facts) == keys
    for words in ("ratio", "offset", "overlap", "agreement", "shift", "memory", "time", "ceiling", "note"):
        assert words in text.out
