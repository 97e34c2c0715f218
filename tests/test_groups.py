"""Scenes that share a fit: which they are, who makes it, and that they come out as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window
from rasters import edited, pixels_of, seen_through, seldom, write_pair

from pansharpen_cli.archive import batch, neighbours, pairs, places, planning, shared_fit
from pansharpen_cli.archive.batch_log import read_log
from pansharpen_cli.archive.names import Found
from pansharpen_cli.archive.planning import Choices, Task
from pansharpen_cli.archive.workers import Event
from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion.fit import Options
from pansharpen_cli.fusion.saved_fit import SavedFit
from pansharpen_cli.jobs import fuse
from pansharpen_cli.jobs.pair import Pair
from pansharpen_cli.raster.options import OpenOptions

CHOICES = Choices(Options(method="gsa"), OpenOptions(sensor="generic"), score=False, fit_by="folder")


def task(name: str, folder: str = "", when: datetime | None = None, sensor: str = "", size: int = 1) -> Task:
    found = Found(name, folder, (f"{name}_pan.tif",), ((f"{name}_ms.tif",),), "a rule", sensor, when)
    paths = [Path(f"{name}{suffix}") for suffix in (".tif", ".json", ".png")]
    return Task(
        f"{name}.tif", found, *paths, None, "options", ({"path": f"{name}_ms.tif", "size": size, "mtime": 0.0},)
    )


def grouped(tasks: Sequence[Task], by: str) -> list[set[str]]:
    """The scenes that share a fit, those that are fitted alone left out."""
    found: dict[Path, set[str]] = {}
    for each in shared_fit.sharing(tasks, by, Path("out")):
        if each.fit is not None:
            found.setdefault(each.fit, set()).add(each.found.name)
    return sorted(found.values(), key=sorted)


def test_a_strip_is_what_one_sensor_saw_in_one_go() -> None:
    tasks = [
        task("a", when=datetime(2020, 8, 14, 16, 21, 32), sensor="wv2"),
        task("b", "elsewhere", datetime(2020, 8, 14, 16, 22, 50), "wv2"),
        task("c", when=datetime(2020, 8, 14, 16, 24, 10), sensor="wv2"),
        task("later", when=datetime(2020, 8, 14, 17, 55), sensor="wv2"),
        task("other", when=datetime(2020, 8, 14, 16, 21, 40), sensor="ge1"),
        task("unknown", sensor="wv2"),
    ]
    assert grouped(tasks, "strip") == [{"a", "b", "c"}, {"later"}, {"other"}]
    assert grouped(tasks, "scene") == []


def test_scenes_of_other_bands_or_types_share_no_fit(tmp_path: Path) -> None:
    tasks = []
    for name, bands, dtype in (("a", 4, "uint16"), ("b", 3, "uint16"), ("c", 4, "uint16"), ("d", 4, "float32")):
        write_pair(tmp_path / name, 32, 32, bands)
        edited(tmp_path / name / "ms.tif", tmp_path / f"{name}_ms.tif", lambda p, t=dtype: p.astype(t), nodata=None)
        of = task(name, "in")
        tasks.append(replace(of, found=replace(of.found, ms=((str(tmp_path / f"{name}_ms.tif"),),))))
    assert grouped(tasks, "folder") == [{"a", "c"}, {"b"}, {"d"}]


def test_where_names_tell_the_day_only_a_strip_is_a_folder_or_a_path_of_landsat() -> None:
    day = datetime(2020, 8, 14)
    names = ("LC08_L1TP_180031_20200814", "LC08_L1TP_180032_20200814", "LC08_L1TP_196032_20200814")
    landsat = [task(name, name, day) for name in names]
    assert grouped(landsat, "strip") == [set(names[:2]), {names[2]}]
    assert grouped([task("a", "x", day), task("b", "x", day), task("c", "y", day)], "strip") == [{"a", "b"}, {"c"}]


def placed(folder: Path, name: str, west: float, when: str, side: int = 10) -> Task:
    """A scene whose PAN lies `west` pixels to the east; `when` is what the PAN's tags or its name tell."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_pan.tif"
    place = {"crs": "EPSG:32631", "transform": Affine(100, 0, 5e5 + 100 * west, 0, -100, 5e6)}
    with rasterio.open(path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", **place) as dataset:
        dataset.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=when)
    found = Found(name, folder.name, (str(path),), (("ms.tif",),), "a rule")
    outputs = [Path(f"{name}{suffix}") for suffix in (".tif", ".json", ".png")]
    return Task(f"{name}.tif", found, *outputs, None, "options", ())


