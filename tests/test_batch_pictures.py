"""The pictures of a batch, and the stretch that they share."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasters import edited, pixels_of, seen_through, seldom, write_pair

from pansharpen_cli.archive import batch, pairs, pictures, planning, workers
from pansharpen_cli.archive.names import Found
from pansharpen_cli.archive.planning import Choices
from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs.picture import Request
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.stretch import PERCENTILES


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """A scene, one that is twice as bright, and a broken one."""
    folder = tmp_path_factory.mktemp("archive")
    for name, factor in {"dark": 1, "bright": 2, "broken": 1}.items():
        pan, ms, truth = write_pair(folder / "made" / name, 96, 96, 4, seed=3)
        (folder / "in" / name).mkdir(parents=True)
        for path in (pan, ms):
            names = ("Blue", "Green", "Red", "NIR1") if path == ms else ("PAN",)
            edited(path, folder / "in" / name / path.name, lambda p, f=factor: p * f, names=names)
    (folder / "in" / "broken" / "ms.tif").write_bytes(b"II*\0")
    return folder / "in"


@pytest.mark.slow
def test_pictures_of_an_archive_share_a_stretch_that_is_made_first(run, archive, tmp_path) -> None:
    out = tmp_path / "out"
    given = ("batch", archive, "-o", out, "--method", "exp", "--no-score", "--sensor", "generic", "--rgb", "true")
    done = run(*given, "--stretch", "SHARED")
    assert done.code == 1 and "2 done, 1 failed" in done.out, done.out + done.err
    ranges = json.loads((out / "stretch.json").read_text())["bands"]
    both = np.concatenate([pixels_of(archive / name / "ms.tif")[2].ravel() for name in ("dark", "bright")])
    np.testing.assert_allclose(ranges["red"], np.percentile(both, PERCENTILES), rtol=1e-5)
    values = {}
    for name in ("dark", "bright"):
        data, picture = (pixels_of(out / name / f"{name}{end}.tif")[i] for end, i in (("", 2), ("_rgb", 0)))
        values[name] = {int(d): int(p) for d, p in zip(data.ravel(), picture.ravel(), strict=True)}
    common = values["dark"].keys() & values["bright"].keys()
    assert len(common) > 20 and all(values["dark"][d] == values["bright"][d] for d in common)
    with rasterio.open(out / "dark" / "dark_rgb.tif") as picture:
        assert picture.count == 3 and picture.dtypes[0] == "uint8"
    kept = (out / "stretch.json").read_bytes()
    (out / "dark" / "dark_rgb.tif").unlink()
    again = run(*given, "--stretch", "shared")
    assert "1 done, 1 done before, 1 failed before" in again.out, again.out
    assert (out / "stretch.json").read_bytes() == kept and (out / "dark" / "dark_rgb.tif").exists()
    other = json.loads(kept)
    other["bands"]["red"] = [0, 4000]
    (out / "stretch.json").write_text(json.dumps(other))
    changed = run(*given, "--stretch", "shared")
    assert "2 done, 1 failed" in changed.out, "pictures made with another stretch are not those that are asked for"
    without = run(*given[:-2])
    assert without.err.count("earlier results") == 1 and "_rgb.tif and 1 more file;" in without.err, without.err


def test_a_stretch_that_no_scene_gives_is_refused_and_one_that_is_there_is_left(archive, tmp_path) -> None:
    kept = tmp_path / "kept.json"
    choices = Choices(Options(method="exp"), OpenOptions("generic"), rgb=Request(["red", "green", "blue"], str(kept)))
    with pytest.raises(InputError, match=r"kept\.json"):
        pictures.make_stretch([], choices)
    kept.write_bytes(b"mine")
    pictures.make_stretch([], choices)
    assert kept.read_bytes() == b"mine"


@pytest.mark.parametrize("what", ["notes", "a link", "a folder"])
def test_what_is_no_stretch_is_refused_before_anything_is_written(run, archive, tmp_path, what) -> None:
    out, kept = tmp_path / "out", tmp_path / "out" / "stretch.json"
    out.mkdir()
    if what == "notes":
        kept.write_text('{"mine": 1}')
    elif what == "a link":
        kept.symlink_to(tmp_path / "elsewhere.json")
    else:
        kept.mkdir()
    done = run("batch", archive, "-o", out, "--method", "exp", "--no-score", "--rgb", "true", "--stretch", "shared")
    assert done.code == 2 and "stretch.json" in done.err, done.err
    assert list(out.iterdir()) == [kept] and not (tmp_path / "elsewhere.json").exists()


def test_a_picture_is_not_written_over_another_scene(archive, tmp_path) -> None:
    (tmp_path / "list.csv").write_text(
        "pan,ms,name\n"
        f"{archive}/dark/pan.tif,{archive}/dark/ms.tif,a\n"
        f"{archive}/bright/pan.tif,{archive}/bright/ms.tif,a_rgb\n"
    )
    choices = Choices(Options(method="exp"), OpenOptions("generic"), rgb=Request(["true"]))
    tasks = planning.plan(pairs.find([str(tmp_path / "list.csv")]).found, tmp_path / "out", choices)
    assert [bool(task.refused) for task in tasks] == [True, False] and "another scene" in tasks[0].refused


BOTH = {"html": True, "rgb": Request(["true"])}


@pytest.fixture
def ran(archive, tmp_path):
    """Runs a batch of a scene into a folder, by default `out`; `killed`: once it has published; `meanwhile`: what
    happens before the scene is fused."""

    def run_once(
        out: Path = tmp_path / "out", killed: bool = False, meanwhile: Callable[[], object] = lambda: None, **more
    ) -> batch.Tally:
        choices = Choices(Options(method="exp", align="off"), OpenOptions("generic"), score=False, **more)

        def here(tasks):
            for task in tasks:
                yield workers.Event("started", task, 0)
                meanwhile()
                result = batch.fuse_one(task, choices)
                if killed:
                    raise KeyboardInterrupt
                yield workers.Event("done", task, 0, result)

        tasks = planning.plan(pairs.find([str(archive / "dark")]).found, out, choices)
        return batch.run(tasks, out, here, retry_failed=True)

    return run_once


def test_a_file_beside_an_output_that_no_batch_has_written_is_not_replaced(ran, tmp_path) -> None:
    out, both = tmp_path / "out", BOTH
    assert ran().done
    for mine in (out / "dark_rgb.tif", out / "reports" / "dark.html"):
        mine.write_text("mine")
        refused = ran(**both).failed
        assert len(refused) == 1 and f"{mine} exists" in (refused[0].error or "") and mine.read_text() == "mine"
        mine.unlink()
    assert ran(**both).done and ran().done, "the picture and the page stay"
    assert ran(**both).done, "they are the batch's own"
    later = (out / "reports" / "dark.json").stat().st_mtime + 60
    for edited_since in (out / "dark_rgb.tif", out / "reports" / "dark.html"):
        before = edited_since.stat()
        os.utime(edited_since, (later, later))
        (out / "dark.tif").unlink(missing_ok=True)
        refused = ran(**both).failed
        assert len(refused) == 1 and f"{edited_since} exists" in (refused[0].error or "")
        assert edited_since.stat().st_mtime == later and not (out / "dark.tif").exists()
        os.utime(edited_since, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ran(**both).done
    (out / "batch.jsonl").unlink()
    assert ran(**both).done, "the report says so, too"


@pytest.mark.parametrize("name", ["dark.tif", "dark_rgb.tif", "reports/dark.json", "reports/dark.png"])
@pytest.mark.parametrize("before", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_comes_or_changes_while_a_batch_runs_stays(ran, tmp_path, name: str, before: bool) -> None:
    """What was there when it began, and is as it was, is replaced."""
    mine = tmp_path / "out" / name
    if before:
        assert ran().done and ran(**BOTH).done

    def saved() -> None:
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        os.utime(mine, (later := time.time() + 60, later))

    (failed,) = ran(meanwhile=saved, overviews=False, **BOTH).failed
    assert f"{mine} has come or changed" in (failed.error or "") and mine.read_text() == "mine"
    (failed,) = ran(overviews=True, **BOTH).failed
    assert f"{mine} exists" in (failed.error or "") and mine.read_text() == "mine"


def test_what_a_lost_worker_has_published_is_replaced_by_the_next_one(ran, archive, tmp_path) -> None:
    """A cluster gives the scene of a worker that it lost to another."""
    choices = Choices(Options(method="exp", align="off"), OpenOptions("generic"), score=False)

    def published() -> None:
        (task,) = planning.plan(pairs.find([str(archive / "dark")]).found, tmp_path / "out", choices)
        assert "error" not in batch.fuse_one(task, choices)

    assert ran(meanwhile=published).done


@pytest.mark.slow
def test_what_is_left_of_earlier_results_is_told_once(ran, tmp_path) -> None:
    """And a picture of the user's is none."""
    out = tmp_path / "out"
    assert ran(**BOTH).left == []
    assert {path.relative_to(out).as_posix() for path in ran().left} == {"reports/dark.html", "dark_rgb.tif"}
    (out / "dark_rgb.tif").write_text("mine")
    assert ran(html=True).left == []


