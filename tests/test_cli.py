"""The commands as a user meets them: bad input, repeatability, interruption, inputs of every kind, evaluate."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.shutil import copy as raster_copy
from rasterio.vrt import WarpedVRT
from rasters import edited, inventory, pixels_of, random_weights, seldom, write_pair
from safetensors.torch import save_file

from pansharpen_cli import models
from pansharpen_cli.archive import lists
from pansharpen_cli.cli import shell
from pansharpen_cli.errors import InputError
from pansharpen_cli.raster import creation
from pansharpen_cli.raster.creation import profile_of

ROOT = Path(__file__).parent.parent
PLAIN = ("--method", "none", "--align", "off", "--no-score")
UTM = Affine(1, 0, 431200, 0, -1, 4583600)


@pytest.fixture
def scene(tmp_path, monkeypatch) -> Path:
    """The working folder with a small scene: pan.tif and ms.tif (4 bands)."""
    write_pair(tmp_path, 192, 192, 4, offset=(1.3, 2.6), border=16.0)
    (tmp_path / "truth.tif").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Bad input ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bad:
    """Arguments that are refused, words of the error line, the exit code and what has to be prepared in the folder."""

    arguments: str
    words: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda folder: None
    code: int = 2


def fuse(arguments: str) -> str:
    """The shift of a pair that is good is not measured: what else is asked for is refused."""
    good = arguments.startswith("pan.tif ms.tif")
    return f"fuse {arguments} -o out.tif --method none" + " --align off" * good


def cut(name: str, length: Callable[[int], int]) -> Callable[[Path], object]:
    def prepare(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / "bad.tif").write_bytes(content[: length(len(content))])

    return prepare


def spoilt(name: str) -> Callable[[Path], object]:
    """A compressed block that does not decompress, as after a broken transfer."""

    def prepare(folder: Path) -> None:
        with rasterio.open(folder / name) as dataset:
            at = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
        content = bytearray((folder / name).read_bytes())
        content[at : at + 100] = b"x" * 100
        (folder / "bad.tif").write_bytes(content)

    return prepare


def bad(name: str, change=lambda pixels: pixels, **profile) -> Callable[[Path], object]:
    return lambda folder: edited(folder / name, folder / "bad.tif", change, **profile)


def bare(folder: Path) -> None:
    """A pair without georeferencing whose shapes do not fit each other."""
    edited(folder / "pan.tif", folder / "bare_pan.tif", crs=None, transform=None)
    edited(folder / "ms.tif", folder / "bare_ms.tif", lambda p: p[:, :, :40], crs=None, transform=None)


def bad_weights(spoil: Callable[[Path], object], **options) -> Callable[[Path], object]:
    return lambda folder: spoil(random_weights(folder / "w.safetensors", **options))


def with_manifest(path: Path) -> None:
    digest = sha256(b"another file").hexdigest()
    entry = f'[w]\nfile = "w.safetensors"\nnetwork = "glpnet"\nconfig = {{}}\nsha256 = "{digest}"\n'
    path.with_name("manifest.toml").write_text(entry)


def not_finite(path: Path) -> None:
    state = {k: torch.full(v.shape, torch.nan) for k, v in models.create("glpnet", {}).state_dict().items()}
    save_file(state, path, {"network": "glpnet"})


def weighted(arguments: str = "--method glpnet") -> str:
    return f"fuse pan.tif ms.tif -o out.tif --weights w.safetensors --align off --mtf sensor --adapt off {arguments}"


def other_bands(folder: Path) -> None:
    edited(folder / "ms.tif", folder / "two.tif", lambda p: p[:2])


def written(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text("precious")


def warped_and_gone(folder: Path) -> None:
    (folder / "gone.tif").write_bytes((folder / "ms.tif").read_bytes())
    with rasterio.open(folder / "gone.tif") as dataset, WarpedVRT(dataset, crs=dataset.crs) as warped:
        raster_copy(warped, folder / "x.vrt", driver="VRT")
    (folder / "gone.tif").unlink()


BAD = {
    "PAN and MS swapped": Bad(fuse("ms.tif pan.tif"), ("ms.tif", "4 bands", "swapped")),
    "single-band MS as PAN": Bad(
        fuse("bad.tif pan.tif"), ("bad.tif", "pan.tif", "swapped"), bad("ms.tif", lambda p: p[:1])
    ),
    "PAN as its own MS": Bad(fuse("pan.tif pan.tif"), ("pan.tif", "named as PAN and as MS")),
    "PAN with several bands, no finer": Bad(
        fuse("bad.tif ms.tif"), ("bad.tif", "2 bands"), bad("ms.tif", lambda p: np.concatenate([p[:2]]))
    ),
    "no overlap": Bad(
        fuse("pan.tif bad.tif"),
        ("no overlap", "pan.tif covers 431200 4583408 431392 4583600", "bad.tif covers 441200 4583408"),
        bad("ms.tif", transform=UTM @ Affine.translation(10000, 0) @ Affine.scale(4)),
    ),
    "CRS missing on the MS": Bad(fuse("pan.tif bad.tif"), ("bad.tif has no CRS",), bad("ms.tif", crs=None)),
    "CRS missing on the PAN": Bad(fuse("bad.tif ms.tif"), ("bad.tif has no CRS",), bad("pan.tif", crs=None)),
    "no georeferencing, odd shapes": Bad(fuse("bare_pan.tif bare_ms.tif"), ("bare_ms.tif", "integral ratio"), bare),
    "ratio below 1.5": Bad(
        fuse("pan.tif bad.tif"), ("bad.tif", "1.3 x 1.3", "1.5"), bad("ms.tif", transform=UTM @ Affine.scale(1.3))
    ),
    "ratio above 8": Bad(
        fuse("pan.tif bad.tif"), ("bad.tif", "17 x 17", "16"), bad("ms.tif", transform=UTM @ Affine.scale(17))
    ),
    "no such file": Bad(fuse("pan.tif nope.tif"), ("nope.tif", "no such file")),
    "a folder": Bad(fuse(". ms.tif"), ("cannot open .",)),
    "a web page": Bad(
        fuse("pan.tif x.tif"), ("x.tif: it is a web page",), lambda f: (f / "x.tif").write_text("<!DOCTYPE html><html>")
    ),
    "a pointer of Git LFS": Bad(
        fuse("pan.tif x.tif"),
        ("x.tif: it is a pointer of Git LFS", "git lfs pull"),
        lambda f: (f / "x.tif").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n"),
    ),
    "a ZIP archive": Bad(
        fuse("pan.tif x.tif"), ("a ZIP archive", "/vsizip/{x.tif}/"), lambda f: (f / "x.tif").write_bytes(b"PK\3\4")
    ),
    **{
        f"an archive, {kind}": Bad(
            fuse("pan.tif x"), ("cannot open x: it is", f"{kind} archive: unpack it"),
            lambda f, head=head: (f / "x").write_bytes(head + bytes(600)),
        )
        for kind, head in {
            "a RAR": b"Rar!\x1a\x07\x01\0", "a 7z": b"7z\xbc\xaf\x27\x1c", "a gzip": b"\x1f\x8b\x08\0",
            "a bzip2": b"BZh91AY&SY", "an xz": b"\xfd7zXZ\0", "a Zstandard": b"\x28\xb5\x2f\xfd",
            "a TAR": bytes(257) + b"ustar\x0000",
        }.items()
    },  # fmt: skip
    "a warped VRT of a file that is gone": Bad(
        fuse("pan.tif x.vrt"), ("x.vrt: ", "gone.tif, which it warps, cannot be opened"), warped_and_gone
    ),
    "metadata of a raster": Bad(
        fuse("pan.tif x.tif.aux.xml"),
        ("x.tif.aux.xml: it has what GDAL knows of another file", "name that file"),
        lambda f: (f / "x.tif.aux.xml").write_text("<PAMDataset>\n</PAMDataset>"),
    ),
    "shapes": Bad(
        fuse("pan.tif x.json"),
        ("x.json: it is GeoJSON",),
        lambda f: (f / "x.json").write_text('{ "type": "FeatureCollection", "features": [] }'),
    ),
    "a shapefile": Bad(
        fuse("pan.tif x.shp"), ("x.shp: it is a shapefile",), lambda f: (f / "x.shp").write_bytes(b"\0\0\x27\n" * 9)
    ),
    "a link to itself": Bad(
        fuse("pan.tif x.tif"), ("x.tif: it is a link to itself",), lambda f: (f / "x.tif").symlink_to("x.tif")
    ),
    "a link to nothing": Bad(
        fuse("pan.tif x.tif"), ("x.tif: it is a link to y.tif, which is missing",),
        lambda f: (f / "x.tif").symlink_to("y.tif"),
    ),  # fmt: skip
    "a fit that is none": Bad(
        fuse("pan.tif ms.tif --method gsa --fit f.json"), ("f.json is no fit", "it is no safetensors file"),
        lambda f: (f / "f.json").write_text("{}" * 9),
    ),  # fmt: skip
    "a home folder of nobody": Bad(fuse("pan.tif ms.tif --report=~no-such-user/r.json"), ("no user no-such-user",)),
    "a text file": Bad(fuse("pan.tif bad.tif"), ("cannot open bad.tif",), written("bad.tif")),
    "zero bytes": Bad(fuse("pan.tif bad.tif"), ("bad.tif", "empty"), cut("ms.tif", lambda n: 0)),
    "header only": Bad(fuse("bad.tif ms.tif"), ("cannot open bad.tif",), cut("pan.tif", lambda n: 8)),
    "truncated": Bad(fuse("pan.tif bad.tif"), ("cannot open bad.tif",), cut("ms.tif", lambda n: n // 2)),
    "broken PAN pixels": Bad(fuse("bad.tif ms.tif"), ("cannot read bad.tif",), spoilt("pan.tif"), code=1),
    "broken MS pixels": Bad(fuse("pan.tif bad.tif"), ("cannot read bad.tif",), spoilt("ms.tif"), code=1),
    "complex MS": Bad(fuse("pan.tif bad.tif"), ("bad.tif", "complex"), bad("ms.tif", lambda p: p.astype("complex64"))),
    "complex PAN": Bad(fuse("bad.tif ms.tif"), ("bad.tif", "complex"), bad("pan.tif", lambda p: p.astype("complex64"))),
    "MS all nodata": Bad(fuse("pan.tif bad.tif"), ("bad.tif", "nodata"), bad("ms.tif", lambda p: p * 0)),
    "PAN all nodata": Bad(fuse("bad.tif ms.tif"), ("bad.tif", "nodata"), bad("pan.tif", lambda p: p * 0)),
    "network, MS all nodata": Bad(
        "fuse pan.tif bad.tif -o out.tif --weights w.safetensors",
        ("bad.tif", "nodata"),
        lambda folder: (bad("ms.tif", lambda p: p * 0)(folder), random_weights(folder / "w.safetensors")),
    ),
    "tiny": Bad(fuse("pan.tif bad.tif"), ("bad.tif", "at least 8"), bad("ms.tif", lambda p: p[:, :4, :4])),
    "MS files of other types": Bad(
        fuse("pan.tif ms.tif bad.tif"), ("bad.tif is float32",), bad("ms.tif", lambda p: p.astype("float32"))
    ),
    "bidx too high": Bad(fuse("pan.tif ms.tif --bidx 1,5"), ("--bidx 5", "1 to 4")),
    "bidx zero": Bad(fuse("pan.tif ms.tif --bidx 0"), ("--bidx", "from 1 on", "'0'")),
    "bidx as a range": Bad(fuse("pan.tif ms.tif --bidx 1-3"), ("--bidx", "one by one", "'1-3'")),
    "bidx as a range in a batch": Bad("batch . --dry-run --bidx 1-3", ("--bidx", "one by one", "'1-3'")),
    "bidx words": Bad(fuse("pan.tif ms.tif --bidx swir"), ("--bidx", "'swir'", "Blue, Green, Red, NIR1")),
    "bidx of many digits": Bad(fuse(f"pan.tif ms.tif --bidx {'9' * 5000}"), ("--bidx", "is no band")),
    "bidx nothing": Bad(fuse("pan.tif ms.tif --bidx ,"), ("--bidx", "','")),
    "unknown sensor": Bad(fuse("pan.tif ms.tif --sensor sputnik"), ("sputnik", "worldview-2")),
    "sensor of other bands": Bad(fuse("pan.tif two.tif --sensor worldview-2"), ("--bidx",), other_bands),
    "unknown method": Bad("fuse pan.tif ms.tif -o out.tif --method magic", ("magic", "glpnet")),
    "unknown device": Bad(fuse("pan.tif ms.tif --device tpu"), ("tpu", "cuda")),
    "missing device": Bad(fuse("pan.tif ms.tif --device cuda:99"), ("cuda:99",)),
    "unknown precision": Bad(fuse("pan.tif ms.tif --precision float8"), ("float8", "bfloat16")),
    "unknown driver": Bad(fuse("pan.tif ms.tif --driver ENVI"), ("ENVI", "COG")),
    "unknown dtype": Bad(fuse("pan.tif ms.tif --dtype complex64"), ("--dtype", "complex64", "uint16")),
    "unknown adaptation": Bad(fuse("pan.tif ms.tif --adapt more"), ("--adapt", "more")),
    "unknown option": Bad(fuse("pan.tif ms.tif --sharpness 11"), ("--sharpness",)),
    "creation option without value": Bad(fuse("pan.tif ms.tif --co COMPRESS"), ("--co", "'COMPRESS'")),
    "unknown creation option": Bad(fuse("pan.tif ms.tif --co COMPRES=LZW"), ("--co", "COMPRES")),
    "interleaving of a COG": Bad(
        fuse("pan.tif ms.tif --driver COG --co INTERLEAVE=BAND"), ("INTERLEAVE", "GDAL", "--driver GTiff")
    ),
    "creation option of rasterio's": Bad(fuse("pan.tif ms.tif --co dtype=uint8"), ("--co", "DTYPE")),
    "bad value of a creation option": Bad(fuse("pan.tif ms.tif --co COMPRESS=RAR"), ("--co", "RAR")),
    "bad block size": Bad(fuse("pan.tif ms.tif --co BLOCKXSIZE=100"), ("--co", "multiples of 16")),
    "compression of other types": Bad(fuse("pan.tif ms.tif --co COMPRESS=JPEG"), ("--co", "JPEG")),
    "unknown creation option of COG": Bad(fuse("pan.tif ms.tif --driver COG --co TILED=YES"), ("--co", "TILED")),
    "bad creation option value of COG": Bad(fuse("pan.tif ms.tif --driver COG --co COMPRESS=RAR"), ("--co", "RAR")),
    "nodata that does not fit": Bad(fuse("pan.tif ms.tif --nodata -1"), ("--nodata -1", "uint16")),
    "nodata beyond single precision": Bad(
        fuse("pan.tif ms.tif --nodata 1e300 --dtype float32"), ("--nodata 1e+300", "float32")
    ),
    "a subdataset to append": Bad(
        fuse("pan.tif ms.tif --co APPEND_SUBDATASET=YES"), ("APPEND_SUBDATASET", "leave it out")
    ),
    "nodata nan for integers": Bad(fuse("pan.tif ms.tif --nodata nan"), ("--nodata nan", "uint16")),
    "an underscore in a number": Bad(fuse("pan.tif ms.tif --nodata 1_0"), ("--nodata takes a number", "'1_0'")),
    "an underscore in a whole number": Bad(fuse("pan.tif ms.tif --tile-size=51_2"), ("--tile-size", "'51_2'")),
    "an underscore in a factor": Bad(fuse("pan.tif ms.tif --scale 1_0"), ("--scale takes", "'1_0'")),
    "window outside": Bad(fuse("pan.tif ms.tif --window 5000,0,10,10"), ("--window", "columns 3-192")),
    "window empty": Bad(fuse("pan.tif ms.tif --window 5,5,0,10"), ("--window", "'5,5,0,10'")),
    "window not numbers": Bad(fuse("pan.tif ms.tif --window 0,0,inf,nan"), ("--window", "'0,0,inf,nan'")),
    "bbox outside": Bad(fuse("pan.tif ms.tif --bbox 0,0,1,1"), ("--bbox", "EPSG:32631")),
    "bbox not numbers": Bad(fuse("pan.tif ms.tif --bbox 0,0,inf,1"), ("--bbox", "LEFT")),
    "tile size": Bad(fuse("pan.tif ms.tif --tile-size 0"), ("--tile-size",)),
    "seed": Bad(fuse("pan.tif ms.tif --seed -1"), ("--seed",)),
    "adaptation time": Bad(fuse("pan.tif ms.tif --adapt-seconds nan"), ("--adapt-seconds",)),
    "no output named": Bad("fuse pan.tif ms.tif", ("--output",)),
    "no MS": Bad("fuse pan.tif -o out.tif", ("MS",)),
    "unknown command": Bad("melt pan.tif", ("melt",)),
    "weights missing": Bad(weighted(), ("w.safetensors",)),
    "weights for another band count": Bad(
        weighted("--method fusionnet --bidx 1,2,3 --fit-bands bidx"),
        ("w.safetensors", "4 bands", "has 3"),
        bad_weights(lambda path: None, network="fusionnet", config={"bands": 4}),
    ),
    "weights no safetensors": Bad(weighted(), ("w.safetensors",), written("w.safetensors")),
    "weights truncated": Bad(
        weighted(), ("w.safetensors",), bad_weights(lambda path: path.write_bytes(path.read_bytes()[:-100]))
    ),
    "weights with a wrong hash": Bad(weighted(), ("w.safetensors", "sha256"), bad_weights(with_manifest)),
    "weights not finite": Bad(weighted(), ("w.safetensors", "not finite"), bad_weights(not_finite)),
    "weights of other layers": Bad(
        weighted(),
        ("w.safetensors", "does not fit"),
        lambda folder: save_file({"a": torch.zeros(2)}, folder / "w.safetensors", {"network": "glpnet"}),
    ),
    "weights of an unknown network": Bad(
        weighted(),
        ("w.safetensors", "'magic'", "--method"),
        lambda folder: save_file({"a": torch.zeros(2)}, folder / "w.safetensors", {"network": "magic"}),
    ),
    "weights with a config of another kind": Bad(
        weighted(),
        ("w.safetensors", "config"),
        lambda folder: save_file({"a": torch.zeros(2)}, folder / "w.safetensors", {"config": "[3]"}),
    ),
    "weights with an impossible config": Bad(
        weighted(),
        ("w.safetensors", "features"),
        lambda folder: save_file({"a": torch.zeros(2)}, folder / "w.safetensors", {"config": '{"features": "x"}'}),
    ),
    "a folder as weights": Bad(
        weighted(), ("w.safetensors",), lambda folder: (folder / "w.safetensors").mkdir()
    ),
    "output exists": Bad(fuse("pan.tif ms.tif"), ("out.tif exists", "--overwrite"), written("out.tif")),
    "output and report exist": Bad(
        fuse("pan.tif ms.tif --report r.json"),
        ("out.tif and r.json exist", "--overwrite to replace them"),
        lambda folder: [written(name)(folder) for name in ("out.tif", "r.json")],
    ),
    "output exists and the weights are for other bands": Bad(
        "fuse pan.tif ms.tif -o out.tif --method pnn --bidx 1,2 --fit-bands bidx",
        ("4 or 8 bands", "has 2"),
        written("out.tif"),
    ),
    "report of an evaluation exists and the maps have no folder": Bad(
        "evaluate ms.tif --pan pan.tif --ms ms.tif --report r.json --map no/maps", ("no/maps",), written("r.json")
    ),
    "a choice that there is not": Bad(fuse("pan.tif ms.tif --adapt slow"), ("'--adapt': 'slow' is not one of",)),
    "a number that is none": Bad(fuse("pan.tif ms.tif --tile-size wide"), ("'--tile-size'",)),
    "output is a folder": Bad(fuse("pan.tif ms.tif"), ("out.tif is a folder",), lambda f: (f / "out.tif").mkdir()),
    "output is a pipe": Bad(
        fuse("pan.tif ms.tif --overwrite"), ("out.tif", "pipe"), lambda folder: os.mkfifo(folder / "out.tif")
    ),
    "output under a file": Bad("fuse pan.tif ms.tif -o ms.tif/out.tif --method none", ("ms.tif is no folder",)),
    "output folder not writable": Bad("fuse pan.tif ms.tif -o /proc/out.tif --method none", ("/proc/out.tif",)),
    "output name too long": Bad(f"fuse pan.tif ms.tif -o {'a' * 300}.tif --method none", ("too long",)),
    "output equal to PAN": Bad("fuse pan.tif ms.tif -o ./pan.tif --method none --overwrite", ("pan.tif", "inputs")),
    "output equal to MS": Bad("fuse pan.tif ms.tif -o ms.tif --method none --overwrite", ("ms.tif", "inputs")),
    "output linked to an input": Bad(
        fuse("pan.tif ms.tif --overwrite"), ("out.tif", "inputs"), lambda f: (f / "out.tif").symlink_to("ms.tif")
    ),
    "output equal to a source of a VRT": Bad(
        "fuse pan.tif ms.vrt -o ms.tif --method none --overwrite",
        ("ms.tif", "inputs"),
        lambda folder: raster_copy(folder / "ms.tif", folder / "ms.vrt", driver="VRT"),
    ),
    "output equal to an input by another name": Bad(
        "fuse pan.tif GTIFF_DIR:1:ms.tif -o ms.tif --method none --overwrite", ("ms.tif", "inputs")
    ),
    "report equal to the output": Bad(fuse("pan.tif ms.tif --report ./out.tif"), ("output", "report")),
    "report equal to an input": Bad(fuse("pan.tif ms.json --report ms.json --overwrite"), ("ms.json", "inputs"),
                                       lambda folder: (folder / "ms.tif").rename(folder / "ms.json")),
    "report exists": Bad(fuse("pan.tif ms.tif --report r.json"), ("r.json exists",), written("r.json")),
    "report folder a file": Bad(fuse("pan.tif ms.tif --report ms.tif/r.json"), ("ms.tif/r.json", "is no folder")),
    "quicklook equal to the report": Bad(
        fuse("pan.tif ms.tif --report a.json --quicklook a.json"), ("quicklook", "report")
    ),
    "report of another kind": Bad(fuse("pan.tif ms.tif --report a.pdf"), ("--report", ".html", ".json")),
    "evaluate a missing file": Bad("evaluate nope.tif --pan pan.tif --ms ms.tif", ("nope.tif", "no such file")),
    "evaluate on another grid": Bad(
        "evaluate ms.tif --pan pan.tif --ms ms.tif --align off", ("ms.tif", "not on the PAN grid")
    ),
    "evaluate between the pixels": Bad(
        "evaluate bad.tif --pan pan.tif --ms ms.tif --bidx 1 --align off",
        ("bad.tif", "not on the PAN grid"),
        bad("pan.tif", transform=UTM @ Affine.translation(0.5, 0)),
    ),
    "evaluate in another CRS": Bad(
        "evaluate bad.tif --pan pan.tif --ms ms.tif --bidx 1 --align off",
        ("bad.tif", "not on the PAN grid", "EPSG:32632"),
        bad("pan.tif", crs="EPSG:32632"),
    ),
    "evaluate other bands": Bad(
        "evaluate pan.tif --pan pan.tif --ms ms.tif --align off", ("pan.tif has 1 bands", "has 4")
    ),
    "evaluate elsewhere": Bad(
        "evaluate bad.tif --pan pan.tif --ms ms.tif --bidx 1 --align off",
        ("bad.tif does not overlap",),
        bad("pan.tif", transform=UTM @ Affine.translation(1000, 0)),
    ),
    "evaluate without MS": Bad("evaluate pan.tif --pan pan.tif", ("--ms",)),
    "evaluate nothing valid": Bad(
        "evaluate bad.tif --pan pan.tif --ms ms.tif --bidx 1 --align off", ("block",), bad("pan.tif", lambda p: p * 0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_bad_input_gives_one_clear_line_and_leaves_nothing(case: Bad, scene: Path, run) -> None:
    case.prepare(scene)
    before = inventory(scene)
    result = run(*case.arguments.split(" "))
    assert result.code == case.code, result.err
    assert len(result.errors) == 1, result.err
    assert result.errors[0].startswith("error: ")
    for word in case.words:
        assert word in result.errors[0]
    assert result.out == ""
    assert inventory(scene) == before


def could_be_hidden(name: str, case: Bad) -> bool:
    """Is it refused before anything is measured, and for another reason than a file that is there?"""
    of_output = any(w.endswith((" exists", " exist")) or "out.tif" in w for w in case.words)
    if case.arguments.startswith("evaluate"):
        return name != "evaluate nothing valid" and "--report" not in case.arguments
    return case.code == 2 and " -o out.tif" in case.arguments and not of_output


HIDEABLE = {name: case for name, case in BAD.items() if could_be_hidden(name, case)}


@pytest.mark.parametrize("case", seldom(HIDEABLE.values(), list(HIDEABLE.values())[::5]), ids=HIDEABLE.keys())
def test_files_that_are_there_are_told_of_when_all_else_is_right(case: Bad, scene: Path, run) -> None:
    case.prepare(scene)
    reported = case.arguments.startswith("evaluate")
    (scene / ("r.json" if reported else "out.tif")).write_text("precious")
    result = run(*case.arguments.split(" "), *(["--report", "r.json"] if reported else []))
    assert result.code == 2 and len(result.errors) == 1
    for word in case.words:
        assert word in result.errors[0]


def test_debug_shows_the_traceback_and_still_one_error_line(scene: Path, run) -> None:
    result = run("fuse", "pan.tif", "nope.tif", "-o", "out.tif", "--debug")
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1] == "error: cannot open nope.tif: no such file"


def test_names_of_choices_are_taken_in_any_case(scene: Path, run) -> None:
    expected = run("fuse", "pan.tif", "ms.tif", "-o", "a.tif", "--driver", "COG", "--dtype", "float32", *PLAIN)
    spelt = ("--driver", "cog", "--dtype", "Float32", "--adapt", "OFF", "--align", "Auto", "--device", "CPU")
    found = run("fuse", "pan.tif", "ms.tif", "-o", "b.tif", *spelt, "--precision", "AUTO", "--mtf", "Sensor", *PLAIN)
    assert expected.code == found.code == 0, found.err
    np.testing.assert_array_equal(pixels_of(scene / "a.tif"), pixels_of(scene / "b.tif"))


def test_a_nodata_value_that_an_input_cannot_hold_leaves_it_its_own(scene: Path, run) -> None:
    edited(scene / "pan.tif", scene / "holed.tif", lambda p: np.where(np.arange(p.shape[2]) < 40, 7, p), nodata=7)
    options = ("-o", "out.tif", *PLAIN, "--dtype", "float32", "--nodata", "-9999", "--extent", "pan")
    done = run("fuse", "holed.tif", "ms.tif", *options)
    assert done.code == 0 and "holed.tif holds uint16, which --nodata -9999 does not fit" in done.err, done.err
    with rasterio.open(scene / "out.tif") as out:
        assert out.nodata == -9999 and not out.read_masks(1)[:, :40].any() and out.read_masks(1)[:, 60:].any()


@pytest.mark.parametrize("option", ["-o", "--report", "--quicklook", "--save-fit"])
def test_a_slash_at_the_end_of_a_files_name_is_refused(scene: Path, run, option: str) -> None:
    done = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *PLAIN, option, "name.tif/")
    assert done.code == 2 and "'name.tif/' is the name of a folder" in done.err and not Path("name.tif").exists()


@pytest.mark.parametrize("name", seldom(["o\n", "o\x1b[2J", "o\x9b"], ["o\x1b[2J"]))
@pytest.mark.parametrize("command", [
    "fuse pan.tif ms.tif -o {}.tif", "fuse pan.tif ms.tif -o o.tif --report {}.json", "batch . -o {}.tif",
    "fuse pan.tif ms.tif -o o.tif --quicklook {}.png", "fuse pan.tif ms.tif -o o.tif --save-fit {}.safetensors",
    "evaluate ms.tif --reference ms.tif --map {}.tif", "evaluate ms.tif --reference ms.tif --report {}.json",
])  # fmt: skip
def test_a_name_to_write_with_a_control_character_is_refused(scene: Path, run, command: str, name: str) -> None:
    there, options = sorted(scene.iterdir()), () if command.startswith("evaluate") else PLAIN
    done = run(*(part.format(name) for part in command.split()), *options)
    assert done.code == 2 and repr(name)[1:-1] in done.err, done.err
    assert "its name holds a control character" in done.err
    assert name not in done.err and sorted(scene.iterdir()) == there


def test_a_window_that_leaves_the_scene_is_said_to(scene: Path, run) -> None:
    clipped = run("fuse", "pan.tif", "ms.tif", "-o", "a.tif", "--window", "100,80,1000,20", *PLAIN)
    assert "--window reaches beyond the scene: of its 1000 x 20 pixels 92 x 20 are fused" in clipped.err
    inside = run("fuse", "pan.tif", "ms.tif", "-o", "b.tif", "--window", "100,80,40,40", *PLAIN)
    assert "reaches beyond" not in inside.err


@pytest.mark.slow
def test_shells_complete_commands_and_choices() -> None:
    environment = {**os.environ, "_PANSHARPEN_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    environment["COMP_WORDS"] = "pansharpen fuse --adapt "
    command = [sys.executable, "-m", "pansharpen_cli"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert sorted(found.stdout.split()) == ["best", "fast", "off"]


def test_no_command_prints_the_help(run) -> None:
    result = run()
    assert (result.code, result.err) == (2, "")
    assert "fuse" in result.out


@pytest.fixture(scope="module")
def larger(tmp_path_factory) -> Path:
    """A scene of several blocks."""
    folder = tmp_path_factory.mktemp("larger")
    write_pair(folder, rows=528, cols=516, offset=(1.3, 2.6), border=30.0)
    return folder


@pytest.fixture
def little_room():
    """Limits the size of files, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "options",
    [
        ("--driver", "COG"),
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in ((), ("--overviews",), ("--co", "INTERLEAVE=BAND"), ("--co", "TILED=NO"))
        ),
    ],
    ids=str,
)
def test_a_full_disk_is_noticed_and_leaves_nothing(larger, tmp_path, monkeypatch, run, little_room, options) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = (larger / "pan.tif", larger / "ms.tif")
    everything = ("fuse", *inputs, "-o", "out.tif", *PLAIN, *options)
    assert run(*everything).code == 0
    size = (tmp_path / "out.tif").stat().st_size
    (tmp_path / "out.tif").unlink()
    before = inventory(tmp_path)
    for room in (100_000, size // 2, size - 2000):
        little_room(room)
        result = run(*everything)
        assert result.code == 1
        assert [line for line in result.errors if line.startswith("error: ")] == [result.errors[-1]]
        assert "cannot write out.tif" in result.errors[-1]
        assert inventory(tmp_path) == before


# Inputs -------------------------------------------------------------------------------------------------------------


def reference(run, folder: Path) -> np.ndarray:
    assert run("fuse", "pan.tif", "ms.tif", "-o", "reference.tif", *PLAIN, "-q").code == 0
    return pixels_of(folder / "reference.tif")


def test_several_ms_files_are_bands_in_order(scene: Path, run) -> None:
    expected = reference(run, scene)
    parts = [edited(scene / "ms.tif", scene / f"b{i}.tif", lambda p, i=i: p[i : i + 1]) for i in range(4)]
    assert run("fuse", "pan.tif", *parts, "-o", "out.tif", *PLAIN).code == 0
    np.testing.assert_array_equal(pixels_of(scene / "out.tif"), expected)
    assert run("fuse", "pan.tif", *parts, "-o", "two.tif", *PLAIN, "--bidx", "3,1").code == 0
    np.testing.assert_array_equal(pixels_of(scene / "two.tif"), expected[[2, 0]])


def test_vrt_zip_and_names_with_spaces_work(scene: Path, run) -> None:
    expected = reference(run, scene)
    raster_copy(scene / "ms.tif", scene / "ms.vrt", driver="VRT")
    with zipfile.ZipFile(scene / "both.zip", "w") as archive:
        archive.write("pan.tif")
        archive.write("ms.tif")
    odd = scene / "a folder, é 漢"
    odd.mkdir()
    for name in ("pan.tif", "ms.tif"):
        (odd / name).write_bytes((scene / name).read_bytes())
    for i, (pan, ms) in enumerate(
        [
            ("pan.tif", "ms.vrt"),
            ("/vsizip/both.zip/pan.tif", "/vsizip/both.zip/ms.tif"),
            (odd / "pan.tif", odd / "ms.tif"),
        ]
    ):
        result = run("fuse", pan, ms, "-o", odd / f"out {i}.tif", *PLAIN)
        assert (result.code, result.err) == (0, "")
        np.testing.assert_array_equal(pixels_of(odd / f"out {i}.tif"), expected)


def test_a_pair_without_georeferencing_is_accepted_with_a_warning(scene: Path, run) -> None:
    edited(scene / "pan.tif", scene / "p.tif", crs=None, transform=None)
    edited(scene / "ms.tif", scene / "m.tif", crs=None, transform=None)
    result = run("fuse", "p.tif", "m.tif", "-o", "out.tif", *PLAIN)
    assert result.code == 0
    assert result.err == "warning: no georeferencing: upper-left corners taken as equal, ratio 4 from the shapes\n"


def test_the_home_folder_is_found_where_no_shell_looks(scene: Path, run, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(scene))
    monkeypatch.setenv("USERPROFILE", str(scene))
    result = run("fuse", "~/pan.tif", "~/ms.tif", "--output=~/out.tif", *PLAIN, "--report", "~/r.json")
    assert (result.code, result.err) == (0, "")
    assert {"out.tif", "r.json"} <= set(inventory(scene))
    assert shell.with_home("--pair-regex=~x") == "--pair-regex=~x" and shell.with_home("a~/b") == "a~/b"
    (scene / "list.csv").write_text("pan,ms\n~/pan.tif,~/ms.tif\n")
    assert lists.from_manifest(scene / "list.csv")[0].pan == (str(scene / "pan.tif"),)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Invalid value for '--adapt': Value error, 'slow' is not one of 'off', 'fast'.",
         "Invalid value for '--adapt': 'slow' is not one of 'off', 'fast'."),
        ("'--seed': Input should be a valid integer, unable to parse string as an integer",
         "'--seed': it should be a valid integer"),
        ("No such command 'melt'.", "No such command 'melt'."),
    ],
)  # fmt: skip
def test_words_of_the_parsers_libraries_are_left_out(message: str, shown: str) -> None:
    assert shell.plain_message(message) == shown


