"""The Python interface: the pixels, figures and files of the command line, from paths, datasets and arrays."""

from __future__ import annotations

import ast
import gc
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import rasterio
import whole as of_whole
from affine import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from rasters import edited, painted, pixels_of, write_scene

import pansharpen_cli as pansharpen
from pansharpen_cli.training import simulate

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    made = painted(simulate.Simulation(rows=256, cols=288, bands=4, offset=(1.37, 2.61), border=20, seed=3))
    return write_scene(made, folder)[:2]


@pytest.fixture(scope="module")
def shifted(pair, tmp_path_factory) -> tuple[Path, Path]:
    """The pair with an MS that says it lies 2 rows and 3 columns from where it does."""
    path = tmp_path_factory.mktemp("shifted") / "ms.tif"
    with rasterio.open(pair[1]) as dataset:
        transform, names = dataset.transform, dataset.descriptions
    return pair[0], edited(pair[1], path, names=names, transform=Affine.translation(-3, 2) @ transform)


@pytest.fixture(scope="module")
def plain(pair) -> pansharpen.Fused:
    return pansharpen.fuse(*pair, method="gsa", score=False)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        pytest.param({"method": "glpnet"}, ["--method", "glpnet"], marks=pytest.mark.slow),
        pytest.param({"method": "bt-h"}, ["--method", "bt-h"], marks=pytest.mark.slow),
        (
            {"method": "GSA", "window": (30, 40, 120, 100), "bidx": [3, 1], "dtype": "float32"},
            ["--method", "GSA", "--window", "30,40,120,100", "--bidx", "3,1", "--dtype", "float32"],
        ),
    ],
    ids=["network", "classical", "window"],
)
def test_the_pixels_and_the_bytes_are_those_of_the_command_line(pair, run, tmp_path, options, arguments):
    done = run("fuse", *pair, "-o", tmp_path / "cli.tif", *arguments, "-q")
    assert done.code == 0, done.err
    result = pansharpen.fuse(*pair, **options)
    assert np.array_equal(result.data, pixels_of(tmp_path / "cli.tif"))
    assert result.write(tmp_path / "api.tif").read_bytes() == (tmp_path / "cli.tif").read_bytes()


@pytest.mark.slow
def test_a_shifted_pair_is_registered_as_on_the_command_line(shifted, run, tmp_path):
    arguments = ["-o", tmp_path / "cli.tif", "--method", "fusionnet", "--adapt", "off", "--json", "-q"]
    done = run("fuse", *shifted, *arguments)
    result = pansharpen.fuse(*shifted, method="fusionnet", adapt="off")
    assert max(map(abs, result.report["registration"]["applied"])) > 1.5
    assert np.array_equal(result.data, pixels_of(tmp_path / "cli.tif"))
    told = json.loads(done.out)
    assert result.report["registration"] == told["registration"]
    assert result.report["quality"] == told["quality"]
    assert result.report["method"] == told["method"]
    unregistered = pansharpen.fuse(*shifted, method="fusionnet", adapt="off", align="off", score=False)
    assert not np.array_equal(unregistered.data, result.data)


def test_paths_datasets_and_arrays_give_the_same_pixels(pair, plain):
    with rasterio.open(pair[0]) as pan, rasterio.open(pair[1]) as ms:
        opened = pansharpen.fuse(pan, ms, method="gsa", score=False)
        arrays = pansharpen.fuse(
            pansharpen.GeoArray(pan.read(1), pan.transform, pan.crs, nodata=0),
            pansharpen.GeoArray(ms.read(masked=True), ms.transform, ms.crs, band_names=ms.descriptions),
            method="gsa",
            score=False,
        )
    assert not plain.valid.all()
    for other in (opened, arrays):
        assert np.array_equal(other.data, plain.data) and np.array_equal(other.valid, plain.valid)
        assert other.transform == plain.transform and other.crs == plain.crs
    assert arrays.band_names == plain.band_names
    assert (arrays.report["scene"]["pan"], arrays.report["scene"]["ms"]) == ("pan array", ["ms array"])
    assert "vsimem" not in json.dumps(arrays.report)


