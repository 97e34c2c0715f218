"""What is written: values, metadata, profile; and that nothing incomplete ever passes for a result."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp, MaskFlags
from rasters import edited, painted, write_pair
from rio_cogeo.cogeo import cog_validate

from pansharpen_cli.errors import InputError, PansharpenError
from pansharpen_cli.fusion import fit, loop
from pansharpen_cli.publish import check_target
from pansharpen_cli.raster.creation import parse_creation_options
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.raster.source import Source
from pansharpen_cli.raster.tiles import OUTPUT_BLOCK
from pansharpen_cli.raster.values import to_dtype
from pansharpen_cli.raster.writer import SceneWriter
from pansharpen_cli.training import simulate

PLAIN = ("--method", "none", "--align", "off")


def make(folder: Path, **spec) -> simulate.SimulatedScene:
    spec = {"rows": 160, "cols": 176, "offset": (1.3, 2.6), **spec}
    write_pair(folder, **spec)
    return painted(simulate.Simulation(**spec))


def upsampled(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What `--method none` computes, before rounding: float32 pixels and the valid mask."""
    with Scene.open(folder / "pan.tif", [folder / "ms.tif"]) as scene:
        return loop.fuse_array(scene, fit.fit_classical(scene, "exp"))


def fused(run, folder: Path, *options: object, name: str = "out.tif") -> Path:
    result = run("fuse", folder / "pan.tif", folder / "ms.tif", "-o", folder / name, *PLAIN, "--no-score", *options)
    assert result.code == 0, result.err
    return folder / name


# Values -------------------------------------------------------------------------------------------------------------