def test_a_strip_is_told_by_footprints_and_times_of_the_files(tmp_path) -> None:
    tasks = [
        placed(tmp_path / "x", "a", 0, "2020-08-14 10:00:00"),
        placed(tmp_path / "y", "b", 9, "2020-08-14 10:00:04"),
        placed(tmp_path / "x", "c", 20.5, "2020-08-14 10:00:09"),
        placed(tmp_path / "x", "apart", 60, "2020-08-14 10:00:12"),
        placed(tmp_path / "x", "next pass", 9, "2020-08-14 11:38:00"),
        placed(tmp_path / "x", "untold", 9, ""),
    ]
    expected = [{"a", "b"}, {"apart"}, {"c"}, {"next pass"}]
    assert grouped(tasks, "strip") == expected
    closer = placed(tmp_path / "x", "c", 19.5, "2020-08-14 10:00:09")  # the gap is a twentieth of a side
    assert grouped([*tasks[:2], closer, *tasks[3:]], "strip") == [{"a", "b", "c"}, {"apart"}, {"next pass"}]


def test_the_time_of_landsat_is_told_by_two_quoted_tags(tmp_path) -> None:
    placed(tmp_path, "a", 0, "")
    with rasterio.open(tmp_path / "a_pan.tif", "r+") as dataset:
        dataset.update_tags(ns="IMD", DATE_ACQUIRED="2020-08-14", SCENE_CENTER_TIME='"08:40:00.1234560Z"')
    box, when = places.place_and_time([str(tmp_path / "a_pan.tif")])
    assert when == datetime(2020, 8, 14, 8, 40) and box is not None and box[0] == pytest.approx(3.0, abs=0.01)


def test_of_one_day_neighbours_are_a_strip_whatever_their_folders(tmp_path) -> None:
    days = {"a": (0, "2020-08-14"), "b": (10, "2020-08-14"), "c": (50, "2020-08-14"), "d": (10, "2020-08-15")}
    tasks = [placed(tmp_path / name, name, *where) for name, where in days.items()]
    assert grouped(tasks, "strip") == [{"a", "b"}, {"c"}, {"d"}]
    assert grouped(tasks[::-1], "strip") == grouped(tasks, "strip")


def test_a_folder_is_the_one_that_holds_several_scenes() -> None:
    tasks = [task("a", "x"), task("b", "x"), task("c", "y/c"), task("d", "y/d"), task("e", "x", sensor="ge1")]
    assert grouped(tasks, "folder") == [{"a", "b"}, {"c", "d"}, {"e"}]


def test_a_fit_made_with_other_options_is_not_taken_and_a_refused_scene_has_none() -> None:
    one, other = task("a", "x"), replace(task("a", "x"), options="others")
    files = {each.fit for each in shared_fit.sharing([one, other, task("b", "x")], "folder", Path("out"))}
    assert len(files) == 2
    assert shared_fit.sharing([replace(one, refused="no")], "folder", None)[0].fit is None


@pytest.mark.parametrize("what", ["a link", "a file"])
def test_a_folder_of_fits_that_is_none_of_ours_is_left_alone(tmp_path, what) -> None:
    if what == "a link":
        (tmp_path / shared_fit.FITS).symlink_to(tmp_path.parent)
    else:
        (tmp_path / shared_fit.FITS).touch()
    (shared,) = shared_fit.sharing([task("a", "x")], "folder", tmp_path)
    assert shared.fit is None and shared_fit.FITS in shared.refused


def test_the_largest_scene_makes_the_fit_and_where_it_fails_the_next_one(tmp_path) -> None:
    sizes = {"a": 3, "b": 9, "c": 5}
    tasks = shared_fit.sharing([task(n, "x", size=s) for n, s in sizes.items()] + [task("z", "y")], "folder", tmp_path)
    rounds: list[list[str]] = []

    def execute(now: Sequence[Task]) -> Iterator[Event]:
        rounds.append([t.found.name for t in now])
        for each in now:
            assert each.fit is not None
            if each.found.name == "c":
                each.fit.parent.mkdir()
                each.fit.touch()
            yield Event("failed" if each.found.name == "b" else "done", each, 0)

    events = list(shared_fit.in_turn(tasks, execute))
    assert rounds == [["b", "z"], ["c"], ["a"]] and len(events) == 4


