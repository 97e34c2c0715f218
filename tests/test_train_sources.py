"""Training's scenes and settings: folders, globs, CSVs, the held-out split, and TOML that is read and printed."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pansharpen_cli.errors import InputError
from pansharpen_cli.training import scenes as training_scenes
from pansharpen_cli.training import settings
from pansharpen_cli.training.scenes import Item
from pansharpen_cli.training.settings import Samples, TrainingSettings


def raster(path: Path, bands: int, size: int = 8, **tags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, width=size, height=size, dtype="uint16", crs="EPSG:32631",
        transform=rasterio.Affine(1, 0, 0, 0, -1, 0),
    ) as dataset:  # fmt: skip
        dataset.write(np.random.default_rng(0).integers(1, 2000, (bands, size, size)).astype("uint16"))
        dataset.update_tags(**tags)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, bands in (
        ("a/ms.tif", 4), ("a/pan.tif", 1), ("b/L8_x_ms.tif", 6), ("b/L8_x_pan.tif", 1), ("b/S2_y_ms.TIF", 4),
        ("c/photo.tiff", 3), ("c/mask.tif", 1), ("c/lonely_pan.tif", 1),
    ):  # fmt: skip
        raster(tmp_path / name, bands)
    (tmp_path / "c" / "notes.txt").write_text("no raster")
    return tmp_path


def relative(items: list[Item], folder: Path) -> list[tuple[str, str | None]]:
    return [
        (str(i.ms.relative_to(folder)), str(i.pan.relative_to(folder)) if i.pan is not None else None) for i in items
    ]


def test_a_folder_gives_ms_with_the_pan_beside_it(folder: Path) -> None:
    assert relative(training_scenes.find([str(folder)]), folder) == [
        ("a/ms.tif", "a/pan.tif"),
        ("b/L8_x_ms.tif", "b/L8_x_pan.tif"),
        ("b/S2_y_ms.TIF", None),
        ("c/photo.tiff", None),
    ]


def test_globs_and_files_give_each_ms_once(folder: Path) -> None:
    every = training_scenes.find([str(folder / "*" / "*_ms.*"), str(folder / "b"), str(folder / "a" / "ms.tif")])
    assert relative(every, folder) == [
        ("b/L8_x_ms.tif", "b/L8_x_pan.tif"),
        ("b/S2_y_ms.TIF", None),
        ("a/ms.tif", "a/pan.tif"),
    ]
    assert len(training_scenes.find([str(folder / "**" / "*.tif*")])) == 3


def test_linked_folders_are_followed_and_those_above_are_not(folder: Path, tmp_path_factory) -> None:
    sources = tmp_path_factory.mktemp("in")
    (sources / "linked").symlink_to(folder, target_is_directory=True)
    (sources / "round").symlink_to(sources, target_is_directory=True)
    (sources / "above").symlink_to(sources.parent, target_is_directory=True)
    assert len(training_scenes.find([str(sources)])) == len(training_scenes.find([str(folder)]))


def test_a_csv_tells_pan_sensor_and_split(folder: Path) -> None:
    table = folder / "scenes.csv"
    table.write_text("\ufeffMS, pan, sensor, split\na/ms.tif,c/lonely_pan.tif,WorldView-2,train\nb/L8_x_ms.tif,,,val\n")
    first, second = training_scenes.find([str(table)])
    assert first == Item(folder / "a/ms.tif", folder / "c/lonely_pan.tif", True, "WorldView-2", "train")
    assert second == Item(folder / "b/L8_x_ms.tif", None, True, "", "val")
    assert training_scenes.split([first, second], 0.5, 0) == ([first], [second])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pan,sensor\na,b\n", "no column 'ms' (columns: pan, sensor)"),
        ("", "no column 'ms' (columns: none)"),
        ("ms\nno.tif\n", "line 2: no ms file 'no.tif'"),
        ("ms,pan\na/ms.tif,no.tif\n", "line 2: no pan file 'no.tif'"),
        ("ms,split\na/ms.tif,train\na/ms.tif,test\n", "line 3: split is train or val, not 'test'"),
        ("ms\n", "no scene"),
    ],
)
def test_what_is_wrong_in_a_csv_is_named(folder: Path, text: str, said: str) -> None:
    (folder / "scenes.csv").write_text(text)
    with pytest.raises(InputError) as error:
        training_scenes.find([str(folder / "scenes.csv")])
    assert said in str(error.value) and "scenes.csv" in str(error.value)


def test_sources_without_a_scene_are_errors(folder: Path, run) -> None:
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "x_ms.tif").write_text("no raster")
    one = raster(folder / "one.tif", 1)
    for source, said in (
        (folder / "nothing", "no such file or folder"),
        (folder / "empty", "no scene in"),
        (folder / "*.jp2", "no scene in"),
        (folder / "broken", "cannot open"),
        (one, "has 1 bands"),
    ):
        ended = run("train", source, "--validation", folder / "a", "-o", folder / "my.safetensors")
        assert ended.code == 2 and said in ended.err and len(ended.errors) == 1, (said, ended.err)
    assert run("train").code == run("train", folder).code == 2


def test_the_split_is_by_scene_seeded_and_never_empty() -> None:
    items = [Item(Path(f"{i}_ms.tif")) for i in range(20)]
    training, held_out = training_scenes.split(items, 0.15, 3)
    assert len(held_out) == 3 and sorted([*training, *held_out], key=lambda i: items.index(i)) == items
    assert training_scenes.split(items, 0.15, 3) == (training, held_out) != training_scenes.split(items, 0.15, 4)
    assert [len(part) for part in training_scenes.split(items[:2], 0.15, 0)] == [1, 1]
    assert [len(part) for part in training_scenes.split(items[:3], 1.0, 0)] == [1, 2]
    for few, share in ((items[:1], 0.15), (items, 0.0)):
        with pytest.raises(InputError, match="--validation"):
            training_scenes.split(few, share, 0)
    for told in ("train", "val"):
        with pytest.raises(InputError, match="held out"):
            training_scenes.split([replace(i, split=told) for i in items], 0.15, 0)


def test_scenes_are_grouped_by_sensor(tmp_path: Path) -> None:
    warnings: list[str] = []
    cases = (
        (Item(raster(tmp_path / "S2_a_ms.tif", 4, 96)), "S2"),
        (Item(raster(tmp_path / "place" / "ms.tif", 4, 96)), "place"),
        (Item(raster(tmp_path / "x_ms.tif", 4, 96, SATELLITEID="QB02")), "quickbird"),
        (Item(raster(tmp_path / "y_ms.tif", 4, 96), sensor="drone"), "drone"),
    )
    loaded = training_scenes.load([item for item, _ in cases], True, warnings.append)
    assert [s.sensor for s in loaded] == [group for _, group in cases] and not warnings


def test_a_pan_that_does_not_fit_is_an_error_only_if_it_was_named(tmp_path: Path) -> None:
    ms = raster(tmp_path / "x_ms.tif", 4, 96)
    pan = raster(tmp_path / "x_pan.tif", 1, 8)
    warnings: list[str] = []
    (stack,) = training_scenes.load([Item(ms, pan)], True, warnings.append)
    assert stack.pair is None and len(warnings) == 1 and "without the PAN" in warnings[0]
    with pytest.raises(InputError, match="pan"):
        training_scenes.load([Item(ms, pan, named=True)], True, warnings.append)


def test_invalid_pixels_are_marked(tmp_path: Path) -> None:
    path = raster(tmp_path / "x_ms.tif", 3, 120)
    with rasterio.open(path, "r+") as dataset:
        pixels = dataset.read()
        pixels[:, :10] = 0
        pixels[0, 20] = 0
        dataset.write(pixels)
    (stack,) = training_scenes.load([Item(path)], False, print)
    assert not stack.valid[:10].any() and stack.valid[10:].all()
    assert training_scenes.room(stack.valid) == 96
    stack.valid[60] = False
    assert training_scenes.room(stack.valid) == 0


# The settings


def test_the_printed_config_is_complete_and_accepted(run, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    ended = run("train", "--print-config", "--network", "fusionnet", "--bands", 4, "--seed", 7, "--steps", 10)
    path.write_text(ended.out)
    assert ended.code == 0 and run("train", "--print-config", "--config", path).out == ended.out
    read = settings.read(path)
    assert (read.network, read.bands, read.seed, read.budget.steps) == ("fusionnet", 4, 7, 10)
    assert run("train", "--print-config", "--config", path, "--minutes", 5).out.count("steps = 0\n") == 1


def test_every_value_goes_through_toml() -> None:
    odd = TrainingSettings(options={"features": 12}, samples=Samples(real=1 / 3, held_out=1e-7))
    odd = replace(odd, card=replace(odd.card, licence='"quoted" \\ é\n'))
    assert settings.parse(tomllib.loads(settings.to_toml(odd)), "odd") == odd


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning = 1", "unknown key 'learning'"),
        ("[optimiser]\nspeed = 1", "unknown key 'optimiser.speed'"),
        ("[loss]\nl1 = 'much'", "'loss.l1' takes a number, not 'much'"),
        ("[budget]\nsteps = 1.5", "'budget.steps' takes a whole number"),
        ("[budget]\nsteps = true", "'budget.steps' takes a whole number"),
        ("[samples]\nreal = 1.5", "'samples.real' takes a number from 0 to 1"),
        ("[loss]\nflat = nan", "'loss.flat' takes a number of at least 0"),
        ("[loss]\nflat = inf", "'loss.flat' takes a number of at least 0"),
        ("network = 3", "'network' takes a text"),
        ("budget = 60", "'budget' is a table"),
        ("[options]\nfeatures = 1.5", "'options.features' takes a whole number"),
        ("network = ", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_config_is_named(run, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "train.toml"
    path.write_text(text)
    ended = run("train", "--config", path, "--print-config")
    assert ended.code == 2 and said in ended.err and "train.toml" in ended.err and len(ended.errors) == 1
    assert run("train", "--config", tmp_path / "none.toml", "--print-config").code == 2