def aged(path: Path, seconds: float) -> None:
    known = path.stat()
    os.utime(path, (known.st_atime, known.st_mtime + seconds))


def all_aged(out: Path) -> None:
    """As if the last run were some time ago."""
    line = json.loads((out / "batch.jsonl").read_text())
    report = json.loads((out / "reports" / "dark.json").read_text())
    report["batch"]["begun"] -= 1000
    (out / "reports" / "dark.json").write_text(json.dumps(report))
    for name, stamp in line["made"].items():
        os.utime(out / name, (stamp[1] - 1000, stamp[1] - 1000))
        stamp[:] = (out / name).stat().st_size, stamp[1] - 1000
    (out / "batch.jsonl").write_text(json.dumps(line) + "\n")


NAMES = "dark_rgb.tif", "reports/dark.html", "reports/dark.png", "reports/dark.json"
REPLACED = [
    *((name, how, "done") for name in NAMES for how in ("edited", "an older copy", "another size at once")),
    *((name, "edited", "killed") for name in NAMES[:2]),
]
OFTEN = [REPLACED[0], REPLACED[4], REPLACED[-1]]


@pytest.mark.parametrize(("name", "how", "end"), seldom(REPLACED, OFTEN))
def test_a_file_of_the_users_stays_however_many_runs_pass_that_do_not_make_it(
    ran, tmp_path, name: str, how: str, end: str
) -> None:
    """As a picture after `--rgb`, one of the user's in its place, and runs without `--rgb`."""
    mine = tmp_path / "out" / name
    assert ran(**BOTH).done
    all_aged(tmp_path / "out")
    mine.write_bytes(mine.read_bytes() + b" mine" * (how != "edited"))
    aged(mine, {"edited": -500, "an older copy": -5000, "another size at once": -1000}[how])
    content = mine.read_bytes()
    last: dict = {}
    if name.endswith(("rgb.tif", ".html")):
        last = BOTH
        with suppress(KeyboardInterrupt):
            assert ran(killed=end == "killed").done
    (refused,) = ran(**last).failed
    assert f"{mine} exists" in (refused.error or "") and mine.read_bytes() == content
    mine.unlink()
    assert ran(**last).done