TYPES = [np.dtype(t) for t in ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")]


def test_integers_are_rounded_not_cut_off() -> None:
    values = np.array([[[-1.6, -0.6, -0.4, 0.4, 0.6, 1.5, 2.5, 254.5, 255.4, 300.0]]], np.float32)
    valid = np.ones(values.shape[1:], bool)
    np.testing.assert_array_equal(
        to_dtype(values, valid, np.dtype("int16"), -999)[0, 0], [-2, -1, 0, 0, 1, 2, 2, 254, 255, 300]
    )
    np.testing.assert_array_equal(
        to_dtype(values, valid, np.dtype("uint8"), 7)[0, 0], [0, 0, 0, 0, 1, 2, 2, 254, 255, 255]
    )


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_range_of_the_type_holds_at_both_ends(dtype: np.dtype) -> None:
    values = np.array([[[-1e12, 1e12]]], np.float32)
    written = to_dtype(values, np.ones((1, 2), bool), dtype, 5)[0, 0]
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    np.testing.assert_array_equal(written, [limits.min, limits.max] if limits else values[0, 0].astype(dtype))


@given(st.data())
def test_nodata_is_where_invalid_and_nowhere_else(data) -> None:
    dtype = data.draw(st.sampled_from(TYPES))
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    nodata = float(data.draw(st.integers(int(limits.min), int(limits.max)) if limits else st.floats(width=32)))
    near = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(
        [np.float32(nodata) if np.isfinite(nodata) else np.float32(0)]
    )
    values = data.draw(arrays.arrays(np.float32, (2, 3, 4), elements=near))
    valid = data.draw(arrays.arrays(bool, (3, 4)))
    written = to_dtype(values, valid, dtype, nodata)
    assert written.dtype == dtype
    is_nodata = np.isnan(written) if np.isnan(nodata) else written == dtype.type(nodata)
    np.testing.assert_array_equal(is_nodata, np.broadcast_to(~valid, written.shape))
    expected = np.clip(np.rint(values.astype(float)), limits.min, limits.max) if limits else values.astype(dtype)
    moved = (written != expected) & valid
    assert (np.abs(written[moved].astype(float) - nodata) <= (1 if limits else 2e-6 * max(abs(nodata), 1e-30))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nodata", [3000.0, -9999.0, 0.0, 0.1])
def test_valid_floats_are_none_that_gdal_takes_for_nodata(dtype: str, nodata: float, tmp_path: Path) -> None:
    steps = nodata * (1 - np.arange(0, 2e-6, 2e-8)) if nodata else np.array([0.0, 1e-45, 1e-38, -1e-45])
    values, valid = steps[None, None], np.arange(len(steps))[None] % 3 > 0
    path = tmp_path / "floats.tif"
    with rasterio.open(path, "w", "GTiff", len(steps), 1, 1, "EPSG:32631", Affine.scale(2), dtype, nodata) as out:
        out.write(to_dtype(values, valid, np.dtype(dtype), nodata))
    with rasterio.open(path) as written:
        np.testing.assert_array_equal(written.read_masks(1) > 0, valid)


@pytest.mark.parametrize("nodata", [3000.0, -9999.0])
def test_a_float_beside_the_nodata_value_is_read_as_gdal_reads_it(nodata: float, tmp_path: Path) -> None:
    values = (nodata * (1 - np.arange(0, 1e-6, 1e-8, np.float64))).astype(np.float32)[None, None]
    path, shape = tmp_path / "floats.tif", (1, values.shape[2])
    with rasterio.open(path, "w", "GTiff", shape[1], 1, 1, "EPSG:32631", Affine.scale(2), "float32", nodata) as out:
        out.write(values)
    with rasterio.open(path) as written:
        expected = written.read_masks(1) > 0
        _, valid = Source(written, [1], "floats", None).read(Window(0, 1, 0, shape[1]))
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(valid, expected)


@pytest.mark.parametrize(
    ("spec", "nodata"),
    [
        ({"dtype": "uint8", "border": 12.0}, 0),
        pytest.param({"dtype": "uint16", "border": 12.0}, 0, marks=pytest.mark.slow),
        ({"dtype": "uint16", "border": 12.0, "nodata": 300}, 300),
        ({"dtype": "float32", "border": 12.0, "nodata": np.nan}, np.nan),
        pytest.param({"dtype": "float32", "border": 12.0, "nodata": -9999.0}, -9999, marks=pytest.mark.slow),
        ({"dtype": "uint16", "nodata": None}, 0),
        ({"dtype": "float32", "nodata": None}, np.nan),
    ],
    ids=str,
)
def test_dtype_values_and_nodata_survive_the_round_trip(tmp_path: Path, run, spec, nodata) -> None:
    make(tmp_path, **spec)
    pixels, valid = upsampled(tmp_path)
    with rasterio.open(fused(run, tmp_path)) as dataset:
        assert set(dataset.dtypes) == {spec["dtype"]}
        np.testing.assert_equal(dataset.nodata, nodata)
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        assert valid.all() == (spec.get("border") is None)
        written = dataset.read()
    expected = to_dtype(pixels, valid, np.dtype(spec["dtype"]), nodata)
    np.testing.assert_array_equal(written, expected)
    inside = valid & ~(np.abs(pixels - nodata) < 1).any(0)
    np.testing.assert_array_equal(
        written[:, inside], np.rint(pixels[:, inside]) if spec["dtype"][0] == "u" else pixels[:, inside]
    )


def shifted(path: Path, **profile) -> None:
    """Turn a raster into int16 with negative values, as calibrated products have them."""
    with rasterio.open(path) as dataset:
        pixels, kept = dataset.read(), dataset.profile
    moved = np.where(pixels == 0, -32768, pixels.astype(int) - 700).astype("int16")
    with rasterio.open(path, "w", **kept | {"dtype": "int16", **profile}) as dataset:
        dataset.write(moved)


def test_negative_values_survive_the_round_trip(tmp_path: Path, run) -> None:
    make(tmp_path, border=12.0)
    for name in ("pan.tif", "ms.tif"):
        shifted(tmp_path / name, nodata=-32768)
    pixels, valid = upsampled(tmp_path)
    with rasterio.open(fused(run, tmp_path)) as dataset:
        assert (set(dataset.dtypes), dataset.nodata) == ({"int16"}, -32768)
        written = dataset.read()
    np.testing.assert_array_equal(written[:, valid], np.rint(pixels[:, valid]))
    assert (written[:, ~valid] == -32768).all() and not valid.all()
    assert (written[:, valid] < 0).mean() > 0.2


def test_a_narrower_type_clips_and_nothing_wraps_around(tmp_path: Path, run) -> None:
    make(tmp_path, border=12.0)
    pixels, valid = upsampled(tmp_path)
    with rasterio.open(fused(run, tmp_path, "--dtype", "uint8")) as dataset:
        written = dataset.read()
        assert dataset.dtypes[0] == "uint8"
    np.testing.assert_array_equal(written[:, valid], np.clip(np.rint(pixels[:, valid]), 1, 255))


def test_zeros_without_a_nodata_tag_stay_valid_and_those_with_one_do_not(tmp_path: Path, run) -> None:
    make(tmp_path, nodata=None)
    with rasterio.open(tmp_path / "ms.tif", "r+") as dataset:
        pixels = dataset.read()
        pixels[:, 10:20, 10:20] = 0
        dataset.write(pixels)
    with rasterio.open(fused(run, tmp_path)) as dataset:
        assert dataset.nodata == 0
        assert dataset.dataset_mask().all()
        assert dataset.read()[:, 50:70, 50:70].max() < 400
    with rasterio.open(fused(run, tmp_path, "--nodata", "0", name="declared.tif")) as dataset:
        assert (dataset.dataset_mask() == 0).sum() == 40 * 40


# Metadata -----------------------------------------------------------------------------------------------------------


def described(folder: Path) -> None:
    """Give the scene all the metadata that products come with, and what belongs to the old grid alone."""
    with rasterio.open(folder / "ms.tif", "r+") as ms:
        ms.descriptions = ("Blue", "Green", "Red", "NIR1")
        ms.units = ("W/m2/sr/um",) * 4
        ms.scales, ms.offsets = (0.01, 0.02, 0.03, 0.04), (0.0, 0.0, -1.0, 5.0)
        ms.colorinterp = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined)
        for band, wavelength in enumerate(("0.478", "0.546", "0.659", "0.831"), 1):
            ms.update_tags(band, wavelength=wavelength, STATISTICS_MEAN="17")
            ms.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=wavelength)
        ms.update_tags(TIFFTAG_DATETIME="2024:06:21 10:52:07", TIFFTAG_XRESOLUTION="300", PRODUCT="ortho")
        ms.update_tags(ns="IMAGERY", SATELLITEID="WV03", CLOUDCOVER="2")
        ms.update_tags(ns="IMD", IMAGE_1_satId="WV03")
    with rasterio.open(folder / "pan.tif", "r+") as pan:
        pan.update_tags(TIFFTAG_DATETIME="2024:06:21 10:52:08", SUN_ELEVATION="61.5", OFF_NADIR="12", HISTORY="mine")
        pan.update_tags(ns="IMAGERY", SATELLITEID="WV03", ACQUISITIONDATETIME="2024-06-21 10:52:08")


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_metadata_is_carried(tmp_path: Path, run, driver: str) -> None:
    make(tmp_path, border=12.0)
    described(tmp_path)
    with rasterio.open(fused(run, tmp_path, "--driver", driver)) as out, rasterio.open(tmp_path / "ms.tif") as ms:
        assert out.crs == ms.crs
        for what in ("descriptions", "units", "scales", "offsets", "colorinterp"):
            assert getattr(out, what) == getattr(ms, what), what
        for band in out.indexes:
            assert out.tags(band)["wavelength"] == ms.tags(band)["wavelength"]
            assert out.tags(band, ns="IMAGERY") == ms.tags(band, ns="IMAGERY")
            assert out.tags(band)["STATISTICS_MEAN"] != "17"
        tags = out.tags()
        assert tags["TIFFTAG_DATETIME"] == "2024:06:21 10:52:07"
        assert tags["PRODUCT"] == "ortho"
        assert "TIFFTAG_XRESOLUTION" not in tags
        assert tags["AREA_OR_POINT"] == "Area"
        assert out.tags(ns="IMAGERY") == ms.tags(ns="IMAGERY")
        assert out.tags(ns="IMD") == ms.tags(ns="IMD")
        assert tags["PAN_SUN_ELEVATION"] == "61.5"
        assert tags["PAN_OFF_NADIR"] == "12"
        assert tags["PAN_ACQUISITIONDATETIME"] == "2024-06-21 10:52:08"
        assert not any("HISTORY" in key for key in tags)
        assert out.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"


