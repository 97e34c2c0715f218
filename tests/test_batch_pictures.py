"""The pictures of a batch, and the stretch that they share."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasters import edited, pixels_of, seen_through, write_pair

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


def test_a_file_beside_an_output_that_no_batch_has_written_is_not_replaced(archive, tmp_path) -> None:
    def ran(**more) -> batch.Tally:
        choices = Choices(Options(method="exp", align="off"), OpenOptions("generic"), score=False, **more)

        def here(tasks):
            for task in tasks:
                yield workers.Event("started", task, 0)
                yield workers.Event("done", task, 0, batch.fuse_one(task, choices))

        tasks = planning.plan(pairs.find([str(archive / "dark")]).found, out, choices)
        return batch.run(tasks, out, here, retry_failed=True)

    out, both = tmp_path / "out", {"html": True, "rgb": Request(["true"])}
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