@pytest.mark.usefixtures("still")
def test_a_dataset_that_reads_otherwise_than_its_path_is_refused(pair, plain, tmp_path):
    edited(pair[0], tmp_path / "pan.tif")
    with rasterio.open(tmp_path / "pan.tif", "r+") as dataset:
        dataset.build_overviews([2])
    with rasterio.open(tmp_path / "pan.tif", overview_level=0) as pan:
        assert pan.width < plain.shape[2]
        with pytest.raises(pansharpen.InputError, match="was opened with overview_level.*hand in a GeoArray"):
            pansharpen.fuse(pan, pair[1])
    with rasterio.open(pair[0], num_threads=2) as pan:
        assert np.array_equal(pansharpen.fuse(pan, pair[1], method="gsa", score=False).data, plain.data)


def test_valid_is_where_all_bands_of_all_grids_are(pair, tmp_path):
    def coarser(pixels):
        return np.where(np.arange(pixels[0, ::2, ::2].size).reshape(pixels[0, ::2, ::2].shape) < 300, 65535, 700)[None]

    with rasterio.open(pair[1]) as dataset:
        transform = dataset.transform @ Affine.scale(2)
    other = edited(
        pair[1], tmp_path / "b.tif", lambda x: coarser(x).astype("uint16"), nodata=65535, transform=transform
    )
    result = pansharpen.fuse(pair[0], [pair[1], other], method="exp", score=False, align="off")
    every = (result.data != result.nodata).all(0)
    assert 0 < every.sum() < (result.data[0] != result.nodata).sum()
    assert np.array_equal(result.valid, every)


@pytest.mark.usefixtures("still")
def test_several_ms_files_are_bands_in_order(pair, plain, tmp_path):
    bands = [edited(pair[1], tmp_path / f"{i}.tif", lambda x, i=i: x[i : i + 1]) for i in range(4)]
    several = pansharpen.fuse(pair[0], bands, method="gsa", score=False)
    assert np.array_equal(several.data, plain.data)


def test_a_result_tells_what_it_is(pair, plain):
    rows, cols = plain.data.shape[1:]
    assert plain.data.dtype == np.uint16 and plain.shape == plain.data.shape
    assert plain.valid.shape == (rows, cols) and plain.valid.sum() == plain.report["output"]["valid_pixels"]
    assert (plain.data[:, ~plain.valid] == plain.nodata).all() and (plain.data[:, plain.valid] != plain.nodata).all()
    assert plain.band_names == ("Blue", "Green", "Red", "NIR1") or len(plain.band_names) == 4
    assert plain.report["schema"] == "pansharpen-report/1" and plain.report["quality"] is None
    assert "gsa" in repr(plain) and plain.warnings == plain.report["warnings"]


def test_a_result_in_kilometres_prints_nothing(pair, tmp_path, capfd):
    """libgeotiff looks for units in a database of PROJ's that it does not find, and writes so to stderr."""
    with rasterio.open(pair[0]) as dataset:
        place, crs = Affine.scale(1e-3) @ dataset.transform, dataset.crs.to_proj4().replace("+units=m", "+units=km")
    pan = edited(pair[0], tmp_path / "pan.tif", transform=place, crs=crs)
    capfd.readouterr()
    result = pansharpen.fuse(pan, pair[1], method="exp", score=False, align="off")
    assert result.valid.any() and result.data.any() and result.crs.linear_units_factor[1] == 1000
    assert capfd.readouterr() == ("", "")


def test_a_temporary_file_goes_with_the_result_and_an_output_stays(pair, tmp_path):
    result = pansharpen.fuse(*pair, method="exp", score=False, align="off")
    folder = result.path.parent
    assert result.path.exists() and result.is_temporary
    del result
    gc.collect()
    assert not folder.exists()
    kept = pansharpen.fuse(*pair, method="exp", score=False, align="off", output=tmp_path / "kept.tif")
    assert kept.path == tmp_path / "kept.tif" and not kept.is_temporary
    del kept
    gc.collect()
    assert (tmp_path / "kept.tif").exists()


