"""Pairing: name rules of every product, overlap and time, regular expressions, tiles, manifests, STAC."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

from pansharpen_cli.archive import mosaic as mosaics
from pansharpen_cli.archive import names as naming
from pansharpen_cli.archive import pairs
from pansharpen_cli.archive.names import File
from pansharpen_cli.errors import InputError
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene

ORDER = "052783426010_01_P001"
PHR = "201202250025329_SEN_PRG_FC_5847"
GF = "GF2_PMS1_E116.9_N39.0_20150212_L1A0000647768"
L8 = "LC08_L1TP_180031_20200814_20200822_02_T1"
L7 = "LE07_L1TP_180031_20000814_20200822_02_T1"


def files(*names: str) -> list[File]:
    return [File(f"/in/{n}", f"in/{n}") for n in sorted(names)]


def paired(*names: str, regex: str | None = None) -> list[tuple]:
    """(folder, name, PAN, MS files) of what names pair, without the path of the source."""
    found, _, _ = naming.by_name(files(*names), regex)
    return [
        (f.folder, f.name, [p[4:] for p in f.pan], [[p[4:] for p in layer] for layer in f.ms])
        for f in sorted(found, key=lambda f: (f.folder, f.name))
    ]


def left(*names: str) -> dict[str, str]:
    """Why files are in no pair, of what is not even to be looked into."""
    return {each.path[4:]: each.reason for each in naming.by_name(files(*names))[2]}


# Names --------------------------------------------------------------------------------------------------------------

PRODUCTS = {
    "pan.tif": (
        ["s1/pan.tif", "s1/ms.tif", "s2/PAN.TIF", "s2/MS.TIF"],
        [("s1", "s1", ["s1/pan.tif"], [["s1/ms.tif"]]), ("s2", "s2", ["s2/PAN.TIF"], [["s2/MS.TIF"]])],
    ),
    "x_pan.tif": (
        ["a_pan.tif", "a_ms.tif", "b_pan.tif", "b_ms.tif"],
        [("", "a", ["a_pan.tif"], [["a_ms.tif"]]), ("", "b", ["b_pan.tif"], [["b_ms.tif"]])],
    ),
    "PAN, RGBNIR": (
        ["PAN/SN6_PAN_1.tif", "RGBNIR/SN6_RGBNIR_1.tif", "PS-RGB/SN6_PS-RGB_1.tif"],
        [("", "SN6_1", ["PAN/SN6_PAN_1.tif"], [["RGBNIR/SN6_RGBNIR_1.tif"]])],
    ),
    "folders": (
        ["PAN/SN_PAN_img7.tif", "MUL/SN_MUL_img7.tif", "PAN/SN_PAN_img8.tif", "MUL/SN_MUL_img8.tif"],
        [
            ("", "SN_img7", ["PAN/SN_PAN_img7.tif"], [["MUL/SN_MUL_img7.tif"]]),
            ("", "SN_img8", ["PAN/SN_PAN_img8.tif"], [["MUL/SN_MUL_img8.tif"]]),
        ],
    ),
    "Landsat 8": (
        [f"{L8}/{L8}_B{b}.TIF" for b in range(1, 12)],
        [(L8, L8, [f"{L8}/{L8}_B8.TIF"], [[f"{L8}/{L8}_B{b}.TIF"] for b in (2, 3, 4, 5, 6, 7)])],
    ),
    "Landsat 7": (
        [f"{L7}_B{b}.TIF" for b in (1, 2, 3, 4, 5, 7, 8)] + [f"{L7}_B6_VCID_1.TIF"],
        [("", L7, [f"{L7}_B8.TIF"], [[f"{L7}_B{b}.TIF"] for b in (1, 2, 3, 4, 5, 7)])],
    ),
    "Landsat, visible and near infrared": (
        [f"LC08_B{b}.TIF" for b in (2, 3, 4, 5, 8)],
        [("", "LC08", ["LC08_B8.TIF"], [[f"LC08_B{b}.TIF"] for b in (2, 3, 4, 5)])],
    ),
    "WorldView, a second apart": (
        [f"o_PAN/10JUN12053804-P1BS-{ORDER}.TIF", f"o_MUL/10JUN12053803-M1BS-{ORDER}.TIF", "o_MUL/README.XML"],
        [
            (
                "", f"10JUN12053804-{ORDER}",
                [f"o_PAN/10JUN12053804-P1BS-{ORDER}.TIF"], [[f"o_MUL/10JUN12053803-M1BS-{ORDER}.TIF"]],
            )
        ],
    ),
    "QuickBird with tiles": (
        [
            *(f"p/02APR01105228-P2AS_R{r}C{c}-{ORDER}.TIF" for r in (1, 2) for c in (1, 10, 2)),
            f"p/02APR01105228-P2AS-{ORDER}.TIL", f"m/02APR01105228-M2AS_R1C1-{ORDER}.TIF",
            f"m/02APR01105228-M2AS-{ORDER}.TIL",
        ],
        [
            (
                "", f"02APR01105228-{ORDER}",
                [f"p/02APR01105228-P2AS-{ORDER}.TIL"]
                + [f"p/02APR01105228-P2AS_R{r}C{c}-{ORDER}.TIF" for r in (1, 2) for c in (1, 2, 10)],
                [[f"m/02APR01105228-M2AS_R1C1-{ORDER}.TIF"]],
            )
        ],
    ),
    "-PAN and -MUL with .TIL": (
        ["x/po_1-PAN/a.TIL", "x/po_1-MUL/a.TIL"],
        [("x", "a", ["x/po_1-PAN/a.TIL"], [["x/po_1-MUL/a.TIL"]])],
    ),
    "GeoEye of old": (
        [f"po_37836_{b}_0000000.tif" for b in ("pan", "red", "grn", "blu", "nir")],
        [
            (
                "", "po_37836_0000000", ["po_37836_pan_0000000.tif"],
                [[f"po_37836_{b}_0000000.tif"] for b in ("blu", "grn", "red", "nir")],
            )
        ],
    ),
    "Pleiades": (
        [
            f"IMG_PHR1A_P_001/IMG_PHR1A_P_{PHR}-001_R1C1.JP2", f"IMG_PHR1A_P_001/DIM_PHR1A_P_{PHR}-001.XML",
            f"IMG_PHR1A_MS_002/IMG_PHR1A_MS_{PHR}-002_R1C1.JP2", f"IMG_PHR1A_MS_002/IMG_PHR1A_MS_{PHR}-002_R1C2.JP2",
            f"IMG_PHR1A_MS_002/DIM_PHR1A_MS_{PHR}-002.XML",
        ],
        [
            (
                "", "PHR1A_20120225002532_SEN",
                [f"IMG_PHR1A_P_001/IMG_PHR1A_P_{PHR}-001_R1C1.JP2"],
                [
                    [f"IMG_PHR1A_MS_002/DIM_PHR1A_MS_{PHR}-002.XML"]
                    + [f"IMG_PHR1A_MS_002/IMG_PHR1A_MS_{PHR}-002_R1C{c}.JP2" for c in (1, 2)]
                ],
            )
        ],
    ),
    "SPOT, ordered twice": (
        [f"o{n}/IMG_SPOT6_{r}_201212051029386_ORT_00{n}_R1C1.TIF" for n in (1, 2) for r in ("P", "MS")],
        [
            (
                f"o{n}", "SPOT6_20121205102938_ORT",
                [f"o{n}/IMG_SPOT6_P_201212051029386_ORT_00{n}_R1C1.TIF"],
                [[f"o{n}/IMG_SPOT6_MS_201212051029386_ORT_00{n}_R1C1.TIF"]],
            )
            for n in (1, 2)
        ],
    ),
    "GaoFen": (
        [f"{GF}-PAN1.tiff", f"{GF}-MSS1.tiff", f"{GF}-PAN2.tiff", f"{GF}-MSS2.tiff"],
        [("", f"{GF}-{n}", [f"{GF}-PAN{n}.tiff"], [[f"{GF}-MSS{n}.tiff"]]) for n in (1, 2)],
    ),
    "GaoFen-6": (
        ["GF6_PMS_L1A112-PAN.tiff", "GF6_PMS_L1A112-MUX.tiff"],
        [("", "GF6_PMS_L1A112", ["GF6_PMS_L1A112-PAN.tiff"], [["GF6_PMS_L1A112-MUX.tiff"]])],
    ),
    "PlanetScope-like": (
        [f"20200814_162132_ssc4_{k}.tif" for k in ("panchromatic", "analytic", "analytic_udm", "visual")]
        + ["20200815_1_3B_pan.tif", "20200815_1_3B_AnalyticMS.tif"],
        [
            ("", "20200814_162132_ssc4", ["20200814_162132_ssc4_panchromatic.tif"],
             [["20200814_162132_ssc4_analytic.tif"]]),
            ("", "20200815_1_3B", ["20200815_1_3B_pan.tif"], [["20200815_1_3B_AnalyticMS.tif"]]),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_products_names_are_paired(product: str) -> None:
    names, expected = PRODUCTS[product]
    assert paired(*names) == expected


def test_products_in_one_archive_do_not_disturb_each_other() -> None:
    every = [f"{i}/{n}" for i, (names, _) in enumerate(PRODUCTS.values()) for n in names]
    count = sum(len(expected) for _, expected in PRODUCTS.values())
    assert len(paired(*every)) == count


def test_what_is_neither_pan_nor_ms_says_so() -> None:
    reasons = left(
        f"{L8}_B1.TIF", "x_ms_udm2.tif", "x_pansharpened.tif", f"10JUN12053804-S2AS-{ORDER}.TIF",
        "IMG_PHR1A_PMS_201202250025329_SEN_1_R1C1.TIF",
    )  # fmt: skip
    assert reasons == {
        f"{L8}_B1.TIF": "band 1 of Landsat 8 is not fused",
        "x_ms_udm2.tif": "looks like a mask",
        "x_pansharpened.tif": "looks like pansharpened already",
        f"10JUN12053804-S2AS-{ORDER}.TIF": "pansharpened already",
        "IMG_PHR1A_PMS_201202250025329_SEN_1_R1C1.TIF": "pansharpened already",
    }


@pytest.mark.parametrize(
    ("bands", "missing"), [((2, 3, 5, 8), "band 4"), ((2, 3, 4, 5, 6, 8), "band 7"), ((2, 8), "band 3, 4")]
)
def test_landsat_bands_that_cannot_be_fused_together_are_left_over(bands: tuple[int, ...], missing: str) -> None:
    names = [f"{L8}_B{b}.TIF" for b in bands]
    assert paired(*names) == []
    assert f"{missing} is missing" in left(*names)[names[0]]


def test_two_files_for_one_thing_are_not_guessed_between() -> None:
    assert paired("x_pan.tif", "x_ms.tif", "x_ms.jp2") == []
    assert left("x_pan.tif", "x_ms.tif", "x_ms.jp2")["x_ms.tif"] == "several files stand for the same thing"


def test_a_regular_expression_goes_before_the_rules() -> None:
    regex = r"(?P<scene>[^/]+)/img\.((?P<pan>P)|(?P<ms>B(?P<band>\d)))\.tif"
    assert paired("s7/img.P.tif", "s7/img.B2.tif", "s7/img.B1.tif", "a_pan.tif", "a_ms.tif", regex=regex) == [
        ("", "a", ["a_pan.tif"], [["a_ms.tif"]]),
        ("s7", "s7", ["s7/img.P.tif"], [["s7/img.B1.tif"], ["s7/img.B2.tif"]]),
    ]


def test_a_regular_expression_that_matches_nothing_is_refused() -> None:
    for regex in (r"(?P<scene>.+)_((?P<pan>P)|(?P<ms>M))\.tif", r"(?P<scene>x*)((?P<pan>pan)|(?P<ms>ms))"):
        with pytest.raises(InputError, match="--pair-regex matches no file: .* 'a_ms.tif'"):
            paired("a_pan.tif", "a_ms.tif", regex=regex)


@pytest.mark.parametrize("regex", ["(", "(?P<scene>.+)", "(?P<scene>.+)(?P<pan>P)"])
def test_a_regular_expression_that_cannot_pair_is_refused(regex: str) -> None:
    with pytest.raises(InputError, match="--pair-regex"):
        naming.by_regex(regex, [])


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("10JUN12053804-P1BS", datetime(2010, 6, 12, 5, 38, 4)),
        ("IMG_PHR1A_P_201202250025329_SEN", datetime(2012, 2, 25, 0, 25, 32)),
        ("20200814_162132_ssc4", datetime(2020, 8, 14, 16, 21, 32)),
        ("2020-08-14T16:21:32.123Z", datetime(2020, 8, 14, 16, 21, 32)),
        (L8, datetime(2020, 8, 14)),
        ("99XYZ99999999", None),
        ("scene 7", None),
    ],
)
def test_times_in_names(text: str, time: datetime | None) -> None:
    assert naming.time_in(text) == time


# Overlap and time ---------------------------------------------------------------------------------------------------


def raster(path: Path, bands: int, size: int, pixel: float, left: float = 0.0, tags=(), values=None, **profile) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"crs": "EPSG:32631", "transform": Affine(pixel, 0, 5e5 + left, 0, -pixel, 5e6)} | profile
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, width=size, height=size, dtype="uint16", **profile
    ) as dataset:
        dataset.write(np.full((bands, size, size), 7, "uint16") if values is None else values)
        dataset.update_tags(ns="IMAGERY", **dict(tags))
    return path


def at(minute: int) -> dict[str, str]:
    return {"ACQUISITIONDATETIME": f"2020-08-14 10:{minute:02}:00"}


def names_of(pairing: naming.Pairing) -> set[tuple[str, str]]:
    return {(Path(f.pan[0]).name, Path(f.ms[0][0]).name) for f in pairing.found}


def test_the_rest_is_paired_by_overlap_and_time(tmp_path: Path) -> None:
    raster(tmp_path / "a" / "one.tif", 1, 64, 1, tags=at(1))
    raster(tmp_path / "b" / "two.tif", 4, 16, 4, tags=at(1))
    raster(tmp_path / "b" / "later.tif", 4, 16, 4, tags=at(9))  # there as well, but eight minutes later
    raster(tmp_path / "a" / "east.tif", 1, 64, 1, left=500)  # without a time
    raster(tmp_path / "b" / "there.tif", 4, 16, 4, left=500)
    raster(tmp_path / "b" / "lonely.tif", 4, 16, 4, left=5000)
    raster(tmp_path / "b" / "coarse.tif", 4, 2, 32, left=500)
    raster(tmp_path / "b" / "nowhere.tif", 4, 16, 4, crs=None)
    (tmp_path / "b" / "broken.tif").write_text("no raster")
    pairing = pairs.find([str(tmp_path / "a"), str(tmp_path / "b")])
    assert names_of(pairing) == {("one.tif", "two.tif"), ("east.tif", "there.tif")}
    reasons = {Path(each.path).name: each.reason for each in pairing.left}
    assert reasons.keys() == {"later.tif", "lonely.tif", "coarse.tif", "nowhere.tif", "broken.tif"}
    assert reasons["lonely.tif"] == "no PAN for it"
    assert "no CRS" in reasons["nowhere.tif"]
    assert "cannot open" in reasons["broken.tif"]


def test_days_that_are_apart_are_not_paired(tmp_path: Path) -> None:
    raster(tmp_path / "fine_20200814.tif", 1, 64, 1)
    raster(tmp_path / "colour_20200914.tif", 4, 16, 4)
    assert pairs.find([str(tmp_path)]).found == []
    raster(tmp_path / "colour_20200815.tif", 4, 16, 4)  # the clock of one may be that of another zone
    assert names_of(pairs.find([str(tmp_path)])) == {("fine_20200814.tif", "colour_20200815.tif")}


def test_what_overlaps_alike_is_not_guessed_between(tmp_path: Path) -> None:
    raster(tmp_path / "one.tif", 1, 64, 1)
    raster(tmp_path / "two.tif", 4, 16, 4)
    raster(tmp_path / "three.tif", 4, 16, 4)
    pairing = pairs.find([str(tmp_path)])
    assert pairing.found == []
    assert {Path(each.path).stem: each.reason for each in pairing.left} == {
        "one": "2 MSs overlap it alike",
        "two": "the PAN that overlaps it does so for another MS, too",
        "three": "the PAN that overlaps it does so for another MS, too",
    }


def test_what_is_left_over_is_told_why_by_its_name_where_nothing_overlaps(tmp_path: Path) -> None:
    raster(tmp_path / "x_pan.tif", 1, 64, 1)
    for name in ("x_ms.tif", "x_ms.tiff"):
        raster(tmp_path / name, 4, 16, 4)
    for i, name in enumerate(("a/1/s_pan.tif", "a/2/s_pan.tif", "b/s_ms.tif")):
        raster(tmp_path / name, 1 if "pan" in name else 4, 16, 4, left=1e4 * (i + 1))
    pairing = pairs.find([str(tmp_path)])
    assert pairing.found == []
    reasons = {os.path.relpath(each.path, tmp_path): each.reason for each in pairing.left}
    assert reasons["x_pan.tif"] == "its MS is left over: several files stand for the same thing"


# Sources ------------------------------------------------------------------------------------------------------------


def test_folders_globs_and_files_give_each_scene_once_and_never_the_outputs(tmp_path: Path) -> None:
    for name in ("in/x_pan.tif", "in/x_ms.tif", "in/out/y_pan.tif", "in/out/y_ms.tif", "in/.cache/z_pan.tif"):
        raster(tmp_path / name, 1, 8, 1)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    sources = [str(tmp_path / "in"), str(tmp_path / "in" / "*.tif"), str(tmp_path / "in" / "x_ms.tif")]
    for each in ([sources[0]], [sources[1]], sources):
        pairing = pairs.find(each, output=tmp_path / "in" / "out")
        assert names_of(pairing) == {("x_pan.tif", "x_ms.tif")} and pairing.left == []


def test_a_glob_through_a_link_and_one_that_hits_other_lists(tmp_path: Path) -> None:
    for name in ("real/x_pan.tif", "real/x_ms.tif"):
        raster(tmp_path / name, 1, 8, 1)
    (tmp_path / "real" / "notes.json").write_text("{}")
    (tmp_path / "real" / "notes.csv").write_text("a,b\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (found,) = pairs.find([str(tmp_path / "link" / "*")]).found
    assert (found.folder, found.name) == ("", "x")


def test_outputs_are_no_source(tmp_path: Path) -> None:
    for name in ("out/x_pan.tif", "out/x_ms.tif"):
        raster(tmp_path / name, 1, 8, 1)
    out = tmp_path / "out"
    for sources in ([str(out)], [str(out / "*")], [str(out / "x_pan.tif"), str(out / "x_ms.tif")]):
        with pytest.raises(InputError, match="output folder"):
            pairs.find(sources, output=out)


DIM = '<Dimap_Document><MISSION>PHR</MISSION><Data_File_Path href="{}"/></Dimap_Document>'


@pytest.mark.parametrize(
    ("raster", "beside", "text"),
    [
        ("a.tif", "a.IMD", "satId"),
        ("a.tif", "a.TFW", "1"),
        ("a.tif", "a_RPC.TXT", "x"),
        ("a.tif", "a.tif.msk", ""),
        ("a.tif", "DIM_x.XML", DIM.format("a.tif")),
        ("IMG_PHR1A_P_1_R1C1.TIF", "DIM_PHR1A_P_1.XML", "<x/>"),
        ("IMG_PHR1A_P_1_R1C1.TIF", "RPC_PHR1A_P_1.XML", "<x/>"),
        ("a.tif", "METADATA.DIM", DIM.format("A.TIF")),
        ("a.tif", "summary.txt", 'Pdi_L11ProductFileName01="a.tif"'),
        (f"{L8}_B2.TIF", f"{L8}_MTL.txt", "GROUP"),
        (f"{L8}_B10.TIF", f"{L8}_mtl.TXT", "GROUP"),
    ],
)
def test_a_batch_stamps_what_the_reader_reads_beside_a_raster(
    tmp_path: Path, raster: str, beside: str, text: str
) -> None:
    other = tmp_path / f"b{raster}"
    for path in (tmp_path / raster, other):
        path.write_text("")
    assert mosaics.read_with([str(tmp_path / raster)]) == [str(tmp_path / raster)]
    (tmp_path / beside).write_text(text)
    assert mosaics.read_with([str(tmp_path / raster)]) == [str(tmp_path / raster), str(tmp_path / beside)]
    assert mosaics.read_with([str(other)]) == [str(other)]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_an_aux_of_erdas_is_read_with_its_raster(tmp_path: Path) -> None:
    kind = {"driver": "HFA", "dtype": "uint8", "count": 1, "width": 8, "height": 8}
    with rasterio.open(tmp_path / "a.aux", "w", **kind, AUX="YES", DEPENDENT_FILE="a.tif") as dataset:
        dataset.write(np.ones((1, 8, 8), "uint8"))
    (tmp_path / "a.tif").write_text("")
    assert mosaics.read_with([str(tmp_path / "a.tif")]) == [str(tmp_path / "a.tif"), str(tmp_path / "a.aux")]


def test_a_vrt_is_read_with_its_sources(tmp_path: Path) -> None:
    first = raster(tmp_path / "a.tif", 1, 8, 1)
    rasterio.shutil.copy(first, tmp_path / "b.vrt", driver="VRT")
    (tmp_path / "c.VRT").write_text((tmp_path / "b.vrt").read_text().replace("a.tif", "b.vrt"))
    names = mosaics.read_with([str(tmp_path / "c.VRT"), str(tmp_path / "lost.vrt")])
    assert {Path(n).name for n in names} == {"a.tif", "b.vrt", "c.VRT", "lost.vrt"}


def test_sources_that_give_nothing_are_told(tmp_path: Path, run) -> None:
    raster(tmp_path / "in" / "x_pan.tif", 1, 16, 1)
    raster(tmp_path / "in" / "x_ms.tif", 4, 4, 4)
    (tmp_path / "stac").mkdir()
    (tmp_path / "stac" / "item.json").write_text("{}")
    expected = {
        "*.nix": [f"no file matches {tmp_path}/*.nix"],
        "stac": [
            f"no raster in {tmp_path}/stac", f"lists of scenes are read where they are named: {tmp_path}/stac/*.json",
        ],
        "stac/*": [
            f"no raster matches {tmp_path}/stac/*",
            f"lists of scenes are read where they are named: {tmp_path}/stac/*.json",
        ],
    }  # fmt: skip
    for source, notes in expected.items():
        assert pairs.find([f"{tmp_path}/{source}"]).empty == notes
        finished = run("batch", tmp_path / source, "-o", tmp_path / "out")
        assert finished.code == 2 and finished.errors[0].endswith(f": {'; '.join(notes)}")
        assert pairs.find([f"{tmp_path}/{source}", f"{tmp_path}/in"]).empty == notes[:1]
    (tmp_path / "list.csv").write_text("pan,ms\np.tif,m.tif\n")
    regex = "(?P<scene>.)((?P<pan>P)|(?P<ms>M))"
    assert "--pair-regex has no file to match" in pairs.find([f"{tmp_path}/list.csv"], regex).empty[0]


def test_a_source_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        pairs.find([str(tmp_path / "nothing")])


def test_manifests_name_scenes_relative_to_themselves(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "name, PAN, ms, sensor,,note,note\na/one, p.tif, b.tif; g.tif;r.tif, quickbird\n,/x/p.tif,/x/m_ms.tif,,,,,, \n"
    )
    (tmp_path / "list.jsonl").write_text(
        '{"pan": "p.tif", "ms": ["b.tif", "g.tif"]}\n\n{"pan": "/vsizip/a.zip/p.tif", "ms": "m.tif", "name": "z"}\n'
    )
    found = pairs.find([str(tmp_path / "list.csv")]).found
    assert [(f.folder, f.name, f.sensor) for f in found] == [("a", "one", "quickbird"), ("", "m", "")]
    assert found[0].pan == (str(tmp_path / "p.tif"),)
    assert found[0].ms == tuple((str(tmp_path / f"{b}.tif"),) for b in "bgr")
    assert found[1].pan == ("/x/p.tif",)
    found = pairs.find([str(tmp_path / "list.jsonl")]).found
    assert [(f.pan[0], len(f.ms)) for f in found] == [(str(tmp_path / "p.tif"), 2), ("/vsizip/a.zip/p.tif", 1)]


@pytest.mark.parametrize("delimiter", [";", "\t", "; "])
def test_a_csv_may_have_other_delimiters(tmp_path: Path, delimiter: str) -> None:
    rows = [("pan", "ms", "name"), ("<b>/p.tif", '"b.tif;g.tif"', "one")]
    (tmp_path / "list.csv").write_text("\n".join(map(delimiter.join, rows)), "utf-8-sig")
    (found,) = pairs.find([str(tmp_path / "list.csv")]).found
    assert (found.name, found.pan, len(found.ms)) == ("one", (str(tmp_path / "<b>" / "p.tif"),), 2)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_csv_of_a_spreadsheet_may_be_in_utf_16(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding == "utf-16" else "\ufeff"
    (tmp_path / "list.csv").write_text(f"{mark}pan\tms\tname\r\np.tif\tm.tif\tö\r\n", encoding, newline="")
    (found,) = pairs.find([str(tmp_path / "list.csv")]).found
    assert (found.name, found.pan) == ("ö", (str(tmp_path / "p.tif"),))


def test_a_cell_of_a_csv_without_an_end_is_told(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('pan,ms\n"p.tif,m.tif\n' + "x" * 200_000)
    with pytest.raises(InputError, match=r"list\.csv cannot be read: a cell in it is longer than 131,072 characters"):
        pairs.find([str(tmp_path / "list.csv")])


@pytest.mark.parametrize("empty", ["\n\r\n", "  \n", ",,\n", " , \r\n\n;;\n", "\t\t\n", ",,,,,,\n"])
def test_empty_lines_of_a_csv_are_none(tmp_path: Path, empty: str) -> None:
    (tmp_path / "list.csv").write_text(
        f"{empty}pan,ms\n{empty.replace(';', ',')}p.tif,m.tif\n{empty.replace(';', ',')}"
    )
    (found,) = pairs.find([str(tmp_path / "list.csv")]).found
    assert found.pan == (str(tmp_path / "p.tif"),)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.csv", "\n\npan,ms\nx.tif,b.tif,g.tif\n", "line 4: 'g.tif' stands beyond the 2 columns"),
        ("m.csv", ",,\n  \npan,ms\n,\nx.tif,b.tif,g.tif\n", "line 5: 'g.tif' stands beyond the 2 columns"),
        ("m.csv", ",,\n,,\n", "no column 'pan' .columns: none"),
        ("m.csv", "pan\nx.tif\n", "no column 'ms'"),
        ("m.csv", "pan,ms\n", "lists no scene"),
        ("m.csv", "pan,ms\nx.tif,\n", "line 2"),
        ("m.csv", "pan,ms,Pan\nx.tif,y.tif,z.tif\n", "m.csv cannot be read: it has 'pan' twice"),
        ("m.csv", "pan,ms\nx.tif,b.tif,g.tif\n", "line 2: 'g.tif' stands beyond the 2 columns"),
        ("m.jsonl", '{"pan": "a"}\n', "line 1"),
        ("m.jsonl", '{"pan": "a", "ms": "b", "MS": "c"}\n', "line 1 cannot be read: it has 'ms' twice"),
        ("m.jsonl", '{"pan": "a", "ms": "b", "n": %s}' % ("9" * 5000), "line 1 cannot be read: a number in it has"),
        ("m.jsonl", "[1]\n", "line 1"),
        ("m.jsonl", "{oops\n", "cannot be read"),
        ("m.jsonl", '{"pan": 3, "ms": ["a"]}\n', "line 1"),
        ("m.jsonl", '{"pan": "\\ud800.tif", "ms": ["a"]}\n', "line 1"),
        ("m.jsonl", '{"pan": "<VRTDataset/>", "ms": ["a"]}\n', "line 1: .* is no path"),
        ("m.jsonl", '{"pan": "x<vrtdataset/>", "ms": ["a"]}\n', "line 1: .* is no path"),
        ("m.jsonl", '{"pan": "<WMS>http://x</WMS>", "ms": ["a"]}\n', "line 1: .* is no path"),
        ("m.jsonl", '{"pan": "x\\u0000y", "ms": ["a"]}\n', "line 1: .* is no path"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        pairs.find([str(tmp_path / name)])


# STAC ---------------------------------------------------------------------------------------------------------------


def item(name: str, assets: dict[str, dict]) -> dict:
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": [],
        "properties": {"datetime": "2020-08-14T10:00:00Z"}, "assets": assets,
    }  # fmt: skip


def asset(href: str, *bands: str, **more: object) -> dict:
    known = {"eo:bands": [{"name": b, "common_name": b} for b in bands]} if bands else {}
    return {"href": href, "type": "image/tiff; application=geotiff"} | known | more


ITEMS = {
    "landsat": (
        {
            "pan": asset("b8.tif", "pan"), "red": asset("b4.tif", "red"), "blue": asset("b2.tif", "blue"),
            "green": asset("b3.tif", "green"), "nir08": asset("b5.tif", "nir08"), "coastal": asset("b1.tif", "coastal"),
            "qa": asset("qa.tif", roles=["cloud"]), "mtl": {"href": "mtl.txt", "type": "text/plain"},
        },
        ("b8.tif", ["b2.tif", "b3.tif", "b4.tif", "b5.tif"]),
    ),
    "by key": (
        {"pan_analytic": asset("p.tif"), "ms_analytic": asset("m.tif"), "visual": asset("v.tif", roles=["visual"])},
        ("p.tif", ["m.tif"]),
    ),
    "by bands": (
        {"a": asset("p.tif", "pan"), "b": asset("m.tif", "blue", "green", "red", "nir")},
        ("p.tif", ["m.tif"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ITEMS)
def test_stac_items_are_read(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pystac", reason="needs the extra stac")
    assets, (pan, mss) = ITEMS[kind]
    (tmp_path / "item.json").write_text(json.dumps(item("s1", assets)))
    (found,) = pairs.find([str(tmp_path / "item.json")]).found
    assert (found.name, found.pan[0], [layer[0] for layer in found.ms]) == (
        "s1", str(tmp_path / pan), [str(tmp_path / m) for m in mss],
    )  # fmt: skip
    assert found.time == datetime(2020, 8, 14, 10)


def test_stac_collections_are_read_from_the_disk_alone(tmp_path: Path) -> None:
    pytest.importorskip("pystac", reason="needs the extra stac")
    collection = {
        "type": "Collection", "stac_version": "1.0.0", "id": "c", "description": "d", "license": "other",
        "extent": {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [[None, None]]}},
        "links": [{"rel": "item", "href": "./one/item.json"}],
    }  # fmt: skip
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "item.json").write_text(json.dumps(item("s1", ITEMS["by bands"][0]) | {"collection": "c"}))
    path = tmp_path / "collection.json"
    path.write_text(json.dumps(collection))
    (found,) = pairs.find([str(path)]).found
    assert (found.folder, found.name, found.pan[0]) == ("c", "s1", str(tmp_path / "one" / "p.tif"))
    collection["links"].append({"rel": "item", "href": "http://localhost:9/item.json"})
    path.write_text(json.dumps(collection))
    with pytest.raises(InputError, match="only STAC on disk"):
        pairs.find([str(path)])


def test_stac_items_of_pan_and_ms_alone_are_paired_by_overlap_and_time(tmp_path: Path) -> None:
    pytest.importorskip("pystac", reason="needs the extra stac")
    raster(tmp_path / "p.tif", 1, 64, 1)
    raster(tmp_path / "m.tif", 4, 16, 4)
    (tmp_path / "one.json").write_text(json.dumps(item("one", {"a": asset("p.tif", "pan")})))
    (tmp_path / "two.json").write_text(json.dumps(item("two", {"a": asset("m.tif", "blue", "green", "red", "nir")})))
    (found,) = pairs.find([str(tmp_path / "*.json")]).found
    assert (found.name, found.pan, found.ms) == ("two", (str(tmp_path / "p.tif"),), ((str(tmp_path / "m.tif"),),))


@pytest.mark.parametrize("away", ["https://localhost:9/p.tif", "/vsicurl/x/p.tif", "/vsizip//vsis3/b/a.zip/p.tif"])
def test_stac_assets_in_a_network_are_left_over(tmp_path: Path, away: str) -> None:
    pytest.importorskip("pystac", reason="needs the extra stac")
    assets = {"a": asset(away, "pan"), "b": asset("m.tif", "blue", "green", "red", "nir")}
    (tmp_path / "item.json").write_text(json.dumps(item("s1", assets)))
    pairing = pairs.find([str(tmp_path / "item.json")])
    assert pairing.found == [] and f"{away} is in a network" in pairing.left[0].reason


def test_stac_without_pan_and_ms_is_left_over_and_nonsense_refused(tmp_path: Path) -> None:
    pytest.importorskip("pystac", reason="needs the extra stac")
    (tmp_path / "item.json").write_text(json.dumps(item("s1", {"b": asset("m.tif", "blue", "green")})))
    pairing = pairs.find([str(tmp_path / "item.json")])
    assert pairing.found == [] and "none of its assets is PAN or MS" in pairing.left[0].reason
    (tmp_path / "item.json").write_text('{"type": "nonsense"}')
    with pytest.raises(InputError, match="as STAC"):
        pairs.find([str(tmp_path / "item.json")])


# Tiles --------------------------------------------------------------------------------------------------------------


def test_tiles_become_one_raster(tmp_path: Path) -> None:
    values = np.arange(1, 2 * 24 * 24 + 1, dtype="uint16").reshape(2, 24, 24)
    for r, c in ((0, 0), (0, 1), (1, 0)):  # the fourth was not delivered
        raster(
            tmp_path / f"10JUN12053804-M2AS_R{r + 1}C{c + 1}-x.TIF", 2, 12, 4,
            values=values[:, 12 * r :, 12 * c :][:, :12, :12],
            tags={"SATELLITEID": "QB02"}, transform=Affine(4, 0, 5e5 + 48 * c, 0, -4, 5e6 - 48 * r),
        )  # fmt: skip
    raster(tmp_path / "10JUN12053804-P2AS-x.TIF", 1, 96, 1)
    (found,) = pairs.find([str(tmp_path)]).found
    path = mosaics.raster_of(found.ms[0], tmp_path)
    with rasterio.open(path) as mosaic:
        expected = values.copy()
        expected[:, 12:, 12:] = 0
        np.testing.assert_array_equal(mosaic.read(), expected)
        there = np.ones((24, 24), bool)
        there[12:, 12:] = False  # what a missing tile leaves
        np.testing.assert_array_equal(mosaic.dataset_mask() > 0, there)
        assert mosaic.nodata is None and mosaic.tags(ns="IMAGERY") == {"SATELLITEID": "QB02"}
        assert mosaic.transform == Affine(4, 0, 5e5, 0, -4, 5e6)
    with Scene.open(found.pan[0], [path], OpenOptions(bidx=[1, 2], sensor="generic")) as scene:
        assert scene.phase.ratio == (4, 4)


def test_tiles_of_different_grids_are_refused(tmp_path: Path) -> None:
    tiles = tuple(str(raster(tmp_path / f"{n}.tif", 1, 8, 1, left=n * 8.4)) for n in (0, 1))
    with pytest.raises(InputError, match="no tile of the same grid"):
        mosaics.raster_of(tiles, tmp_path)


def test_a_til_names_the_sensor_and_the_tiles_that_have_to_be_there(tmp_path: Path) -> None:
    names = [f"10JUN12053804-P2AS_R1C{n}-x.TIF" for n in (1, 2)]
    for n, name in enumerate(names):
        raster(tmp_path / name, 1, 32, 1, left=32 * n)
    (tmp_path / "10JUN12053804-P2AS-x.TIL").write_text("".join(f'filename = "{name}";\n' for name in names))
    (tmp_path / "10JUN12053804-P2AS-x.IMD").write_text('satId = "QB02";\n')
    raster(tmp_path / "10JUN12053804-M2AS-x.TIF", 4, 8, 4)
    (found,) = pairs.find([str(tmp_path)]).found
    assert found.pan[0].endswith(".TIL") and len(found.pan) == 3
    path = mosaics.raster_of(found.pan, tmp_path)
    with Scene.open(path, list(found.ms[0]), labels={path: found.pan[0]}) as scene:
        assert scene.sensor.name == "quickbird"
    with rasterio.open(path) as mosaic:
        assert mosaic.shape == (32, 64)
    with pytest.raises(InputError, match=names[1]):
        mosaics.raster_of(found.pan[:-1] + found.pan[1:2], tmp_path)


def test_pairs_across_180_degrees_are_found_by_overlap(tmp_path: Path) -> None:
    zone = {"crs": "EPSG:32660"}
    raster(tmp_path / "one.tif", 1, 64, 15, **zone, transform=Affine(15, 0, 640_900, 0, -15, 7_212_000))
    raster(tmp_path / "two.tif", 4, 16, 60, **zone, transform=Affine(60, 0, 640_900, 0, -60, 7_212_000))
    degrees = {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, 179.997, 0, -1e-4, 10)}
    raster(tmp_path / "three.tif", 1, 64, 1, **degrees)
    degrees["transform"] = Affine(4e-4, 0, -180.003, 0, -4e-4, 10)
    raster(tmp_path / "four.tif", 4, 16, 4, **degrees)
    assert names_of(pairs.find([str(tmp_path)])) == {("one.tif", "two.tif"), ("three.tif", "four.tif")}


def test_tiles_may_name_one_crs_in_two_ways(tmp_path: Path) -> None:
    tiles = [raster(tmp_path / f"x_ms_R1C{i}.tif", 4, 8, 4, left=32.0 * (i - 1)) for i in (1, 2)]
    with rasterio.open(tiles[1], "r+") as dataset:
        dataset.crs = "EPSG:25831"
    path = mosaics.raster_of(tuple(map(str, tiles)), tmp_path)
    with rasterio.open(path) as dataset:
        assert (dataset.width, dataset.height) == (16, 8)


def test_archives_and_single_bands_are_told(tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "scene.ZIP").write_bytes(b"PK")
    (told,) = pairs.find([str(tmp_path / "packed")]).empty
    assert told == f"no raster in {tmp_path / 'packed'}, but archives (scene.ZIP): unpack them first"
    for name in ("x_b1.tif", "x_b2.tif"):
        raster(tmp_path / "bands" / name, 1, 16, 4)
    reasons = {each.reason for each in pairs.find([str(tmp_path / "bands")]).left}
    assert len(reasons) == 1 and "no MS for it; are these single bands of one MS?" in reasons.pop()


def test_links_that_lead_back_do_not_multiply_what_a_glob_finds(tmp_path: Path) -> None:
    for name in ("in/a/x_pan.tif", "in/a/x_ms.tif"):
        raster(tmp_path / name, 1, 8, 1)
    for name in ("one", "two"):
        (tmp_path / "in" / "a" / name).symlink_to(tmp_path / "in")
    for pattern in ("in/**/*.tif", "**/a/**/*.tif", "in/**"):
        (found,) = pairs.find([str(tmp_path / pattern)]).found
        assert (PurePosixPath(found.folder).name, found.name) == ("a" if found.folder else "", "x")


@pytest.mark.parametrize("source", ["in", "in/**/*.tif"])
def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path, source: str) -> None:
    """Such as one to the root of all, below which everything would be looked into."""
    for name in ("in/a/x_pan.tif", "in/a/x_ms.tif", "beside/y_pan.tif", "beside/y_ms.tif", "linked/z_pan.tif",
                 "linked/z_ms.tif"):  # fmt: skip
        raster(tmp_path / name, 1, 8, 1)
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "in" / "a" / "all").symlink_to("/")
    (tmp_path / "in" / "a" / "there").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "up").symlink_to(tmp_path)
    assert {scene.name for scene in pairs.find([str(tmp_path / source)]).found} == {"x", "z"}


@pytest.mark.parametrize(("source", "words"), [("", "is empty"), ("pipe", "is a pipe")])
def test_what_is_no_source_is_called_what_it_is(tmp_path: Path, monkeypatch, source: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(InputError, match=words):
        pairs.find([source])