def test_damaged_metadata_is_a_warning(scene: Path, run) -> None:
    content = (scene / "ms.tif").read_bytes()
    assert content.count(b"</GDALMetadata>") == 1
    (scene / "odd.tif").write_bytes(content.replace(b"</GDALMetadata>", b"</GDALMetadatb>"))
    result = run("fuse", "pan.tif", "odd.tif", "-o", "out.tif", *PLAIN, "--score", "--json")
    assert result.code == 0
    told = "odd.tif: its GDALMetadata are damaged (Line "
    assert any(told in warning for warning in json.loads(result.out)["warnings"])


def test_inputs_are_only_read(scene: Path, run) -> None:
    for name in ("pan.tif", "ms.tif"):
        (scene / name).chmod(0o444)
    before = inventory(scene)
    assert (
        run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *PLAIN, "--quicklook", "q.png", "--report", "r.json").code
        == 0
    )
    after = inventory(scene)
    assert set(after) - set(before) == {"out.tif", "q.png", "r.json"}
    assert {name: after[name] for name in before} == before


# Outputs ------------------------------------------------------------------------------------------------------------


def test_overwrite_replaces_the_file_behind_a_link(scene: Path, run) -> None:
    (scene / "real.tif").write_text("old")
    (scene / "out.tif").symlink_to("real.tif")
    assert run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *PLAIN, "--overwrite").code == 0
    assert (scene / "out.tif").is_symlink()
    np.testing.assert_array_equal(pixels_of(scene / "real.tif"), reference(run, scene))


