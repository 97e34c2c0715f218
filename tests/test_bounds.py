"""Nothing foreign is opened without a bound, and what is wrong with it is one line that names the file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from PIL import Image
from rasters import write_pair

from pansharpen_cli import models, untrusted
from pansharpen_cli.archive import batch_log, lists, names, pairs
from pansharpen_cli.errors import InputError, WeightsError
from pansharpen_cli.models import weights
from pansharpen_cli.raster import items as raster_items
from pansharpen_cli.raster import scene
from pansharpen_cli.raster import source as raster_source
from pansharpen_cli.report import index, text
from pansharpen_cli.report.facts import Record, plain
from pansharpen_cli.training import settings, train
from pansharpen_cli.training.settings import TrainingSettings

ROOT = Path(__file__).parent.parent
SOON = 30.0
"""Processor seconds for what takes a few of them, and minutes or for ever without a bound."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A small pair."""
    folder = tmp_path_factory.mktemp("pair")
    write_pair(folder, 96, 96, 4)
    return folder


@pytest.fixture
def pair(made: Path, tmp_path: Path, monkeypatch) -> Path:
    """A folder of its own with the pair, where the test runs."""
    for name in ("pan.tif", "ms.tif"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fuse(*options: str) -> tuple[str, ...]:
    return ("fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--method", "exp", "--no-score", *options)


# Readers ------------------------------------------------------------------------------------------------------------


def test_only_regular_files_of_a_limited_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert untrusted.read_bytes(tmp_path / "a", 5) == b"12345"
    os.mkfifo(tmp_path / "pipe")
    for path, most, words in (
        (tmp_path / "a", 4, "a has 5 bytes, and at most 4 are read"),
        (tmp_path / "pipe", 5, "pipe is a pipe"),
        (Path("/dev/zero"), 5, "/dev/zero is a device"),
        (tmp_path, 5, "."),
        (tmp_path / "none", 5, "none cannot be read: No such file"),
    ):
        with pytest.raises(InputError, match=words):
            untrusted.read_bytes(path, most)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RecursionError("maximum"), "f is broken: it is nested too deeply"),
        (TypeError("'int' object is not iterable"), "f is broken: what it holds is of another form"),
        (ValueError("could not convert string to float: 'a'"), "f is broken: what it holds is of another form"),
        (ValueError("not enough values to unpack"), "f is broken: what it holds is of another form"),
        (json.JSONDecodeError("Expecting value", "{", 1), "f is broken: it is no JSON, from line 1, column 2 on"),
        (KeyError("file"), "f is broken: it has no 'file'"),
        (ValueError("oops"), "f is broken: oops"),
        (MemoryError(), "f is broken: it needs too much memory"),
        (OSError(40, "Too many levels"), "f is broken: Too many levels"),
        (
            type("STACTypeError", (Exception,), {})("JSON (id = unknown) does not represent a ItemCollection instance"),
            "f is broken: it is no STAC, or a part of it is none: catalogs, collections and items have a type and a "
            "stac_version",
        ),
        (InputError("as it is"), "as it is"),
    ],
)
def test_any_exception_of_a_reader_becomes_a_line_that_names_the_file(error: Exception, words: str) -> None:
    with pytest.raises(InputError) as caught, untrusted.boundary("f", "is broken"):
        raise error
    assert str(caught.value) == words


@pytest.mark.parametrize("name", ["f.csv", "f.toml"])
def test_a_text_in_another_encoding_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("\ufeff# a\n# ü\n".encode() + b"# \xe9\n# b\n")
    with pytest.raises(InputError, match=f"{name}.* not text in UTF-8, from line 3 on: save it as UTF-8$"):
        if name == "f.csv":
            untrusted.read_text(tmp_path / name)
        untrusted.read_toml(tmp_path / name, "is broken")


DEEP = "[" * 100_000
LISTS: dict[str, tuple[str, str]] = {
    "JSON lines that are nested": ("list.jsonl", DEEP),
    "JSON lines with NaN": ("list.jsonl", '{"pan": "a", "ms": "b", "cloud": NaN}'),
    "STAC that is nested": ("item.json", '{"type": ' + DEEP),
    "STAC with Infinity": ("item.json", '{"type": "Feature", "x": -Infinity}'),
    "STAC that is a list": ("item.json", "[1]"),
    "a CSV that is no text": ("list.csv", "pan,ms\n\udcff,b\n"),
    "a CSV with NUL and quotes": ("list.csv", 'pan,ms\n"a' + "x" * 200_000 + '",b\n'),
}


