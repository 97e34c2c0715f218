"""Many scenes: isolation, the log, resuming, killing, the lock, names of outputs, the page of all scenes."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rasterio
import rasterio.shutil
import torch
from rasters import write_pair

from pansharpen_cli import interrupts
from pansharpen_cli.archive import batch, batch_log, pairs, planning, workers
from pansharpen_cli.archive.batch import Choices, Tally
from pansharpen_cli.archive.names import Found
from pansharpen_cli.cli.progress import BatchProgressBars
from pansharpen_cli.errors import InputError, PansharpenError
from pansharpen_cli.fusion import fit
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs import fuse
from pansharpen_cli.jobs.request import FusionOutput, Pair
from pansharpen_cli.models import weights
from pansharpen_cli.progress import Progress, quiet
from pansharpen_cli.publish import PARTIAL
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.report import index
from pansharpen_cli.report.facts import Record, plain

ROOT = Path(__file__).parent.parent
FAST = ("--method", "exp", "--align", "off", "--no-score")
CHOICES = Choices(Options(method="exp", align="off"), OpenOptions("generic"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Four scenes in two folders, one of them broken, and a file of none."""
    folder = tmp_path_factory.mktemp("archive")
    for i, name in enumerate(("2019/s0", "2019/s1", "2020/s2", "2020/<b>bad")):
        write_pair(folder / name, 96, 96, 4, seed=i)
        (folder / name / "truth.tif").unlink()
    (folder / "2020" / "<b>bad" / "ms.tif").write_bytes(b"II*\0 and no more")
    shutil.copy(folder / "2019" / "s0" / "pan.tif", folder / "2020" / "old_pansharpened.tif")
    return folder


GOOD = ["2019/s0/s0.tif", "2019/s1/s1.tif", "2020/s2/s2.tif"]
BAD = "2020/<b>bad/<b>bad.tif"


@pytest.fixture
def archive(scenes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / "in"))


@pytest.fixture(scope="module")
def done(scenes: Path, tmp_path_factory) -> tuple[Path, batch.Tally]:
    """The folder and the outcome of an undisturbed batch with two jobs."""
    out = tmp_path_factory.mktemp("done") / "out"
    tasks = planning.plan(pairs.find([str(scenes)]).found, out, CHOICES)
    return out, batch.run(tasks, out, batch.local(CHOICES, 2, None, None))


@pytest.fixture
def without_workers(monkeypatch) -> None:
    """Scenes are fused in this process, one after the other: for what workers make no difference to."""

    def local(choices: Choices, *_) -> batch.Execute:
        def execute(tasks):
            for task in tasks:
                yield workers.Event("started", task, 0)
                yield workers.Event("done", task, 0, batch.fuse_one(task, choices))

        return execute

    monkeypatch.setattr(batch, "local", local)


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "batch.jsonl").read_text().splitlines()]


def left_behind(out: Path) -> list[Path]:
    return [p for p in out.rglob("*") if p.name.startswith(PARTIAL)]


def stamps(out: Path) -> dict[str, int]:
    """When each output was written."""
    written = (p for p in out.rglob("*.tif") if not p.parent.name.startswith(PARTIAL))
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in written}


# All scenes ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_good_scenes_are_done_and_the_bad_one_harms_none(done, scenes: Path, tmp_path: Path) -> None:
    out, tally = done
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.tif")) == GOOD
    assert [r.scene for r in tally.failed] == [BAD]
    assert not left_behind(out) and not (out / BAD).parent.exists()
    alone = tmp_path / "alone.tif"
    source = scenes / "2019" / "s1"
    fuse.fuse_scene(
        Pair(str(source / "pan.tif"), [str(source / "ms.tif")], CHOICES.opening),
        FusionOutput(alone),
        CHOICES.options,
    )
    with rasterio.open(alone) as one, rasterio.open(out / GOOD[1]) as other:
        assert (one.read() == other.read()).all() and one.profile == other.profile


@pytest.mark.slow
def test_the_log_has_one_line_per_scene(done, scenes: Path) -> None:
    out, _ = done
    records = {r["scene"]: r for r in lines_of(out)}
    assert len(lines_of(out)) == 4 and sorted(records) == sorted([*GOOD, BAD])
    good, bad = records[GOOD[0]], records[BAD]
    assert (good["schema"], good["status"], good["rows"], good["bands"]) == ("pansharpen-batch/1", "done", 96, 4)
    assert good["seconds"] > 0 and 0 < good["figures"]["hqnr"] < 1 and good["options"] == CHOICES.digest()
    known = (scenes / "2019" / "s0" / "pan.tif").stat()
    assert good["inputs"][0] == {
        "path": str(scenes / "2019" / "s0" / "pan.tif"), "size": known.st_size, "mtime": known.st_mtime_ns / 1e9,
    }  # fmt: skip
    assert json.loads((out / good["report"]).read_text())["quality"]["hqnr"] == good["figures"]["hqnr"]
    assert (out / good["quicklook"]).read_bytes().startswith(b"\x89PNG")
    assert bad["status"] == "failed" and "cannot open" in bad["error"] and "figures" not in bad


@pytest.mark.slow
def test_the_page_shows_figures_failures_pictures_and_links(done, run) -> None:
    out, _ = done
    finished = run("batch", "report", out)
    assert (finished.code, finished.out.strip()) == (0, str(out / "index.html"))
    page = (out / "index.html").read_text()
    assert page.count('<img src="data:image/jpeg') == 3
    assert 'href="reports/2019/s0/s0.json"' in page and 'href="reports/2019/s0/s0.png"' in page
    assert "&lt;b&gt;bad" in page and "<b>bad" not in page
    assert "3 done" in page and "1 failed" in page and "cannot open" in page
    hqnr = {r["scene"]: r["figures"]["hqnr"] for r in lines_of(out) if "figures" in r}
    assert all(f'data-value="{value!r}">{value:.4f}' in page for value in hqnr.values())
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert not re.search(r'(src|href)="(?!data:|reports/)', page)


def test_the_page_begins_with_the_scene_of_the_lowest_fidelity(tmp_path):
    known = {"a.tif": 0.9, "b.tif": None, "c.tif": 0.4, "d.tif": float("nan")}
    records = [Record("", n, "done", figures={"fidelity": v}) for n, v in known.items()]
    page = index.to_html(tmp_path, records)
    assert page.index("c.tif") < page.index("a.tif") < min(page.index("b.tif"), page.index("d.tif"))


def test_the_worst_remark_on_a_scene_stands_in_its_line_and_on_the_page(tmp_path, capsys):
    verdicts = {"a.tif": ("warning", "softer than the PAN: 56% <of>"), "b.tif": ("good", "as sharp as the PAN (99%)")}
    records = [
        Record("", name, "done", seconds=1.0, figures={"fidelity": 0.5}, verdict={"level": level, "text": text})
        for name, (level, text) in verdicts.items()
    ]
    with BatchProgressBars(quiet=False) as watch:
        for record in records:
            watch(None, Tally(tmp_path, 2, 2, 0), record)
    said = capsys.readouterr().err
    assert "a.tif: done in 1.0 s, fidelity 0.500, softer than the PAN\n" in said and "0.500\n" in said
    page = index.to_html(tmp_path, [*records, Record("", "old.tif", "done", verdict={"text": 3})])
    assert 'title="softer than the PAN: 56% &lt;of&gt;">softer than the PAN</td>' in page
    assert ">as sharp as the PAN</td>" in page


