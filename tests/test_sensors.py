"""The table of sensors: each row's made-up delivery is paired, its bands are known, its names are understood."""

from __future__ import annotations

import re
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from pansharpen_cli.archive import names as naming
from pansharpen_cli.archive import pairs
from pansharpen_cli.errors import InputError
from pansharpen_cli.raster import sensors
from pansharpen_cli.raster.bands import WAVELENGTHS
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.raster.sensor_table import ROWS, Names, Sensor, read

ROOT = Path(__file__).parent.parent
PRODUCTS = list({names.pattern: names for row in ROWS for names in row.names}.values())


def files(*names: str) -> list[naming.File]:
    return [naming.File(f"/in/{n}", f"in/{n}") for n in sorted(names)]


def examples(names: Names) -> list[str]:
    return [*([names.pan] if names.pan else []), *names.ms, *names.others]


@pytest.mark.parametrize("names", PRODUCTS, ids=[examples(names)[0] for names in PRODUCTS])
def test_the_example_of_a_product_is_paired(names: Names) -> None:
    found, loose, left = naming.by_name(files(*examples(names)))
    if names.pan:
        ((pan, ms, rule),) = [(f.pan, f.ms, f.rule) for f in found]
        assert (pan, ms, rule) == ((f"/in/{names.pan}",), tuple((f"/in/{n}",) for n in names.ms), names.product)
    assert {f"/in/{n}" for n in names.others} == {each.path for each in left}
    assert all(each.reason and "{" not in each.reason for each in left)
    assert [each.layers for each in loose] == (
        [] if names.pan or not names.ms else [tuple((f"/in/{n}",) for n in names.ms)]
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pan-sharpening, compared with Landsat 8 and QuickBird", "generic"),
        ("Pleiades Neo 3", "pleiades-neo"),
        ("CBERS 4A WPM", "cbers-4a"),
        ("LANDSAT_8 OLI", "landsat-8"),
    ],
)
def test_a_text_that_names_several_sensors_names_none(text: str, name: str) -> None:
    found, where = sensors.recognise([("TIFF", {"TIFFTAG_IMAGEDESCRIPTION": text})], [None] * 4)
    assert found.name == name, where


@pytest.mark.parametrize("apart", [1e5, 0.0], ids=["apart", "of one place"])
def test_deliveries_of_all_providers_in_one_folder_are_paired(tmp_path: Path, apart: float) -> None:
    """As files, so that what names leave is looked into as well; each product lies so many metres from the next."""
    for i, names in enumerate(PRODUCTS):
        for name in examples(names):
            size = 1 if name == names.pan else 4
            path = tmp_path / Path(name).name if "/" not in names.pattern else tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            transform = Affine(size, 0, 2e5 + apart * i, 0, -size, 5e6)
            with rasterio.open(
                path, "w", driver="GTiff", width=32 // size, height=32 // size, count=1 if size == 1 else 4,
                dtype="uint8", crs="EPSG:32631", transform=transform,
            ) as dataset:  # fmt: skip
                dataset.write(np.full((dataset.count, dataset.height, dataset.width), 7, "uint8"))
    pairing = pairs.find([str(tmp_path)])
    made = {Path(f.pan[0]).name: (f.rule, [Path(m).name for layer in f.ms for m in layer]) for f in pairing.found}
    assert made == {Path(n.pan).name: (n.product, [Path(m).name for m in n.ms]) for n in PRODUCTS if n.pan}


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_row_is_complete(row: Sensor) -> None:
    assert len(row.gains) == len(row.bands) and set(row.bands) <= set(WAVELENGTHS)
    assert all(0.3 < wave < 2.5 for wave in row.waves.values())
    assert bool(row.published) == (row.source != "generic")
    for order in row.subsets:
        assert set(order) <= set(WAVELENGTHS)
    for names in row.names:
        assert {b for bands in names.bands.values() for b in bands} <= set(WAVELENGTHS)
        assert all(code == code.upper() for code in names.bands)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_sensor_is_found_by_its_name_and_every_other_spelling(row: Sensor) -> None:
    for name in (row.name, row.name.replace("-", ""), row.name.upper().replace("-", " "), *row.aliases):
        assert sensors.named(name) is row, name


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("WV-3", "worldview-3"), ("worldview3", "worldview-3"), ("WorldView-03", "worldview-3"), ("QB02", "quickbird"),
        ("Pleiades", "pleiades"), ("Pléiades Neo", "pleiades-neo"), ("PHR1B", "pleiades"), ("SPOT 7", "spot-6"),
        ("Landsat 9", "landsat-8"), ("GF-02", "gaofen-2"), ("KOMPSAT-3A", "kompsat-3"), ("GeoSat-2", "deimos-2"),
    ],
)  # fmt: skip
def test_common_spellings_are_understood(spelling: str, name: str) -> None:
    assert sensors.named(spelling).name == name