def test_a_failed_run_keeps_the_file_that_it_was_to_replace(scene: Path, run) -> None:
    (scene / "out.tif").write_text("old")
    spoilt("pan.tif")(scene)
    assert run("fuse", "bad.tif", "ms.tif", "-o", "out.tif", *PLAIN, "--overwrite").code != 0
    assert (scene / "out.tif").read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_output_has_the_mode_of_any_new_file(scene: Path, run) -> None:
    (scene / "plain").touch()
    assert run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *PLAIN, "--score", "--report", "r.json").code == 0
    assert {(scene / name).stat().st_mode for name in ("out.tif", "r.json")} == {(scene / "plain").stat().st_mode}


SCENE_KEYS = {
    "pan", "ms", "bands", "band_names", "standard_names", "dtype", "scale", "nodata", "crs", "ratio", "offset",
    "sensor",
    "sensor_recognised_in", "warped", "window", "fitted_bands", "band_numbers", "pan_files",
}  # fmt: skip
QUALITY_KEYS = {
    "fidelity", "colour_error", "detail_error", "pan_sharpness", "band_sharpness", "displacement", "band_displacement",
    "hqnr", "d_lambda_k", "d_s", "qnr", "d_lambda",
    "pan_detail_correlation", "flat_area_activity", "reprojection", "blocks",
    "blocks_in_all", "sampled", "measured_on", "mtf_gains",
}  # fmt: skip


