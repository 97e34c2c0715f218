"""Mutated side files, lists, logs and VRTs into the command line, as `test_fuzz` does it with rasters and weights.

The same variables make a longer run; `python tests/test_fuzz_sides.py SEED CASE` runs one case alone. An earlier
output, its report and a user's own file lie in each case's folder: none of them may be lost.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from test_fuzz import Harness, check_cases, cut, flipped, main, spliced

IMD = """version = "AA";
generationTime = 2010-08-01T00:00:00.000000Z;
numRows = 20;
numColumns = 20;
BEGIN_GROUP = BAND_B
\tULLon = 2.1;
\tabsCalFactor = 9.295654e-03;
END_GROUP = BAND_B
BEGIN_GROUP = IMAGE_1
\tsatId = "WV02";
\tfirstLineTime = 2010-07-20T10:15:30.123456Z;
END_GROUP = IMAGE_1
END;
"""
MTL = """GROUP = L1_METADATA_FILE
  GROUP = PRODUCT_METADATA
    SPACECRAFT_ID = "LANDSAT_8"
    DATE_ACQUIRED = 2020-02-02
    SCENE_CENTER_TIME = "10:15:30.1234560Z"
  END_GROUP = PRODUCT_METADATA
END_GROUP = L1_METADATA_FILE
END
"""
DIM = """<?xml version="1.0" encoding="UTF-8"?>
<Dimap_Document><Metadata_Identification>
<METADATA_FORMAT version="2.15">DIMAP</METADATA_FORMAT></Metadata_Identification>
<Dataset_Sources><Source_Identification><Strip_Source><MISSION>PHR</MISSION><MISSION_INDEX>1A</MISSION_INDEX>
<IMAGING_DATE>2020-02-02</IMAGING_DATE></Strip_Source></Source_Identification></Dataset_Sources>
<Raster_Data><Data_Access><Data_Files><Data_File tile_R="1" tile_C="1"><DATA_FILE_PATH href="ms.tif"/></Data_File>
</Data_Files></Data_Access><Raster_Dimensions><NROWS>20</NROWS><NCOLS>20</NCOLS><NBANDS>3</NBANDS>
<Tile_Set><NTILES>1</NTILES></Tile_Set></Raster_Dimensions></Raster_Data></Dimap_Document>
"""
TIL = """bandId = "Multi";
numTiles = 1;
BEGIN_GROUP = TILE_1
\tfilename = "ms.tif";
\tULColOffset = 0;
\tULRowOffset = 0;
\tLRColOffset = 19;
\tLRRowOffset = 19;
END_GROUP = TILE_1
END;
"""
AUX = """<PAMDataset><SRS>EPSG:32631</SRS>
<Metadata><MDI key="SENSOR">GeoEye-1</MDI><MDI key="DATE">2020-02-02</MDI></Metadata>
<Metadata domain="IMAGERY"><MDI key="SATELLITEID">GE01</MDI></Metadata>
<PAMRasterBand band="1"><Description>Blue</Description>
<NoDataValue>0</NoDataValue><Metadata><MDI key="STATISTICS_MEAN">400</MDI></Metadata></PAMRasterBand></PAMDataset>
"""
COLOURS = ("blue", "green", "red")
ITEM = {
    "type": "Feature", "stac_version": "1.0.0", "id": "one", "geometry": None, "links": [],
    "properties": {"datetime": "2020-02-02T10:00:00Z"},
    "assets": {
        "p": {"href": "pan.tif", "type": "image/tiff", "eo:bands": [{"name": "pan", "common_name": "pan"}]},
        "m": {"href": "ms.tif", "type": "image/tiff", "eo:bands": [{"common_name": n} for n in COLOURS]},
    },
}  # fmt: skip

SIDES = ("ms.IMD", "ms_MTL.txt", "DIM_ms.XML", "ms.tif.aux.xml", "pan.tif.aux.xml")
FAST = "--method exp --no-score"
COMMANDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (f"fuse pan.tif ms.tif -o new.tif {FAST}", SIDES),
    ("check pan.tif ms.tif --method exp --no-score", SIDES),
    (f"fuse pan.tif ms.vrt -o new.tif {FAST}", ("ms.vrt",)),
    (f"fuse pan.tif DIM_ms.XML -o new.tif {FAST}", ("DIM_ms.XML",)),
    (f"fuse pan.tif ms.TIL -o new.tif {FAST}", ("ms.TIL", "ms.IMD")),
    (f"batch list.csv -o out {FAST}", ("list.csv", "out/batch.jsonl", "out/reports/one.json")),
    (
        f"batch list.csv -o out {FAST} --retry-failed --overwrite",
        ("list.csv", "out/batch.jsonl", "out/reports/one.json"),
    ),
    (f"batch list.jsonl -o out {FAST}", ("list.jsonl", "out/batch.jsonl")),
    (f"batch item.json -o more {FAST}", ("item.json",)),
    (f"batch pan.tif ms.vrt -o more {FAST}", ("ms.vrt",)),
    (f"batch . -o out {FAST} --dry-run", (*SIDES, "ms.vrt", "ms.TIL", "out/batch.jsonl")),
    ("batch report out", ("out/batch.jsonl", "out/left-over.json")),
)
HOSTILE = (
    "", "0", "-1", "1e999", "NaN", "null", "99999999999999999999", "../../x.tif", "/dev/zero", "/dev/stdin", "~", "\0",
    "\u2028", "\ud83d", "=1+1", "\x1b]0;x\x07", "{}", "[]", "<", '"', "ms.vrt", "/vsicurl/http://127.0.0.1:9/x.tif",
    "<VRTDataset", "VRTRawRasterBand", "a" * 5000, "[" * 3000, "\n" * 3000, "true", "out/one.tif", ".pansharpen-x",
)  # fmt: skip


def reworded(data: bytearray, rng: random.Random) -> bytearray:
    """Other words, numbers, names and lines in some places of a text."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        words = [m.span() for m in re.finditer(rb"[\w.:/+-]+", bytes(data))] or [(0, 0)]
        start, end = rng.choice(words)
        how = rng.randrange(5)
        if how <= 1:
            data[start:end] = rng.choice(HOSTILE).encode("utf-8", "surrogatepass")
        elif how == 2:
            other = rng.choice(words)
            data[start:end] = data[slice(*other)]
        else:
            lines = bytes(data).split(b"\n")
            at = rng.randrange(len(lines))
            lines[at : at + 1] = [] if how == 3 else [lines[at]] * rng.choice((2, 3, 300))
            data = bytearray(b"\n".join(lines))
    return data