@pytest.mark.usefixtures("without_workers")
def test_the_page_lists_what_the_last_run_left_over(scenes: Path, tmp_path: Path, run) -> None:
    pair = scenes / "2019" / "s0"
    (tmp_path / "in").mkdir()
    for name in ("pan.tif", "ms.tif"):
        shutil.copy(pair / name, tmp_path / "in" / name)
    (tmp_path / "in" / "<b>_qa.tif").write_text("")
    out = tmp_path / "out"
    assert run("batch", tmp_path / "in", "-o", out, *FAST).code == 0
    assert run("batch", "report", out).code == 0
    page = (out / "index.html").read_text()
    assert "1 file in no pair" in page and "&lt;b&gt;_qa.tif: looks like a mask" in page and "<b>_qa" not in page
    (tmp_path / "in" / "<b>_qa.tif").unlink()
    assert run("batch", tmp_path / "in", "-o", out, *FAST).code == 0
    assert run("batch", "report", out).code == 0
    assert "in no pair" not in (out / "index.html").read_text()
    for name, content in (("batch.lock", "process 12 bottles\nof beer\n"), ("left-over.json", "mine")):
        (out / name).write_text(content)
        finished = run("batch", tmp_path / "in", "-o", out, *FAST)
        assert f"{name} is not a file of pansharpen" in finished.errors[-1] and (out / name).read_text() == content
        (out / name).unlink()


def test_a_dry_run_needs_no_output_folder(archive: Path, monkeypatch, tmp_path: Path, run) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    plan = json.loads(run("batch", archive, "--dry-run", "--json").out)
    assert plan["folder"] is None and {s["state"] for s in plan["scenes"]} == {"new"}
    assert {s["output"] for s in plan["scenes"]} == {*GOOD, BAD}
    assert sorted(tmp_path.rglob("*")) == before
    finished = run("batch", archive)
    assert finished.code == 2 and "--output OUTDIR" in finished.errors[0]


def test_a_page_of_figures_that_are_missing(tmp_path: Path) -> None:
    page = index.to_html(tmp_path, [Record("", "a.tif", "started"), Record("", "b.tif", "done")])
    assert "1 interrupted" in page and "1 done" in page


def test_the_page_of_a_batch_says_how_much_is_valid(tmp_path: Path) -> None:
    record = Record("", "a.tif", "done", rows=40, cols=50, valid_pixels=960)
    assert re.search(r"<td[^>]*>48\.0 %</td>", index.to_html(tmp_path, [record]))


# Running again ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_workers")
def test_an_input_that_a_worker_sees_otherwise_is_told_and_tried_again(tmp_path: Path) -> None:
    """The log says that an output is of the file that was planned."""
    write_pair(tmp_path / "in", 64, 64, 3)
    (task,) = planning.plan(pairs.find([str(tmp_path / "in")]).found, tmp_path / "out", CHOICES)
    ms = tmp_path / "in" / "ms.tif"
    known = ms.stat()
    for seconds, told in ((0, False), (1, False), (60, True)):
        os.utime(ms, (known.st_atime, known.st_mtime + seconds))
        assert ("ms.tif is another file on the worker" in planning.seen_otherwise(task)) == told
    away = ms.rename(tmp_path / "away.tif")
    execute = batch.local(CHOICES, 1, None, None)
    (failed,) = batch.run([task], tmp_path / "out", execute).failed
    assert "ms.tif is another file on the worker" in (failed.error or "") and "(missing)" in (failed.error or "")
    away.rename(ms)
    os.utime(ms, (known.st_atime, known.st_mtime))
    assert [r.scene for r in batch.run([task], tmp_path / "out", execute).done] == [task.scene]


