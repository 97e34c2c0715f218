"""A fit that is kept in a file: scenes fused with it come out as one, and no other scene is fused with it."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from rasters import edited, pixels_of, seldom, write_pair
from safetensors.numpy import load, save

import pansharpen_cli as pansharpen
from pansharpen_cli import classical
from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion import saved_fit
from pansharpen_cli.fusion.saved_fit import MOST_BYTES, SavedFit
from pansharpen_cli.models import weights as shipped

pytestmark = pytest.mark.usefixtures("still")
CUTS = {"gsa": 192, "glpnet": 198}
"""Columns of the PAN at which the scene is cut; the features of glpnet are of 4 x 4 pixels."""
REACH = 64
"""PAN pixels beside the cut that see it: at its edge a file ends, and what lies beyond is not known there."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    write_pair(folder, rows=192, cols=256, bands=4, seed=5)
    return folder


def fuse(run, folder: Path, out: Path, *options: object) -> np.ndarray:
    given = ("fuse", folder / "pan.tif", folder / "ms.tif", "-o", out, "--no-score", "--sensor", "generic")
    result = run(*given, *options)
    assert result.code == 0, result.err
    return pixels_of(out)


def half(pair: Path, folder: Path, first: int, last: int) -> Path:
    """Columns of the PAN, and what of the MS lies there, as files of their own."""
    folder.mkdir()
    for name, ratio in (("pan.tif", 1), ("ms.tif", 2)):
        with rasterio.open(pair / name) as source:
            window = Window(first // ratio, 0, (last - first) // ratio, source.height)
            part = {"width": window.width, "transform": source.window_transform(window)}
            with rasterio.open(folder / name, "w", **source.profile | part) as target:
                target.write(source.read(window=window))
                target.descriptions = source.descriptions
    return folder


@pytest.mark.parametrize("method", seldom([*classical.METHODS, "glpnet"], ["gsa"]))
@pytest.mark.usefixtures("measured")
def test_a_kept_fit_gives_the_same_pixels(run, pair, tmp_path, method) -> None:
    kept = tmp_path / "kept.safetensors"
    whole = fuse(run, pair, tmp_path / "a.tif", "--method", method, "--save-fit", kept)
    np.testing.assert_array_equal(fuse(run, pair, tmp_path / "b.tif", "--method", method, "--fit", kept), whole)


@pytest.mark.slow
@pytest.mark.parametrize("method", CUTS)
@pytest.mark.usefixtures("measured")
def test_halves_that_are_fused_apart_with_one_fit_are_the_whole(run, tmp_path, method) -> None:
    kept, cut = tmp_path / "kept.safetensors", CUTS[method]
    write_pair(tmp_path / "in", rows=256, cols=384, bands=4, seed=5, ratio=2.0)
    whole = fuse(run, tmp_path / "in", tmp_path / "whole.tif", "--method", method, "--save-fit", kept).astype(float)
    for name, (first, last) in {"left": (0, cut), "right": (cut, 384)}.items():
        folder = half(tmp_path / "in", tmp_path / name, first, last)
        away = np.abs(np.arange(first, last) - cut) >= REACH
        with_fit = fuse(run, folder, tmp_path / f"{name}.tif", "--method", method, "--fit", kept)
        assert np.sqrt(((with_fit - whole[..., first:last])[..., away] ** 2).mean()) < 0.5
    own = fuse(run, folder, tmp_path / "own.tif", "--method", method)  # what a fit of its own makes of a half
    assert np.sqrt(((own - whole[..., first:last])[..., away] ** 2).mean()) > 1


def test_the_report_says_where_the_fit_is_from(pair, tmp_path) -> None:
    kept = tmp_path / "kept.safetensors"
    known = {"pan": pair / "pan.tif", "ms": pair / "ms.tif", "sensor": "generic", "method": "pnn", "score": False}
    made, again = pansharpen.fuse(**known, adapt="off", save_fit=kept), pansharpen.fuse(**known, fit=kept)
    assert made.report["fit"] == {"saved_in": str(kept)}
    assert again.report["fit"] == {"taken_from": str(kept), "sha256": SavedFit.read(kept)[0].digest}
    assert again.report["adaptation"] == {"mode": "off", "reason": "the fit of kept.safetensors is taken as it is"}
    assert again.report["registration"]["source"] == "kept.safetensors"
    with rasterio.open(again.path) as dataset:
        assert dataset.tags(ns="PANSHARPEN")["FIT_SHA256"] == SavedFit.read(kept)[0].digest


@pytest.mark.usefixtures("measured")
def test_the_shift_of_the_ms_is_kept_and_align_off_leaves_it(run, pair, tmp_path) -> None:
    folder = tmp_path / "off"
    folder.mkdir()
    with rasterio.open(pair / "ms.tif") as dataset:
        moved = dataset.transform @ rasterio.Affine.translation(0.5, 0)
        names = dataset.descriptions
    edited(pair / "ms.tif", folder / "ms.tif", names=names, transform=moved)
    (folder / "pan.tif").write_bytes((pair / "pan.tif").read_bytes())
    kept = tmp_path / "kept.safetensors"
    first = fuse(run, folder, tmp_path / "a.tif", "--method", "gsa", "--save-fit", kept)
    assert abs(SavedFit.read(kept)[0].shift[1] + 2) < 0.2
    np.testing.assert_array_equal(fuse(run, folder, tmp_path / "b.tif", "--method", "gsa", "--fit", kept), first)
    with rasterio.open(tmp_path / "b.tif") as dataset:
        assert dataset.tags(ns="PANSHARPEN")["ALIGN_SHIFT"].split()[1].startswith("-")
    left = fuse(run, folder, tmp_path / "c.tif", "--method", "gsa", "--fit", kept, "--align", "off")
    assert left.shape != first.shape or (left != first).any()


def test_a_dry_run_says_that_the_fit_is_taken(run, pair, tmp_path) -> None:
    kept = tmp_path / "kept.safetensors"
    fuse(run, pair, tmp_path / "a.tif", "--method", "gsa", "--save-fit", kept)
    given = ("fuse", pair / "pan.tif", pair / "ms.tif", "-o", tmp_path / "b.tif", "--method", "gsa", "--fit", kept)
    done = run(*given, "--sensor", "generic", "--dry-run")
    assert done.code == 0 and "not registered, fitted or adapted" in " ".join(done.out.split()), done.out + done.err
    assert not (tmp_path / "b.tif").exists()


def test_the_same_fit_gives_the_same_bytes(run, pair, tmp_path) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in files:
        fuse(run, pair, path.with_suffix(".tif"), "--method", "bt-h", "--save-fit", path)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_fit_of_something_else_is_refused_in_one_line(run, pair, tmp_path) -> None:
    kept = tmp_path / "kept.safetensors"
    fuse(run, pair, tmp_path / "a.tif", "--method", "gsa", "--save-fit", kept)
    names = ("Blue", "Green", "Red", "NIR1")
    edited(pair / "ms.tif", tmp_path / "other.tif", names=("Blue", "Green", "Red", "Yellow"))
    edited(pair / "ms.tif", tmp_path / "real.tif", lambda p: p.astype("float32"), names=names)
    cases = {
        "is a fit of --method gsa; it is to be bt-h here": ("--method", "bt-h"),
        "is a fit of --method gsa; it is to be glpnet here": (),
        "is a fit of generic; ": ("--method", "gsa", "--sensor", "worldview-2"),
        "has 3 bands (blue, green, red)": ("--method", "gsa", "--bidx", "1,2,3", "--fit-bands", "bidx"),
        "exclude each other": ("--method", "gsa", "--save-fit", tmp_path / "b.safetensors"),
    }
    for text, options in cases.items():
        given = ("fuse", pair / "pan.tif", pair / "ms.tif", "-o", tmp_path / "no.tif", "--fit", kept)
        result = run(*given, *(() if "--sensor" in options else ("--sensor", "generic")), *options)
        assert result.code == 2 and text in result.err and len(result.errors) == 1, result.err
    edited(pair / "ms.tif", tmp_path / "unnamed.tif")
    unnamed = "unnamed.tif has 4 bands without all their names: set the bands' descriptions"
    for text, ms in {"yellow": "other.tif", unnamed: "unnamed.tif", "of values of uint16; ": "real.tif"}.items():
        result = run(
            "fuse", pair / "pan.tif", tmp_path / ms, "-o", tmp_path / "no.tif", "--sensor", "generic",
            "--method", "gsa", "--fit", kept,
        )  # fmt: skip
        assert result.code == 2 and text in result.err and len(result.errors) == 1, result.err
    edited(pair / "pan.tif", tmp_path / "reflectance.tif", lambda p: (p / 1e4).astype("float32"))
    result = run(
        "fuse", tmp_path / "reflectance.tif", pair / "ms.tif", "-o", tmp_path / "no.tif", "--sensor", "generic",
        "--method", "gsa", "--fit", kept,
    )  # fmt: skip
    assert result.code == 2 and "is a fit of a PAN of uint16; " in result.err, result.err
    assert not (tmp_path / "no.tif").exists() and not (tmp_path / "b.safetensors").exists()


def test_bands_without_names_keep_their_order_under_a_fit(pair, tmp_path) -> None:
    edited(pair / "ms.tif", tmp_path / "unnamed.tif")
    known = {"pan": pair / "pan.tif", "ms": tmp_path / "unnamed.tif", "method": "gsa", "score": False}
    pansharpen.fuse(**known, save_fit=tmp_path / "kept.safetensors")
    with pytest.raises(InputError, match="stay in their order"):
        pansharpen.fuse(**known, fit=tmp_path / "kept.safetensors", bidx=[4, 3, 2, 1], fit_bands="bidx")
    pansharpen.fuse(**known, fit=tmp_path / "kept.safetensors", bidx=[4, 3, 2, 1])


def test_a_fit_of_other_weights_is_refused(pair, tmp_path) -> None:
    known = {"pan": pair / "pan.tif", "ms": pair / "ms.tif", "sensor": "generic", "adapt": "off", "score": False}
    kept = tmp_path / "kept.safetensors"
    pansharpen.fuse(**known, method="pnn", save_fit=kept)
    (fit,) = SavedFit.read(kept)
    kept.write_bytes(saved_fit.to_bytes([replace(fit, known=replace(fit.known, weights="0" * 64))]))
    with pytest.raises(InputError, match="a fit of other weights of pnn"):
        pansharpen.fuse(**known, method="pnn", fit=kept)


def test_a_file_that_is_no_fit_is_refused_and_nothing_in_it_is_run(run, pair, tmp_path) -> None:
    kept, bad = tmp_path / "kept.safetensors", tmp_path / "bad.safetensors"
    fuse(run, pair, tmp_path / "a.tif", "--method", "gsa", "--save-fit", kept)
    content = kept.read_bytes()
    size = int.from_bytes(content[:8], "little")
    arrays, told = load(content), json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["fit"])
    del told["sha256"]

    def changed(arrays=arrays, **entries) -> bytes:
        text = told | entries
        return save(arrays, {"fit": json.dumps(text | {"sha256": saved_fit.checksum(text, arrays)})})

    faults = [
        b"", b"{}", content[:100], b"\x80\x04cposix\nsystem\n", save(arrays),
        changed(schema="other"), changed(shift=[1e9, 0]), changed(shift=["nan", 0]), changed(shift=[1]),
        changed(shift=[True, False]), save(arrays, {"fit": json.dumps(told)}),
        changed(gains=[0.3]), changed(lift=10**9), changed(lift=-1), changed(lift=40),
        changed(numbers={"scale": "inf"}), changed(**{"for": {}}),
        changed({**arrays, "mix": arrays["mix"][:2]}), changed({"injection": arrays["injection"]}),
        changed({**arrays, "mix": np.full_like(arrays["mix"], np.nan)}),
    ]  # fmt: skip
    for fault in faults:
        bad.write_bytes(fault)
        result = run(
            "fuse", pair / "pan.tif", pair / "ms.tif", "-o", tmp_path / "no.tif", "--sensor", "generic",
            "--method", "gsa", "--fit", bad,
        )  # fmt: skip
        assert result.code == 2 and len(result.errors) == 1 and "bad.safetensors" in result.err, result.err
        assert "unexpected" not in result.err and not (tmp_path / "no.tif").exists()
    with bad.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InputError, match="at most"):
        SavedFit.read(bad)