def test_nothing_is_left_of_what_fails(pair, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(pansharpen.InputError, match="--bidx 9"):
        pansharpen.fuse(*pair, bidx=[9])
    assert list(tmp_path.iterdir()) == []


def test_write_replaces_nothing_unasked_and_never_an_input(pair, plain, tmp_path):
    target = plain.write(tmp_path / "fused.tif")
    with pytest.raises(pansharpen.InputError, match="exists"):
        plain.write(target)
    assert plain.write(target, overwrite=True) == target
    with pytest.raises(pansharpen.InputError, match="one of the inputs"):
        plain.write(pair[0], overwrite=True)
    with pytest.raises(pansharpen.InputError, match="name a file that ends in .tif or .tiff"):
        plain.write(tmp_path / "fused.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fused.tif"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "best"}, "unknown method 'best'"),
        ({"adapt": "slow"}, "adapt is one of off, fast, best"),
        ({"align": "yes"}, "align is one of"),
        ({"extent": "ms"}, "extent is one of"),
        ({"dtype": "complex64"}, "complex64"),
        ({"tile_size": 63}, "tile_size is a whole number from 64 to 8192, not 63"),
        ({"tile_size": 8193}, "tile_size is a whole number from 64 to 8192, not 8193"),
        ({"scale": 1e300}, "scale takes a factor from 1e-30 to 1e30"),
        ({"scale": 1e-300}, "scale takes a factor from 1e-30 to 1e30"),
        ({"scale": True}, "scale takes a factor from 1e-30 to 1e30"),
        ({"bidx": []}, "bidx names no band; leave it out for all"),
        ({"output": "out.tif/"}, "'out.tif/' is the name of a folder"),
        ({"report": "out.json/"}, "'out.json/' is the name of a folder"),
        ({"seed": -1}, "seed is a whole number"),
        ({"window": (0, 0, 0, 5)}, "window takes"),
        ({"creation_options": {"COMPRESS": "NONSENSE"}}, "NONSENSE"),
    ],
)
def test_bad_options_are_refused_in_one_line(pair, options, words):
    with pytest.raises(pansharpen.InputError, match=re.escape(words)) as caught:
        pansharpen.fuse(*pair, **options)
    assert "\n" not in str(caught.value)


def test_bad_inputs_are_refused_by_the_name_that_the_caller_knows(pair):
    with rasterio.open(pair[1]) as ms:
        transform = ms.transform
        with WarpedVRT(ms) as warped, pytest.raises(pansharpen.InputError, match="WarpedVRT"):
            pansharpen.fuse(pair[0], warped)
    for data, words in (
        (np.zeros((2, 2, 2, 2)), r"shape \(2, 2, 2, 2\)"),
        (np.zeros((4, 30, 30), complex), "complex128"),
        (np.zeros((4, 3, 3)), "ms array"),
    ):
        with pytest.raises(pansharpen.InputError, match=words) as caught:
            pansharpen.fuse(pair[0], pansharpen.GeoArray(data, transform, "EPSG:32631"))
        assert "vsimem" not in str(caught.value)
    with pytest.raises(pansharpen.InputError, match="a list; a path"):
        pansharpen.fuse([1], pair[1])
    with pytest.raises(pansharpen.InputError, match="no MS"):
        pansharpen.fuse(pair[0], [])


@pytest.mark.usefixtures("still")
def test_a_window_of_rasterio_is_a_window(pair, plain):
    part = pansharpen.fuse(*pair, method="gsa", score=False, window=Window(30, 40, 64, 50))
    r0, _, c0, _ = plain.report["scene"]["window"]
    assert np.array_equal(part.data, plain.data[:, 40 - r0 : 90 - r0, 30 - c0 : 94 - c0])