def test_the_report_has_its_schema_on_stdout_and_in_the_file(scene: Path, run) -> None:
    random_weights(scene / "w.safetensors")
    result = run(
        "fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--weights", "w.safetensors", "--json", "--report", "r.json"
    )
    assert result.code == 0 and all("the result" in line for line in result.err.splitlines())
    facts = json.loads(result.out)
    assert facts == json.loads((scene / "r.json").read_text())
    assert facts["schema"] == "pansharpen-report/1"
    assert set(facts) == {
        "schema", "version", "command", "software", "output", "scene", "method", "options", "adaptation", "quality",
        "comparison", "registration", "seconds", "megapixels_per_second", "verdict", "warnings",
        "notes", "fit", "pan_tells", "groups",
    }  # fmt: skip
    assert set(facts["output"]) == {"path", "driver", "rows", "cols", "valid_pixels", "bytes"}
    assert set(facts["scene"]) == SCENE_KEYS
    assert set(facts["quality"]) == QUALITY_KEYS
    assert set(facts["method"]) == {
        "name", "weights", "weights_sha256", "scale", "mtf", "mtf_gains", "band_offsets", "device", "precision",
        "tile_size", "seed",
    }  # fmt: skip
    assert {"mode", "kept", "reason", "tiles", "reduced_tiles", "epochs", "seconds", "before", "after"} <= set(
        facts["adaptation"]
    )
    stages = {"aligning", "comparing", "reading", "adapting", "fusing", "scoring", "finishing"}
    assert stages | {"total"} == set(facts["seconds"])
    assert sum(facts["seconds"][stage] for stage in stages) == pytest.approx(facts["seconds"]["total"])
    assert facts["scene"]["ratio"] == [4, 4]
    assert facts["scene"]["offset"] == pytest.approx([1.3, 2.6])
    assert facts["method"]["weights_sha256"] == sha256((scene / "w.safetensors").read_bytes()).hexdigest()
    with rasterio.open(scene / "out.tif") as dataset:
        assert facts["output"]["valid_pixels"] == np.count_nonzero(dataset.dataset_mask())
        assert (facts["output"]["rows"], facts["output"]["cols"]) == dataset.shape