@pytest.mark.parametrize("name", [*NAMES, "dark.tif"])
@pytest.mark.parametrize("how", ["copied", "its output removed", "only this left"])
def test_a_file_of_another_size_than_the_logs_stays_whatever_the_report_says(ran, tmp_path, name: str, how: str):
    out, there = tmp_path / "out", tmp_path / "there"
    assert ran(**BOTH).done
    all_aged(out)
    (out / name).write_bytes((out / name).read_bytes().replace(b"{", b'{"note": "checked", ', 1) + b" ")
    content = (out / name).read_bytes()
    if how == "copied":
        shutil.copytree(out, there, copy_function=shutil.copyfile)
    else:
        for other in {*NAMES, "dark.tif"} - {name} if how == "only this left" else {"dark.tif"} - {name}:
            (out / other).unlink()
        out.rename(there)
    (refused,) = ran(there, **BOTH, overviews=True).failed
    assert f"{name} exists" in (refused.error or "") and (there / name).read_bytes() == content


def test_a_folder_that_lost_its_times_is_known_by_its_sizes(ran, tmp_path) -> None:
    assert ran(**BOTH).done
    all_aged(tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "there", copy_function=shutil.copyfile)
    assert ran(tmp_path / "there", **BOTH, overviews=True).done


EVENTS = ["killed", "moved", "copied with its times", "lost lines", "removed"]