def test_evaluations_are_those_of_the_command_line(pair, run, tmp_path, plain):
    plain.write(tmp_path / "gsa.tif")
    told = json.loads(run("evaluate", tmp_path / "gsa.tif", "--pan", pair[0], "--ms", pair[1], "--json").out)
    exp = pansharpen.fuse(*pair, method="exp", score=False)
    facts = pansharpen.evaluate({"mine": plain, "soft": exp}, *pair)
    by_name = {r["name"]: r["quality"] for r in facts["results"]}
    assert by_name["mine"] == told["results"][0]["quality"]
    assert set(by_name) == {"mine", "soft"} and facts["kind"] == "full"
    assert [r["name"] for r in pansharpen.evaluate([plain, tmp_path / "gsa.tif"], *pair)["results"]] == [
        "gsa 1",
        str(tmp_path / "gsa.tif"),
    ]
    truth = pansharpen.GeoArray(exp.data, exp.transform, exp.crs, exp.nodata)
    against = pansharpen.evaluate_against(plain, truth, ratio=4, peak=2047)["results"][0]["quality"]
    both = plain.valid & exp.valid
    assert against["q2n"] == pytest.approx(pansharpen.indices.q2n(exp.data, plain.data, both), abs=1e-12)
    assert against["sam"] == pytest.approx(pansharpen.indices.sam(exp.data, plain.data, both), abs=1e-9)
    wald = pansharpen.evaluate_wald(*pair, ["gsa", "exp"])
    assert [r["name"] for r in wald["results"]] == ["gsa", "exp"]


@pytest.mark.usefixtures("still")
def test_one_result_by_two_names_is_evaluated_under_both(pair, plain):
    named = pansharpen.evaluate({"a": plain, "b": plain}, *pair, align="off")
    listed = pansharpen.evaluate([plain, plain], *pair, align="off")
    assert [each["name"] for each in named["results"]] == ["a", "b"]
    assert [each["name"] for each in listed["results"]] == ["gsa 1", "gsa 2"]
    assert named["results"][0] | {"name": "b", "path": "b", "rank": 2} == named["results"][1]


@pytest.mark.slow
def test_check_says_what_the_command_line_says(pair, run):
    told = json.loads(run("check", *pair, "--method", "gsa", "--json").out)
    facts = pansharpen.check(*pair, method="gsa")
    assert facts["bands"] == told["bands"] and facts["scene"] == told["scene"] and facts["refused"] is None
    refused = pansharpen.check(pair[0], pair[0])
    assert "is named as PAN and as MS" in refused["refused"]


def test_the_indices_are_those_of_the_metrics_on_plain_arrays():
    import torch

    rng = np.random.default_rng(0)
    a = rng.integers(1, 2000, (4, 96, 64)).astype(np.uint16)
    b = (a + rng.normal(0, 60, a.shape)).clip(1, 2047).astype(np.uint16)
    x, y = (torch.from_numpy(v.astype(np.float64)) for v in (a, b))
    index = pansharpen.indices
    assert index.q2n(a, b) == of_whole.q2n(x, y) and index.q2n(a, a) == pytest.approx(1)
    assert index.ergas(a, b, ratio=4) == of_whole.ergas(x, y, 4)
    assert index.sam(a, b) == of_whole.sam(x, y) and index.scc(a, b) == of_whole.scc(x, y)
    assert index.psnr(a, b, peak=2047) == of_whole.psnr(x, y, 2047)
    assert index.ssim(a, b, peak=2047) == of_whole.ssim(x, y, 2047)
    assert index.cc(a, b) == of_whole.cross_correlation(x, y) and index.q(a, b) == of_whole.q_average(x, y)
    assert np.allclose(index.rmse(a, b), np.sqrt(((a.astype(float) - b) ** 2).mean((1, 2))))
    assert np.allclose(index.bias(a, b), (b.astype(float) - a).mean((1, 2)))
    valid = np.ones(a.shape[1:], bool)
    valid[:32] = False
    hidden = np.ma.masked_array(b, np.broadcast_to(~valid, b.shape))
    assert index.q2n(a, hidden) == index.q2n(a, b, valid) != index.q2n(a, b)
    other = np.where(valid, b, 60000)  # what is not valid moves nothing, blurred or not
    assert index.d_lambda_k(a, other, 0.3, 4, valid) == index.d_lambda_k(a, hidden, 0.3, 4)
    assert index.q2n(a, other, valid) == index.q2n(a, hidden)
    with pytest.raises(pansharpen.InputError, match="do not fit"):
        index.sam(a, b[:, :-1])
    with pytest.raises(pansharpen.InputError, match="an image is"):
        index.sam(a, b[0, 0])