def test_metadata_follows_the_chosen_bands_and_files(tmp_path: Path, run) -> None:
    make(tmp_path)
    described(tmp_path)
    with rasterio.open(fused(run, tmp_path, "--bidx", "4,2")) as out:
        assert out.descriptions == ("NIR1", "Green")
        assert out.scales == (0.04, 0.02)
        assert out.offsets == (5, 0)
        assert [out.tags(b)["wavelength"] for b in out.indexes] == ["0.831", "0.546"]
        assert out.colorinterp == (ColorInterp.undefined, ColorInterp.green)


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize(("bidx", "colours"), [("3,2,1,4", "RGB-"), ("4,2,1,3", "-GBR"), ("2,2,1,3", "G-BR")])
def test_colours_are_those_of_the_bands_names(tmp_path: Path, run, driver: str, bidx: str, colours: str) -> None:
    make(tmp_path)
    known = {"R": ColorInterp.red, "G": ColorInterp.green, "B": ColorInterp.blue, "-": ColorInterp.undefined}
    with rasterio.open(fused(run, tmp_path, "--driver", driver, "--bidx", bidx, "--no-score")) as out:
        assert out.colorinterp == tuple(known[c] for c in colours)
    assert os.listdir(tmp_path).count("out.tif.aux.xml") == 0


