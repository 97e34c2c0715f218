"""Files are published whole, together and with their families; what is not ours is left alone."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from affine import Affine
from rasterio.rpc import RPC
from rasters import edited, pixels_of, seldom, write_pair

from pansharpen_cli import models, publish
from pansharpen_cli.archive import batch, batch_log, pairs, planning
from pansharpen_cli.archive.batch import Choices
from pansharpen_cli.archive.workers import Event
from pansharpen_cli.errors import InputError, PansharpenError, ReadError
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs.picture import Request
from pansharpen_cli.models import weights
from pansharpen_cli.publish import PARTIAL, Publication, check_target, workspace
from pansharpen_cli.raster import scene, source
from pansharpen_cli.raster.creation import check_creation_options
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.messages import gdal_messages
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.truncated import cut_off
from pansharpen_cli.report import files, index
from pansharpen_cli.report.facts import Record

FAST = ("--method", "none", "--align", "off", "--no-score")

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_pair(folder, 96, 96, 4)
    return folder


@pytest.fixture
def pair(made: Path, tmp_path: Path, monkeypatch) -> Path:
    """The folder of a pair, in which the test runs."""
    for name in ("pan.tif", "ms.tif"):
        shutil.copy(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | str]:
    """All that is below a folder: files by their bytes, links by where they lead."""
    return {
        str(p.relative_to(folder)): f"-> {os.readlink(p)}" if p.is_symlink() else p.read_bytes()
        for p in folder.rglob("*")
        if p.is_symlink() or p.is_file()
    }


# Families -----------------------------------------------------------------------------------------------------------

SIDES = (".ovr", ".msk", ".aux.xml", ".msk.ovr", ".OVR.aux.xml")


@pytest.mark.parametrize(("name", "worlds"), [("a.tif", ("tfw", "TIFW")), ("a.png", ("pgw", "wld")), ("a.json", ())])
def test_what_is_replaced_is_replaced_with_its_family(tmp_path: Path, name: str, worlds: tuple[str, ...]) -> None:
    family = [name, *(name + s for s in SIDES), *(f"a.{w}" for w in worlds)]
    others = [f"{name}x", f"b{name}.ovr", f"{name}.ovr2", "a.txt", "ab.tfw", f"{name}.aux"]
    for each in (*family, *others):
        (tmp_path / each).write_text("old")
    publish.write(tmp_path / name, b"new")
    assert contents(tmp_path) == {name: b"new"} | dict.fromkeys(others, b"old")


def test_where_case_counts_another_files_family_stays(tmp_path: Path) -> None:
    for name in ("OUT.tif", "OUT.tif.ovr", "OUT.tfw", "out.tif.OVR"):
        (tmp_path / name).write_text("old")
    if (tmp_path / "out.tif").exists():
        pytest.skip("case does not count here")
    publish.write(tmp_path / "out.tif", b"new")
    assert sorted(contents(tmp_path)) == ["OUT.tfw", "OUT.tif", "OUT.tif.ovr", "out.tif"]


@pytest.mark.parametrize("side", ["out.tif.msk", "out.tif.ovr", "out.tif.aux.xml", "out.tfw"])
def test_parts_of_no_file_are_refused_and_with_overwrite_removed_with_a_word(pair: Path, run, side: str) -> None:
    (pair / side).write_text("")
    command = ("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST)
    refused = run(*command)
    assert refused.code == 2 and side in refused.err and not (pair / "out.tif").exists()
    finished = run(*command, "--overwrite")
    assert finished.code == 0 and f"{side} is removed" in finished.err and not (pair / side).exists()


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_a_file_that_was_looked_at_is_read_as_new_after_it_is_replaced(pair: Path, run, driver: str) -> None:
    command = ("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST, "--driver", driver)
    assert run(*command).code == 0
    with rasterio.open("out.tif") as dataset:
        new = dataset.read(out_shape=(4, 24, 24)), dataset.crs, dataset.nodata
    edited(pair / "out.tif", pair / "old.tif", lambda p: p * 0 + 7)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open("old.tif", "r+") as dataset:
        dataset.build_overviews([2, 4])
    (pair / "old.tif.ovr").rename("out.tif.ovr")
    (pair / "out.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>")
    with rasterio.open("out.tif") as dataset:
        assert dataset.crs != new[1], "the side file counts"
    assert run(*command, "--overwrite").code == 0
    with rasterio.open("out.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(out_shape=(4, 24, 24)), new[0])
        assert (dataset.crs, dataset.nodata, dataset.files) == (new[1], new[2], ["out.tif"])


def erdas(path: Path, described: str, size: int = 96, **profile) -> Path:
    """An .aux of ERDAS with another place and nodata for a raster of four bands."""
    kind = {"driver": "HFA", "dtype": "uint16", "count": 4, "width": size, "height": size, "nodata": 777}
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 1, 0, -10, 2)}
    with rasterio.open(path, "w", **kind | place | profile, AUX="YES", DEPENDENT_FILE=described) as dataset:
        dataset.write(np.ones((4, size, size), "uint16"))
    return path


@pytest.mark.parametrize("name", ["out.aux", "out.AUX", "out.tif.aux"])
def test_an_erdas_aux_is_a_part_of_the_file_that_it_names(pair: Path, run, name: str) -> None:
    command = ("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST)
    assert run(*command).code == 0
    with rasterio.open("out.tif") as dataset:
        new = dataset.crs, dataset.transform, dataset.nodata
    os.rename(erdas(pair / "made.aux", "out.tif"), name)
    with rasterio.open("out.tif") as dataset:
        assert dataset.nodata == 777, "the side file counts"
    (pair / "out.tif").unlink()
    refused = run(*command)
    assert refused.code == 2 and f"{name} is there without out.tif" in refused.err
    finished = run(*command, "--overwrite")
    assert finished.code == 0 and f"{name} is removed" in finished.err and not (pair / name).exists()
    os.rename(erdas(pair / "made.aux", "out.tif"), name)
    assert run(*command, "--overwrite").code == 0
    with rasterio.open("out.tif") as dataset:
        assert (dataset.crs, dataset.transform, dataset.nodata, dataset.files) == (*new, ["out.tif"])


@pytest.mark.parametrize("there", [True, False])
def test_an_aux_of_another_file_or_format_stays(tmp_path: Path, there: bool) -> None:
    erdas(tmp_path / "out.aux", "out.img")
    (tmp_path / ("out.img" if there else "other.img")).write_text("old")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="out.aux would be read with out.tif"):
        check_target(tmp_path / "out.tif", [], True)
    publish.write(tmp_path / "out.tif", b"new")
    assert contents(tmp_path) == before | {"out.tif": b"new"}
    erdas(tmp_path / "out.aux", "an_out.tif")
    with pytest.raises(InputError, match="out.aux would be read with out.tif"):
        check_target(tmp_path / "out.tif", [], True)
    (tmp_path / "out.aux").write_text("of LaTeX")
    check_target(tmp_path / "out.tif", [], True)


def test_maps_are_replaced_with_their_families(pair: Path, run) -> None:
    assert run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST).code == 0
    command = ("evaluate", "out.tif", "--pan", "pan.tif", "--ms", "ms.tif", "--map", "maps", "-q")
    assert run(*command).code == 0
    there = sorted(contents(pair / "maps"))
    (pair / "maps" / f"{there[0]}.aux.xml").write_text("old")
    assert run(*command, "--overwrite").code == 0 and sorted(contents(pair / "maps")) == there


@pytest.mark.parametrize(
    "name",
    [
        "out.IMD",
        "out.rpb",
        "out_RPC.TXT",
        "out.wld",
        "out.tab",
        "out.rpc",
        "out_MTL.txt",
        "out.xml",
        "out.XML",
        "out_rpc.TXT",
        "Out.Imd",
    ],
)
def test_a_file_that_would_be_read_with_the_output_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<isd>of others</isd>")
    with pytest.raises(InputError, match=f"{name} would be read with out.tif"):
        check_target(tmp_path / "out.tif", [], True)
    check_target(tmp_path / "out.json", [], True)
    check_target(tmp_path / "ou.tif", [], True)


def test_an_output_with_the_metadata_of_a_delivery_is_replaced_with_them(pair: Path, run) -> None:
    (pair / "ms.IMD").write_text('BEGIN_GROUP = IMAGE_1\n\tsatId = "WV02";\nEND_GROUP = IMAGE_1\nEND;\n')
    command = ("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST, "-q", "--overwrite")
    assert run(*command).code == 0 and (pair / "out.IMD").exists()
    (pair / "out.IMD").write_text('BEGIN_GROUP = IMAGE_1\n\tsatId = "QB02";\nEND_GROUP = IMAGE_1\nEND;\n')
    assert run(*command).code == 0 and "WV02" in (pair / "out.IMD").read_text()
    (pair / "ms.IMD").unlink()
    assert run(*command).code == 0 and not (pair / "out.IMD").exists()


@pytest.mark.parametrize(
    ("options", "side"),
    [
        (["RPB=YES"], "out.RPB"),
        (["RPCTXT=YES"], "out_RPC.TXT"),
        (["PROFILE=GeoTIFF"], "out.RPB"),
    ],
)
def test_an_output_with_what_a_creation_option_writes_beside_it_is_replaced_with_that(pair: Path, run, options, side):
    with rasterio.open(pair / "pan.tif", "r+") as dataset:
        ones = "1 " * 20
        numbers = dict.fromkeys(("LINE_OFF", "SAMP_OFF", "LAT_OFF", "LONG_OFF", "HEIGHT_OFF"), "1")
        numbers |= dict.fromkeys(("LINE_SCALE", "SAMP_SCALE", "LAT_SCALE", "LONG_SCALE", "HEIGHT_SCALE"), "9")
        numbers |= dict.fromkeys(("LINE_NUM_COEFF", "LINE_DEN_COEFF", "SAMP_NUM_COEFF", "SAMP_DEN_COEFF"), ones)
        dataset.rpcs = RPC.from_gdal(numbers)
    command = ["fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST, "-q", "--overwrite"]
    told = [word for option in options for word in ("--co", option)]
    for _ in range(2):
        assert run(*command, *told).code == 0 and (pair / side).exists()
    assert run(*command).code == 0 and not (pair / side).exists()


@pytest.mark.parametrize("name", ["DIM_X_1_R1C1.XML", "RPC_X_1.xml", "DIM_X_1.XML", "HDR_X_1_R1C1.txt"])
def test_metadata_of_an_image_that_the_output_is_called_as_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<Dimap_Document/>")
    with pytest.raises(InputError, match=f"{name} would be read with IMG_X_1_R1C1.tif"):
        check_target(tmp_path / "IMG_X_1_R1C1.tif", [], True)
    check_target(tmp_path / "X_1_R1C1.tif", [], True)
    (tmp_path / "x.pass").touch()
    with pytest.raises(InputError, match=r"x\.pass would be read with x\.fused\.tif"):
        check_target(tmp_path / "x.fused.tif", [], True)


@pytest.mark.parametrize(
    ("side", "other"),
    [
        ("out.tfw", "out.tiff"),
        ("out.TFW", "out.TIF"),
        ("out.IMD", "out.TIL"),
        ("out.IMD", "out.ntf"),
        ("out_RPC.TXT", "out.ntf"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_what_is_read_with_another_raster_of_the_name_stays(tmp_path: Path, side: str, other: str, there: bool) -> None:
    out = tmp_path / "out.tif"
    for path in (tmp_path / side, tmp_path / other, *([out] if there else [])):
        path.write_text("old")
    if other.lower() == out.name and out.exists() and not there:
        pytest.skip("case does not count here")
    with pytest.raises(InputError, match=f"{side} would be read with out.tif, which it does not describe"):
        check_target(out, [], True)
    publish.write(out, b"new")
    assert contents(tmp_path) == {side: b"old", other: b"old", "out.tif": b"new"}
    (tmp_path / other).rename(tmp_path / "out.json")
    if there:
        check_target(out, [], True)


def test_a_part_of_the_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.tif.ovr").write_text("an input")
    with pytest.raises(InputError, match="one of the inputs"):
        check_target(tmp_path / "out.tif", [str(tmp_path / "out.tif.ovr")], True)


@pytest.mark.parametrize(
    ("name", "world"), [("a.jp2", "a.j2w"), ("a.img", "a.igw"), ("a.ntf", "a.ntfw"), ("a.tif", "a.tfw")]
)
def test_the_world_file_of_any_raster_tells_how_it_is_read(tmp_path: Path, name: str, world: str) -> None:
    (tmp_path / world).write_text("10")
    (tmp_path / "a.txt").write_text("of others")
    assert publish.told_beside(str(tmp_path / name)) == [str(tmp_path / world)]


# All or nothing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False], ids=["", "no hard links"])
@pytest.mark.parametrize("failing", range(1, 7))
def test_a_rename_that_fails_leaves_everything_as_it_was(tmp_path: Path, monkeypatch, failing: int, links: bool):
    for name in ("a.tif", "a.tif.ovr", "a.tif.aux.xml", "b.json"):
        (tmp_path / name).write_text(f"old {name}")
    before, renames = contents(tmp_path), 5 if links else 6
    original, calls = os.replace, []

    def fails_once(source, target) -> None:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(5, "Input/output error")
        original(source, target)

    monkeypatch.setattr(os, "replace", fails_once)

    def no_links(*_) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with Publication() as files:
        for name in ("a.tif", "b.json", "c.png"):
            files.add(tmp_path / name, b"new")
        if failing < renames:
            with pytest.raises(PansharpenError, match=r"cannot write .*: Input/output error"):
                files.publish()
        else:
            files.publish()
    assert contents(tmp_path) == (before if failing < renames else dict.fromkeys(("a.tif", "b.json", "c.png"), b"new"))


@pytest.mark.parametrize("failing", range(1, 5))
def test_where_nothing_can_be_renamed_back_what_was_there_stays_and_is_named(tmp_path, monkeypatch, failing) -> None:
    names = ("a.tif", "a.tif.ovr", "a.tif.aux.xml", "b.json")
    for name in names:
        (tmp_path / name).write_text(f"old {name}")
    original, calls = os.replace, []

    def fails_from_then_on(source, target) -> None:
        calls.append(target)
        if len(calls) >= failing:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        original(source, target)

    monkeypatch.setattr(os, "replace", fails_from_then_on)
    with pytest.raises(PansharpenError, match="Disk quota exceeded") as raised, Publication() as files:
        for name in ("a.tif", "b.json", "c.png"):
            files.add(tmp_path / name, b"new")
        files.publish()
    assert ("cannot be put back" in str(raised.value)) is (failing > 1)
    for room in tmp_path.glob(f"{PARTIAL}*"):
        publish.sweep(room)
    held = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert {f"old {name}" for name in names} <= {*held}


def test_something_else_in_the_place_of_one_file_keeps_all_of_them_back(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("old")
    with Publication() as files:
        files.add(tmp_path / "a.tif", b"new")
        files.add(tmp_path / "b.json", b"new")
        os.mkfifo(tmp_path / "b.json")
        with pytest.raises(PansharpenError, match=r"b\.json"):
            files.publish()
    assert contents(tmp_path) == {"a.tif": b"old"} and stat.S_ISFIFO((tmp_path / "b.json").stat().st_mode)


@pytest.mark.parametrize("name", ["a.tif", "b.json"])
def test_what_comes_while_files_are_made_stays(tmp_path: Path, name: str) -> None:
    with Publication(lambda path: True) as files:
        for each in ("a.tif", "b.json"):
            files.add(tmp_path / each, b"new")
        (tmp_path / name).write_text("mine")
        with pytest.raises(PansharpenError, match=f"{name} has come or changed while this ran, and stays"):
            files.publish()
    assert contents(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize("side", ["a.tif.msk", "a.tif.aux.xml", "a.tfw", "a.IMD", "a_RPC.TXT"])
def test_what_comes_beside_a_place_that_is_free_stays(tmp_path: Path, side: str) -> None:
    """It would be read with the new file."""
    with Publication(lambda path: True) as files:
        files.add(tmp_path / "a.tif", b"new")
        (tmp_path / side).write_text("mine")
        with pytest.raises(PansharpenError, match=f"{side} has come or changed while this ran"):
            files.publish()
    assert contents(tmp_path) == {side: b"mine"}


@pytest.mark.parametrize("linked", [True, False])
def test_a_place_that_is_taken_in_the_last_moment_is_not(tmp_path: Path, monkeypatch, linked: bool) -> None:
    """A file system without hard links has no other way than to replace."""
    original = os.link

    def late(source, target) -> None:
        if Path(target) == tmp_path / "a.tif":
            Path(target).write_text("mine")
        if not linked:
            raise OSError(95, "Operation not supported")
        original(source, target)

    monkeypatch.setattr(os, "link", late)
    with Publication(lambda path: True) as files:
        files.add(tmp_path / "a.tif", b"new")
        with suppress(PansharpenError) if not linked else pytest.raises(PansharpenError, match="File exists"):
            files.publish()
    assert contents(tmp_path) == {"a.tif": b"mine" if linked else b"new"}


@pytest.mark.parametrize(("overwrite", "stays"), [((), True), (("--overwrite",), False)])
def test_a_file_that_comes_while_a_pair_is_fused_stays(pair: Path, run, monkeypatch, overwrite, stays: bool) -> None:
    publish = Publication.publish

    def late(files: Publication) -> None:
        (pair / "out.tif").write_text("mine")
        publish(files)

    monkeypatch.setattr(Publication, "publish", late)
    done = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--method", "exp", "--no-score", *overwrite)
    assert done.code == (1 if stays else 0) and ("out.tif has come or changed" in done.err) == stays
    assert ((pair / "out.tif").read_bytes() == b"mine") == stays


def test_a_file_that_is_there_is_told_of_before_the_pair_is_aligned(pair: Path, run, monkeypatch) -> None:
    def measure(*given: object) -> None:
        pytest.fail("the pair is aligned")

    monkeypatch.setattr("pansharpen_cli.fusion.register.measure", measure)
    (pair / "r.json").write_text("precious")
    before = contents(pair)
    for window in ((), ("--window", "8,8,64,64")):
        refused = run("fuse", "pan.tif", "ms.tif", "-o", "no/out.tif", "--method", "exp", "--report", "r.json", *window)
        assert refused.code == 2 and "r.json exists; use --overwrite" in refused.err and contents(pair) == before


def test_what_is_made_beside_a_file_is_published_with_it(tmp_path: Path) -> None:
    with Publication() as files:
        part = files.part(tmp_path / "a.tif")
        part.write_text("new")
        part.with_name("a.tif.aux.xml").write_text("its own")
        files.room(tmp_path / "a.tif").joinpath("on the way").write_text("")
        (tmp_path / "a.tif.aux.xml").write_text("of another")
        files.publish()
    assert contents(tmp_path) == {"a.tif": b"new", "a.tif.aux.xml": b"its own"}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_the_mode_of_a_replaced_file_is_kept(tmp_path: Path, mode: int) -> None:
    publish.write(tmp_path / "a.json", b"old")
    usual = (tmp_path / "a.json").stat().st_mode
    (tmp_path / "a.json").chmod(mode)
    publish.write(tmp_path / "a.json", b"new")
    publish.write(tmp_path / "b.json", b"new")
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode
    assert (tmp_path / "b.json").stat().st_mode == usual and (tmp_path / "a.json").read_bytes() == b"new"


def test_a_file_system_without_modes_is_written_to(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.json").write_text("old")

    def refused(*_, **__) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refused)
    publish.write(tmp_path / "a.json", b"new")
    assert contents(tmp_path) == {"a.json": b"new"}


def test_all_that_is_published_is_on_the_disk_before_it_has_its_name(pair: Path, run, monkeypatch) -> None:
    synced, original = set(), os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: synced.add(os.fstat(handle).st_ino))

    def renamed(source, target) -> None:
        assert os.stat(source).st_ino in synced, target
        original(source, target)

    monkeypatch.setattr(os, "replace", renamed)
    command = ("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST, "--report", "r.json", "--quicklook", "q.jpg")
    assert run(*command).code == 0
    assert run("evaluate", "out.tif", "--pan", "pan.tif", "--ms", "ms.tif", "--map", "maps", "-q").code == 0
    assert {os.stat(n).st_ino for n in ("out.tif", "r.json", "q.jpg", ".", "maps/out_hqnr.tif", "maps")} <= synced
    torch.save(models.create("pnn", {"bands": 4}).state_dict(), "pnn.pth")
    written = weights.import_checkpoint(pair / "pnn.pth", "pnn", 4, 1.0, pair / "w.safetensors")
    assert os.stat(written.path).st_ino in synced


def test_a_report_that_cannot_be_made_keeps_the_old_output(pair: Path, run, monkeypatch) -> None:
    command = ("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST, "--report", "r.json")
    assert run(*command).code == 0
    before = contents(pair)

    def full(facts) -> bytes:
        raise PansharpenError("no space left")

    monkeypatch.setattr(files, "json_bytes", full)
    assert run(*command, "--overwrite", "--seed", 5).code == 1 and contents(pair) == before


# Temporary folders --------------------------------------------------------------------------------------------------


def test_the_folder_of_a_living_process_is_not_swept(tmp_path: Path) -> None:
    with workspace(tmp_path) as dead:
        shutil.copytree(dead, tmp_path / f"{PARTIAL}dead")
    (tmp_path / f"{PARTIAL}dead" / "fused.tif").touch()
    with workspace(tmp_path) as alive:
        (alive / "fused.tif").touch()
        batch_log.sweep(tmp_path)
        assert (alive / "fused.tif").exists() and not (tmp_path / f"{PARTIAL}dead").exists()
    assert not alive.exists()
    lock = tmp_path / f"{PARTIAL}killed"
    lock.mkdir()
    (lock / "lock").touch()  # its process was killed at once
    batch_log.sweep(tmp_path)
    assert not lock.exists()


def test_what_only_has_a_name_of_ours_is_not_swept(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out" / f"{PARTIAL}notes").mkdir(parents=True)
    (tmp_path / "out" / f"{PARTIAL}notes" / "mine.txt").write_text("mine")
    (tmp_path / "out" / f"{PARTIAL}locked").mkdir()
    (tmp_path / "out" / f"{PARTIAL}locked" / "lock").write_text("mine, too")
    (tmp_path / "out" / f"{PARTIAL}list.txt").write_text("a file")
    (tmp_path / "out" / f"{PARTIAL}link").symlink_to(elsewhere)
    before = contents(tmp_path)
    batch_log.sweep(tmp_path / "out")
    assert contents(tmp_path) == before


# Names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.jp2", "a.tif.gz", "-", "a", "a.img", ".tif"])
def test_a_geotiff_has_a_geotiffs_name(pair: Path, run, name: str) -> None:
    before = contents(pair)
    finished = run("fuse", "pan.tif", "ms.tif", "-o", name, *FAST)
    assert finished.code == 2 and "ends in .tif or .tiff" in finished.err and contents(pair) == before


@pytest.mark.parametrize("place", ["/vsizip/a.zip", "/vsimem", "/vsigzip", "http://127.0.0.1:9", "file:///tmp"])
@pytest.mark.parametrize("what", ["fuse", "quicklook", "batch", "map"])
def test_nothing_is_written_under_names_of_gdals_or_addresses(pair: Path, run, place: str, what: str) -> None:
    commands = {
        "fuse": ("fuse", "pan.tif", "ms.tif", "-o", f"{place}/a.tif", *FAST),
        "quicklook": ("fuse", "pan.tif", "ms.tif", "-o", "a.tif", *FAST, "--quicklook", f"{place}/a.png"),
        "batch": ("batch", "pan.tif", "ms.tif", "-o", place, *FAST),
        "map": ("evaluate", "ms.tif", "--pan", "pan.tif", "--ms", "ms.tif", "--map", place),
    }
    before = contents(pair)
    finished = run(*commands[what])
    assert finished.code == 2 and "on a disk" in finished.err and contents(pair) == before, finished.err
    assert not list(Path("/").glob("vsi*"))


def test_a_quicklook_is_what_its_name_says(pair: Path, run) -> None:
    for name, head in (("q.png", b"\x89PNG"), ("q.jpg", b"\xff\xd8\xff"), ("q.JPEG", b"\xff\xd8\xff")):
        command = ("fuse", "pan.tif", "ms.tif", "-o", "out.TIFF", *FAST, "--overwrite", "--quicklook", name)
        assert run(*command).code == 0 and (pair / name).read_bytes().startswith(head)
    finished = run(*command[:-1], "q.gif")
    assert finished.code == 2 and ".png or .jpg" in finished.err


def test_two_outputs_are_not_one_file_by_a_link(pair: Path, run) -> None:
    (pair / "r.json").symlink_to("out.tif")
    finished = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST, "--report", "r.json", "--overwrite")
    assert finished.code == 2 and "different paths" in finished.err and not (pair / "out.tif").exists()
    (pair / "r.json").unlink()
    (pair / "r.json").symlink_to("elsewhere.json")
    finished = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST, "--report", "r.json", "--overwrite")
    assert finished.code == 2 and "link" in finished.err and not (pair / "elsewhere.json").exists()


# What is written is what was meant ----------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["PROFILE=BASELINE", "PROFILE=GeoTIFF", "TFW=YES", "GEOTIFF_KEYS_FLAVOR=ESRI_PE"])
def test_creation_options_lose_no_place_or_provenance(pair: Path, run, option: str) -> None:
    assert run("fuse", "pan.tif", "ms.tif", "-o", "plain.tif", *FAST).code == 0
    finished = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST, "--co", option)
    assert finished.code == 0, finished.err
    assert (pair / "out.tfw").exists() == (option == "TFW=YES")
    with rasterio.open("plain.tif") as plain, rasterio.open("out.tif") as dataset:
        assert (dataset.transform, dataset.nodata) == (plain.transform, plain.nodata)
        assert dataset.crs.to_epsg() == plain.crs.to_epsg() == 32631
        assert dataset.tags(ns="PANSHARPEN") == plain.tags(ns="PANSHARPEN")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("TARGET_SRS=EPSG:4326", "CRS EPSG:4326"),
        ("TARGET_SRS=EPSG:3857", "CRS EPSG:3857"),
        ("TILING_SCHEME=GoogleMapsCompatible", "256 x 256 pixels"),
        ("RES=2", "lies on the pixels of the PAN"),
        ("EXTENT=0,0,8,8", "lies on the pixels of the PAN"),
    ],
)
def test_creation_options_that_change_the_grid_are_refused(pair: Path, run, option: str, words: str) -> None:
    before = contents(pair)
    finished = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST, "--driver", "COG", "--co", option)
    name = option if option[0] == "T" else option.partition("=")[0]
    assert finished.code == 2 and name in finished.err and words in finished.err and contents(pair) == before
    with pytest.raises(InputError, match=name):
        check_creation_options("COG", dict([option.split("=")]), 4, np.dtype("uint16"), 0)


def test_creation_options_that_clip_or_round_pixels_are_errors(pair: Path, run) -> None:
    before = contents(pair)
    command = ["fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST]
    finished = run(*command, "--co", "NBITS=9", "--co", "PREDICTOR=1")
    assert finished.code == 1 and "clipped to fit" in finished.err and "NBITS" in finished.err
    assert contents(pair) == before
    for bits, kind, held in (("8", "uint16", "9"), ("17", "uint16", "16"), ("", "uint16", "9"), ("12", "uint8", "8")):
        finished = run(*command, "--dtype", kind, "--co", f"NBITS={bits}", "--co", "PREDICTOR=1")
        assert finished.code == 2 and finished.err.startswith(f"error: --co NBITS={bits} "), finished.err
        assert f"would have {held} bits for a value of {kind}; leave NBITS out" in finished.err
    finished = run(*command, "--driver", "COG", "--co", "NBITS=12")
    assert finished.code == 2 and "NBITS=12 is for GeoTIFFs" in finished.err and "PREDICTOR" not in finished.err
    assert "NBITS=16" in run(*command, "--dtype", "float32", "--co", "NBITS=16").err
    for sizes, driver, told in (
        (("BLOCKXSIZE=16384", "BLOCKYSIZE=16384"), "GTiff", "16384 x 16384"),
        (("BLOCKSIZE=16384",), "COG", "16384 x 16384"),
        (("BLOCKYSIZE=1000000016",), "GTiff", "512 x 1000000016"),
    ):
        given = [word for option in sizes for word in ("--co", option)]
        finished = run(*command, *given, "--driver", driver)
        assert finished.code == 2 and f"--co: blocks of {told} pixels take" in finished.err
    for inks in ("MINISWHITE", "cmyk"):
        finished = run(*command, "--co", f"PHOTOMETRIC={inks}")
        assert finished.code == 2 and f"--co PHOTOMETRIC={inks.upper()}: readers would take" in finished.err
    assert contents(pair) == before
    assert run(*command, "--co", "NBITS=12", "--co", "PREDICTOR=1").code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crs": "EPSG:32632"}, "the CRS EPSG:32632"),
        ({"transform": Affine(2, 0, 1, 0, -2, 0)}, "another place"),
        ({"nodata": 5}, "the nodata value 5"),
        ({"nodata": None}, "the nodata value None"),
    ],
)
def test_a_written_file_is_compared_before_it_is_published(pair: Path, run, monkeypatch, change, words: str) -> None:
    from pansharpen_cli.raster import creation

    original, calls = creation.verify, []

    def spoil(path: Path) -> None:
        original(path)
        calls.append(path)
        if len(calls) == 2:  # the finished file, after it was scored
            with rasterio.open(path, "r+") as dataset:
                for name, value in change.items():
                    setattr(dataset, name, value)

    monkeypatch.setattr(creation, "verify", spoil)
    before = contents(pair)
    finished = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *FAST)
    assert finished.code == 1 and words in finished.err and contents(pair) == before


# Short files --------------------------------------------------------------------------------------------------------


def raster(path: Path, driver: str, **more) -> Path:
    values = np.random.default_rng(0).integers(1, 255, (3, 60, 70)).astype("uint8")
    with rasterio.open(path, "w", driver=driver, width=70, height=60, count=3, dtype="uint8", **more) as dataset:
        dataset.write(values)
    return path


@pytest.mark.parametrize(
    ("driver", "name"),
    [("ENVI", "a.img"), ("ENVI", "a"), ("PNG", "a.png"), ("PCIDSK", "a.pix"), ("EHdr", "a.bil")],
)
def test_a_file_that_is_shorter_than_its_format_says_is_refused(tmp_path: Path, driver: str, name: str) -> None:
    path = raster(tmp_path / name, driver)
    assert cut_off(str(path)) == ""
    source.open_raster(str(path)).close()
    rasterio.shutil.copy(path, tmp_path / "a.vrt", driver="VRT")
    size = path.stat().st_size
    for cut in (size - 1, size // 2, size // 10 * 9):
        os.truncate(path, cut)
        for opened in (path, tmp_path / "a.vrt"):
            with pytest.raises(InputError, match=f"{name} is cut off"):
                source.open_raster(str(opened))


@pytest.mark.parametrize(
    ("bands", "name", "driver", "options"),
    [
        ("ms.tif", "a.jpg", "JPEG", {}),
        ("ms.tif", "a.jpg", "JPEG", {"PROGRESSIVE": "YES"}),
        ("pan.tif", "a.ntf", "NITF", {"IC": "C3"}),
        ("ms.tif", "a.ntf", "NITF", {}),
        ("ms.tif", "a.ige", "HFA", {"USE_SPILL": "YES"}),
        ("ms.tif", "a.jp2", "JP2OpenJPEG", {"BLOCKXSIZE": "64", "BLOCKYSIZE": "64"}),
        ("ms.tif", "a.j2k", "JP2OpenJPEG", {"CODEC": "J2K"}),
        ("float.tif", "a.map", "PCRaster", {}),
        ("float.tif", "a.nc", "netCDF", {}),
        ("float.tif", "a.nc", "netCDF", {"FORMAT": "NC2"}),
    ],
)
def test_a_file_that_its_driver_would_fill_up_is_refused(made: Path, tmp_path: Path, bands, name, driver, options):
    """JPEG of 12 bits, for one, is decoded with garbage: GDAL tells of the end that is missing with 8 bits only."""
    edited(made / "pan.tif", tmp_path / "float.tif", lambda pixels: pixels.astype("float32"), dtype="float32")
    path = tmp_path / name.replace("ige", "img")
    rasterio.shutil.copy((tmp_path if bands == "float.tif" else made) / bands, path, driver=driver, **options)
    source.open_raster(str(path)).close()
    size = os.path.getsize(tmp_path / name)
    for cut in (size - 1, size // 100 * 95, size // 100 * 70, size // 100 * 30):
        os.truncate(tmp_path / name, cut)
        with pytest.raises(InputError, match="is cut off|cannot open"):
            source.open_raster(str(path))
    if name.startswith("a.j"):  # a copy that was given its size first
        os.truncate(tmp_path / name, size)
        with pytest.raises(InputError, match="is cut off|cannot open"):
            source.open_raster(str(path))


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["8 bits", "4 bits", "16 bits"])
@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_lan_file_that_ends_early_is_cut_off(tmp_path: Path, kind: int, older: bool, order: str) -> None:
    head = bytearray(128)
    struct.pack_into(f"{order}6shh", head, 0, b"HEADER" if older else b"HEAD74", kind, 3)
    struct.pack_into(f"{order}{'ff' if older else 'ii'}", head, 16, 71, 60)
    path = tmp_path / "a.lan"
    path.write_bytes(bytes(head) + bytes(71 * 60 * 3 * (2, 1, 4)[kind] // 2))
    with source.open_raster(str(path)) as dataset:
        assert (dataset.driver, dataset.shape, dataset.count) == ("LAN", (60, 71), 3)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InputError, match="is cut off"):
        source.open_raster(str(path))


def test_a_packed_pcidsk_file_is_whole_although_it_has_less_than_its_blocks(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pix"
    rasterio.shutil.copy(
        made / "ms.tif", path, driver="PCIDSK", COMPRESSION="RLE", INTERLEAVING="TILED", TILESIZE="127"
    )
    with source.open_raster(str(path)) as dataset:
        assert (dataset.read() == pixels_of(made / "ms.tif")).all()


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("options", [{}, {"COMPRESSION": "RLE"}, {"TILESIZE": "32"}])
@pytest.mark.parametrize("bands", ["pan.tif", "ms.tif"])
def test_tiles_of_a_pcidsk_file_that_ends_early_are_missed(made: Path, tmp_path: Path, bands, options, version) -> None:
    path = tmp_path / "a.pix"
    copy = partial(rasterio.shutil.copy, made / bands, path, driver="PCIDSK", INTERLEAVING="TILED")
    copy(**{"TILESIZE": "64", "TILEVERSION": version} | options)
    assert cut_off(str(path)) == ""
    size = path.stat().st_size
    for cut in (size - 1, size // 100 * 99):
        os.truncate(path, cut)
        with pytest.raises(InputError, match=r"a.pix is cut off"):
            source.open_raster(str(path))


@pytest.mark.parametrize(("driver", "name", "part"), [("RRASTER", "a.grd", "a.gri"), ("PCIDSK", "a.pix", "a.002")])
def test_pixels_in_files_of_their_own_that_end_early_are_missed(made: Path, tmp_path: Path, driver, name, part) -> None:
    options = {"INTERLEAVING": "FILE"} if driver == "PCIDSK" else {}
    rasterio.shutil.copy(made / "ms.tif", tmp_path / name, driver=driver, **options)
    source.open_raster(str(tmp_path / name)).close()
    os.truncate(tmp_path / part, (tmp_path / part).stat().st_size - 1)
    with pytest.raises(InputError, match=f"{name} is cut off"):
        source.open_raster(str(tmp_path / name))


def test_a_geopackage_that_ends_early_is_cut_off(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    rasterio.shutil.copy(made / "pan.tif", path, driver="GPKG")
    source.open_raster(str(path)).close()
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InputError, match=r"a.gpkg is cut off"):
        source.open_raster(str(path))


@pytest.mark.parametrize(
    ("name", "driver"), [("a.img", "ENVI"), ("a.png", "PNG"), ("a.pix", "PCIDSK"), ("a.jp2", "JP2OpenJPEG")]
)
def test_a_file_in_an_archive_that_its_driver_would_fill_up_is_refused(tmp_path: Path, name: str, driver: str) -> None:
    raster(tmp_path / name, driver)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for each in {name, "a.hdr"} & set(os.listdir(tmp_path)):
            archive.add(tmp_path / each, each)
    archived = f"/vsitar/{tmp_path}/a.tar/{name}"
    rasterio.shutil.copy(archived, tmp_path / "a.vrt", driver="VRT")
    for opened in (archived, tmp_path / "a.vrt"):
        with pytest.raises(InputError, match="unpack or download it first"):
            source.open_raster(str(opened))


@pytest.mark.parametrize("big", ["NO", "YES"])
def test_a_tiff_that_ends_before_its_directory_is_cut_off(tmp_path: Path, big: str) -> None:
    """As GDAL writes compressed files that it makes anew, with the directory at their end."""
    path = raster(tmp_path / "a.tif", "GTiff", compress="deflate", bigtiff=big)
    with rasterio.open(path, "r+") as file:
        file.update_tags(a=900 * "moved to the end ")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 4])
    with pytest.raises(InputError, match=r"a.tif: it is cut off"):
        source.open_raster(str(path))


def test_a_header_beside_a_file_of_another_format_says_nothing(tmp_path: Path) -> None:
    raster(tmp_path / "a.img", "ENVI")
    content = raster(tmp_path / "a.tif", "GTiff", compress="deflate").read_bytes()
    (tmp_path / "a.img").write_bytes(content[:2000])
    assert cut_off(str(tmp_path / "a.img")) == ""


def test_half_a_raw_file_ends_the_run(pair: Path, run) -> None:
    rasterio.shutil.copy("ms.tif", "ms.img", driver="ENVI")
    os.truncate("ms.img", os.path.getsize("ms.img") // 2)
    finished = run("fuse", "pan.tif", "ms.img", "-o", "out.tif", *FAST)
    assert finished.code == 2 and "ms.img is cut off" in finished.err and not (pair / "out.tif").exists()


def masked(folder: Path) -> Path:
    """A raster with its mask and metadata, statistics among them, beside it."""
    path = raster(folder / "a.tif", "GTiff", transform=Affine(1, 0, 0, 0, -1, 0))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.arange(60 * 70).reshape(60, 70) % 7 > 0)
    (folder / "a.tif.aux.xml").write_text("<PAMDataset><Metadata><MDI key='a'>b</MDI></Metadata></PAMDataset>\n")
    with rasterio.open(path) as dataset:
        rasterio.shutil.copy(dataset, folder / "a.tif.ovr", driver="GTiff")
    return path


@pytest.mark.parametrize("side", ["a.tif.msk", "a.tif.ovr", "a.tif.aux.xml", "a.tif.msk.aux.xml"])
@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("name", ["a.tif", "a.vrt"])
def test_a_file_beside_a_raster_that_ends_early_is_refused(tmp_path: Path, side: str, share: float, name: str) -> None:
    path = masked(tmp_path)
    rasterio.shutil.copy(path, tmp_path / "a.vrt", driver="VRT")
    shutil.copy(tmp_path / "a.tif.aux.xml", tmp_path / "a.tif.msk.aux.xml")
    with source.open_raster(str(tmp_path / name)) as dataset:
        assert (dataset.dataset_mask() == 0).sum() == 600
    os.truncate(
        tmp_path / side, 100 if side.endswith("ovr") and share else int(os.stat(tmp_path / side).st_size * share)
    )
    with pytest.raises(InputError, match=f"{side} (beside it cannot be read|is cut off)"):
        source.open_raster(str(tmp_path / name))


@pytest.mark.parametrize(
    "content",
    [
        '\ufeff<?xml version="1.0" encoding="UTF-8"?>\r\n<PAMDataset xmlns:xsi="u">é</PAMDataset>\r\n'.encode(),
        '<?xml version="1.0" encoding="ISO-8859-1"?><PAMDataset>é</PAMDataset>'.encode("latin-1"),
        '<PAMDataset><GeodataXform xsi:type="typens:IdentityXform">é &nbsp;&#1;\1</GeodataXform></PAMDataset>'.encode(
            "cp1252"
        ),
        b"<!-- a --><PAMDataset/>",
    ],
)
def test_metadata_beside_a_raster_are_taken_as_others_write_them(tmp_path: Path, content: bytes) -> None:
    path = masked(tmp_path)
    (tmp_path / "a.tif.aux.xml").write_bytes(content)
    source.open_raster(str(path)).close()


@pytest.mark.parametrize(
    "options",
    [pytest.param({}, marks=pytest.mark.slow), {"crs": "EPSG:32631", "transform": Affine(1, 0, 5e5, 0, -1, 4e6)}],
)
def test_an_hfa_file_that_ends_early_loses_no_bands(tmp_path: Path, options: dict) -> None:
    path = raster(tmp_path / "a.img", "HFA", **options)
    content = path.read_bytes()
    for cut in range(0, len(content), 200):
        path.write_bytes(content[: len(content) - cut])
        try:
            with source.open_raster(str(path)) as dataset:
                assert dataset.count == 3 and dataset.transform == options.get("transform", Affine.identity())
        except InputError as error:
            assert cut and "a.img" in str(error)
    assert cut


@pytest.mark.parametrize("inner", [True, False], ids=["internal mask", "nodata"])
def test_what_a_tiff_that_ends_early_has_lost_is_missed(tmp_path: Path, inner: bool) -> None:
    path = tmp_path / "a.tif"
    kind = {"driver": "GTiff", "width": 70, "height": 60, "count": 1, "dtype": "float32", "crs": "EPSG:32631"}
    with rasterio.open(path, "w", **kind, transform=Affine(1, 0, 5e5, 0, -1, 4e6)) as dataset:
        dataset.write(np.ones((1, 60, 70), "float32"))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        if inner:
            dataset.write_mask(np.arange(60 * 70).reshape(60, 70) % 7 > 0)
        else:
            dataset.nodata = -9999.0
    with source.open_raster(str(path)) as dataset:
        known = dataset.crs, dataset.transform, dataset.nodata, dataset.mask_flag_enums
    content = path.read_bytes()
    for cut in range(1, 600, 7):
        path.write_bytes(content[:-cut])
        try:
            with source.open_raster(str(path)) as dataset:
                assert (dataset.crs, dataset.transform, dataset.nodata, dataset.mask_flag_enums) == known, cut
        except InputError as error:
            assert "a.tif" in str(error)


@pytest.mark.parametrize(("driver", "name"), [("PNM", "a.pgm"), ("MFF2", "a.mff2")])
def test_a_file_without_a_place_of_its_own_is_read_whole(tmp_path: Path, driver: str, name: str) -> None:
    path = tmp_path / name
    with rasterio.open(path, "w", driver=driver, width=70, height=60, count=1, dtype="uint8") as dataset:
        dataset.write(np.ones((1, 60, 70), "uint8"))
    with source.open_raster(str(path)) as dataset:
        assert dataset.transform.is_identity and dataset.crs is None and (dataset.read() == 1).all()
    pixels = path / "image_data" if driver == "MFF2" else path
    os.truncate(pixels, pixels.stat().st_size - 1)
    with pytest.raises(InputError, match=f"{name} is cut off"):
        source.open_raster(str(path))


def test_a_damaged_file_is_named_also_where_its_driver_reads_on_demand(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    rasterio.shutil.copy(made / "ms.tif", path, driver="HFA")
    whole = path.read_bytes()
    assert b"Green" in whole
    path.write_bytes(whole.replace(b"Green", b"Gr\xff\xfen"))
    with gdal_messages() as said:
        source.open_raster(str(path)).close()
    assert said.warnings == [f"{path}: the names of its bands are not text in UTF-8: they are left out"]


def test_what_a_driver_reports_as_an_error_is_one(made: Path, monkeypatch) -> None:
    with scene.Scene.open(made / "pan.tif", [made / "ms.tif"]) as opened:
        opened.read_ms(Window(0, 8, 0, 8))

        class Reporting:
            def __getattr__(self, name: str):
                return getattr(dataset, name)

            def read(self, *given, **more):
                logging.getLogger("rasterio._env").info("GDAL signalled an error: err_no=1, msg='a block is missing'")
                return dataset.read(*given, **more)

        dataset = opened.ms[0].dataset
        opened = replace(opened, ms=(replace(opened.ms[0], dataset=Reporting()),))
        with pytest.raises(ReadError, match=r"ms\.tif: a block is missing"):
            opened.read_ms(Window(0, 8, 0, 8))


@pytest.mark.parametrize("name", ["pan.tif", "ms.tif"])
def test_areas_of_zero_without_a_tag_are_said_aloud(pair: Path, run, name: str) -> None:
    def fill(pixels: np.ndarray) -> np.ndarray:
        pixels[:, : pixels.shape[1] // 2] = 0
        return pixels

    for value, words, kind in ((None, True, "uint16"), (None, True, "float32"), (0, False, "uint16")):
        edited(pair / name, pair / "edited.tif", fill, nodata=value, dtype=kind)
        given = ["edited.tif" if n == name else n for n in ("pan.tif", "ms.tif")]
        finished = run("fuse", *given, "-o", "out.tif", *FAST, "--overwrite")
        assert finished.code == 0
        assert ("edited.tif holds values that look like nodata" in finished.err) == words
        assert ("areas of 0 in all bands" in finished.err) == words


@pytest.mark.parametrize(
    ("change", "profile", "told"),
    [
        (9, {}, True), (9, {"driver": "ENVI", "interleave": "bsq"}, True), (9, {"compress": "deflate"}, True),
        (8, {}, False), (9, {"nodata": 0}, False), (9, {"interleave": "pixel"}, False),
        (9, {"tiled": True, "blockxsize": 16, "blockysize": 16}, False),
    ],
)  # fmt: skip
def test_a_band_that_ends_in_zeros_is_said_aloud(pair: Path, run, change: int, profile: dict, told: bool) -> None:
    def stopped(pixels: np.ndarray) -> np.ndarray:
        pixels[-1, -change:] = 0
        return pixels

    edited(
        pair / "ms.tif",
        pair / "cut.img",
        stopped,
        **{"driver": "GTiff", "interleave": "band", "nodata": None} | profile,
    )
    finished = run("fuse", "pan.tif", "cut.img", "-o", "out.tif", *FAST, "--overwrite")
    assert finished.code == 0, finished.err
    assert finished.err.count("cut.img ends in rows of 0 in band") == told
    assert run("check", "pan.tif", "cut.img").out.count("ends in rows of 0") == told


SPARSE = {"nodata": 0, "tiled": True, "blockxsize": 16, "blockysize": 16, "sparse_ok": True}
NODATA_TAIL, FULL_TAIL = " of edited.tif are nodata over their full width", "edited.tif holds values that look like"
OTHER_TAIL = "which is not its nodata value"


TAILS = [
    (-32, 0, "uint16", SPARSE, NODATA_TAIL),
    (-30, 0, "uint16", {"nodata": 0}, NODATA_TAIL), (-30, np.nan, "float32", {}, NODATA_TAIL),
    (-30, 255, "uint8", {}, FULL_TAIL), (-30, -1, "int16", {}, FULL_TAIL), (-30, -1, "int32", {}, FULL_TAIL),
    (-30, 0, "uint16", SPARSE, None), (-8, 0, "uint16", {"nodata": 0}, None),
    (-8, 255, "uint8", {}, None), (-30, 255, "uint8", {"nodata": 0}, OTHER_TAIL),
    (-30, 0, "uint16", {"nodata": 65535}, OTHER_TAIL), (-30, 65535, "uint16", {"nodata": 0}, OTHER_TAIL),
    (-30, 0, "float32", {"nodata": np.nan}, OTHER_TAIL), (-30, 0, "float32", {"nodata": -9999}, OTHER_TAIL),
    (-8, 0, "uint16", {"nodata": 65535}, None),
    (-30, -2, "int16", {}, None), (-30, np.nan, "float32", {"compress": "deflate", "blockysize": 512}, NODATA_TAIL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "value", "dtype", "profile", "words"),
    seldom(TAILS, [TAILS[0], TAILS[2], TAILS[3], TAILS[6], TAILS[10]]),
)
def test_a_tail_of_nothing_is_said_aloud(pair: Path, run, first: int, value, dtype, profile: dict, words) -> None:
    def stopped(pixels: np.ndarray) -> np.ndarray:
        pixels = np.clip(pixels // (16 if dtype == "uint8" else 1), 1, None).astype(dtype)
        pixels[:, first:] = value
        return pixels

    edited(pair / "pan.tif", pair / "edited.tif", stopped, **{"nodata": None} | profile)
    finished = run("fuse", "edited.tif", "ms.tif", "-o", "out.tif", *FAST, "--overwrite")
    assert finished.code == 0, finished.err
    told = [text for text in (NODATA_TAIL, FULL_TAIL, OTHER_TAIL) if text in finished.err]
    assert told == ([words] if words else [])
    if words == FULL_TAIL:
        assert f"its last {-first} rows are {value}" in finished.err and f"--nodata {value}" in finished.err
        assert FULL_TAIL in " ".join(run("check", "edited.tif", "ms.tif", "--method", "none").out.split())


@pytest.mark.parametrize("collar", ["around", "right", "slanted", "bottom and holes"])
def test_a_collar_is_no_tail(pair: Path, run, collar: str) -> None:
    def within(pixels: np.ndarray) -> np.ndarray:
        rows, cols = np.indices(pixels.shape[1:])
        out = {
            "around": (rows < 20) | (rows >= len(rows) - 20),
            "right": (rows >= len(rows) - 20) | (cols >= cols.max() - 20),
            "slanted": rows + cols / 8 >= len(rows) - 20,
            "bottom and holes": (rows >= len(rows) - 20) | (rows % 4 == 1) & (cols % 3 == 1),
        }[collar]
        return np.where(out, 0, np.maximum(pixels, 1))

    edited(pair / "pan.tif", pair / "edited.tif", within, nodata=0)
    finished = run("fuse", "edited.tif", "ms.tif", "-o", "out.tif", *FAST)
    assert finished.code == 0 and NODATA_TAIL not in finished.err
    share = re.search(r", ([\d.]+)% invalid\)", finished.out)
    with rasterio.open("out.tif") as fused:
        assert share and float(share[1]) == pytest.approx(100 - 100 * (fused.read_masks(1) > 0).mean(), abs=0.06)


# Batches ------------------------------------------------------------------------------------------------------------

CHOICES = Choices(Options(method="exp", align="off"), OpenOptions("generic"), score=False)


@pytest.fixture
def tasks(made: Path, tmp_path: Path) -> list[planning.Task]:
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for file in ("pan.tif", "ms.tif"):
            shutil.copy(made / file, tmp_path / "in" / name / file)
    return planning.plan(pairs.find([str(tmp_path / "in")]).found, tmp_path / "out", CHOICES)


def here(after: Callable[[planning.Task], None] = lambda task: None) -> batch.Execute:
    """Runs tasks in this process, and does something after each."""

    def execute(tasks) -> Iterator[Event]:
        for task in tasks:
            yield Event("started", task, 0)
            result = batch.fuse_one(task, CHOICES)
            after(task)
            yield Event("done", task, 0, result)

    return execute


def log_of(out: Path) -> dict[str, dict]:
    return {r["scene"]: r for r in map(json.loads, (out / "batch.jsonl").read_text().splitlines())}


def a_list(path: Path) -> None:
    path.write_text('{"pan": "pan.tif", "ms": "ms.tif"}\n{"pan": "p.tif", "ms": "m.tif"}\n')


def a_text(path: Path) -> None:
    path.write_text("notes of somebody\n")


def both(path: Path) -> None:
    path.write_text('{"schema": "pansharpen-batch/1", "scene": "a.tif", "status": "done"}\n{"pan": "pan.tif"}\n')


def a_link(path: Path) -> None:
    a_list(path.parent / "elsewhere")
    path.symlink_to("elsewhere")


def a_dangling_link(path: Path) -> None:
    path.symlink_to("elsewhere")


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


FOREIGN = [
    *(("batch.jsonl", kind) for kind in (a_list, a_text, both, a_link, a_dangling_link, a_device, os.mkfifo)),
    *(("index.html", kind) for kind in (a_text, a_link, a_dangling_link, a_device, os.mkfifo)),
    *(("batch.lock", kind) for kind in (a_text, a_link, a_dangling_link, a_device, os.mkfifo)),
]


@pytest.mark.parametrize(("name", "kind"), FOREIGN, ids=[f"{n}, {k.__name__}" for n, k in FOREIGN])
def test_a_file_of_others_with_a_name_of_ours_is_refused_and_left_alone(tmp_path: Path, tasks, name: str, kind) -> None:
    out = tmp_path / "out"
    out.mkdir()
    kind(out / name)
    before = contents(out) if kind is not os.mkfifo else {}
    with pytest.raises(InputError, match=name):
        if name == "index.html":
            index.write(out, [])
        else:
            batch.run(tasks, out, here())
    after = contents(out)
    after.pop("batch.lock", None) if name == "batch.jsonl" else None
    assert {k: v for k, v in after.items() if v != ""} == before
    if name == "batch.jsonl":
        with pytest.raises(InputError, match=name):
            planning.dry_run(tasks, out, [], False)


def test_our_own_log_and_page_are_replaced(tmp_path: Path, tasks) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        assert not batch.run(tasks, out, here()).failed
        index.write(out, batch_log.read_log(out).values())
    for torn in (b"", b'{"sch', b'{"schema": "pansharpen-batch/1", "scene": "x'):
        (out / "batch.jsonl").write_bytes(torn)
        assert batch_log.read_log(out) == {}


def test_a_scene_whose_report_cannot_be_written_keeps_its_earlier_output(tmp_path: Path, tasks, monkeypatch) -> None:
    out = tmp_path / "out"
    assert len(batch.run(tasks, out, here()).done) == 2
    before = {n: c for n, c in contents(out).items() if not n.startswith("batch.")}

    def full(facts) -> bytes:
        raise PansharpenError("no space left")

    monkeypatch.setattr(files, "json_bytes", full)
    inputs = (*tasks[0].inputs, planning.file_stamp("none.imd"))  # changed: all of it is to be done again
    again = [replace(tasks[0], inputs=inputs), replace(tasks[1], options="other")]
    assert len(batch.run(again, out, here()).failed) == 2
    assert {n: c for n, c in contents(out).items() if not n.startswith("batch.")} == before
    monkeypatch.undo()
    assert len(batch.run(again, out, here(), retry_failed=True).done) == 2, "they are still known as the batch's own"


def test_a_scene_that_was_ended_after_it_had_published_keeps_its_output(tmp_path: Path, tasks) -> None:
    def ended(tasks) -> Iterator[Event]:
        for task in tasks:
            yield Event("started", task, 0)
            batch.fuse_one(task, CHOICES)
            yield Event("failed", task, 0, "timed out")

    out = tmp_path / "out"
    assert len(batch.run(tasks, out, ended).failed) == 2
    assert all(task.output.is_file() for task in tasks)
    assert len(batch.run(tasks, out, here(), retry_failed=True).done) == 2, "no --overwrite is needed"


def test_an_output_that_somebody_makes_or_edits_after_a_kill_is_not_replaced(tmp_path: Path, tasks) -> None:
    def killed(publishes: bool) -> batch.Execute:
        def execute(tasks) -> Iterator[Event]:
            for task in tasks:
                yield Event("started", task, 0)
                if publishes:
                    batch.fuse_one(task, CHOICES)
            raise KeyboardInterrupt

        return execute

    def mine(task: planning.Task) -> None:
        task.output.parent.mkdir(parents=True, exist_ok=True)
        task.output.write_bytes(b"mine")
        refused = batch.run([task], out, here()).failed
        assert [r.scene for r in refused] == [task.scene] and task.output.read_bytes() == b"mine"
        task.output.unlink()

    def rerun(task: planning.Task, publishes: bool) -> planning.Task:
        with pytest.raises(KeyboardInterrupt):
            batch.run([task], out, killed(publishes))
        return task

    out, task = tmp_path / "out", tasks[0]
    mine(rerun(task, publishes=False))
    assert batch.run([rerun(task, publishes=True)], out, here()).done, "its report tells that it is the batch's own"
    again = replace(task, options="other")
    before = task.output.read_bytes()
    assert batch.run([rerun(again, publishes=False)], out, here()).done and task.output.read_bytes() == before
    third = rerun(replace(task, options="third"), publishes=False)
    then = task.output.stat().st_mtime + 60
    os.utime(task.output, (then, then))
    assert batch.run([third], out, here()).failed, "edited, of the same size"
    mine(third)


@pytest.mark.slow
def test_a_batch_that_is_killed_while_it_publishes_knows_its_own_files(tmp_path: Path, tasks, monkeypatch) -> None:
    choices = replace(CHOICES, html=True, rgb=Request(["true"]))
    task = planning.plan([tasks[0].found], tmp_path / "out", choices)[0]
    published, writing = {}, publish.writing

    @contextmanager
    def then_killed(path: Path) -> Iterator[None]:
        with writing(path):
            yield
        record = Record(batch_log.SCHEMA, task.scene, "started")
        published[sum(each.exists() for each in task.outputs)] = planning.foreign_file(task, record)

    monkeypatch.setattr(publish, "writing", then_killed)
    assert "error" not in batch.fuse_one(task, choices)
    assert published == dict.fromkeys(range(len(task.outputs) + 1))


@pytest.mark.parametrize("name", ["x.tif", "x.tif.ovr"])
def test_the_input_of_another_scene_is_never_replaced(made: Path, tmp_path: Path, run, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(made / "ms.tif", out / name)
    before = (out / name).read_bytes()
    rows = [f"{made}/pan.tif,{made}/ms.tif,x", f"{made}/pan.tif,{out}/{name},y"]
    (tmp_path / "list.csv").write_text("\n".join(["pan,ms,name", *rows]))
    finished = run("batch", tmp_path / "list.csv", "-o", out, "--overwrite", "--dry-run", "--json")
    states = {s["output"]: s["state"] for s in json.loads(finished.out)["scenes"]}
    assert "one of the inputs" in states["x.tif"] and states["y.tif"] == "new" and (out / name).read_bytes() == before


def test_a_lost_line_of_the_log_stops_no_scene(tmp_path: Path, tasks) -> None:
    out = tmp_path / "out"
    assert len(batch.run(tasks, out, here()).done) == 2
    lines = (out / "batch.jsonl").read_bytes().splitlines(keepends=True)
    (out / "batch.jsonl").write_bytes(lines[1])
    assert len(batch.run(tasks, out, here()).done) == 1
    (out / "batch.jsonl").unlink()
    tasks[0].output.write_bytes(b"mine")
    tally = batch.run(tasks, out, here())
    assert [r.scene for r in tally.failed] == [tasks[0].scene] and len(tally.done) == 1
    assert tasks[0].output.read_bytes() == b"mine", "what the report does not tell of is somebody else's"


def test_outputs_that_were_removed_are_made_anew_after_a_failure(tmp_path: Path, tasks) -> None:
    out = tmp_path / "out"
    assert len(batch.run(tasks, out, here()).done) == 2
    tasks[0].output.unlink()

    def fails(now) -> Iterator[Event]:
        for task in now:
            yield Event("started", task, 0)
            yield Event("failed", task, 0, "the disk is full")

    assert len(batch.run(tasks, out, fails).failed) == 1
    assert len(batch.run(tasks, out, here(), retry_failed=True).done) == 1 and tasks[0].output.exists()


def test_an_output_that_was_edited_is_not_replaced(tmp_path: Path, tasks) -> None:
    out = tmp_path / "out"
    assert len(batch.run(tasks, out, here()).done) == 2
    with rasterio.open(tasks[0].output, "r+") as dataset:
        dataset.update_tags(NOTE="of the user's own " * 100)
    edited = tasks[0].output.read_bytes()
    for _ in range(3):
        tally = batch.run(tasks, out, here())
        assert (len(tally.failed), tally.before, tally.refused) == (1, 1, 1)
    assert tasks[0].output.read_bytes() == edited
    assert len(batch.run(tasks, out, here(), overwrite=True).done) == 1
    assert tasks[0].output.read_bytes() != edited


def test_an_output_that_was_edited_and_kept_its_size_is_not_replaced(tmp_path: Path, tasks) -> None:
    out, known = tmp_path / "out", tasks[0].output
    assert len(batch.run(tasks, out, here()).done) == 2
    made, again = known.stat().st_mtime, [replace(tasks[0], options="other")]
    os.utime(known, (made + 60, made + 60))
    assert batch.run(tasks, out, here()).before == 2, "nothing is to be done"
    for when in (made + 60, made + 60, made - 60):  # edited, edited, and another file with its own time
        os.utime(known, (when, when))
        assert batch.run(again, out, here()).refused == 1
    os.utime(known, (made + 1, made + 1))
    assert len(batch.run(again, out, here()).done) == 1, "disks keep times to 2 s"


def test_outputs_that_are_removed_meanwhile_are_failures(tmp_path: Path, tasks) -> None:
    out = tmp_path / "out"
    assert len(batch.run(tasks[:1], out, here()).done) == 1

    def remove(task: planning.Task) -> None:
        for each in tasks:
            each.output.unlink(missing_ok=True)

    tally = batch.run(tasks, out, here(remove))
    assert (len(tally.done), tally.before, len(tally.failed)) == (0, 0, 2)
    assert {r["status"] for r in log_of(out).values()} == {"failed"}
    assert len(batch.run(tasks, out, here(), retry_failed=True).done) == 2


def test_an_output_folder_that_is_replaced_meanwhile_ends_the_batch(tmp_path: Path, tasks) -> None:
    out = tmp_path / "out"

    def swap(task: planning.Task) -> None:
        if task.scene == tasks[-1].scene:
            out.rename(tmp_path / "moved")
            out.mkdir()

    with pytest.raises(PansharpenError, match="was moved, removed or replaced"):
        batch.run(tasks, out, here(swap))


# Other systems ------------------------------------------------------------------------------------------------------

ELSEWHERE = """
import os, signal, sys

sys.modules["fcntl"] = None
for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "sched_getaffinity"):
    delattr(os, name)
opened, fsync = os.open, os.fsync
os.open = lambda path, *given, **kinds: denied(path) if os.path.isdir(path) else opened(path, *given, **kinds)

def denied(path):
    raise PermissionError(13, "Permission denied", path)

def synced(handle):
    os.write(handle, b"")  # fails on a handle that is open for reading only, as Windows does
    fsync(handle)

os.fsync = synced
del signal.SIGKILL, signal.SIGHUP
from pansharpen_cli.archive import batch_log, workers
from pansharpen_cli.cli import app

assert workers.reason_of_end(-9).startswith("its process was killed by the system")
with batch_log.locked(__import__("pathlib").Path("out")):
    pass
app.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="hides what other systems lack")
def test_a_system_without_locks_flags_and_signals_of_posix_fuses(pair: Path) -> None:
    options = ["fuse", "pan.tif", "ms.tif", "-o", "o.tif", "--method", "exp", "--no-score", "--report", "r.json", "-q"]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *options], cwd=pair, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (pair / "o.tif").is_file() and (pair / "r.json").is_file()
    assert not list(pair.glob(f"{PARTIAL}*"))