@pytest.mark.slow
def test_the_full_resolution_indices_follow_from_arrays(tmp_path):
    made = painted(simulate.Simulation(rows=256, cols=256, bands=4, seed=2))
    pan, ms = write_scene(made, tmp_path)[:2]
    fused = pansharpen.fuse(pan, ms, method="gsa", align="off")
    index, inner = pansharpen.indices, np.s_[..., 32:-32, 32:-32]
    expanded = index.expand(made.ms, made.pan.shape, ratio=4)
    low = index.low_passed_pan(made.pan, made.ms.shape[1:], ratio=4)
    d_s = index.d_s(fused.data, expanded, made.pan, low)
    d_lambda_k = index.d_lambda_k(expanded, fused.data, 0.3, ratio=4)
    part = pansharpen.fuse(pan, ms, method="gsa", align="off", window=(32, 32, 192, 192)).report["quality"]
    assert np.array_equal(
        fused.data[inner], pansharpen.fuse(pan, ms, method="gsa", align="off", window=(32, 32, 192, 192)).data
    )
    assert index.d_s(fused.data[inner], expanded[inner], made.pan[inner], low[inner]) == pytest.approx(
        part["d_s"], abs=1e-6
    )
    whole = fused.report["quality"]
    assert d_s == pytest.approx(whole["d_s"], abs=0.01) and d_lambda_k == pytest.approx(whole["d_lambda_k"], abs=0.01)
    assert index.hqnr(0.1, 0.2) == pytest.approx(0.72) and index.qnr(0.1, 0.2) == pytest.approx(0.72)
    assert index.pan_detail_correlation(fused.data, made.pan) == pytest.approx(
        whole["pan_detail_correlation"], abs=1e-6
    )
    assert index.flat_area_activity(fused.data, made.pan) == pytest.approx(whole["flat_area_activity"], abs=1e-3)
    assert 0 < index.d_lambda(fused.data, expanded) < 0.5


@pytest.mark.slow  # xarray takes a second to import
def test_a_result_becomes_an_array_of_xarray(plain):
    pytest.importorskip("xarray")
    array = plain.to_xarray()
    assert array.dims == ("band", "y", "x") and np.array_equal(array.values, plain.data)
    x, y = plain.transform @ (0.5, 0.5)
    assert (float(array.x[0]), float(array.y[0])) == pytest.approx((x, y))
    assert np.array_equal(array.valid.values, plain.valid) and array.attrs["_FillValue"] == plain.nodata
    assert rasterio.crs.CRS.from_wkt(array.spatial_ref.attrs["crs_wkt"]) == plain.crs
    assert Affine.from_gdal(*map(float, array.spatial_ref.attrs["GeoTransform"].split())) == plain.transform