def test_bands_without_names_are_named_and_coloured_as_the_sensors_products(tmp_path: Path, run) -> None:
    make(tmp_path)
    with rasterio.open(tmp_path / "ms.tif") as dataset:
        profile, values = dataset.profile, dataset.read()
    with rasterio.open(tmp_path / "ms.tif", "w", **profile) as dataset:
        dataset.write(values)
    with rasterio.open(fused(run, tmp_path, "--no-score")) as out:
        assert out.descriptions == (None,) * 4 and ColorInterp.red not in out.colorinterp
    with rasterio.open(fused(run, tmp_path, "--no-score", "--sensor", "ikonos", "--overwrite")) as out:
        assert out.descriptions == ("blue", "green", "red", "nir")
        assert out.colorinterp[:3] == (ColorInterp.blue, ColorInterp.green, ColorInterp.red)


@pytest.mark.parametrize(
    "options",
    [(), ("--tile-size", "64"), ("--driver", "COG"), ("--dtype", "float32"), ("--dtype", "int32")],
    ids=" ".join,
)
def test_statistics_are_those_of_the_valid_pixels(tmp_path: Path, run, options) -> None:
    make(tmp_path, border=12.0)
    with rasterio.open(fused(run, tmp_path, "--no-score", "--extent", "pan", *options)) as out:
        pixels, valid = out.read(), out.dataset_mask() > 0
        for band in out.indexes:
            tags = {k: float(v) for k, v in out.tags(band).items() if k.startswith("STATISTICS_")}
            values = pixels[band - 1][valid].astype(np.float64)
            assert tags == pytest.approx(
                {
                    "STATISTICS_MINIMUM": values.min(),
                    "STATISTICS_MAXIMUM": values.max(),
                    "STATISTICS_MEAN": values.mean(),
                    "STATISTICS_STDDEV": values.std(),
                    "STATISTICS_VALID_PERCENT": 100 * valid.mean(),
                },
                rel=1e-4,
            )
    assert sorted(os.listdir(tmp_path)) == ["ms.tif", "out.tif", "pan.tif", "truth.tif"]


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_provenance_says_how_the_file_came_about(tmp_path: Path, run, driver: str) -> None:
    make(tmp_path, border=12.0)
    result = run(
        "fuse", tmp_path / "pan.tif", tmp_path / "ms.tif", "-o", tmp_path / "out.tif", *PLAIN, "--driver", driver,
        "--seed", "5", "--sensor", "ikonos", "--json",
    )  # fmt: skip
    facts = json.loads(result.out)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        tags = dataset.tags(ns="PANSHARPEN")
    assert set(tags) == {
        "VERSION", "METHOD", "PRECISION", "SEED", "PAN", "MS", "SENSOR", "RATIO", "OFFSET", "MS_WARPED", "ALIGN",
        "MTF", "MTF_GAINS", "ADAPT", "OPTIONS", "FIDELITY", "HQNR", "D_LAMBDA_K", "D_S",
    }  # fmt: skip
    assert (tags["PAN"], tags["MS"], tags["METHOD"], tags["ADAPT"]) == ("pan.tif", "ms.tif", "none", "off")
    assert (tags["RATIO"], tags["OFFSET"], tags["SEED"]) == ("4 4", "1.3 2.6", "5")
    assert tags["SENSOR"] == "ikonos (--sensor)"
    assert tags["VERSION"] == facts["version"]
    assert float(tags["HQNR"]) == pytest.approx(facts["quality"]["hqnr"], abs=1e-6)
    assert json.loads(tags["OPTIONS"])["sensor"] == "ikonos"