@pytest.mark.parametrize(("name", "text"), LISTS.values(), ids=LISTS.keys())
def test_a_malformed_list_is_one_line_that_names_it(tmp_path: Path, run, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    result = run("batch", tmp_path / name, "-o", tmp_path / "out", "--dry-run")
    assert (result.code, len(result.errors)) == (2, 1), result.err
    assert name in result.errors[0] and "unexpected" not in result.errors[0]


def test_json_lines_end_at_newlines_only(tmp_path: Path) -> None:
    lines = [{"pan": f"p{i}.tif", "ms": "m.tif", "name": f"a\u2028b{i}\x85"} for i in range(2)]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "list.jsonl").write_text(text, "utf-8")
    assert [f.name for f in lists.from_manifest(tmp_path / "list.jsonl")] == [str(line["name"]) for line in lines]


TOMLS = {"nested": "a = " + DEEP, "no text": b"\xff", "large": "#" * ((1 << 20) + 1), "a value": "samples = 3"}


@pytest.mark.parametrize("content", TOMLS.values(), ids=TOMLS.keys())
def test_a_malformed_recipe_or_manifest_is_one_line_that_names_it(tmp_path: Path, content) -> None:
    path = tmp_path / "manifest.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match="manifest.toml"):
        settings.read(path)
    with pytest.raises(WeightsError, match="manifest.toml"):
        weights.manifest(tmp_path)


RECORDS = [
    '{"schema": "pansharpen-batch/1", "scene": ["a"], "status": "done"}',
    '{"schema": "pansharpen-batch/1", "scene": "a", "status": {}}',
    '{"schema": "pansharpen-batch/1", "scene": "a"}', DEEP, "{", "",
    '{"schema": "pansharpen-batch/1", "scene": "a", "status": "done", "figures": 3}',
    '{"schema": "pansharpen-batch/1", "scene": "a", "status": "done", "seconds": "long"}',
    '{"schema": "pansharpen-batch/1", "scene": "a", "status": "done", "rows": 1e400}',
    '{"schema": "pansharpen-batch/1", "scene": "a", "status": "done", "seconds": NaN}',
    '{"schema": "pansharpen-batch/1", "scene": "a", "status": "done", "inputs": {}}',
    '{"schema": "pansharpen-batch/1", "scene": "a", "status": "done", "error": 3}',
]  # fmt: skip