def test_without_xarray_the_error_says_what_to_install(plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(pansharpen.InputError, match=r"pip install 'pansharpen\[xarray\]'"):
        plain.to_xarray()


@pytest.mark.slow
def test_all_names_are_there_and_importing_them_loads_nothing():
    code = (
        "import sys, pansharpen_cli as p; assert set(p.__all__) <= set(dir(p)), p.__all__;"
        "print(sorted({'torch', 'rasterio', 'numpy'} & set(sys.modules)));"
        "p.InputError; assert 'numpy' not in sys.modules; [getattr(p, n) for n in p.__all__];"
        "assert callable(p.fuse) and callable(p.check); from pansharpen_cli.fusion import fit; fit.fit"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    for name in ("api", "indices"):
        module = importlib.import_module(f"pansharpen_cli.{name}")
        assert all(getattr(getattr(module, n), "__doc__", None) for n in module.__all__)
    assert set(pansharpen.__all__) - {"__version__"} == set(sys.modules["pansharpen_cli.api"].__all__)
    with pytest.raises(AttributeError, match="nothing"):
        pansharpen.nothing  # noqa: B018


def test_type_checkers_are_told_of_all_names():
    (told,) = (n for n in ast.parse(Path(pansharpen.__file__).read_text()).body if isinstance(n, ast.If))
    names = {alias.name for node in told.body if node.module != "typing" for alias in node.names}
    assert ast.unparse(told.test) == "TYPE_CHECKING" and names == set(pansharpen.__all__) - {"__version__"}


@pytest.mark.slow
def test_a_type_checker_knows_the_options_of_fuse_and_check(tmp_path):
    """Each wrong line is an error, each right one none."""
    lines = {
        "import pansharpen_cli as pansharpen": "",
        'fused: pansharpen.Fused = pansharpen.fuse("pan.tif", ["ms.tif"], method="gsa", seed=1)': "",
        'pansharpen.fuse("pan.tif", "ms.tif", metod="gsa")': 'Unexpected keyword argument "metod" for "fuse"',
        'pansharpen.fuse("pan.tif", "ms.tif", seed="one")': 'Argument "seed" to "fuse" has incompatible type "str"',
        'pansharpen.check("pan.tif", "ms.tif")["findings"]': "",
        'pansharpen.check("pan.tif", "ms.tif", output="o.tif")': 'Unexpected keyword argument "output" for "check"',
        "pansharpen.indices.hqnr(0.1)": "Too few arguments",
        'pansharpen.indices.q2n({"a": 1}, [1])': 'Argument 1 to "q2n" has incompatible type "dict[str, int]"',
    }
    (tmp_path / "user.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", tmp_path / "user.py"]
    told = subprocess.run(command, capture_output=True, cwd=ROOT, text=True).stdout
    for number, (line, wrong) in enumerate(lines.items(), 1):
        said = [each for each in told.splitlines() if f"user.py:{number}: error" in each]
        assert (wrong in said[0] if said else not wrong) and bool(said) == bool(wrong), (line, told)


@pytest.mark.slow
def test_rasterio_finds_the_command_line_as_a_plug_in():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["rasterio.rio_plugins"]
    module, name = named["pansharpen"].split(":")
    code = f"import sys, {module} as rio; assert 'torch' not in sys.modules; rio.{name}(sys.argv[1:])"
    for arguments, words in (["--version"], pansharpen.__version__), (["fuse", "--help"], "--window"):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, cwd=ROOT, text=True)
        assert (done.returncode, words in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    "options",
    [
        {"window": (float("nan"),) * 4},
        {"window": "0,0,8,8"},
        {"bbox": (float("nan"),) * 4},
        {"bbox": "x"},
        {"scale": (1, 2, 3)},
        {"scale": None},
        {"height": "high"},
    ],
    ids=str,
)
def test_options_of_other_kinds_are_errors_of_ours(options: dict) -> None:
    with pytest.raises(pansharpen.InputError, match=next(iter(options))):
        pansharpen.fuse("pan.tif", "ms.tif", **options)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"transform": (1.0, 0, 0, 0, -1.0, 0)}, "transform of ms array is a tuple; an affine.Affine is needed"),
        ({"band_names": (1,)}, "ms array cannot be used"),
        ({"nodata": "0"}, "nodata of ms array is a number or None, not '0'"),
        ({"nodata": -9999}, "nodata of ms array is -9999, which uint16 does not hold"),
    ],
    ids=str,
)
@pytest.mark.parametrize("masked", [False, True])
def test_an_array_with_a_place_or_nodata_of_another_kind_is_an_error_of_ours(wrong: dict, said: str, masked) -> None:
    pixels = np.ma.masked_array(np.ones((1, 64, 64), "uint16"), mask=False)
    pixels[0, 3, 3] = np.ma.masked if masked else 1
    array = pansharpen.GeoArray(pixels, **{"transform": Affine.identity()} | wrong)
    with pytest.raises(pansharpen.InputError, match=re.escape(said)):
        pansharpen.fuse("pan.tif", array)