@pytest.mark.parametrize("name", ["ms.tif", "dem.tif"])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_file_of_equal_size_and_time_is_known_by_its_content(tmp_path: Path, name: str, place: float) -> None:
    """A worker of a cluster may see a copy of its own."""
    write_pair(tmp_path / "in", 64, 64, 3)
    (tmp_path / "dem.tif").write_bytes((tmp_path / "in" / "pan.tif").read_bytes())
    choices = replace(CHOICES, opening=replace(CHOICES.opening, dem=str(tmp_path / "dem.tif")))
    (task,) = planning.plan(pairs.find([str(tmp_path / "in")]).found, tmp_path / "out", choices)
    task = planning.with_prints(task, planning.prints_of(choices.files))
    assert planning.seen_otherwise(task) == ""
    file = next(tmp_path.rglob(name))
    known, content = file.stat(), bytearray(file.read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= 1
    file.write_bytes(content)
    os.utime(file, (known.st_atime, known.st_mtime))
    assert re.search(rf"{name} is another file on the worker .* \(content", planning.seen_otherwise(task))


@pytest.mark.usefixtures("without_workers")
def test_a_file_beside_an_input_that_changes_how_it_is_read_is_a_change(tmp_path: Path, run) -> None:
    write_pair(tmp_path / "in", 64, 64, 3)
    command = ("batch", tmp_path / "in", "-o", tmp_path / "out", "--method", "exp", "--no-score", "--json")
    assert json.loads(run(*command).out)["done"] == 1
    beside = tmp_path / "in" / "ms.tif.aux.xml"
    band = '<PAMDataset><PAMRasterBand band="1">{}</PAMRasterBand></PAMDataset>'
    beside.write_text(band.format('<Metadata><MDI key="STATISTICS_MEAN">7</MDI></Metadata>'))  # as viewers leave it
    assert json.loads(run(*command).out)["done"] == 0
    beside.write_text(band.format("<NoDataValue>7</NoDataValue>"))
    assert json.loads(run(*command).out)["done"] == 1
    assert json.loads(run(*command).out)["done"] == 0


@pytest.mark.usefixtures("without_workers")
def test_a_header_of_raw_pixels_that_changes_is_a_change(tmp_path: Path, run) -> None:
    write_pair(tmp_path / "in", 64, 64, 3)
    rasterio.shutil.copy(tmp_path / "in" / "ms.tif", tmp_path / "in" / "ms.img", driver="ENVI")
    (tmp_path / "in" / "ms.tif").unlink()
    command = ("batch", tmp_path / "in", "-o", tmp_path / "out", "--method", "exp", "--no-score", "--json")
    assert json.loads(run(*command).out)["done"] == 1
    header = tmp_path / "in" / "ms.hdr"
    header.write_text(f"{header.read_text()}data ignore value = 7\n")
    assert json.loads(run(*command).out)["done"] == 1
    assert json.loads(run(*command).out)["done"] == 0


def test_a_folder_of_many_scenes_is_listed_once_for_their_plan(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    names = [f"{tmp_path}/in/s{i}" for i in range(40)]
    found = [Found(f"s{i}", "", (f"{name}_pan.tif",), ((f"{name}_ms.tif",),), "name") for i, name in enumerate(names)]
    for scene in found:
        for path in (*scene.files, f"{tmp_path}/out/{scene.name}.tif"):
            Path(path).touch()
    (tmp_path / "in" / "s7_ms.IMD").touch()
    (tmp_path / "out" / "S8.rpc").touch()
    listed, original = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(str(path)) or original(path))
    tasks = planning.plan(found, tmp_path / "out", Choices())
    assert sorted(listed) == [f"{tmp_path}/in", f"{tmp_path}/out"]
    assert {t.scene: t.refused.split(";")[0] for t in tasks if t.refused} == {
        "s8.tif": f"{tmp_path}/out/S8.rpc would be read with s8.tif, which it does not describe"
    }
    assert [i["path"] for t in tasks for i in t.inputs if "tif" not in i["path"]] == [f"{tmp_path}/in/s7_ms.IMD"]
    planning.dry_run(tasks, tmp_path / "out", [], False)
    assert len(listed) <= 2 + 4  # the output folder, and those of reports and quicklooks


@pytest.mark.usefixtures("without_workers")
def test_a_report_that_is_nested_without_end_is_none(tmp_path: Path, run) -> None:
    write_pair(tmp_path / "in", 64, 64, 3)
    command = ("batch", tmp_path / "in", "-o", tmp_path / "out", "--method", "exp", "--no-score", "--json")
    assert json.loads(run(*command).out)["done"] == 1
    (tmp_path / "out" / "batch.jsonl").unlink()
    (report,) = (tmp_path / "out" / "reports").rglob("*.json")
    report.write_text("[" * 99_999)
    found = json.loads(run(*command).out)
    assert found["done"] == 0 and "use --overwrite to replace it" in found["failed"][0]["error"]


@pytest.mark.usefixtures("without_workers")
def test_running_again_does_what_is_missing_failed_or_changed(archive: Path, tmp_path: Path, run) -> None:
    out = tmp_path / "out"

    def again(*options: object) -> tuple[int, set[str]]:
        """Exit code, and which outputs were written."""
        before = stamps(out) if out.exists() else {}
        finished = run("batch", archive, "-o", out, *FAST, *options)
        assert len({r["scene"] for r in lines_of(out)}) == len(lines_of(out)) == 4
        return finished.code, {name for name, when in stamps(out).items() if before.get(name) != when}

    assert again() == (1, set(GOOD))
    assert again() == (1, set())
    (out / GOOD[0]).unlink()
    assert again() == (1, {GOOD[0]})
    os.utime(archive / "2019" / "s1" / "ms.tif", (1, 1))
    assert again() == (1, {GOOD[1]})
    attempt = lines_of(out)[-1]["when"], [r["seconds"] for r in lines_of(out) if r["scene"] == BAD]
    assert again("--retry-failed") == (1, set())
    assert attempt != (lines_of(out)[-1]["when"], [r["seconds"] for r in lines_of(out) if r["scene"] == BAD])
    assert again("--tile-size", 256) == (1, set()), "pixels do not depend on it"
    assert again("--dtype", "float32") == (1, set(GOOD))
    shutil.copy(archive / "2019" / "s1" / "ms.tif", archive / "2020" / "<b>bad" / "ms.tif")
    assert again("--dtype", "float32") == (0, {BAD})


@pytest.mark.usefixtures("without_workers")
def test_a_scene_whose_input_has_become_bad_keeps_its_earlier_output(archive: Path, tmp_path: Path, run) -> None:
    shutil.rmtree(archive / "2020" / "<b>bad")
    out = tmp_path / "out"
    assert run("batch", archive, "-o", out, *FAST).code == 0
    assert run("batch", archive, "-o", out, *FAST, "--bidx", 9).code == 1
    assert sorted(stamps(out)) == GOOD, "other options that fail leave what was done"
    (archive / "2019" / "s0" / "ms.tif").write_bytes(b"")
    finished = run("batch", archive, "-o", out, *FAST)
    assert finished.code == 1 and "failed: 2019/s0/s0.tif: cannot open" in finished.err
    assert sorted(stamps(out)) == GOOD and {r["scene"]: r["status"] for r in lines_of(out)}[GOOD[0]] == "failed"
    shutil.copy(archive / "2019" / "s1" / "ms.tif", archive / "2019" / "s0" / "ms.tif")
    assert json.loads(run("batch", archive, "-o", out, *FAST, "--json").out)["done"] == 1, "no --overwrite is needed"


@pytest.mark.usefixtures("without_workers")
def test_going_back_from_options_that_failed_does_nothing(archive: Path, tmp_path: Path, run) -> None:
    shutil.rmtree(archive / "2020")
    out = tmp_path / "out"
    assert run("batch", archive, "-o", out, *FAST).code == 0
    before = stamps(out)
    finished = run("batch", archive, "-o", out, *FAST, "--co", "COMPRESS=JPEG", "--json")
    assert finished.code == 1 and len(json.loads(finished.out)["failed"]) == 2
    assert {r["status"] for r in lines_of(out)} == {"done"} and all("JPEG" in r["error"] for r in lines_of(out))
    assert run("batch", archive, "-o", out, *FAST).code == 0 and stamps(out) == before


@pytest.mark.usefixtures("without_workers")
@pytest.mark.slow
def test_a_page_or_report_that_is_asked_for_is_made_again(archive: Path, tmp_path: Path, run) -> None:
    shutil.rmtree(archive / "2020")
    out = tmp_path / "out"
    steps: list[tuple[str, list[str], int]] = [
        ("", [], 2), ("", ["--html"], 2), ("", ["--html"], 0), (".html", ["--html"], 1), (".html", [], 0),
        (".json", [], 1), (".png", [], 1), ("", [], 0),
    ]  # fmt: skip
    for suffix, options, count in steps:
        if suffix:
            (out / "reports" / "2019" / "s0" / f"s0{suffix}").unlink(missing_ok=True)
        assert json.loads(run("batch", archive, "-o", out, *FAST, *options, "--json").out)["done"] == count
    os.utime(archive / "2019" / "s1" / "ms.tif", (1, 1))
    for options, count in (([], 1), (["--html"], 2), (["--html"], 0)):  # pages of earlier outputs do not count
        assert json.loads(run("batch", archive, "-o", out, *FAST, *options, "--json").out)["done"] == count
    assert (out / "reports" / "2019" / "s1" / "s1.html").is_file()


def test_the_hash_of_options_knows_the_weights(tmp_path: Path, monkeypatch) -> None:
    network = Choices(Options(method="glpnet"))
    (card,) = weights.cards("glpnet")
    before = network.digest()
    monkeypatch.setattr(weights, "cards", lambda method, file=None: [replace(card, sha256="other")])
    assert network.digest() != before
    lost = Choices(Options(method="exp", weights=str(tmp_path / "lost")))
    assert lost.digest() == Choices(Options(method="exp")).digest()


def test_the_hash_of_options_knows_the_model_of_heights(tmp_path: Path) -> None:
    (tmp_path / "dem.tif").write_bytes(b"heights")
    choices = Choices(opening=OpenOptions(dem=str(tmp_path / "dem.tif")))
    before = choices.digest()
    assert choices.digest() == before
    (tmp_path / "dem.tif").write_bytes(b"other heights")
    assert choices.digest() != before


@pytest.mark.usefixtures("without_workers")
def test_a_source_of_a_vrt_is_watched(scenes: Path, tmp_path: Path, run) -> None:
    for name in ("pan", "ms"):
        shutil.copy(scenes / "2019" / "s0" / f"{name}.tif", tmp_path / f"source_of_{name}.tif")
    rasterio.shutil.copy(tmp_path / "source_of_ms.tif", tmp_path / "ms.vrt", driver="VRT")
    (tmp_path / "list.csv").write_text("pan,ms,name\nsource_of_pan.tif,ms.vrt,x\n")
    for changed in (1, 0):
        command = ("batch", tmp_path / "list.csv", "-o", tmp_path / "out", *FAST, "--json")
        assert json.loads(run(*command).out)["done"] == changed
    os.utime(tmp_path / "source_of_ms.tif", (1, 1))
    assert json.loads(run(*command).out)["done"] == 1


MANY, HALF = 8, 4


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """Scenes in `in`, and what becomes of them in `out`."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for i in range(MANY):
        write_pair(folder / "in" / f"s{i}", 160, 160, 4, seed=i)
    default = {"sensor": "auto", "bidx": None, "fit_bands": "all", "nodata": None}
    default |= {"extent": "intersection", "dtype": None}
    choices = Choices(Options(method="gsa"), OpenOptions(**default))
    tasks = planning.plan(pairs.find([str(folder / "in")]).found, folder / "out", choices)
    assert len(batch.run(tasks, folder / "out", batch.local(choices, 2, None, None)).done) == MANY
    return folder


def session(leader: int) -> list[int]:
    """The processes of a session that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
            if int(number) == leader and state != "Z":
                found.append(int(stat.parent.name))
    return found


def wait_until(process: subprocess.Popen, out: Path, **counts: int) -> None:
    """Until so many scenes have a status in the log of a batch, or it has ended."""
    log = out / "batch.jsonl"
    while process.poll() is None:
        found = Counter(r.status for r in batch_log.read_log(out).values()) if log.exists() else Counter()
        if all(found[status] == count for status, count in counts.items()):
            return
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_the_middle_it_goes_on_where_it_was(
    number: int, undisturbed: Path, tmp_path: Path, listener: int, run
) -> None:
    """In the middle two scenes wait for a silent server, so that the signal meets both workers there."""
    out, folders = tmp_path / "out", [undisturbed / "in" / f"s{i}" for i in range(MANY)]
    rows = [f"{folder / 'pan.tif'},{folder / 'ms.tif'},{folder.name}/{folder.name}" for folder in folders]
    waiting = [f"/vsicurl/http://127.0.0.1:{listener}/{i}.tif,ms.tif,wait{i}" for i in range(2)]
    files = {"first.csv": [*rows[:HALF], *waiting, *rows[HALF:]], "again.csv": rows}
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(["pan,ms,name", *lines, ""]))
    options = ["-o", str(out), "-j", "2", "--method", "gsa"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pansharpen_cli", "batch", str(tmp_path / "first.csv"), *options], cwd=ROOT,
        stderr=subprocess.PIPE, start_new_session=True,
        env=os.environ | {"GDAL_HTTP_LOW_SPEED_TIME": "600", "GDAL_HTTP_TIMEOUT": "600"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    )  # fmt: skip
    wait_until(process, out, done=HALF, started=2)
    if number == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)  # as Ctrl-C does
    _, err = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -9
        deadline = time.monotonic() + 30
        while session(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not session(process.pid), "workers outlive their parent"
    else:
        assert (process.returncode, err.decode().splitlines()[-1]) == (130, "error: interrupted")
        assert not left_behind(out)
    before = {r.scene for r in batch_log.read_log(out).values() if r.is_done}
    assert len(before) == HALF
    kept = {name: when for name, when in stamps(out).items() if name in before}
    facts = json.loads(run("batch", tmp_path / "again.csv", *options, "--json").out)
    assert (facts["done"], facts["done_before"], facts["failed"]) == (MANY - HALF, HALF, [])
    assert kept.items() <= stamps(out).items() and not left_behind(out)
    expected = {name: (undisturbed / "out" / name).read_bytes() for name in stamps(undisturbed / "out")}
    assert {name: (out / name).read_bytes() for name in stamps(out)} == expected


def hanging(folder: Path, port: int) -> str:
    """A list with a scene that waits for a silent server."""
    (folder / "hang.csv").write_text(f"pan,ms,name\n/vsicurl/http://127.0.0.1:{port}/pan.tif,ms.tif,hang\n")
    return str(folder / "hang.csv")


@pytest.mark.slow
def test_a_worker_that_hangs_does_not_outlive_a_parent_that_is_killed(tmp_path: Path, listener: int) -> None:
    given = [hanging(tmp_path, listener), "-o", str(tmp_path / "out"), *FAST]
    command = [sys.executable, "-m", "pansharpen_cli", "batch", *given]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    wait_until(process, tmp_path / "out", started=1)
    assert process.poll() is None
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not session(process.pid) and not left_behind(tmp_path / "out")


def test_a_torn_line_of_the_log_does_not_count(tmp_path: Path) -> None:
    record = {"schema": "pansharpen-batch/1", "scene": "a.tif", "status": "done", "bytes": 3, "made": {"a.tif": [3, 1]}}
    text = json.dumps({**record, "status": "started"}) + "\n" + json.dumps(record) + "\n"
    (tmp_path / "batch.jsonl").write_text(text + '{"scene": "b.tif", "sta')
    log = batch_log.Log(tmp_path)
    assert plain(log.records) == {"a.tif": record}
    log.add(Record(batch_log.SCHEMA, "c.tif", "started"))
    assert [r["scene"] for r in lines_of(tmp_path)] == ["a.tif", "c.tif"]


def test_a_copy_that_shares_the_log_keeps_its_own(tmp_path: Path) -> None:
    batch_log.Log(tmp_path).add(Record(batch_log.SCHEMA, "a.tif", "done"))
    os.link(tmp_path / "batch.jsonl", tmp_path / "backup")
    before = (tmp_path / "backup").read_bytes()
    batch_log.Log(tmp_path).add(Record(batch_log.SCHEMA, "b.tif", "started"))
    assert (tmp_path / "backup").read_bytes() == before and len(lines_of(tmp_path)) == 2


@pytest.mark.usefixtures("without_workers")
def test_a_file_that_no_batch_has_written_is_not_replaced(archive: Path, tmp_path: Path, run) -> None:
    shutil.rmtree(archive / "2020")
    out = tmp_path / "out"
    (out / "2019" / "s0").mkdir(parents=True)
    (out / GOOD[0]).write_text("mine")
    finished = run("batch", archive, "-o", out, *FAST)
    assert finished.code == 1 and f"failed: {GOOD[0]}" in finished.err and "--overwrite" in finished.err
    assert (out / GOOD[0]).read_text() == "mine" and sorted(stamps(out)) == GOOD[:2], "the other is done"
    assert json.loads(run("batch", archive, "-o", out, *FAST, "--overwrite", "--json").out)["done"] == 1
    assert (out / GOOD[0]).read_bytes()[:2] == b"II" and {r["status"] for r in lines_of(out)} == {"done"}


@pytest.mark.usefixtures("without_workers")
def test_a_scene_of_another_source_does_not_replace_one_of_its_name(tmp_path: Path, run) -> None:
    out = tmp_path / "out"
    for seed, month in enumerate(("january", "february")):
        write_pair(tmp_path / month / "s", 64, 64, 3, seed=seed)

    def fused(month: str, *options: object) -> str:
        """The new output, or the line on the one that stays."""
        known = stamps(out)
        finished = run("batch", tmp_path / month, "-o", out, *FAST, "-q", *options)
        assert finished.code == (1 if finished.err else 0)
        return finished.err if known == stamps(out) else "new"

    for name in ("pan.tif", "ms.tif"):  # files without compression, copied without their times
        both = [tmp_path / month / "s" / name for month in ("january", "february")]
        most = max(path.stat().st_size for path in both)
        for path in both:
            os.truncate(path, most)
            os.utime(path, (1e9, 1e9))
    assert fused("january") == "new" and fused("january") == ""
    for _ in range(2):
        told = fused("february", "--bidx", "3,2,1")
        assert all(f"{tmp_path}/{month}/s/pan.tif" in told for month in ("january", "february"))
        assert all(option in told for option in ("--template", "-o", "--overwrite"))
        assert fused("january") == "" and lines_of(out)[0]["status"] == "done"
    assert "needs --overwrite" in run("batch", tmp_path / "february", "-o", out, *FAST, "--dry-run").out
    (tmp_path / "january").rename(tmp_path / "moved")
    assert fused("moved", "--bidx", "3,2,1") == "new", "the same files elsewhere"
    os.utime(tmp_path / "moved" / "s" / "pan.tif", (1, 1))
    os.utime(tmp_path / "moved" / "s" / "ms.tif", (1, 1))
    assert fused("moved") == "new", "changed"
    (out / "batch.jsonl").unlink()
    assert "does not know" in fused("february"), "the report tells what was fused"
    assert fused("february", "--overwrite") == "new" and fused("february") == ""


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("/vsicurl/http://a/jan/a.tif", "/vsicurl/http://a/feb/a.tif", False),
        ("/vsicurl/http://a/jan/a.tif?sig=1", "/vsicurl/http://a/jan/a.tif?sig=2", True),
    ],
)
def test_files_in_a_network_are_the_same_by_their_address(before: str, now: str, same: bool) -> None:
    """What tells the time of others is not known of them."""
    known = ({"path": path, "size": None, "mtime": None} for path in (before, now))
    record, own = (Record("", "a.tif", "done", inputs=[each], made={"a.tif": [1, 1.0]}) for each in known)
    task = planning.Task("a.tif", None, Path("a.tif"), Path("r"), Path("q"), None, "", tuple(own.inputs))  # type: ignore[arg-type]
    assert planning.source_of_another(task, record) == ("" if same else before)