def test_a_fit_with_any_flipped_bit_is_refused_or_the_same(run, pair, tmp_path) -> None:
    kept, bad = tmp_path / "kept.safetensors", tmp_path / "bad.safetensors"
    fuse(run, pair, tmp_path / "a.tif", "--method", "gsa", "--save-fit", kept)
    content = kept.read_bytes()
    (whole,) = SavedFit.read(kept)
    for bit in range(3, 8 * len(content), 101):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        bad.write_bytes(flipped)
        with suppress(InputError):
            (read,) = SavedFit.read(bad)
            assert read.text == whole.text


def test_a_fit_of_several_grids_is_whole_with_all_of_them(tmp_path) -> None:
    known = saved_fit.Known("exp", "generic", ("red",), (4.0, 4.0), "uint16")
    kept = tmp_path / "kept.safetensors"
    fits = [SavedFit(known, shift=(float(k), 0.0), arrays={"mix": np.full(2, k)}) for k in range(12)]
    kept.write_bytes(saved_fit.to_bytes(fits))
    assert [(fit.shift[0], fit.arrays["mix"][0]) for fit in SavedFit.read(kept)] == [(k, k) for k in range(12)]
    kept.write_bytes(kept.read_bytes().replace(b'"fit1"', b'"fix1"'))
    with pytest.raises(InputError, match="is no fit"):
        SavedFit.read(kept)