@contextmanager
def few_calls(most: int) -> Iterator[None]:
    """Fails when functions are called more often: work that grows with a file shows on a busy machine, too."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")
        assert count <= most, f"more than {most} calls"

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert count <= most


@pytest.mark.parametrize("text", ["\n", " ", "x\n", "[\n", '{"a": 1}\n', "x"], ids=repr)
@pytest.mark.parametrize("begin", ["", "ours"])
def test_a_file_of_many_lines_that_is_no_log_is_refused_at_once(tmp_path: Path, text: str, begin: str) -> None:
    ours = json.dumps({"schema": batch_log.SCHEMA, "scene": "a", "status": "done"}) + "\n" if begin else ""
    (tmp_path / "batch.jsonl").write_text(ours + text * (6_000_000 // len(text)))
    with few_calls(50_000):
        if ours and text in ("\n", " ", "x"):
            assert list(batch_log.read_log(tmp_path)) == ["a"]
        else:
            with pytest.raises(InputError, match="is not the log of a batch"):
                batch_log.read_log(tmp_path)


@pytest.mark.parametrize(("version", "encoding"), [(99, "utf-8"), (1, "utf-16")])
def test_a_log_of_another_version_or_encoding_is_refused_and_stays(tmp_path: Path, version: int, encoding: str) -> None:
    text = f'{{"schema": "pansharpen-batch/{version}", "scene": "a", "status": "done"}}\n'
    (tmp_path / "batch.jsonl").write_text(text, encoding)
    with pytest.raises(InputError, match=r"batch.jsonl is not the log of a batch of this version"):
        batch_log.Log(tmp_path)
    assert (tmp_path / "batch.jsonl").read_text(encoding) == text


def test_json_lines_are_numbered_as_they_lie() -> None:
    assert list(untrusted.json_lines("\n a\n\n \nb")) == [(2, "a"), (5, "b")]


def test_lines_of_a_log_that_are_no_records_do_not_count(tmp_path: Path, run) -> None:
    good = {
        "schema": batch_log.SCHEMA,
        "scene": "b\u2028.tif",
        "status": "failed",
        "error": "why",
        "figures": {"hqnr": "high"},
        "rows": 3,
        "of_a_newer_version": [1],
    }
    (tmp_path / "batch.jsonl").write_text("\n".join([*RECORDS, json.dumps(good, ensure_ascii=False)]), "utf-8")
    assert plain(batch_log.read_log(tmp_path)) == {good["scene"]: good}
    result = run("batch", "report", tmp_path)
    assert (result.code, result.err) == (0, "")


# What is opened -----------------------------------------------------------------------------------------------------


def beside(name: str) -> Callable[[Path], object]:
    return lambda folder: os.mkfifo(folder / name)


def pipe_for_pan(folder: Path) -> None:
    (folder / "pan.tif").unlink()
    os.mkfifo(folder / "pan.tif")


PIPES = {
    "the PAN": (pipe_for_pan, "pan.tif: it is a pipe"),
    "a side file": (beside("pan.tif.aux.xml"), "pan.tif.aux.xml beside it is a pipe"),
    "overviews": (beside("ms.tif.ovr"), "ms.tif.ovr beside it is a pipe"),
    "a device": (lambda f: ((f / "ms.tif").unlink(), (f / "ms.tif").symlink_to("/dev/zero")), "ms.tif: it is a device"),
}


@pytest.mark.parametrize(("make", "words"), PIPES.values(), ids=PIPES.keys())
def test_pipes_and_devices_are_not_waited_for(pair: Path, run, make: Callable[[Path], object], words: str) -> None:
    make(pair)
    result = run(*fuse())
    assert (result.code, len(result.errors)) == (2, 1) and words in result.errors[0]
    planned = run("batch", pair, "-o", pair / "out", "--dry-run")
    assert planned.code in (0, 2) and "unexpected" not in planned.err


@pytest.mark.parametrize("name", ["pipe", "pipe.safetensors"])
def test_weights_that_are_a_pipe_are_called_so(pair: Path, run, name: str) -> None:
    os.mkfifo(pair / name)
    result = run(*fuse(), "--method", "glpnet", "--weights", pair / name)
    assert result.code == 2 and result.errors == [f"error: {pair / name} is a pipe: only regular files are read"]


SLOW = {
    "ms.IMD": "\n" * 1_900_000,
    "ms_MTL.txt": " " * 1_900_000,
    "DIM_a.XML": "<" * 1_900_000,
    "ms.imd": "a" * 1_900_000,
    "ms.tif.aux.xml": "<PAMDataset>" + "\n" * 1_900_000 + "</PAMDataset>",
}


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.slow
def test_side_files_that_are_made_to_be_slow_are_not(pair: Path, run, name: str) -> None:
    (pair / name).write_text(SLOW[name])
    began = time.process_time()
    assert run(*fuse()).code == 0
    assert time.process_time() - began < SOON


def test_side_files_are_read_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.IMD").write_text(
        'BEGIN_GROUP = IMAGE_1\n\tsatId = "WV02";\n  empty =\nx.y = 3;\n<MISSION>SPOT</MISSION>\n<A>\n<B>1</B></A>\n'
    )
    assert raster_source.side_tags(str(tmp_path / "a.IMD")) == {
        "BEGIN_GROUP": "IMAGE_1", "satId": "WV02", "MISSION": "SPOT", "B": "1",
    }  # fmt: skip


def test_a_large_side_file_is_refused_and_named(pair: Path, run, monkeypatch) -> None:
    monkeypatch.setattr(raster_source, "MOST_BESIDE", 1000)
    (pair / "ms.tif.aux.xml").write_text("<PAMDataset>" + " " * 1000 + "</PAMDataset>")
    result = run(*fuse())
    assert result.code == 2 and "ms.tif.aux.xml beside it has 1,025 bytes" in result.errors[0]


def test_metadata_of_many_items_is_refused_and_named(pair: Path, run) -> None:
    items = "".join(f'< mDI key="k{i}">v</mDI>' for i in range(raster_items.MOST_ITEMS + 1))
    (pair / "ms.tif.aux.xml").write_text(f"<PAMDataset><Metadata>{items}</Metadata></PAMDataset>")
    result = run(*fuse())
    assert result.code == 2 and "ms.tif.aux.xml has 10,001 items of metadata" in result.errors[0]


@pytest.mark.parametrize("kind", ["GTiff", "BigTIFF", "big-endian", "overview", "mask", "source", "VRT"])
def test_metadata_of_many_items_within_a_raster_are_refused(pair: Path, monkeypatch, kind: str) -> None:
    """Before GDAL opens it: that is what takes the time."""
    monkeypatch.setattr(raster_items, "MOST_ITEMS", 50)
    many, name = {f"k{i}": "v" for i in range(60)}, pair / "ms.tif"
    options = {"BigTIFF": {"bigtiff": "yes"}, "big-endian": {"endianness": "big"}}.get(kind, {})
    if kind == "VRT":
        name = pair / "ms.vrt"
        rasterio.shutil.copy(pair / "ms.tif", name, driver="VRT")
        items = "".join(f'<mdi key="{key}">v</mdi>' for key in many)
        name.write_text(name.read_text().replace("</VRTDataset>", f"<Metadata>{items}</Metadata></VRTDataset>"))
    else:
        target = {"mask": pair / "ms.tif.msk", "overview": pair / "ms.tif.ovr"}.get(kind, name)
        with rasterio.open(pair / "ms.tif") as source:
            profile, pixels = source.profile | options, source.read()
        with rasterio.open(target, "w", **profile) as made:
            made.write(pixels)
            made.update_tags(**many)
        if kind == "source":
            name = pair / "of.vrt"
            rasterio.shutil.copy(pair / "ms.tif", name, driver="VRT", strict=False)
            name.write_text(re.sub("<Metadata>.*?</Metadata>", "", name.read_text(), flags=re.DOTALL))
    monkeypatch.setattr(raster_source, "opened_dataset", None)
    with pytest.raises(InputError, match=r"ms\.\S+ has \d+ items of metadata, more than 50"):
        raster_source.open_raster(str(name))


def test_items_of_all_directories_of_a_tiff_count_and_a_circle_of_them_ends(tmp_path: Path) -> None:
    path, text = tmp_path / "a.tif", "<GDALMetadata>" + '<Item name="a">v</Item>' * 6_000 + "</GDALMetadata>"
    page = Image.new("L", (8, 8))
    page.save(path, save_all=True, append_images=[page], tiffinfo={42112: text})
    with pytest.raises(InputError, match="a.tif has 12,000 items of metadata, more than 10,000"):
        raster_items.check_items("a.tif", str(path))
    page.save(path, tiffinfo={42112: text})
    content = bytearray(path.read_bytes())
    begin = int.from_bytes(content[4:8], "little")
    after = begin + 2 + 12 * int.from_bytes(content[begin : begin + 2], "little")
    content[after : after + 4] = content[4:8]
    path.write_bytes(content)
    raster_items.check_items("a.tif", str(path))


def test_items_that_another_format_holds_are_bounded(pair: Path, monkeypatch) -> None:
    monkeypatch.setattr(raster_items, "MOST_ITEMS", 20)
    with rasterio.open("ms.tif", "r+") as target:
        target.update_tags(**{f"k{i}": "v" for i in range(21)})
    rasterio.shutil.copy("ms.tif", "ms.img", driver="HFA")
    Path("ms.img.aux.xml").unlink()
    with pytest.raises(InputError, match="ms.img has 2[0-9] items of metadata, more than 20"):
        raster_source.open_raster("ms.img")


@pytest.mark.parametrize(("kind", "beside"), [("zip", False), ("zip", True), ("tar", False), ("gzip", False)])
def test_items_of_a_raster_in_an_archive_are_counted_before_it_is_opened(
    pair: Path, monkeypatch, kind: str, beside: bool
) -> None:
    monkeypatch.setattr(raster_items, "MOST_ITEMS", 20)
    with rasterio.open("ms.tif", "r+") as target:
        target.update_tags(**{} if beside else {f"k{i}": "v" for i in range(21)})
    if kind == "zip":
        with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write("ms.tif")
            archive.writestr("ms.tif.aux.xml", f"<PAMDataset>{'<MDI/>' * 21 * beside}</PAMDataset>")
    elif kind == "tar":
        with tarfile.open("a.tar", "w") as archive:
            archive.add("ms.tif")
    else:
        Path("ms.tif.gz").write_bytes(gzip.compress(Path("ms.tif").read_bytes()))
    path = {"zip": "/vsizip/a.zip/ms.tif", "tar": "/vsitar/a.tar/ms.tif", "gzip": "/vsigzip/ms.tif.gz"}[kind]
    monkeypatch.setattr(raster_source, "opened_dataset", None)
    with pytest.raises(InputError, match=r"ms\.tif.* has 2\d items of metadata, more than 20"):
        raster_source.open_raster(path)


def test_a_block_that_unpacks_to_gigabytes_is_refused(pair: Path, monkeypatch) -> None:
    with rasterio.open(pair / "ms.tif") as source:
        profile, pixels = source.profile, source.read()
    profile |= {"tiled": False, "blockysize": pixels.shape[1], "compress": "deflate", "interleave": "pixel"}
    profile.pop("blockxsize", None)
    with rasterio.open(pair / "ms.tif", "w", **profile) as target:
        target.write(pixels)
    monkeypatch.setattr(raster_source, "MOST_BLOCK", pixels.nbytes)
    raster_source.open_raster("ms.tif").close()
    monkeypatch.setattr(raster_source, "MOST_BLOCK", pixels.nbytes - 1)
    with pytest.raises(InputError, match="ms.tif has blocks of .* TILED=YES"):
        raster_source.open_raster("ms.tif")


def test_more_bands_than_memory_is_planned_for_are_refused(pair: Path, run) -> None:
    with rasterio.open(pair / "ms.tif") as source:
        profile, pixels = source.profile, source.read(1)
    with rasterio.open(pair / "ms.tif", "w", **profile | {"count": scene.MOST_BANDS + 1, "dtype": "uint8"}) as target:
        target.write(np.broadcast_to((pixels // 16).astype("uint8"), (target.count, *pixels.shape)))
    result = run(*fuse("--bidx", ",".join(["1"] * 514)))
    assert result.code == 2 and "--bidx names 514 bands" in result.errors[0]
    result = run(*fuse())
    assert (
        result.code == 2
        and "has 513 bands, at most 512 are fused: choose with --bidx and --fit-bands bidx" in result.errors[0]
    )
    assert run(*fuse("--bidx", "1,2,513", "--fit-bands", "bidx")).code == 0


# Servers ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def whole_files() -> Callable[[], str]:
    """Starts a server that answers every request with bytes that do not end, and says where."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.recv(65536)
                try:
                    peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    for _ in range(100):
                        peer.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
                except OSError:
                    pass

    threading.Thread(target=answer, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/pan.tif"
    server.close()


def test_a_server_that_sends_without_end_is_refused(pair: Path, run, whole_files: str) -> None:
    for path in (whole_files, f"/vsicurl/{whole_files}"):
        result = run("fuse", path, "ms.tif", "-o", "out.tif")
        assert result.code == 2 and "gives whole files only" in result.errors[0]


@pytest.mark.slow
def test_a_server_that_says_nothing_is_waited_for_within_bounds(pair: Path, listener: int) -> None:
    path = f"/vsicurl?url=http%3A%2F%2F127.0.0.1%3A{listener}%2Fpan.tif"
    result = subprocess.run(command(path), env=environment(3), capture_output=True, text=True, timeout=240)
    assert result.returncode == 2 and result.stderr.startswith(f"error: cannot open {path}: ")
    known = subprocess.run([sys.executable, "-c", "import os, pansharpen_cli; print(*os.environ)"], **TOLD)
    assert {"GDAL_HTTP_TIMEOUT", "GDAL_HTTP_CONNECTTIMEOUT", "GDAL_HTTP_LOW_SPEED_TIME"} <= set(known.stdout.split())


TOLD = {"capture_output": True, "text": True, "cwd": ROOT}


def command(pan: str) -> list[str]:
    return [sys.executable, "-m", "pansharpen_cli", "fuse", pan, "ms.tif", "-o", "out.tif"]


def environment(seconds: int) -> dict[str, str]:
    """Of a run that waits for a silent server as long as that."""
    return os.environ | {"PYTHONPATH": str(ROOT), "GDAL_HTTP_LOW_SPEED_TIME": str(seconds), "OMP_NUM_THREADS": "1"}


def started(pair: Path, listener: int, seconds: int) -> subprocess.Popen:
    """A run that waits within GDAL for a silent server."""
    path = f"/vsicurl?url=http%3A%2F%2F127.0.0.1%3A{listener}%2Fpan.tif"
    process = subprocess.Popen(
        command(path), env=environment(seconds), stderr=subprocess.PIPE, text=True, cwd=pair,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    tables = [Path(f"/proc/{process.pid}/net/tcp")]
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        ends = [line.split()[1:4] for line in tables[0].read_text().splitlines()[1:]]
        if any(there == f"0100007F:{listener:04X}" and state == "01" for _, there, state in ends):
            return process
        time.sleep(0.05)
    raise AssertionError("it does not get that far")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sees connections in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_gdal_waits_ends_the_run_when_it_is_back(pair: Path, listener: int, number: int) -> None:
    process = started(pair, listener, 3)
    process.send_signal(number)
    assert process.communicate(timeout=240)[1] == "error: interrupted\n"
    assert process.returncode == 130


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sees connections in /proc")
def test_a_second_signal_ends_a_run_while_gdal_waits(pair: Path, listener: int) -> None:
    process = started(pair, listener, 300)
    process.send_signal(signal.SIGINT)
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "error: interrupted\n"
    assert process.returncode == 130


# Patterns, catalogues, weights, settings -----------------------------------------------------------------------------


def test_a_pattern_that_backtracks_is_given_up(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / ("a" * 60 + ".tif")).touch()
    monkeypatch.setattr(names, "REGEX_SECONDS", 0.2)
    with pytest.raises(InputError, match="--pair-regex is not done with 1 names after 0.2 s"):
        pairs.find([str(tmp_path)], "(?P<scene>(a+)+)_((?P<pan>p)|(?P<ms>m))")


def catalogue(folder: Path, name: str, links: list[tuple[str, str]]) -> None:
    content = {
        "type": "Catalog", "stac_version": "1.0.0", "id": name, "description": name,
        "links": [{"rel": rel, "href": f"./{target}.json"} for rel, target in links],
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(content))


def test_catalogues_that_share_their_parts_are_read_once(tmp_path: Path) -> None:
    pytest.importorskip("pystac", reason="needs the extra stac")
    depth = 25  # 2 to the power of that if each way is gone
    for level in range(depth):
        for side in "ab":
            below = [("child", f"{other}{level + 1}") for other in "ab"] if level < depth - 1 else [("item", "i")]
            catalogue(tmp_path, f"{side}{level}", [*below, ("child", "a0")])
    asset = {"href": "./x.tif", "type": "image/tiff"}
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "i", "geometry": None, "links": [],
        "properties": {"datetime": "2020-01-01T00:00:00Z"}, "assets": {"pan": asset, "ms": asset},
    }  # fmt: skip
    (tmp_path / "i.json").write_text(json.dumps(item))
    with few_calls(500_000):
        assert [f.name for f in lists.from_stac(tmp_path / "a0.json")[0]] == ["i"]


def test_a_catalogue_without_end_is_given_up(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("pystac", reason="needs the extra stac")
    monkeypatch.setattr(lists, "MOST_STAC", 5)
    for i in range(7):
        catalogue(tmp_path, f"c{i}", [("child", f"c{i + 1}")])
    with pytest.raises(InputError, match="leads to more than 5 STAC files"):
        lists.from_stac(tmp_path / "c0.json")


def test_weights_that_are_only_long_are_refused(pair: Path, run) -> None:
    header = json.dumps({"__metadata__": {"network": "glpnet"}}).encode()
    with (pair / "w.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(20 << 30)  # takes no space
    result = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--weights", "w.safetensors")
    assert result.code == 2 and "w.safetensors" in result.errors[0]
    with pytest.raises(WeightsError, match="at most 1,073,741,824 are read"):
        weights.sha256_of(pair / "w.safetensors")


def bomb(path: Path) -> None:
    """A checkpoint whose records are packed: `torch.load` would unpack them."""
    plain = io.BytesIO()
    torch.save({"conv.weight": torch.zeros(1 << 22)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))


@pytest.mark.slow
def test_a_checkpoint_that_unpacks_to_more_than_it_holds_is_refused(tmp_path: Path, run) -> None:
    bomb(tmp_path / "c.pth")
    assert (tmp_path / "c.pth").stat().st_size < 100_000
    options = ("--network", "fusionnet", "--bands", 4, "--scale", 2047, "-o", tmp_path / "w.safetensors")
    result = run("weights", "import", tmp_path / "c.pth", *options)
    assert result.code == 2 and "c.pth unpacks to 16," in result.errors[0]
    with pytest.raises(InputError, match="c.pth unpacks to 16,"):
        train.State.start(models.create("glpnet", {"features": 4, "blocks": 1}), TrainingSettings()).resume(
            tmp_path / "c.pth", "{}"
        )


@pytest.mark.parametrize(
    "text",
    [
        "samples.validation = 1000000000000", "samples.landscapes = 1000000", "bands = 100000", "options.features = -1",
        "options.features = 1000000000", "budget.checks = 1000000000000",
    ],
)  # fmt: skip
def test_numbers_of_a_recipe_have_limits(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError, match=f"r.toml: '{text.split()[0]}' takes a whole number"):
        settings.read(tmp_path / "r.toml")


def test_a_network_too_large_to_train_is_refused_before_memory_is_taken_for_it(monkeypatch) -> None:
    made = models.create("glpnet", {"features": 8, "blocks": 1})
    count = sum(p.numel() for p in made.parameters())
    monkeypatch.setattr(train, "MOST_PARAMETERS", count)
    train.check_settings(TrainingSettings(options={"features": 8, "blocks": 1}))
    monkeypatch.setattr(train, "MOST_PARAMETERS", count - 1)
    with pytest.raises(InputError, match=f"of {count:,} parameters, at most {count - 1:,} are trained"):
        train.check_settings(TrainingSettings(options={"features": 8, "blocks": 1}))


# What is printed ----------------------------------------------------------------------------------------------------

NASTY = "\x1b]0;title\x07\x9b31m\u202egnp\u2028"


def test_names_do_not_command_the_terminal(pair: Path, run) -> None:
    (pair / "pan.tif").rename(pair / f"{NASTY}.tif")
    for arguments in (("fuse", f"{NASTY}.tiff", "ms.tif", "-o", "out.tif"), ("check", f"{NASTY}.tif", "ms.tif")):
        result = run(*arguments)
        assert not set("\x1b\x07\x9b\u202e\u2028") & set(result.out + result.err)
        assert r"\x1b]0;title\x07\x9b31m\u202egnp" in result.out + result.err
    assert untrusted.printable("Pléiades – 大\tb\n") == "Pléiades – 大\tb\n"
    assert untrusted.printable("\udcff") == r"\udcff"


def test_cells_of_a_csv_are_no_formulas() -> None:
    results = [{"rank": 1, "name": "=HYPERLINK(1)", "path": "@a.tif", "quality": {"d": -0.5}}]
    row = next(csv.DictReader(io.StringIO(text.ranking_csv({"results": results}))))
    assert row == {"rank": "1", "name": "'=HYPERLINK(1)", "path": "'@a.tif", "d": "-0.5"}


@pytest.mark.parametrize("options", [("--ram", "inf"), ("--timeout", "nan"), ("--adapt-seconds", "nan")])
def test_options_that_are_no_numbers_are_refused(tmp_path: Path, run, options: tuple[str, str]) -> None:
    result = run("batch", tmp_path, "-o", tmp_path / "out", *options)
    assert result.code == 2 and len(result.errors) == 1 and options[0] in result.errors[0]


def test_a_huge_quicklook_is_left_out_of_the_page(tmp_path: Path, monkeypatch) -> None:
    def shown(name: str) -> bool:
        page = index.write(tmp_path, [Record("", "a.tif", "done", quicklook=name)])
        return "data:image/jpeg" in page.read_text("utf-8")

    Image.new("L", (300, 300)).save(tmp_path / "q.png")
    assert shown("q.png")
    monkeypatch.setattr(index, "MOST_PIXELS", 300 * 300 - 1)
    assert not shown("q.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # where Pillow itself raises
    assert not shown("q.png")
    os.mkfifo(tmp_path / "p.png")
    assert not shown("p.png")