@pytest.mark.usefixtures("without_workers")
@pytest.mark.parametrize("side", ["s.tif.msk", "s.tif.aux.xml", "s.tfw"])
def test_what_is_beside_an_output_that_is_gone_is_not_replaced(tmp_path: Path, run, side: str) -> None:
    write_pair(tmp_path / "s", 64, 64, 3)
    out, command = tmp_path / "out", ("batch", tmp_path / "s", "-o", tmp_path / "out", *FAST)
    assert run(*command).code == 0
    (out / side).write_text("mine")
    (out / "s.tif").unlink()
    finished = run(*command)
    assert finished.code == 1 and f"{side} is there without the file" in finished.err, finished.err
    assert (out / side).read_text() == "mine"
    assert run(*command, "--overwrite").code == 0 and not (out / side).exists()


@pytest.mark.usefixtures("without_workers")
def test_a_scene_that_fails_leaves_what_no_batch_has_written(scenes: Path, tmp_path: Path, run) -> None:
    source = scenes / "2019" / "s0"
    (tmp_path / "damaged.tif").write_bytes(b"II*\0 and no more")
    (tmp_path / "list.csv").write_text(f"pan,ms,name\n{source}/pan.tif,damaged.tif,x\n")
    command = ("batch", tmp_path / "list.csv", "-o", tmp_path / "out", *FAST)
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / "x.tif"
    mine.write_text("mine")
    assert "needs --overwrite" in run(*command, "--dry-run").out
    assert "needs --overwrite" not in run(*command, "--dry-run", "--overwrite").out
    for more in ((), ("--retry-failed",)):
        assert run(*command, "--overwrite", *more).code == 1 and mine.read_text() == "mine"
    (tmp_path / "out" / "batch.jsonl").write_text(
        '{"schema": "pansharpen-batch/1", "scene": "x.tif", "status": "started", "foreign": true}\n'
    )
    assert run(*command, "--overwrite").code == 1 and mine.read_text() == "mine", "also after a kill"
    shutil.copy(source / "ms.tif", tmp_path / "damaged.tif")
    refused = run(*command)
    assert refused.code == 1 and "--overwrite" in refused.err and mine.read_text() == "mine"
    assert run(*command, "--overwrite").code == 0 and mine.read_bytes()[:2] == b"II"
    (tmp_path / "damaged.tif").unlink()
    assert run(*command).code == 1 and mine.read_bytes()[:2] == b"II", "nothing is deleted"