def test_what_cannot_be_measured_is_null_in_the_report(scene: Path, run) -> None:
    edited(scene / "pan.tif", scene / "flat.tif", lambda p: p * 0 + 300)
    scored = ["--score", "--json", "--nodata", "0", "--dtype", "float32"]
    result = run("fuse", "flat.tif", "ms.tif", "-o", "out.tif", *PLAIN, *scored)
    assert result.code == 0
    assert "warning: " in result.err
    quality = json.loads(result.out)["quality"]
    assert {
        quality[k]
        for k in ("fidelity", "pan_sharpness", "hqnr", "d_s", "qnr", "pan_detail_correlation", "flat_area_activity")
    } == {None}
    assert 0 < quality["d_lambda_k"] < 0.1
    options = ("--json", "--nodata", "nan", "--dtype", "float32", "--overwrite")
    result = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *PLAIN, *options)
    assert json.loads(result.out)["options"]["nodata"] is json.loads(result.out)["scene"]["nodata"] is None


@pytest.mark.slow
def test_the_table_says_what_was_done(adapted: Path, run) -> None:
    result = run(*adapting(adapted, "table.tif", "-v", seen=()))
    assert result.code == 0
    said = [line for line in result.err.splitlines() if not line.startswith(("warning:", "note:"))]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+ \.\.\.", line) for line in said)
    assert [line.split()[2] for line in said] == ["aligning", "comparing", "reading", "adapting", "fusing", "scoring"]
    told = result.out.splitlines()
    lines = dict(line.split(maxsplit=1) for line in told if not line.startswith(" "))
    assert list(lines) == [
        "verdict", "ratio", "offset", "sensor", "registration", "PAN", "MTF", "scale", "method", "adaptation",
        "quality", "indices", "detail", "reprojection", "time", "throughput", "output",
    ]  # fmt: skip
    assert lines["ratio"] == "4"
    assert lines["offset"].startswith("0.7, 1.6 PAN pixels")
    assert re.match(
        r"fast, \d+ \+ \d+ tiles, \d+ epochs, [\d.]+ s, held-out loss [\d.]+ -> [\d.]+, kept", lines["adaptation"]
    )
    for figure in ("HQNR", "D_lambda_K", "D_s"):
        assert figure in lines["indices"]
    assert "fidelity" in lines["quality"]