def test_a_masked_array_keeps_its_nodata_value(pair) -> None:
    with rasterio.open(pair[1]) as ms:
        pixels = np.ma.masked_array(ms.read().astype("int16"), mask=False)
        pixels[0, 9:11, 9:11] = np.ma.masked
        array = pansharpen.GeoArray(pixels, ms.transform, ms.crs, nodata=-9999)
        plain = pansharpen.GeoArray(pixels, ms.transform, ms.crs)
    made = [pansharpen.fuse(pair[0], each, method="none", align="off", score=False) for each in (array, plain)]
    assert [each.nodata for each in made] == [-9999, 0] and not made[0].valid.all()
    np.testing.assert_array_equal(made[0].valid, made[1].valid)


NUMBER, WORD, FEW = 5.5, "x", [None]
WRONG = {
    "method": NUMBER, "weights": NUMBER, "sensor": None, "adapt": FEW, "adapt_seconds": WORD, "adapt_loss": None,
    "device": NUMBER, "precision": None, "tile_size": WORD, "seed": NUMBER, "bidx": WORD, "fit_bands": None,
    "window": NUMBER, "bbox": NUMBER, "extent": FEW, "align": None, "mtf": NUMBER, "nodata": WORD, "dtype": WORD,
    "scale": WORD, "pan_from": NUMBER, "height": WORD, "dem": NUMBER, "driver": None, "creation_options": FEW,
    "overviews": WORD, "overwrite": None, "score": WORD, "report": NUMBER, "quicklook": NUMBER, "rgb": NUMBER,
    "stretch": NUMBER, "rgb_only": WORD, "save_fit": NUMBER, "fit": NUMBER, "output": NUMBER, "progress": None,
    "pan": NUMBER, "ms": None, "fused": NUMBER, "maps": NUMBER, "show": NUMBER, "reference": None, "ratio": "4",
    "peak": WORD, "methods": NUMBER,
}  # fmt: skip
"""Of each argument of the Python interface, a value of another kind."""
PATHS = ("output", "weights", "dem", "quicklook", "save_fit", "fit", "maps", "report", "stretch")
FUNCTIONS = {"fuse": 2, "check": 2, "evaluate": 3, "evaluate_against": 2, "evaluate_wald": 3}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_argument_of_another_kind_is_named_in_an_error_of_ours(function: str, tmp_path, monkeypatch) -> None:
    """Nothing is read before: the files are not there."""
    monkeypatch.chdir(tmp_path)
    called = getattr(importlib.import_module("pansharpen_cli.api"), function)
    names = list(inspect.signature(called).parameters)
    first = names[: FUNCTIONS[function]]
    for name in names:
        given = dict.fromkeys(first, "gsa") | {name: WRONG[name]}
        with pytest.raises(pansharpen.InputError) as caught:
            called(**given)
        assert re.match(f"(the )?{name}( array| array 1)? (takes|is) ", str(caught.value)), (name, str(caught.value))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_path_with_a_nul_in_it_is_named_in_an_error_of_ours(function: str, tmp_path, monkeypatch) -> None:
    """Where text ends at a NUL, another file would be meant."""
    monkeypatch.chdir(tmp_path)
    called = getattr(importlib.import_module("pansharpen_cli.api"), function)
    names = list(inspect.signature(called).parameters)
    first = names[: FUNCTIONS[function]]
    for name in names:
        if name in (*first, *PATHS) and name != "methods":
            with pytest.raises(pansharpen.InputError, match=f"^{name}.* (takes a path|is 'a.x00b.tif')") as caught:
                called(**dict.fromkeys(first, "gsa") | {name: "a\0b.tif"})
            assert "\0" not in str(caught.value)