def test_unfinished_files_are_removed_but_not_those_of_another_batch(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "sub", tmp_path / "other"):
        (folder / f"{PARTIAL}x").mkdir(parents=True)
    (tmp_path / "batch.lock").touch()
    (tmp_path / "other" / "batch.lock").touch()
    batch_log.sweep(tmp_path)
    assert {p.parent.name for p in left_behind(tmp_path)} == {"other"}


@pytest.mark.usefixtures("without_workers")
@pytest.mark.slow
def test_the_report_of_tiles_names_the_tiles(tmp_path: Path, run) -> None:
    write_pair(tmp_path / "whole", 128, 128, 4)
    for n in range(2):
        with rasterio.open(tmp_path / "whole" / "pan.tif") as pan:
            window = rasterio.windows.Window(64 * n, 0, 64, 128)
            profile = pan.profile | {"width": 64, "transform": pan.window_transform(window)}
            with rasterio.open(tmp_path / f"a_pan_R1C{n + 1}.tif", "w", **profile) as tile:
                tile.write(pan.read(window=window))
    shutil.move(tmp_path / "whole" / "ms.tif", tmp_path / "a_ms.tif")
    shutil.rmtree(tmp_path / "whole")
    assert run("batch", tmp_path, "-o", tmp_path / "out", *FAST, "--html").code == 0
    text = (tmp_path / "out" / "reports" / "a.json").read_text()
    assert json.loads(text)["scene"]["pan"] == str(tmp_path / "a_pan_R1C1.tif") and PARTIAL not in text
    page = (tmp_path / "out" / "reports" / "a.html").read_text()
    assert "a_pan_R1C1.tif" in page and PARTIAL not in page and "a_pan.vrt" not in page


def test_names_that_are_not_utf8_do_not_break_the_page(tmp_path: Path) -> None:
    record = Record("", "a\udcff.tif", "done", report="reports/a\udcff.json")
    page = index.write(tmp_path, [record]).read_text("utf-8")
    assert r"a\udcff.tif" in page and 'href="reports/a%FF.json"' in page


# The command --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"), [(("-o", "o\udcff"), 2), (("-o", "out", "--template", "{name}\udcff.tif"), 1)]
)
@pytest.mark.usefixtures("without_workers")
def test_an_output_whose_name_is_not_utf_8_is_told(tmp_path: Path, monkeypatch, run, options, code: int) -> None:
    write_pair(tmp_path / "in" / "s", 64, 64, 3)
    monkeypatch.chdir(tmp_path)
    for command in (("batch", "in", *options), ("fuse", "in/s/pan.tif", "in/s/ms.tif", "-o", "o\udcff.tif")):
        finished = run(*command, *FAST)
        assert finished.code == (code if command[0] == "batch" else 2) and "no text in UTF-8" in finished.err
        assert "codec" not in finished.err and not list(tmp_path.glob("o\udcff*"))


@pytest.mark.usefixtures("without_workers")
def test_warnings_of_scenes_are_told_in_one_line(tmp_path: Path, run) -> None:
    for name in ("a", "b", "c"):
        write_pair(tmp_path / "in" / name, 64, 64, 3)
    command = ("batch", tmp_path / "in", "-o", tmp_path / "out", *FAST)
    assert "with warnings" not in run(*command).err
    told = [line for line in run(*command, "--dtype", "uint8").err.splitlines() if "clipped to uint8" in line]
    assert len(told) == 1 and told[0].startswith("warning: 3 scenes with warnings, such as a/a.tif: "), told
    assert "clipped" not in run(*command, "--dtype", "uint8", "--overwrite", "-q").err