# Profile ------------------------------------------------------------------------------------------------------------


def test_the_default_profile(tmp_path: Path, run) -> None:
    make(tmp_path, rows=528, cols=516, border=30.0)
    with rasterio.open(fused(run, tmp_path)) as dataset:
        assert dataset.driver == "GTiff"
        assert set(dataset.block_shapes) == {(OUTPUT_BLOCK, OUTPUT_BLOCK)} == {(512, 512)}
        structure = dataset.tags(ns="IMAGE_STRUCTURE")
        assert (structure["COMPRESSION"], structure["PREDICTOR"], structure["INTERLEAVE"]) == ("DEFLATE", "2", "PIXEL")
        assert dataset.overviews(1) == []
        assert photometric(tmp_path / "out.tif") == 1  # black is zero, whatever the bands are


def photometric(path: Path) -> int:
    """The TIFF tag 262 of a classic little-endian file."""
    content = path.read_bytes()
    assert content[:4] == b"II*\0"
    start = int.from_bytes(content[4:8], "little")
    entries = int.from_bytes(content[start : start + 2], "little")
    for k in range(entries):
        entry = content[start + 2 + 12 * k : start + 14 + 12 * k]
        if int.from_bytes(entry[:2], "little") == 262:
            return int.from_bytes(entry[8:10], "little")
    raise AssertionError("no photometric tag")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--dtype", "float32"), {"PREDICTOR": "3", "COMPRESSION": "DEFLATE"}),
        (("--co", "COMPRESS=LZW"), {"PREDICTOR": "2", "COMPRESSION": "LZW"}),
        (("--co", "compress=zstd", "--co", "PREDICTOR=1"), {"COMPRESSION": "ZSTD", "PREDICTOR": None}),
        pytest.param(("--co", "COMPRESS=NONE"), {"COMPRESSION": None, "PREDICTOR": None}, marks=pytest.mark.slow),
        (("--co", "INTERLEAVE=BAND"), {"INTERLEAVE": "BAND"}),
        (("--co", "NBITS=11"), {"PREDICTOR": None}),
        (("--co", "BLOCKXSIZE=256", "--co", "BLOCKYSIZE=128"), {"shape": (128, 256)}),
        pytest.param(("--co", "TILED=NO", "--co", "BLOCKYSIZE=16"), {"shape": (16, 173)}, marks=pytest.mark.slow),
        (("--co", "BIGTIFF=YES"), {"magic": b"II+\0"}),
        (("--co", "PHOTOMETRIC=RGB", "--bidx", "3,2,1"), {"photometric": 2}),
        pytest.param(
            ("--driver", "COG", "--co", "COMPRESS=LZW"),
            {"COMPRESSION": "LZW", "PREDICTOR": "2"},
            marks=pytest.mark.slow,
        ),
        (("--driver", "COG", "--co", "BLOCKSIZE=256"), {"shape": (256, 256)}),
        (("--driver", "COG", "--dtype", "uint8", "--co", "COMPRESS=JPEG", "--bidx", "1"), {"COMPRESSION": "JPEG"}),
        pytest.param(
            ("--driver", "COG", "--dtype", "float32"),
            {"COMPRESSION": "DEFLATE", "PREDICTOR": "3"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_creation_options_pass(tmp_path: Path, run, options, expected) -> None:
    make(tmp_path)
    with rasterio.open(fused(run, tmp_path, *options)) as dataset:
        structure = dataset.tags(ns="IMAGE_STRUCTURE")
        found = {key: structure.get(key) for key in expected if key.isupper()}
        if "shape" in expected:
            found["shape"] = dataset.block_shapes[0]
        if "JPEG" not in str(options):
            pixels, valid = upsampled(tmp_path)
            chosen = [int(b) - 1 for b in re.findall(r"\d", options[-1])] if "--bidx" in options else slice(None)
            np.testing.assert_allclose(dataset.read()[:, valid], pixels[chosen][:, valid], atol=1)
    if "magic" in expected:
        found["magic"] = (tmp_path / "out.tif").read_bytes()[:4]
    if "photometric" in expected:
        found["photometric"] = photometric(tmp_path / "out.tif")
    assert found == expected


def test_colours_that_a_creation_option_would_swap_are_said_aloud(tmp_path: Path, run) -> None:
    make(tmp_path)
    for names in (("blue", "green", "red"), ("red", "green", "blue")):
        ms = edited(tmp_path / "ms.tif", tmp_path / "named.tif", lambda p: p[:3], names)
        target = ("-o", tmp_path / "out.tif", "--overwrite", *PLAIN, "--no-score", "--co", "PHOTOMETRIC=RGB")
        done = run("fuse", tmp_path / "pan.tif", ms, *target)
        said = "--co PHOTOMETRIC=RGB shows blue, green, red as red, green, blue: put them in that order with --bidx"
        assert done.code == 0 and (said in done.err) is (names[0] == "blue"), done.err


@pytest.mark.parametrize(
    ("columns", "overviews", "built"), [(4096, None, True), (4095, None, False), (4096, False, False)]
)
def test_large_files_have_overviews_unless_told_otherwise(tmp_path: Path, columns, overviews, built) -> None:
    make(tmp_path)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        scene = scene.on(Window(0, 256, 0, columns))
        with SceneWriter(tmp_path / "out.tif", scene, overviews=overviews) as writer:
            writer.write(Window(0, 64, 0, 64), np.ones((4, 64, 64), np.float32), np.ones((64, 64), bool))
            writer.finish()
            writer.commit({})
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert bool(dataset.overviews(1)) == built


@pytest.mark.slow
def test_overviews_are_built_on_demand(tmp_path: Path, run) -> None:
    make(tmp_path, rows=600, cols=600, border=12.0)
    with rasterio.open(fused(run, tmp_path, "--overviews", "--no-score")) as dataset:
        assert [dataset.overviews(b) for b in dataset.indexes] == [[2, 4]] * 4
        whole, valid = dataset.read(1), dataset.dataset_mask() > 0
    with rasterio.open(tmp_path / "out.tif", overview_level=0) as half:
        assert half.read(1)[10:20, 200:210].mean() == pytest.approx(whole[20:40, 400:420].mean(), rel=0.01)
        assert valid[20:40, 400:420].all()


def test_variables_of_gdal_change_no_names_and_leave_nothing_out(tmp_path: Path, run, monkeypatch) -> None:
    make(tmp_path, rows=300, cols=300)
    with rasterio.open(fused(run, tmp_path, "--no-score")) as plain:
        names, pixels = plain.descriptions, plain.read()
    monkeypatch.setenv("USE_RRD", "YES")
    monkeypatch.setenv("GTIFF_DONT_WRITE_BLOCKS", "YES")
    with rasterio.open(fused(run, tmp_path, "--no-score", "--overviews", "--overwrite")) as dataset:
        assert dataset.descriptions == names and names[0] and dataset.overviews(1) == [2]
        assert np.array_equal(dataset.read(), pixels)


@pytest.mark.parametrize(
    "options", [(), pytest.param(("--dtype", "float32", "--co", "COMPRESS=ZSTD"), marks=pytest.mark.slow)], ids=str
)
def test_a_cog_is_valid_and_holds_the_same_pixels(tmp_path: Path, run, options) -> None:
    make(tmp_path, rows=528, cols=516, border=30.0)
    described(tmp_path)
    plain = fused(run, tmp_path, *options[:2], "--no-score", name="plain.tif")
    path = fused(run, tmp_path, "--driver", "COG", *options, "--no-score")
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    with rasterio.open(path) as cog, rasterio.open(plain) as dataset:
        assert cog.overviews(1) == [2]
        assert (cog.transform, cog.crs) == (dataset.transform, dataset.crs)
        np.testing.assert_equal(cog.nodata, dataset.nodata)
        np.testing.assert_array_equal(cog.read(), dataset.read())


@pytest.mark.slow
def test_a_cog_has_no_overviews_where_it_is_to_have_none(tmp_path: Path, run) -> None:
    make(tmp_path, rows=528, cols=516)
    path = fused(run, tmp_path, "--driver", "COG", "--no-overviews", "--no-score")
    assert cog_validate(path, quiet=True)[0]
    with rasterio.open(path) as cog:
        assert cog.overviews(1) == []


@pytest.mark.parametrize(
    ("options", "lossy"),
    [
        pytest.param("--driver COG --co COMPRESS=JPEG", True, marks=pytest.mark.slow),
        ("--driver GTiff --co COMPRESS=JPEG --overviews", True),
        pytest.param("--driver COG --co COMPRESS=LERC --co MAX_Z_ERROR=3", True, marks=pytest.mark.slow),
        pytest.param("--driver COG --co COMPRESS=WEBP --co QUALITY=100", False, marks=pytest.mark.slow),
        ("--driver GTiff --co COMPRESS=LZW", False),
        pytest.param("--driver GTiff --co NBITS=8", False, marks=pytest.mark.slow),
    ],
)
def test_nodata_survives_a_compression_with_losses(tmp_path: Path, run, options: str, lossy: bool) -> None:
    make(tmp_path, rows=528, cols=516, border=30.0, dtype="uint8", nodata=0)
    valid = upsampled(tmp_path)[1]
    path = fused(run, tmp_path, *options.split(), "--bidx", "1,2,3", "--no-score")
    with rasterio.open(path) as dataset:
        assert (dataset.mask_flag_enums[0], dataset.nodata) == (
            ([MaskFlags.per_dataset], None) if lossy else ([MaskFlags.nodata], 0)
        )
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        assert not valid.all()
    if "COG" in options:
        assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    if lossy:
        with rasterio.open(path, overview_level=0) as half:
            assert abs((half.dataset_mask() > 0).mean() - valid.mean()) < 0.02
        evaluated = run("evaluate", path, "--pan", tmp_path / "pan.tif", "--ms", tmp_path / "ms.tif", "--bidx", "1,2,3")
        assert evaluated.code == 0


def test_the_output_lies_on_the_pan_grid(tmp_path: Path, run) -> None:
    make(tmp_path)
    with rasterio.open(tmp_path / "pan.tif") as pan:
        transform, shape = pan.transform, pan.shape
    with rasterio.open(fused(run, tmp_path)) as dataset:
        assert dataset.transform == transform @ Affine.translation(3, 1)
        assert dataset.shape == (shape[0] - 1, shape[1] - 3)
        inside = dataset.read()
    with rasterio.open(fused(run, tmp_path, "--extent", "pan", name="pan_extent.tif")) as dataset:
        assert (dataset.transform, dataset.shape) == (transform, shape)
        np.testing.assert_array_equal(dataset.read()[:, 1:, 3:], inside)
        assert not dataset.dataset_mask()[0].any() and not dataset.dataset_mask()[:, :3].any()
        assert dataset.dataset_mask()[1:, 3:].all()


# Completeness -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    make(folder, rows=528, cols=516)
    with Scene.open(folder / "pan.tif", [folder / "ms.tif"]) as scene:
        yield scene


def noise(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    shape = scene.grid.height, scene.grid.width
    pixels = np.random.default_rng(0).integers(0, 60000, (scene.bands, *shape)).astype(np.float32)
    return pixels, np.ones(shape, bool)


def write_all(writer: SceneWriter, scene: Scene) -> None:
    pixels, valid = noise(scene)
    first_row, first_col = scene.window[0], scene.window[2]
    for r in range(0, valid.shape[0], OUTPUT_BLOCK):
        for c in range(0, valid.shape[1], OUTPUT_BLOCK):
            part = np.s_[r : r + OUTPUT_BLOCK, c : c + OUTPUT_BLOCK]
            rows, cols = valid[part].shape
            window = Window(first_row + r, first_row + r + rows, first_col + c, first_col + c + cols)
            writer.write(window, pixels[(slice(None), *part)], valid[part])


def test_nothing_is_at_the_target_before_commit_and_nothing_else_after(tmp_path: Path, scene: Scene) -> None:
    before = set(tmp_path.iterdir())
    with SceneWriter(tmp_path / "out.tif", scene) as writer:
        write_all(writer, scene)
        assert writer.finish().is_file()
        assert not (tmp_path / "out.tif").exists()
        writer.commit({"A": "b"})
        assert (tmp_path / "out.tif").exists()
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out.tif"}
    with rasterio.open(tmp_path / "out.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), np.maximum(noise(scene)[0], 1))
        assert dataset.tags(ns="PANSHARPEN") == {"A": "b"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_abandoned_writer_leaves_nothing(tmp_path: Path, scene: Scene, error) -> None:
    before = set(tmp_path.iterdir())
    with pytest.raises(error), SceneWriter(tmp_path / "out.tif", scene) as writer:
        write_all(writer, scene)
        raise error
    assert set(tmp_path.iterdir()) == before


def test_refused_creation_options_leave_nothing(tmp_path: Path, scene: Scene) -> None:
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match="RAR"):
        SceneWriter(tmp_path / "out.tif", scene, creation_options={"COMPRESS": "RAR"})
    with pytest.raises(InputError, match="^--co: _TIFFVSetField:Bad value 130"):
        SceneWriter(tmp_path / "out.tif", scene, driver="COG", creation_options={"BLOCKSIZE": "130"})
    assert set(tmp_path.iterdir()) == before


def test_space_that_comes_back_does_not_hide_a_failed_write(tmp_path: Path, scene: Scene) -> None:
    """GDAL's compression threads meet the full disk; rasterio raises nothing, the file has a hole."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = set(tmp_path.iterdir())

    def fill_up() -> None:
        with SceneWriter(tmp_path / "out.tif", scene) as writer:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
            try:
                write_all(writer, scene)
                write_all(writer, scene)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            writer.finish()
            writer.commit({})

    with pytest.raises(PansharpenError, match="cannot write .*out.tif"):
        fill_up()
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("stage", ["finish", "commit"])
@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_a_file_that_lost_its_end_is_never_committed(tmp_path: Path, scene: Scene, monkeypatch, stage, driver) -> None:
    """As after a full disk that nobody reported: the directory is there, the last blocks are not."""
    before = set(tmp_path.iterdir())
    with SceneWriter(tmp_path / "out.tif", scene, driver=driver) as writer:
        write_all(writer, scene)
        verify = "pansharpen_cli.raster.creation.verify"
        original = __import__("pansharpen_cli.raster.creation", fromlist=["verify"]).verify

        def shortened(path: Path) -> None:
            with rasterio.open(path) as dataset:
                offsets = [
                    dataset.get_tag_item(f"BLOCK_OFFSET_{i}_{j}", "TIFF", bidx=1) for i in (0, 1) for j in (0, 1)
                ]
            blocks = [int(o) for o in offsets]
            # the directory of these files lies before or between the blocks, the last of which is cut
            with open(path, "r+b") as handle:
                handle.truncate(max(blocks) + 10)
            original(path)

        if stage == "finish":
            monkeypatch.setattr(verify, shortened)
            with pytest.raises(PansharpenError, match="cannot write"):
                writer.finish()
        else:
            writer.finish()
            monkeypatch.setattr(verify, shortened)
            with pytest.raises(PansharpenError, match="cannot write"):
                writer.commit({})
    assert set(tmp_path.iterdir()) == before


def test_values_that_are_not_finite_are_refused(tmp_path: Path, scene: Scene) -> None:
    pixels, valid = noise(scene)
    pixels[1, 5, 5] = np.nan
    with SceneWriter(tmp_path / "out.tif", scene) as writer:
        with pytest.raises(PansharpenError, match="not finite"):
            writer.write(scene.window, pixels, valid)
        valid[5, 5] = False
        writer.write(scene.window, pixels, valid)


def test_creation_options_are_pairs() -> None:
    assert parse_creation_options(["compress=LZW", " ZLEVEL = 9", "A=b=c"]) == {
        "COMPRESS": "LZW", "ZLEVEL": "9", "A": "b=c",
    }  # fmt: skip
    for wrong in ("COMPRESS", "=LZW", ""):
        with pytest.raises(InputError, match="KEY=VALUE"):
            parse_creation_options([wrong])


def test_a_target_is_checked_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "in.tif").write_text("in")
    (tmp_path / "old.tif").write_text("old")
    before = set(tmp_path.iterdir())
    check_target(tmp_path / "new.tif", [str(tmp_path / "in.tif")], False)
    check_target(tmp_path / "old.tif", [str(tmp_path / "in.tif")], True)
    for name, words in (("in.tif", "inputs"), ("old.tif", "exists"), ("", "folder"), ("no/new.tif", "does not exist")):
        with pytest.raises(InputError, match=words):
            check_target(tmp_path / name, [str(tmp_path / "in.tif")], False)
    assert set(tmp_path.iterdir()) == before