@pytest.mark.usefixtures("still")
def test_numbers_of_numpy_are_those_of_python(pair, plain, tmp_path) -> None:
    options = {"method": "gsa", "score": np.bool_(False), "seed": np.int64(0), "tile_size": np.uint16(512)}
    bands = {"bidx": np.array([1, 2, 3, 4]), "nodata": np.uint16(0), "scale": np.float32(1), "dtype": np.uint16}
    result = pansharpen.fuse(*pair, **options, **bands, height=np.float32(10), report=tmp_path / "report.json")
    assert np.array_equal(result.data, plain.data) and json.loads((tmp_path / "report.json").read_text())
    facts = pansharpen.evaluate_against(result, pansharpen.GeoArray(plain.data, plain.transform, plain.crs),
                                        ratio=np.int32(4), peak=np.uint16(2047), nodata=np.uint16(0))  # fmt: skip
    assert json.dumps(facts)


@pytest.mark.parametrize("peak", [0, -1, float("nan"), float("inf"), "x", None, True])
def test_indices_take_no_peak_ratio_scale_or_gain_that_can_be_none(peak) -> None:
    index, a = pansharpen.indices, np.arange(3 * 64 * 64.0).reshape(3, 64, 64)
    for name, call in {
        "peak": lambda: (index.psnr(a, a + 1, peak=peak),),
        "ratio": lambda: index.ergas(a, a + 1, ratio=peak),
        "scale": lambda: index.q2n(a, a + 1, scale=peak),
        "gains": lambda: index.d_lambda_k(a, a, peak, 4),
        "shape": lambda: index.expand(a, (64, peak), 4),
        "ms_shape": lambda: index.low_passed_pan(a[0], (peak, 16), 4),
    }.items():
        with pytest.raises(pansharpen.InputError, match=f"^{name} takes"):
            call()
    with pytest.raises(pansharpen.InputError, match="peak takes"):
        index.ssim(a, a, peak)
    with pytest.raises(pansharpen.InputError, match="2 gains do not fit 3 bands"):
        index.d_lambda_k(a, a, [0.3, 0.3], 4)
    with pytest.raises(pansharpen.InputError, match="holds numbers"):
        index.sam(a, a * 1j)


@pytest.mark.parametrize("name", pansharpen.indices.__all__)
def test_what_fits_no_index_is_an_error_of_ours(name: str) -> None:
    image = np.random.default_rng(0).uniform(1, 9, (3, 64, 64))
    pan, numbers = image[0], {"ratio": 4.0, "peak": 9.0, "gains": 0.3, "shape": (64, 64), "ms_shape": (16, 16)}
    index = getattr(pansharpen.indices, name)
    good = {
        each: numbers.get(each, 0.1 if name in ("hqnr", "qnr") else pan if each.startswith("pan") else image)
        for each, given in inspect.signature(index).parameters.items()
        if given.default is given.empty
    }
    index(**good)
    for each in good.keys() - numbers.keys():
        for bad in (None, "x", [[1, 2], [3]], image[0, 0], image[None], image[:, :0], image[:0], image * 1j, object()):
            with pytest.raises(pansharpen.InputError):
                index(**good | {each: bad})
        alone = ("expand", "low_passed_pan"), ("expand", "pan_detail_correlation", "flat_area_activity")
        others = [image[:1, 1:]] if name not in alone[0] else []
        others += [image[:2]] if name not in alone[1] or each == "pan" else []
        for bad in others:
            with pytest.raises(pansharpen.InputError):
                index(**good | {each: bad})