@pytest.mark.parametrize("how", seldom(EVENTS, ["killed", "lost lines"]))
def test_files_of_a_batch_are_its_own_wherever_they_are(ran, tmp_path, how: str) -> None:
    out, there = tmp_path / "out", tmp_path / "there"
    assert ran(**BOTH).done and ran().done
    if how == "killed":
        with pytest.raises(KeyboardInterrupt):
            ran(killed=True, **BOTH)
    elif how == "moved":
        out.rename(there)
    elif how == "copied with its times":
        shutil.copytree(out, there)
    elif how == "removed":
        for name in ("dark.tif", "dark_rgb.tif", "reports/dark.json"):
            (out / name).unlink()
    else:
        all_aged(out)
        line = (out / "batch.jsonl").read_bytes()
        assert ran(**BOTH).done
        (out / "batch.jsonl").write_bytes(line)
    assert ran(there if there.exists() else out, **BOTH).done


@pytest.mark.slow
def test_a_log_of_names_alone_tells_what_is_the_batchs_own(ran, tmp_path) -> None:
    """As earlier versions wrote it."""
    out, log = tmp_path / "out", tmp_path / "out" / "batch.jsonl"

    def rewritten() -> None:
        line = json.loads(log.read_text())
        log.write_text(json.dumps(line | {"made": sorted(line["made"].keys() - {"dark.tif"})}) + "\n")

    assert ran(**BOTH).done
    rewritten()
    assert ran().done and ran(**BOTH).done, "nothing was changed"
    rewritten()
    aged(out / "dark_rgb.tif", 60)
    assert ran().done, "it is not in the way"
    assert [r.error for r in ran(**BOTH).failed], "newer than the report then"
    aged(out / "dark_rgb.tif", -60)
    rewritten()
    assert ran().done
    aged(out / "dark_rgb.tif", -30)
    assert [r.error for r in ran(**BOTH).failed], "from the first run on, the log knows sizes and times"


def test_stretch_belongs_to_rgb(run, archive, tmp_path) -> None:
    done = run("batch", archive, "-o", tmp_path / "out", "--method", "exp", "--stretch", "shared")
    assert done.code == 2 and "--stretch belongs to --rgb" in done.err


def test_the_shared_stretch_looks_into_ms_files_on_grids_of_their_own(tmp_path) -> None:
    pan, _, truth = write_pair(tmp_path, 192, 192, 8, noise=0.0)
    seen_through(truth, tmp_path / "vnir.tif", (2, 3, 5), 4, names=("Blue", "Green", "Red"))
    seen_through(truth, tmp_path / "swir.tif", (4,), 12, names=("SWIR1",))
    scene = Found("one", "", (str(pan),), ((str(tmp_path / "vnir.tif"),), (str(tmp_path / "swir.tif"),)), "a rule")
    request = Request(["swir1", "red", "green"], str(tmp_path / "kept.json"))
    choices = Choices(Options(method="exp"), OpenOptions(sensor="generic"), rgb=request)
    pictures.make_stretch(planning.plan([scene], tmp_path / "out", choices), choices)
    ranges = json.loads((tmp_path / "kept.json").read_text())["bands"]
    for name, file, band in (("swir1", "swir.tif", 0), ("red", "vnir.tif", 2)):
        np.testing.assert_allclose(
            ranges[name], np.percentile(pixels_of(tmp_path / file)[band], PERCENTILES), rtol=1e-5
        )


@pytest.mark.slow
def test_what_is_left_beside_a_new_output_of_an_earlier_one_is_told(archive, tmp_path) -> None:
    def warnings_with(**asked) -> list[str]:
        choices = Choices(Options(method="exp", align="off"), OpenOptions("generic"), score=False, **asked)
        found = pairs.find([str(archive / "dark")]).found
        (task,) = planning.plan(found, tmp_path / "out", choices)
        return batch.fuse_one(task, choices)["warnings"]

    def told(warnings: list[str]) -> list[str]:
        return [w.split()[0].rpartition("/")[2] for w in warnings if "of an earlier" in w]

    assert told(warnings_with(rgb=Request(("true",)), html=True)) == []
    assert told(warnings_with(rgb=Request(("true",)), html=True)) == []
    assert told(warnings_with()) == ["dark_rgb.tif", "dark.html"]
    assert told(warnings_with(rgb=Request(("true",)))) == ["dark.html"]