@pytest.mark.usefixtures("measured")
def test_a_large_shift_of_a_fit_is_said_aloud(run, pair, tmp_path) -> None:
    kept = tmp_path / "kept.safetensors"
    given = ("fuse", pair / "pan.tif", pair / "ms.tif", "--sensor", "generic", "--method", "exp", "--no-score")
    run(*given, "-o", tmp_path / "a.tif", "--save-fit", kept)
    for shift, told in ((2.0, ""), (20.0, "warning: the MS is moved by +20.00 rows")):
        kept.write_bytes(saved_fit.to_bytes([replace(SavedFit.read(kept)[0], shift=(shift, 0.0))]))
        done = run(*given, "-o", tmp_path / f"{shift}.tif", "--fit", kept)
        assert done.code == 0 and (told in done.err if told else "moved" not in done.err), done.err


def test_weights_are_no_place_for_a_fit(run, pair, tmp_path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes((shipped.folder() / "pnn4.safetensors").read_bytes())
    before = weights.read_bytes()
    given = ("fuse", pair / "pan.tif", pair / "ms.tif", "-o", tmp_path / "a.tif", "--no-score", "--adapt", "off")
    done = run(*given, "--method", "pnn", "--weights", weights, "--save-fit", weights, "--overwrite")
    assert done.code == 2 and "one of the inputs" in done.err, done.err
    assert weights.read_bytes() == before


def test_a_kept_fit_is_no_output_and_is_not_overwritten(run, pair, tmp_path) -> None:
    kept = tmp_path / "kept.safetensors"
    given = ("fuse", pair / "pan.tif", pair / "ms.tif", "--sensor", "generic", "--method", "exp", "--no-score")
    assert run(*given, "-o", tmp_path / "a.tif", "--save-fit", kept).code == 0
    again = run(*given, "-o", tmp_path / "b.tif", "--save-fit", kept)
    assert again.code == 2 and "kept.safetensors" in again.err and not (tmp_path / "b.tif").exists()
    assert run(*given, "-o", tmp_path / "b.tif", "--save-fit", tmp_path / "kept.txt").code == 2
    assert run(*given, "-o", tmp_path / "b.tif", "--fit", kept, "--report", kept.with_suffix(".json")).code == 0


def test_a_fit_of_a_constant_pan_warns_whoever_takes_it(run, pair, tmp_path) -> None:
    kept, flat = tmp_path / "kept.safetensors", tmp_path / "flat"
    flat.mkdir()
    shutil.copy(pair / "ms.tif", flat)
    edited(pair / "pan.tif", flat / "pan.tif", lambda pixels: np.full_like(pixels, 500))
    fuse(run, flat, tmp_path / "a.tif", "--method", "gsa", "--save-fit", kept)
    given = ("--method", "gsa", "--no-score", "--sensor", "generic", "--fit", kept)
    for folder, warned in ((pair, True), (flat, False)):
        result = run("fuse", folder / "pan.tif", folder / "ms.tif", "-o", tmp_path / "b.tif", "--overwrite", *given)
        assert result.code == 0 and ("kept.safetensors is of a scene whose PAN tells nothing" in result.err) == warned