def cut(folder: Path, files: Sequence[Path], parts: dict[str, tuple[int, int]]) -> None:
    """Columns of rasters, counted in the first one's pixels, in a folder of each part's name."""
    with rasterio.open(files[0]) as source:
        size = source.width
    for name, (first, last) in parts.items():
        (folder / name).mkdir(parents=True)
        for path in files:
            with rasterio.open(path) as source:
                ratio = size // source.width
                window = Window(first // ratio, 0, (last - first) // ratio, source.height)
                place = {"width": window.width, "transform": source.window_transform(window)}
                with rasterio.open(folder / name / path.name, "w", **source.profile | place) as part:
                    part.write(source.read(window=window))
                    part.descriptions = source.descriptions


def tasks_of(sources: Path, out: Path, choices: Choices) -> list[Task]:
    tasks = planning.plan(pairs.find([str(sources)]).found, out, choices)
    return neighbours.lending(shared_fit.sharing(tasks, choices.fit_by, out))


def done(tasks: Sequence[Task], out: Path, choices: Choices) -> batch.Tally:
    """What becomes of tasks in this process."""

    def execute(now: Sequence[Task]) -> Iterator[Event]:
        for each in now:
            yield Event("done", each, 0, batch.fuse_one(each, choices))

    tally = batch.run(tasks, out, execute)
    assert not tally.failed, tally.failed
    return tally


@pytest.mark.parametrize("method", seldom(["gsa", "mtf-glp-fs"], ["mtf-glp-fs"]))
def test_tiles_of_an_image_come_out_as_the_image(tmp_path, method) -> None:
    """Cut where both grids end, fitted once: no pixel tells where the cut was, and zeros stay values."""
    pan, ms, _ = write_pair(tmp_path / "whole", rows=192, cols=384, bands=4, seed=5)
    with rasterio.open(pan, "r+") as dataset:
        values = dataset.read()
        values[:, 90:100, 200:210] = 0
        dataset.write(values)
    cut(tmp_path / "in", (pan, ms), {"west": (0, 160), "east": (160, 384)})
    choices, out = replace(CHOICES, options=Options(method=method)), tmp_path / "out"
    tasks = tasks_of(tmp_path / "in", out, choices)
    assert len(done(tasks, out, choices).done) == 2
    parts = np.concatenate([pixels_of(out / name / f"{name}.tif") for name in ("west", "east")], -1)
    output = fuse.FusionOutput(tmp_path / "whole.tif")
    options = replace(choices.options, fit=str(tasks[0].fit))
    fuse.fuse_scene(Pair(str(pan), [str(ms)], choices.opening), output, options, score=False)
    np.testing.assert_array_equal(parts, pixels_of(tmp_path / "whole.tif"))
    with rasterio.open(out / "west" / "west.tif") as dataset:
        assert dataset.tags(ns="PANSHARPEN")["PAN"] == pan.name
    with rasterio.open(pan) as source, rasterio.open(out / "east" / "east.tif") as dataset:
        assert dataset.bounds.left == source.bounds.left + 160 * source.res[0]


@pytest.mark.usefixtures("still")
def test_files_may_be_named_by_addresses_and_those_in_a_network_lend_nothing(tmp_path, monkeypatch) -> None:
    pan, ms, _ = write_pair(tmp_path / "whole", rows=96, cols=256, bands=3, seed=5)
    cut(tmp_path / "in", (pan, ms), {"a": (0, 128), "b": (128, 256)})
    listed, out = tmp_path / "list.csv", tmp_path / "out"

    def tasks(address: str) -> list[Task]:
        pairs = (f"{address}{tmp_path}/in/{n}/pan.tif,{address}{tmp_path}/in/{n}/ms.tif,{n}" for n in ("a", "b"))
        listed.write_text("\n".join(["pan,ms,name", *pairs]))
        return tasks_of(listed, out, CHOICES)

    assert len(done(tasks("file://"), out, CHOICES).done) == 2 and all(task.lent for task in tasks("file://"))
    monkeypatch.setattr(neighbours, "open_raster", lambda path: pytest.fail(f"{path} is opened"))
    assert not any(task.lent for task in tasks("/vsicurl/https://example.com"))


@pytest.mark.usefixtures("still")
@pytest.mark.slow
def test_a_neighbour_that_changes_is_a_reason_to_fuse_again(tmp_path) -> None:
    pan, ms, _ = write_pair(tmp_path / "whole", rows=96, cols=384, bands=3, seed=5)
    cut(tmp_path / "in", (pan, ms), {"a": (0, 64), "b": (64, 320), "c": (320, 384)})
    out = tmp_path / "out"
    tasks = tasks_of(tmp_path / "in", out, CHOICES)
    done(tasks, out, CHOICES)
    assert not any(planning.reason_to_run(task, read_log(out)[task.scene]) for task in tasks)
    with rasterio.open(tmp_path / "in" / "a" / pan.name, "r+") as dataset:
        dataset.update_tags(touched="yes")
    known, tasks = read_log(out), tasks_of(tmp_path / "in", out, CHOICES)
    reasons = {t.found.name: planning.reason_to_run(t, known[t.scene]) for t in tasks}
    assert reasons == {"a": "changed", "b": "changed", "c": None}


@pytest.mark.parametrize("other", ["grid", "bands", "far", "fit", "time", "no place"])
def test_only_what_goes_on_is_lent(tmp_path, other) -> None:
    pan, ms, _ = write_pair(tmp_path / "whole", rows=96, cols=800, bands=3, seed=5)
    cut(tmp_path / "in", (pan, ms), {"a": (0, 128), "b": (640, 768) if other == "far" else (128, 256)})
    changed = tmp_path / "in" / "b" / ms.name
    if other == "grid":
        with rasterio.open(changed, "r+") as dataset:
            dataset.transform = dataset.transform @ Affine.translation(0.3, 0)
    elif other == "bands":
        edited(changed, changed, lambda values: values[:2])
    elif other == "time":
        for name, day in (("a", "2020-08-14T16:21:32"), ("b", "2020-08-16T16:21:32")):
            with rasterio.open(tmp_path / "in" / name / pan.name, "r+") as dataset:
                dataset.update_tags(ACQUISITIONDATETIME=day)
    elif other == "no place":
        for name in ("a", "b"):
            for path in (pan, ms):
                with rasterio.open(tmp_path / "in" / name / path.name, "r+") as dataset:
                    dataset.transform = Affine.identity()
    by = "scene" if other == "fit" else "folder"
    tasks = tasks_of(tmp_path / "in", tmp_path / "out", replace(CHOICES, fit_by=by))
    assert len(tasks) == 2 and not any(task.lent for task in tasks)


@pytest.mark.usefixtures("still")
def test_a_neighbour_that_cannot_be_read_is_done_without(tmp_path) -> None:
    pan, ms, _ = write_pair(tmp_path / "whole", rows=96, cols=256, bands=3, seed=5)
    cut(tmp_path / "in", (pan, ms), {"a": (0, 160), "b": (160, 256)})
    out = tmp_path / "out"
    tasks = tasks_of(tmp_path / "in", out, CHOICES)
    damaged = tmp_path / "in" / "b" / pan.name
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    (a,) = (task for task in tasks if task.found.name == "a")
    told = batch.fuse_one(replace(a, inputs=tuple(planning.file_stamp(i["path"]) for i in a.inputs)), CHOICES)
    assert "error" not in told and pixels_of(a.output).shape == (3, 96, 160)
    (warning,) = (w for w in told["warnings"] if "neighbours" in w)
    assert warning.startswith("fused without what its neighbours lend: ") and str(damaged) in warning


@pytest.mark.usefixtures("still")
def test_nodata_that_is_asked_for_counts_for_neighbours_too(tmp_path) -> None:
    """Each has a value of its own for it, which is radiometry then."""
    pan, ms, _ = write_pair(tmp_path / "whole", rows=96, cols=256, bands=3, seed=5)
    cut(tmp_path / "in", (pan, ms), {"a": (0, 128), "b": (128, 256)})
    for name, value in (("a", 100), ("b", 200)):
        for path in (pan, ms):
            with rasterio.open(tmp_path / "in" / name / path.name, "r+") as dataset:
                values = dataset.read()
                values[:, 3:6, 4:9] = value
                dataset.write(values)
                dataset.nodata = value
    choices, out = replace(CHOICES, opening=OpenOptions(sensor="generic", nodata=0)), tmp_path / "out"
    done(tasks_of(tmp_path / "in", out, choices), out, choices)
    for name in ("a", "b"):
        with rasterio.open(out / name / f"{name}.tif") as dataset:
            assert dataset.nodata == 0 and dataset.dataset_mask().all()


@pytest.mark.usefixtures("still")
def test_a_scene_ends_where_its_own_ms_does(tmp_path) -> None:
    """One PAN with two MS: each output lies where its MS lies, as without the other."""
    pan, ms, _ = write_pair(tmp_path / "whole", rows=96, cols=256, bands=3, seed=5)
    cut(tmp_path / "in", (ms, ms), {"a": (0, 32), "b": (32, 64)})
    found = [Found(n, "", (str(pan),), ((str(tmp_path / "in" / n / ms.name),),), "a rule") for n in ("a", "b")]
    out = tmp_path / "out"
    tasks = neighbours.lending(shared_fit.sharing(planning.plan(found, out, CHOICES), "folder", out))
    assert all(task.lent for task in tasks)
    done(tasks, out, CHOICES)
    assert [pixels_of(out / f"{name}.tif").shape for name in ("a", "b")] == [(3, 96, 128)] * 2


@pytest.mark.slow
def test_parts_of_a_scene_in_one_folder_are_fused_as_the_whole(tmp_path) -> None:
    pan, ms, _ = write_pair(tmp_path / "whole", rows=192, cols=384, bands=4, seed=5)
    cut(tmp_path / "in", (pan, ms), {"west": (0, 256), "east": (128, 384)})

    def run(by: str) -> np.ndarray:
        out, choices = tmp_path / by, replace(CHOICES, fit_by=by)
        assert len(done(tasks_of(tmp_path / "in", out, choices), out, choices).done) == 2
        west, east = (pixels_of(out / name / f"{name}.tif").astype(float) for name in ("west", "east"))
        return np.abs(west[..., 128:256] - east[..., :128])

    assert run("folder").max() == 0 and run("scene").max() > 0
    assert len(list((tmp_path / "folder" / "fits").glob("*.safetensors"))) == 1
    tags = []
    for name in ("west", "east"):
        with rasterio.open(tmp_path / "folder" / name / f"{name}.tif") as dataset:
            tags.append(dataset.tags(ns="PANSHARPEN").get("FIT_SHA256"))
    assert sorted(map(bool, tags)) == [False, True]  # one made it, the other took it


def test_scenes_of_several_grids_share_a_fit_for_each_of_them(tmp_path) -> None:
    pan, _, truth = write_pair(tmp_path / "in", 192, 192, 8, noise=0.0)
    vnir = seen_through(truth, tmp_path / "vnir.tif", (2, 3, 5), 4, names=("Blue", "Green", "Red"))
    swir = seen_through(truth, tmp_path / "swir.tif", (4, 6), 12, names=("SWIR1", "SWIR2"))
    scenes = [
        Found(name, "", (str(pan),), ((str(vnir),), (str(swir),)), "a rule", time=datetime(2020, 8, 14))
        for name in ("a", "b")
    ]
    choices, out = replace(CHOICES, fit_by="folder"), tmp_path / "out"
    tasks = shared_fit.sharing(planning.plan(scenes, out, choices), "folder", out)
    told = [batch.fuse_one(task, choices) for task in tasks]
    assert not any("error" in each for each in told), told
    np.testing.assert_array_equal(pixels_of(out / "a.tif"), pixels_of(out / "b.tif"))
    assert tasks[0].fit is not None
    fits = SavedFit.read(tasks[0].fit)
    assert [fit.known.bands for fit in fits] == [("blue", "green", "red"), ("swir1", "swir2")]
    with rasterio.open(out / "b.tif") as dataset:
        assert dataset.tags(ns="PANSHARPEN")["FIT_SHA256"] == fits[0].digest == fits[1].digest


@pytest.mark.usefixtures("still")
def test_grids_of_the_same_bands_keep_no_fit(tmp_path) -> None:
    pan, _, truth = write_pair(tmp_path / "in", 192, 192, 8, noise=0.0)
    files = [str(seen_through(truth, tmp_path / f"{r}.tif", (2, 3), r, names=("Blue", "Green"))) for r in (4, 12)]
    output = fuse.FusionOutput(tmp_path / "out.tif", save_fit=tmp_path / "kept.safetensors")
    with pytest.raises(InputError, match="apart by their bands"):
        fuse.fuse_scene(Pair(str(pan), files), output, Options(method="gsa"), score=False)
    assert not (tmp_path / "out.tif").exists()