def test_quiet_prints_nothing(scene: Path, run) -> None:
    result = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *PLAIN, "-q")
    assert (result.code, result.out, result.err) == (0, "", "")


# The same pixels ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> Path:
    """A folder with a scene large enough to adapt to, and weights."""
    folder = tmp_path_factory.mktemp("adapted")
    write_pair(folder, 400, 400, 3, offset=(0.7, 1.6), border=20.0)
    random_weights(folder / "w.safetensors", 3, {"bands": 3}, "pnn")
    return folder


def adapting(folder: Path, name: str, *options: object, seen: tuple = ("--no-score", "--json")) -> tuple[object, ...]:
    weights = ("--method", "pnn", "--weights", folder / "w.safetensors", "--precision", "float32", "--overwrite")
    return "fuse", folder / "pan.tif", folder / "ms.tif", "-o", folder / name, *weights, *options, *seen


@pytest.fixture(scope="module")
def whole(adapted: Path) -> list[np.ndarray]:
    """Holds the pixels of the first full run in the folder."""
    return []


def full_run(adapted: Path, whole: list[np.ndarray], run) -> np.ndarray:
    if not whole:
        result = run(*adapting(adapted, "whole.tif"))
        assert result.code == 0
        assert json.loads(result.out)["adaptation"]["kept"] is True
        whole.append(pixels_of(adapted / "whole.tif"))
    return whole[0]