@pytest.mark.parametrize(
    ("spelling", "near"),
    [
        ("quickbrid", "quickbird"), ("worldveiw-3", "worldview-3"), ("gaofen-3", "gaofen-1 or gaofen-2"),
        ("wv5", "worldview-2 or worldview-3 or worldview-4"), ("GF-4", "gaofen-1 or"), ("s3", "sentinel-2"),
        ("L3", "landsat-8"), ("de1", "deimos-2"),
    ],
)  # fmt: skip
def test_an_unknown_sensor_is_answered_with_near_ones(spelling: str, near: str) -> None:
    with pytest.raises(InputError, match=f"unknown sensor '{spelling}' .did you mean .*{near}.*; choose from auto, "):
        sensors.named(spelling)
    with pytest.raises(InputError, match="unknown sensor 'sputnik'; choose from auto"):
        sensors.named("sputnik")


def test_names_tell_a_sensor_only_where_no_other_has_such_names() -> None:
    owners = {p: [row.name for row in ROWS for n in row.names if n.pattern == p] for p in (n.pattern for n in PRODUCTS)}
    for names in PRODUCTS:
        told = sensors.by_file_name(f"in/{examples(names)[0]}")
        assert (told.name if told else None) == (owners[names.pattern][0] if len(owners[names.pattern]) == 1 else None)


# What `fuse` makes of the names -------------------------------------------------------------------------------------