def test_a_dry_run_shows_pairs_and_what_is_left_over_and_writes_nothing(scenes: Path, tmp_path: Path, run) -> None:
    out = tmp_path / "out"
    text = run("batch", scenes, "-o", out, "--dry-run")
    assert text.code == 0 and not out.exists()
    assert "4 pairs, 1 file left over" in text.out and "looks like pansharpened already" in text.out
    plan = json.loads(run("batch", scenes, "-o", out, "--dry-run", "--json").out)
    assert [s["output"] for s in plan["scenes"]] == [*GOOD[:2], BAD, GOOD[2]]
    assert {(s["state"], s["paired_by"]) for s in plan["scenes"]} == {("new", "name")}
    assert plan["scenes"][0]["ms"] == [[str(scenes / "2019" / "s0" / "ms.tif")]]
    assert [Path(each["path"]).name for each in plan["left_over"]] == ["old_pansharpened.tif"]


def test_a_dry_run_of_which_every_scene_is_refused_is_an_error(scenes: Path, tmp_path: Path, run) -> None:
    (tmp_path / "out" / "s0.tif").mkdir(parents=True)
    done = run("batch", scenes / "2019" / "s0", "-o", tmp_path / "out", "--dry-run")
    assert done.code == 2 and "s0.tif" in done.out and "no scene can be fused" in done.err, done.out + done.err


def listed(folder: Path) -> None:
    (folder / "list.csv").write_text("pan,ms,name\nno_pan.tif,ms.tif,a\npan.tif,ms.tif;gone.tif,b\n")


def linked(folder: Path) -> None:
    (folder / "ms.tif").unlink()
    (folder / "ms.tif").symlink_to(folder / "gone.tif")


def item(folder: Path) -> None:
    assets = {key: {"href": f"./{key}_gone.tif", "type": "image/tiff"} for key in ("pan", "ms")}
    (folder / "i.json").write_text(json.dumps(
        {"type": "Feature", "stac_version": "1.0.0", "id": "i", "geometry": None, "links": [], "assets": assets,
         "properties": {"datetime": "2025-01-02T03:04:05Z"}},
    ))  # fmt: skip


def packed(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w") as zipped, tarfile.open(folder / "a.tar", "w") as tar:
        zipped.write(folder / "pan.tif", "d/pan.tif")
        tar.add(folder / "pan.tif", "d/pan.tif")
    names = ["zip//mnt/gone.zip/p.tif", "tar/{/mnt/gone.tar}/p.tif", f"zip/{folder}/a.zip/p.tif",
             f"tar/{{{folder}/a.tar}}/d/p.tif"]  # fmt: skip
    lines = [f"/vsi{name},ms.tif,{i}\n" for i, name in enumerate(names)]
    (folder / "list.csv").write_text("pan,ms,name\n" + "".join(lines))


@pytest.mark.parametrize(
    ("lay", "source", "files"),
    [(listed, "list.csv", ["no_pan.tif", "gone.tif"]), (linked, ".", ["gone.tif, which is missing"]),
     (item, "i.json", ["pan_gone.tif"]),
     (packed, "list.csv", ["gone.zip/p.tif: no such archive", "p.tif: no such archive", "a.zip", "no such file in "])],
)  # fmt: skip
def test_a_dry_run_refuses_scenes_of_which_a_file_is_missing(lay, source, files, tmp_path: Path, run) -> None:
    """As the run that follows would fail on them, and says."""
    if source.endswith(".json"):
        pytest.importorskip("pystac")
    write_pair(tmp_path, 96, 96, 4)
    lay(tmp_path)
    done = run("batch", tmp_path / source, "--dry-run", "--json")
    states = [scene["state"] for scene in json.loads(done.out)["scenes"]]
    assert done.code == 2 and "no scene can be fused" in done.err, done.out + done.err
    assert all(state.startswith("refused: ") for state in states)
    assert all(file in state for state, file in zip(states, files, strict=True)), states
    if source == "list.csv":
        there = [f"/vsizip/{tmp_path}/a.zip/d/pan.tif", f"/vsitar/{{{tmp_path}/a.tar}}/d/pan.tif"]
        with (tmp_path / "list.csv").open("a") as file:
            for i, name in enumerate(there if lay is packed else ["pan.tif"]):
                file.write(f"{name},ms.tif,d{i}\n")
        done = run("batch", tmp_path / source, "--dry-run")
        assert done.code == 0 and f"({len(files)} refused)" in done.out and "d0.tif  (new" in done.out
        assert lay is not packed or "d1.tif  (new" in done.out


def nothing(folder: Path) -> None:
    (folder / "empty").mkdir()


def escaping(name: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / "list.jsonl").write_text(json.dumps({"pan": "pan.tif", "ms": "ms.tif", "name": name}))

    return prepare


def through_a_link(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "out" / "sub").symlink_to(folder / "elsewhere")
    escaping("sub/x")(folder)


def to_a_link(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "x.tif").symlink_to(folder / "elsewhere.tif")
    escaping("x")(folder)


def twice(folder: Path) -> None:
    rows = [{"pan": f"{i}.tif", "ms": "ms.tif", "name": "same"} for i in range(2)]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))


def beside_its_file(folder: Path) -> None:
    rows = [{"pan": f"{i}.tif", "ms": "ms.tif", "name": n} for i, n in enumerate(("x", "x.tif/y"))]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))


def with_two_sensors(folder: Path) -> None:
    rows = [{"pan": "p.tif", "ms": "ms.tif", "sensor": s} for s in ("ikonos", "quickbird")]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))


def a_folder_in_the_way(folder: Path) -> None:
    (folder / "out" / "x.tif").mkdir(parents=True)
    escaping("x")(folder)


HARMLESS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "parent": (escaping("../x"), "list.jsonl", "leads out of the output folder"),
    "parent further in": (escaping("a/../../x"), "list.jsonl", "leads out of the output folder"),
    "absolute": (escaping("/tmp/x"), "list.jsonl", "leads out of the output folder"),
    "backslash": (escaping("..\\x"), "list.jsonl", "leads out of the output folder"),
    "a line break": (escaping("x\ny"), "list.jsonl", r"the name 'x\ny' holds a control character"),
    "a NUL": (escaping("x\0y"), "list.jsonl", "holds a control character"),
    "link": (through_a_link, "list.jsonl", "through a link"),
    "output is a link": (to_a_link, "list.jsonl", "through a link"),
    "long": (escaping("a/" + 300 * "x"), "list.jsonl", "longer than"),
    "long path": (escaping("/".join(50 * [99 * "x"])), "list.jsonl", "too long"),
    "half a character": (escaping("\ud800"), "list.jsonl", "is no text"),
    "unfinished": (escaping(f"{PARTIAL}x"), "list.jsonl", "unfinished"),
    "in an unfinished folder": (escaping(f"{PARTIAL}x/y"), "list.jsonl", "unfinished"),
    "the log": (escaping("batch.jsonl/x"), "list.jsonl", "a file and a folder"),
    "file and folder": (beside_its_file, "list.jsonl", "a file and a folder"),
    "a folder": (a_folder_in_the_way, "list.jsonl --overwrite", "is a folder"),
    "two sensors": (with_two_sensors, "list.jsonl", "with the sensors 'ikonos' and 'quickbird'"),
    "same output": (twice, "list.jsonl", "1.tif would be written to same.tif, too"),
}