@pytest.mark.slow
def test_same_seed_same_bytes(adapted: Path, whole, run) -> None:
    full_run(adapted, whole, run)
    assert run(*adapting(adapted, "again.tif")).code == 0
    assert (adapted / "again.tif").read_bytes() == (adapted / "whole.tif").read_bytes()
    assert run(*adapting(adapted, "other.tif", "--seed", 1)).code == 0
    assert (pixels_of(adapted / "other.tif") != whole[0]).any()


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        pytest.param("--window", "100,70,90,110", np.s_[70:180, 100:190], marks=pytest.mark.slow),
        pytest.param("--window", "250,-20,500,60", np.s_[0:40, 250:400], marks=pytest.mark.slow),
        pytest.param("--bbox", "431230,4583400,431330.4,4583459.6", np.s_[140:200, 30:130], marks=pytest.mark.slow),
    ],
)
def test_previews_have_the_pixels_of_the_full_run(adapted: Path, whole, run, option, value, part) -> None:
    full = full_run(adapted, whole, run)
    assert run(*adapting(adapted, "part.tif", option, value)).code == 0
    with rasterio.open(adapted / "part.tif") as preview, rasterio.open(adapted / "whole.tif") as dataset:
        row, col = (round(v) for v in (~dataset.transform @ preview.transform.column_vectors[2])[::-1])
        assert dataset.transform @ Affine.translation(col, row) == preview.transform
        first = (round(431200 - dataset.transform.c), round(dataset.transform.f - 4583600))
        np.testing.assert_array_equal(
            preview.read(), full[:, max(0, part[0].start + first[1]) : part[0].stop + first[1],
                                 part[1].start + first[0] : part[1].stop + first[0]]
        )  # fmt: skip
        assert preview.read().any()