def write(path: Path, bands: int, size: int, pixel: float) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=size, height=size, count=bands, dtype="uint16", crs="EPSG:32631",
        transform=Affine(pixel, 0, 5e5, 0, -pixel, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(np.full((bands, size, size), 7, "uint16"))
    return path


K3 = "K3_20200613102356_05088_09391167_L1G"


@pytest.mark.parametrize("order", [*permutations("RGB"), tuple("NBGR")])
def test_files_of_single_bands_are_known_by_their_names_in_any_order(tmp_path: Path, order: tuple[str, ...]) -> None:
    pan = write(tmp_path / f"{K3}_P.tif", 1, 64, 1)
    mss = [write(tmp_path / f"{K3}_{band}.tif", 1, 16, 4) for band in order]
    with Scene.open(pan, mss) as scene:
        letters = {"B": "blue", "G": "green", "R": "red", "N": "nir"}
        assert scene.standard_names == tuple(letters[band] for band in order)
        assert (scene.sensor.name, scene.sensor_source) == ("kompsat-3", f"the name of {K3}_{order[0]}.tif")


@pytest.mark.parametrize("order", [("RGB", "NED"), ("NED", "RGB")])
def test_the_files_of_pleiades_neo_are_known_in_both_orders(tmp_path: Path, order: tuple[str, ...]) -> None:
    stem = "IMG_PNEO4_202207110043428_{}_ORT_PWOI_000028295_1_10_F_1_{}_R1C1.TIF"
    pan = write(tmp_path / stem.format("PAN", "P"), 1, 64, 1)
    mss = [write(tmp_path / stem.format("MS-FS", part), 3, 16, 4) for part in order]
    bands = {"RGB": ("red", "green", "blue"), "NED": ("nir", "red_edge", "coastal")}
    with Scene.open(pan, mss) as scene:
        assert scene.sensor.name == "pleiades-neo"
        assert scene.standard_names == bands[order[0]] + bands[order[1]]
    with Scene.open(pan, mss, OpenOptions(bidx=[4, 1], fit_bands="bidx")) as scene:
        assert scene.standard_names == (bands[order[1]][0], bands[order[0]][0])


def test_a_name_does_not_make_a_sensor_of_bands_that_it_does_not_have(tmp_path: Path) -> None:
    pan, ms = write(tmp_path / f"{K3}_P.tif", 1, 64, 1), write(tmp_path / "five.tif", 5, 16, 4)
    with Scene.open(pan, [ms]) as scene:
        assert scene.sensor is sensors.GENERIC


def test_descriptions_count_more_than_names_of_files(tmp_path: Path) -> None:
    pan, ms = write(tmp_path / f"{K3}_P.tif", 1, 64, 1), write(tmp_path / f"{K3}_B.tif", 1, 16, 4)
    with rasterio.open(ms, "r+") as dataset:
        dataset.set_band_description(1, "Red")
    with Scene.open(pan, [ms]) as scene:
        assert scene.standard_names == ("red",)


# The file of the table ----------------------------------------------------------------------------------------------

LEAST = """[terra-1]
ratio = 4
waves = { green = 0.56, red = 0.66 }
[[terra-1.names]]
product = "Terra"
pattern = '(?P<scene>TE1)_(?:(?P<pan>PAN)|(?P<ms>MS))'
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "ratio",
            "ration",
            r"sensors.toml: \[terra-1\] is no sensor: no key is called 'ration'; there are waves, ratio",
        ),
        ("ratio = 4\n", "", "it has no ratio"),
        ("ratio = 4", "ratio = '4'", "ratio: '4' is no number"),
        ("green = 0.56", "lime = 0.56", "no band is called 'lime' in bands.toml"),
        ("[[", "published = [0.3]\n[[", "published has 1 gains, and there are 2 bands"),
        ("[[", "subsets = ['red grey']\n[[", "subsets: no band is called 'grey'"),
        ("[[", "names_of = ['aqua']\n[[", "names_of: no sensor above is called 'aqua'"),
        ("product", "produce", "no key is called 'produce'; there are product"),
        ('product = "Terra"\n', "", "it has no product"),
        ("[[terra-1.names]]", "names = 3", "3 is no list"),
        ("ratio = 4", "ratio = ", "sensors.toml is not TOML: "),
    ],
)
def test_a_fault_of_the_file_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in LEAST
    path = tmp_path / "sensors.toml"
    path.write_text(LEAST.replace(old, new, 1), "utf-8")
    with pytest.raises(InputError, match=said):
        read(path)


def test_the_example_of_how_to_add_a_sensor_is_one(tmp_path: Path) -> None:
    path = tmp_path / "sensors.toml"
    path.write_text(re.findall(r"```toml\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[0])
    ((_, row),) = read(path).items()
    assert len(row.published) == len(row.bands) and row.source != "generic"
    for role, name in (("pan", row.names[0].pan), ("ms", row.names[0].ms[0])):
        match = re.fullmatch(row.names[0].pattern, Path(name).stem)
        assert match is not None and match[role] and match["scene"]


# The document -------------------------------------------------------------------------------------------------------


def line_of(row: Sensor) -> str:
    """The row of docs/sensors.md."""
    shown = []
    for names in row.names:
        parts = [Path(example).parts[-2 if "/" in names.pattern else -1 :] for example in examples(names)[:2]]
        shown += [re.sub(r"(…_)+…", "…", re.sub(r"\d{3,}", "…", "/".join(part))) for part in parts]
    files = ", ".join(f"`{name}`" for name in dict.fromkeys(shown))
    bands = ", ".join(f"{band} {wave:g}" for band, wave in row.waves.items())
    gains = " ".join(f"{gain:g}" for gain in (row.gains[:1] if len(set(row.gains)) == 1 else row.gains))
    ratio = f"{row.ratio:g}" if row.ratio else "-"
    return f"| `{row.name}` | {files} | {bands} | {ratio} | {gains}; {row.pan_gain:g} | {row.source} |"


def test_the_document_shows_the_table() -> None:
    text = (ROOT / "docs/sensors.md").read_text()
    assert re.findall(r"^\| `.*\|$", text, re.MULTILINE) == [line_of(row) for row in ROWS if row.waves]
