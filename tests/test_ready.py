"""What a GIS reads of a file that is handed over: colours, statistics, overviews and names, of data and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasters import edited, pixels_of, write_pair

OPTIONS = ("--method", "exp", "--no-score", "--rgb", "true", "--overviews")
NAMES = ("Blue", "Green", "Red", "NIR1")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    write_pair(folder / "town", rows=528, cols=516, offset=(1.3, 2.6), border=30.0)
    (folder / "town" / "truth.tif").unlink()
    return folder


def facts(path: Path) -> dict:
    with rasterio.open(path) as dataset:
        for band in dataset.indexes:
            told, values = dataset.tags(band), dataset.read(band, masked=True)
            assert float(told["STATISTICS_MINIMUM"]) == values.min()
            assert float(told["STATISTICS_MAXIMUM"]) == values.max()
            assert float(told["STATISTICS_MEAN"]) == pytest.approx(values.mean(), rel=1e-6)
            assert float(told["STATISTICS_STDDEV"]) == pytest.approx(values.std(), rel=1e-6)
        return {
            "names": dataset.descriptions,
            "colours": tuple(colour.name for colour in dataset.colorinterp),
            "overviews": {tuple(dataset.overviews(band)) for band in dataset.indexes},
            "type": (set(dataset.dtypes), dataset.nodata),
            "blocks": set(dataset.block_shapes),
            "nothing": bool((dataset.dataset_mask() == 0).any()),
        }


@pytest.mark.parametrize("driver", ["GTiff", pytest.param("COG", marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", ["fuse", pytest.param("batch", marks=pytest.mark.slow)])
def test_data_and_pictures_are_ready_for_a_gis(pair: Path, run, tmp_path: Path, command: str, driver: str) -> None:
    out = tmp_path / "town" / "town.tif"
    if command == "fuse":
        given = (pair / "town" / "pan.tif", pair / "town" / "ms.tif", "-o", out, "--extent", "pan")
    else:
        given = (pair, "-o", tmp_path, "--extent", "pan")
    done = run(command, *given, *OPTIONS, "--driver", driver)
    assert done.code == 0, done.err
    shared = {"overviews": {(2, 4)} if driver == "GTiff" else {(2,)}, "blocks": {(512, 512)}, "nothing": True}
    data = {"names": NAMES, "colours": ("blue", "green", "red", "undefined"), "type": ({"uint16"}, 0)}
    picture = {"names": NAMES[2::-1], "colours": ("red", "green", "blue"), "type": ({"uint8"}, 0)}
    assert facts(out) == data | shared
    assert facts(out.with_name("town_rgb.tif")) == picture | shared
    assert not list(out.parent.glob("*.aux.xml"))
    with rasterio.open(out) as whole, rasterio.open(out, overview_level=0) as half:
        np.testing.assert_allclose(half.read(1)[50, 50], whole.read(1)[100:102, 100:102].mean(), atol=1)


def test_quicklooks_and_reports_know_the_colours_of_bands_without_names(pair: Path, run, tmp_path: Path) -> None:
    """Airbus delivers red first and names no band."""
    edited(pair / "town" / "ms.tif", tmp_path / "ms.tif", lambda p: p[[2, 1, 0, 3]])
    pictures = []
    for ms, sensor in ((pair / "town" / "ms.tif", "generic"), (tmp_path / "ms.tif", "pleiades")):
        given = (pair / "town" / "pan.tif", ms, "-o", tmp_path / "out.tif", "--method", "exp", "--align", "off")
        shown = ["--quicklook", tmp_path / f"{sensor}.png", "--window", "40,40,128,128", "--no-score", "--overwrite"]
        shown += ["--report", tmp_path / "out.html"] if sensor == "pleiades" else []
        assert run("fuse", *given, "--sensor", sensor, *shown).code == 0
        pictures.append(pixels_of(tmp_path / f"{sensor}.png"))
    np.testing.assert_array_equal(*pictures)
    page = (tmp_path / "out.html").read_text()
    assert (
        "True colour: red, green, blue as red, green, blue.</span>" in page
        and "assumed" not in page.partition("<pre>")[0]
    )