@pytest.mark.parametrize("case", HARMLESS)
@pytest.mark.usefixtures("without_workers")
@pytest.mark.slow
def test_a_scene_without_an_output_of_its_own_harms_no_other(
    case: str, scenes: Path, tmp_path: Path, monkeypatch, run
) -> None:
    prepare, arguments, words = HARMLESS[case]
    prepare(tmp_path)
    for name in ("pan.tif", "ms.tif"):
        shutil.copy(scenes / "2019" / "s0" / name, tmp_path / name)
    bad = len((tmp_path / "list.jsonl").read_text().splitlines())
    with (tmp_path / "list.jsonl").open("a") as manifest:
        manifest.write("\n" + json.dumps({"pan": "pan.tif", "ms": "ms.tif", "name": "good"}))
    monkeypatch.chdir(tmp_path)
    there = {p for p in tmp_path.rglob("*") if tmp_path / "out" not in p.parents}
    command = ("batch", *arguments.split(), "-o", "out", *FAST)
    assert words in run(*command, "--dry-run").out
    for done in (1, 0):
        finished = run(*command, "--json")
        facts = json.loads(finished.out)
        assert (finished.code, facts["done"], len(facts["failed"])) == (1, done, bad), finished.err
        assert words in facts["failed"][0]["error"] and words in finished.err
        assert {p for p in tmp_path.rglob("*") if tmp_path / "out" not in p.parents} - there <= {tmp_path / "out"}
        assert [p.name for p in Path("out").rglob("*.tif") if p.is_file()] == ["good.tif"]
        assert {r["scene"]: r["status"] for r in lines_of(Path("out"))}.items() >= {"good.tif": "done"}.items()


@pytest.mark.usefixtures("without_workers")
def test_a_scene_that_gets_a_name_is_not_refused_any_more(scenes: Path, tmp_path: Path, run) -> None:
    source = scenes / "2019" / "s0"
    for name, code in (("../x", 1), ("x", 0)):
        (tmp_path / "list.csv").write_text(f"pan,ms,name\n{source}/pan.tif,{source}/ms.tif,{name}\n")
        assert run("batch", tmp_path / "list.csv", "-o", tmp_path / "out", *FAST).code == code
    assert [(r["scene"], r["status"]) for r in lines_of(tmp_path / "out")] == [("x.tif", "done")]


REFUSED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no scene": (nothing, "empty", "no PAN/MS pair"),
    "no scene, dry": (nothing, "empty --dry-run", "no PAN/MS pair"),
    "no source": (nothing, "lost", "no such file or folder: lost"),
    "driver": (escaping("x"), "list.jsonl --driver PNG", "unknown driver 'PNG'"),
    "sensor": (escaping("x"), "list.jsonl --sensor quickbrid", "unknown sensor 'quickbrid'"),
    "the output folder": (a_folder_in_the_way, "out", "is the output folder itself"),
    "template": (escaping("x"), "list.jsonl --template {nme}.tif", "not '{nme}'"),
    "template with a control character": (escaping("x"), "list.jsonl --template \x1b{name}.tif", "control character"),
    "template with an open brace": (escaping("x"), "list.jsonl --template {name.tif", "a brace without its partner"),
    "template with a stray brace": (escaping("x"), "list.jsonl --template {name}}.tif", "a brace without its partner"),
    "template leads out": (escaping("x"), "list.jsonl --template ../{name}.tif", "leads out"),
    "no tif": (escaping("x"), "list.jsonl --template {name}.png", ".tif"),
    "method": (escaping("x"), "list.jsonl --method nonsense", "unknown method 'nonsense'"),
    "weights": (escaping("x"), "list.jsonl --weights lost.safetensors", "no weights file"),
    "device": (escaping("x"), "list.jsonl --device cuda:99", "device 'cuda:99' is not available"),
    "device of a cluster": (escaping("x"), "list.jsonl --device gpu --scheduler tcp://x:1", "unknown device 'gpu'"),
    "creation option": (escaping("x"), "list.jsonl --co COMPRESS", "--co takes KEY=VALUE"),
    "creation option of none": (escaping("x"), "list.jsonl --co FOO=1", "does not support creation option FOO"),
    "its value": (escaping("x"), "list.jsonl --driver COG --co COMPRESS=RAR", "RAR"),
    "creation option for the type": (escaping("x"), "list.jsonl --co COMPRESS=JPEG --dtype uint16", "JPEG"),
    "jobs of a cluster": (escaping("x"), "list.jsonl --scheduler tcp://x:1 -j 2", "--jobs"),
    "no regular expression": (nothing, "empty --pair-regex (", "--pair-regex"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_before_anything_is_written(case: str, tmp_path: Path, monkeypatch, run) -> None:
    prepare, arguments, words = REFUSED[case]
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    there = sorted(tmp_path.rglob("*"))
    finished = run("batch", *arguments.split(), "-o", "out")
    assert finished.code == 2
    assert len(finished.errors) == 1 and words in finished.errors[0]
    assert sorted(tmp_path.rglob("*")) == there


def test_options_that_suit_some_scenes_and_a_device_of_the_workers_are_not_refused() -> None:
    replace(CHOICES, creation_options=("COMPRESS=JPEG",)).check()
    replace(CHOICES, creation_options=("COMPRESS=WEBP",), driver="COG").check()
    replace(CHOICES, options=Options(method="exp", device="cuda:99")).check(here=False)


@pytest.mark.parametrize("words", ["-q report out", "--jobs 2 report out", "report -o out", "out report"])
def test_a_report_that_does_not_come_first_is_told_where_it_comes(tmp_path: Path, monkeypatch, run, words) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("batch", *words.split())
    assert done.code == 2 and "pansharpen batch report OUTDIR" in done.err


def test_the_output_folder_is_needed_and_a_report_needs_a_log(tmp_path: Path, monkeypatch, run) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--output" in run("batch", "in").errors[0]
    assert "batch.jsonl" in run("batch", "report", "in").errors[0]
    assert "OUTDIR" in run("batch", "report").errors[0]
    helped = run("batch", "report", "--help")
    assert helped.code == 0 and "OUTDIR/index.html" in helped.out and "--pair-regex" not in helped.out


@pytest.mark.usefixtures("without_workers")
def test_a_folder_is_one_batchs_alone(scenes: Path, tmp_path: Path, run) -> None:
    with batch_log.locked(tmp_path / "out"):
        finished = run("batch", scenes, "-o", tmp_path / "out", *FAST)
        assert finished.code == 2
        assert re.search(rf"in use by another batch \(process {os.getpid()} on \S+, since ", finished.errors[-1])
    with batch_log.locked(tmp_path / "out"):
        pass


@pytest.mark.usefixtures("without_workers")
def test_a_file_system_without_locks_does_not_keep_a_batch_from_running(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run
) -> None:
    """As those of some clusters: `.pansharpen-*` of processes that may be alive stay then."""

    def flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(batch_log.fcntl, "flock", flock)
    left = tmp_path / "out" / f"{PARTIAL}dead"
    left.mkdir(parents=True)
    finished = run("batch", scenes, "-o", tmp_path / "out", *FAST)
    assert "3 done, 1 failed" in finished.out and left.is_dir()


@pytest.mark.slow
def test_a_missing_file_a_pipe_and_one_that_hangs_are_failures_of_their_own(tmp_path: Path, listener: int, run) -> None:
    (tmp_path / "list.csv").write_text("pan,ms,name\nlost.tif,ms.tif,lost\n")
    os.mkfifo(tmp_path / "pipe_pan.tif")  # opening it would wait for somebody to write
    (tmp_path / "pipe_ms.tif").touch()
    out, hangs = tmp_path / "out", hanging(tmp_path, listener)
    finished = run("batch", tmp_path / "list.csv", hangs, tmp_path, "-o", out, *FAST, "--timeout", 2, "-q")
    assert (finished.code, finished.out) == (1, "")
    errors = {r["scene"]: r["error"] for r in lines_of(out)}
    assert errors["hang.tif"] == "timed out after 2 s" and "no such file" in errors["lost.tif"]
    assert "pipe_pan.tif: it is a pipe" in errors["pipe.tif"]
    assert len(finished.errors) == 4 and finished.errors[-1].startswith("error: 3 of 3 scenes failed")


FOUND = Found(
    "s", "a/b", ("/in/P.TIL", "/in/p1.tif"), (("/in/m.tif",),), "name", time=datetime(2020, 8, 14, 16, 21, 32)
)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{folder}/{name}.tif", "a/b/s.tif"),
        ("{date}/{pan}_{ms}_{method}.TIF", "20200814/P_m_gsa.TIF"),
        ("flat/{name}.tiff", "flat/s.tiff"),
    ],
)
def test_templates(template: str, name: str) -> None:
    assert str(planning.output_name(FOUND, template, "gsa")) == name