def mutated(content: bytes, rng: random.Random) -> bytes:
    data, how = bytearray(content), rng.randrange(8)
    if how == 0:
        return bytes(cut(data, rng)) if len(data) > 200 else bytes(data[: rng.randrange(len(data) + 1)])
    if how == 1 and data:
        return bytes(spliced(data, rng))
    if how == 2 and data:
        return bytes(flipped(data, rng, 0, len(data)))
    return bytes(reworded(data, rng))


def here(choices, *_) -> object:
    """Scenes of a batch in this process, as a worker's start takes longer than all else."""
    from pansharpen_cli.archive.batch import fuse_one
    from pansharpen_cli.archive.workers import Event

    def execute(tasks: Sequence) -> Iterator[Event]:
        for task in tasks:
            yield Event("started", task, 0)
            yield Event("done", task, 0, fuse_one(task, choices))

    return execute


class Sides(Harness):
    """Pairs with all that may lie beside them, an output folder of an earlier batch, and a file of the user's."""

    def __init__(self, folder: Path, seed: int) -> None:
        import rasterio.shutil

        super().__init__(folder, seed)
        from pansharpen_cli.archive import batch

        batch.local = here
        self.bases = [self.furnished(files, rasterio.shutil.copy) for files in self.bases[:1]]

    def furnished(self, files: dict[str, bytes], copy) -> dict[str, bytes]:
        texts = {
            "ms.IMD": IMD, "ms_MTL.txt": MTL, "DIM_ms.XML": DIM, "ms.TIL": TIL, "ms.tif.aux.xml": AUX,
            "pan.tif.aux.xml": AUX, "item.json": json.dumps(ITEM), "notes.txt": "the user's own",
            "list.csv": "pan,ms,name,sensor\npan.tif,ms.tif,one,generic\npan.tif,ms.vrt,two,\n",
            "list.jsonl": json.dumps({"pan": "pan.tif", "ms": ["ms.tif"], "name": "one", "sensor": "generic"}) + "\n",
            "out/left-over.json": '{"schema": "pansharpen-batch/1", "left_over": [{"path": "a.tif", "reason": "b"}]}',
        }  # fmt: skip
        made = {name: files[name] for name in ("pan.tif", "ms.tif")} | {k: v.encode() for k, v in texts.items()}
        self.place(made)
        copy(self.folder / "ms.tif", self.folder / "ms.vrt", driver="VRT")
        code, out, err = self.command(f"batch list.csv -o out {FAST}")
        assert code == 0, (out, err)
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}

    def place(self, files: dict[str, bytes]) -> None:
        super().place(files)
        for name in files:
            os.utime(self.folder / name, (1e9, 1e9))  # as at the earlier run: what is done stays

    def case(self, number: int) -> tuple[str, list[str]]:
        rng = random.Random(f"{self.seed} {number}")
        files = dict(self.bases[0])
        line, used = rng.choice(COMMANDS)
        changed = rng.sample(used, min(len(used), rng.choice((1, 1, 2))))
        for name in changed:
            files[name] = mutated(files[name], rng)
        self.place(files)
        with self.limited():
            code, out, err = self.command(line)
        return f"{line} with {changed} -> {code} {err.strip()[-200:]}", self.faults(line, files, code, out, err)

    def faults(self, line: str, files: dict[str, bytes], code: object, out: str, err: str) -> list[str]:
        found = [] if code in (0, 1, 2) else [f"exit code {code}"]
        errors = [text for text in err.splitlines() if text.startswith("error: ")]
        told = re.compile(r"(error|warning|failed|failed before|\d+ seams): |[-\d]+ [:\d]+ \[\d+/\d+\] ")
        strange = [text for text in err.split("\n") if text and not told.match(text)]
        if "Traceback" in err or "unexpected" in err or len(errors) != (code != 0) or strange:
            found.append(f"stderr is {err[-2000:]!r}")
        there = {str(p.relative_to(self.folder)): p for p in self.folder.rglob("*") if p.is_file()}
        found += [f"{name} is left" for name in there if ".pansharpen-" in name]
        own = {name: content for name, content in files.items() if not name.startswith("out/")}
        found += [f"{name} has changed" for name, content in own.items() if there[name].read_bytes() != content]
        found += [f"{name} is lost" for name in files if name not in there]
        if code == 0 and line.startswith("fuse") and "new.tif" not in there:
            found.append("no output")
        if code != 0 and "new.tif" in there:
            found.append("an output of a failure")
        for name in there:
            if name.endswith(".tif") and name not in own:
                found += self.unreadable(name)
        return found


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits and alarms are POSIX")
def test_mutated_side_files_lists_and_logs_lose_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pystac", reason="needs the extra stac")
    check_cases(__file__, tmp_path)


def test_mutations_of_texts_are_repeatable() -> None:
    made = [[mutated(AUX.encode(), random.Random(seed)) for seed in range(30)] for _ in range(2)]
    assert made[0] == made[1] and len(set(made[0])) > 20


if __name__ == "__main__":
    main(Sides)