@pytest.mark.slow
def test_tile_size_changes_no_pixel(adapted: Path, whole, run) -> None:
    full = full_run(adapted, whole, run)
    assert run(*adapting(adapted, "tiles.tif", "--tile-size", 100)).code == 0
    np.testing.assert_array_equal(pixels_of(adapted / "tiles.tif"), full)


# Signals ------------------------------------------------------------------------------------------------------------


SIGNALLED = """
import os, signal, sys
from pansharpen_cli.cli import app, progress

stage, number = sys.argv[1], int(sys.argv[2])
sys.argv = ["pansharpen", *sys.argv[3:]]
show, at_work = progress.ProgressBar.__call__, []

def told(self, now, done, total):
    if now == stage and done >= 1 and not at_work:
        at_work.extend(name for name in os.listdir() if name.startswith(".pansharpen-"))
        assert at_work, "the temporary folder"
        os.kill(os.getpid(), number)
    show(self, now, done, total)

progress.ProgressBar.__call__ = told
app.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize(
    ("number", "stage", "options"),
    [
        (signal.SIGINT, "adapting", ("--adapt", "best")),
        (signal.SIGTERM, "fusing", ("--adapt", "off", "--tile-size", "64")),
    ],
    ids=["SIGINT while adapting", "SIGTERM while fusing"],
)
def test_an_interrupted_run_leaves_nothing(larger: Path, tmp_path: Path, number, stage, options) -> None:
    for name in ("pan.tif", "ms.tif"):
        (tmp_path / name).symlink_to(larger / name)
    random_weights(tmp_path / "w.safetensors", config={"features": 16, "blocks": 2})
    before = inventory(tmp_path)
    command = ["fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--weights", "w.safetensors", "--precision", "float32"]
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, stage, str(int(number)), *command, *options], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        # a background shell hands down an ignored SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")
    assert inventory(tmp_path) == before


# Start-up -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pansharpen_cli.cli import app as cli\n"
        "for arguments in (['--help'], ['fuse', '--help'], ['evaluate', '-h'], ['--version']):\n"
        "    sys.argv = ['pansharpen', *arguments]\n"
        "    try: cli.main()\n"
        "    except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'rasterio', 'numpy', 'scipy', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "pansharpen 0" in result.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_closed_streams_do_not_crash() -> None:
    for arguments, code in (("--version >&-", 1), ("melt 2>&-", 2), ("--version > /dev/full", 1)):
        command = f"{sys.executable} -m pansharpen_cli {arguments}"
        result = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
        assert (result.returncode, "Traceback" in result.stderr) == (code, False)


def test_threads_limit_all_that_computes(scene: Path, run, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    before = torch.get_num_threads()
    seen = []
    monkeypatch.setattr(creation, "profile_of", lambda *of: seen.append(profile_of(*of)) or seen[-1])
    try:
        assert run(*fuse("pan.tif ms.tif --threads 3 -q").split()).code == 0
        assert torch.get_num_threads() == 3
        assert [p["NUM_THREADS"] for p in seen] == ["3"]
        assert run("evaluate", "out.tif", "--pan", "pan.tif", "--ms", "ms.tif", "--threads", 2, "-q").code == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert "--threads" in run(*fuse("pan.tif ms.tif --threads 0").split()).err


def test_a_current_folder_that_is_gone_is_called_so(tmp_path, monkeypatch, run) -> None:
    monkeypatch.chdir(tmp_path)

    def getcwd() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", getcwd)
    ended = run("weights", "list")
    assert ended.code == 2 and "the current folder does not exist any more" in ended.err and not ended.out


def test_the_home_folder_of_a_user_is_found() -> None:
    pwd = pytest.importorskip("pwd")
    known = pwd.getpwuid(os.getuid())
    assert shell.with_home(f"--output=~{known.pw_name}/a.tif") == f"--output={known.pw_dir}/a.tif"
    with pytest.raises(InputError, match="there is no user no-such-user here.* write ./~no-such-user"):
        shell.with_home("--report=~no-such-user/a.json")
    assert shell.with_home("~no-such-user.tif") == "~no-such-user.tif"


@pytest.mark.parametrize("option", ["--rgb", "--pan-from"])
def test_an_empty_choice_of_bands_is_none(scene: Path, run, option: str) -> None:
    result = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", option, "", "--method", "exp")
    assert result.code == 2 and option in result.err and not (scene / "out.tif").exists()