@pytest.mark.parametrize("name", ["a:b", "CON", "aux.x", "lpt1", "b.tif.", "c ", "what?", "x/con/y"])
def test_a_name_that_windows_does_not_have_is_refused_there(monkeypatch, name: str) -> None:
    found, template = (
        replace(FOUND, name=name.rpartition("/")[2], folder=name.rpartition("/")[0]),
        "{folder}/{name}/a.tif",
    )
    monkeypatch.setattr("sys.platform", "linux")
    planning.output_name(found, template, "gsa")
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(InputError, match="is none on Windows"):
        planning.output_name(found, template, "gsa")
    planning.output_name(replace(FOUND, name="console.1"), template, "gsa")


def test_outputs_that_differ_by_case_only_are_one_where_case_does_not_count(monkeypatch, tmp_path: Path) -> None:
    found = [replace(FOUND, name=name, pan=(f"/in/{name}.tif",)) for name in ("Scene", "scene")]
    monkeypatch.setattr("sys.platform", "linux")
    assert not any("would be written" in task.refused for task in planning.plan(found, tmp_path, Choices()))
    monkeypatch.setattr("sys.platform", "darwin")
    assert all("would be written to" in task.refused for task in planning.plan(found, tmp_path, Choices()))


# Workers ------------------------------------------------------------------------------------------------------------


def prepared_to(number: int, word: str = "") -> workers.Function:
    if word == "broken":
        raise PansharpenError("it is broken")
    if word == "ends":
        os._exit(3)
    return act


def act(task: str, tell: Progress) -> str:
    """Does what the task says."""
    if task == "hang":
        time.sleep(600)
    elif task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif task == "exits":
        os._exit(7)
    elif task == "raises":
        raise ValueError("of nothing")
    elif task.startswith("MB"):
        held = bytearray(int(task.split()[1]) << 20)
        time.sleep(1.0)
        return f"held {len(held) >> 20}"
    elif task == "stderr":
        return str(os.path.samestat(os.fstat(2), os.stat(os.devnull)))
    elif task == "signals":  # to the whole group; what workers are made of is the parent
        group = [os.getpid(), os.getppid()]
        for number in interrupts.SIGNALS:
            for pid in group:
                os.kill(pid, number)
        time.sleep(0.1)
        return str(os.getppid() == group[1])
    tell("stage", 1, 2)
    return f"{task} in {os.getpid()}"


def ends(tasks: list[str], **options: Any) -> dict[str, tuple[str, str]]:
    """How tasks ended, with jobs that do nothing but what the tasks say."""
    setup = partial(prepared_to, word=options.pop("word", ""))
    events = list(workers.Pool(setup, **options).run(tasks))
    assert [e.task for e in events if e.kind == "started"][: len(tasks)] == tasks
    return {e.task: (e.kind, str(e.result)) for e in events if e.kind in ("done", "failed")}


@pytest.mark.slow
def test_workers_that_hang_or_die_are_replaced_and_the_others_go_on() -> None:
    good = [f"good {i}" for i in range(6)]
    tasks = ["good 0", "hang", "killed", "good 1", "exits", "good 2", "raises", "good 3", "good 4", "good 5"]
    ended = ends(tasks, jobs=2, timeout=6.0)  # a busy machine may let a good one wait for a second or more
    assert {t for t, (kind, _) in ended.items() if kind == "done"} == set(good) and len(ended) == len(tasks)
    assert ended["hang"] == ("failed", "timed out after 6 s")
    assert "SIGKILL" in ended["killed"][1] and "out of memory?" in ended["killed"][1]
    assert "exit code 7" in ended["exits"][1] and ended["raises"][1] == "ValueError: of nothing"


@pytest.mark.slow
def test_workers_start_by_themselves_where_what_they_are_made_of_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder for temporary files whose name is too long for a socket."""

    def ensure_running() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", ensure_running)
    try:
        assert ends(["good"], jobs=1)["good"][0] == "done"
    finally:
        workers.spawn_alone.clear()


@pytest.mark.slow
def test_libraries_in_workers_write_nothing_between_the_lines_of_the_scenes() -> None:
    assert ends(["stderr"], jobs=1) == {"stderr": ("done", "True")}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers are the parent's own children elsewhere")
def test_signals_that_reach_the_whole_group_end_no_worker_before_the_parent_does() -> None:
    assert ends(["signals"], jobs=1) == {"signals": ("done", "True")}


@pytest.mark.slow
def test_a_task_that_needs_more_memory_than_there_is_gets_all_of_it_and_else_fails() -> None:
    tasks = ["MB 400", "MB 401", "MB 2000"]
    ended = ends(tasks, jobs=2, memory=900 << 20)
    assert ended["MB 400"] == ("done", "held 400") and ended["MB 401"] == ("done", "held 401")
    assert ended["MB 2000"][0] == "failed" and "--ram" in ended["MB 2000"][1]


@pytest.mark.slow
@pytest.mark.parametrize(("word", "message"), [("broken", "it is broken"), ("ends", "exit code 3")])
def test_workers_that_cannot_be_set_up_end_the_run(word: str, message: str) -> None:
    with pytest.raises(PansharpenError, match=message):
        ends(["good"], jobs=1, word=word)


def test_the_machine_is_shared_out(monkeypatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    try:
        function = batch.prepared(5, CHOICES, 3, devices=True)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert isinstance(function, partial) and function.keywords["choices"].options.device == "cuda:1"
    execute = batch.local(CHOICES, 64, None, 3 * batch.WORKER_BYTES)
    assert execute.__self__.jobs == 3  # type: ignore[attr-defined]


def test_a_network_is_loaded_once_for_all_scenes_of_a_worker(scenes: Path, tmp_path: Path, monkeypatch) -> None:
    loaded = []
    load = weights.load
    monkeypatch.setattr(weights, "load", lambda card, bands: loaded.append(card.name) or load(card, bands))
    monkeypatch.setattr(fit, "LOADED", {})
    choices = Choices(Options(method="glpnet", adapt="off"), OpenOptions("generic"), score=False)
    function = batch.prepared(0, choices, 1, devices=True)
    assert len(loaded) == 1
    for task in planning.plan(pairs.find([str(scenes / "2019")]).found, tmp_path / "out", choices):
        assert "error" not in function(task, quiet)
    assert len(loaded) == 1


def test_weights_that_do_not_load_end_the_batch_at_once(monkeypatch) -> None:
    with pytest.raises(InputError, match="unknown method"):
        batch.prepared(0, Choices(Options(method="nonsense")), 1, devices=True)
