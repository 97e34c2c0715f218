"""The report: figures in every form, pictures chosen and encoded, and the page as a browser shows it."""

from __future__ import annotations

import base64
import copy
import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasters import once, painted, write_scene

from pansharpen_cli.adapt import losses, tailor
from pansharpen_cli.columns import in_columns
from pansharpen_cli.jobs.evaluate import SHOWN
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.report import charts, figures, files, sections
from pansharpen_cli.report import html as html_report
from pansharpen_cli.report import pictures as report_pictures
from pansharpen_cli.report import text as texts
from pansharpen_cli.report.pictures import Composition, Histogram, Panel, Pictures, View
from pansharpen_cli.training import simulate

NAMES = ("blue", "green", "red", "nir")
CHROMIUM = shutil.which("chromium")
HOSTILE = '<script>alert("1")</script>&$x_{2}$.tif'

QUALITY = {
    "fidelity": 0.8765,
    "colour_error": [0.01, 0.02, 0.03, 0.04],
    "detail_error": 0.0125,
    "pan_sharpness": 0.962,
    "hqnr": 0.9123,
    "d_lambda_k": 0.0312,
    "d_s": 0.0584,
    "qnr": 0.9211,
    "d_lambda": 0.0217,
    "pan_detail_correlation": 0.913,
    "flat_area_activity": 1.07,
    "blocks": 812,
    "blocks_in_all": 812,
    "sampled": False,
    "measured_on": "full resolution, valid 32 x 32 blocks, MS expanded at the true phase",
    "mtf_gains": [0.3, 0.3, 0.3, 0.3],
    "reprojection": {
        "rmse": [4.25, 5.5, 6.75, 9.125],
        "bias": [0.5, -0.25, 0.125, 0.0],
        "relative": [0.011, 0.012, 0.013, 0.024],
        "pixels": 57121,
    },
}
EXP = QUALITY | {
    "fidelity": 0.5432,
    "pan_sharpness": 1.051,
    "hqnr": 0.8902,
    "d_s": 0.0812,
    "pan_detail_correlation": 0.512,
    "flat_area_activity": 1.81,
}
REDUCED = {
    "q2n": 0.9377,
    "q": 0.9412,
    "sam": 3.021,
    "ergas": 2.713,
    "sharpness": 0.912,
    "edge_error": 0.087,
    "scc": 0.9011,
    "psnr": 33.12,
    "ssim": 0.9243,
    "cc": 0.9655,
    "rmse": [11.5, 12.25, 13.0, 20.0],
    "bias": [0.1, -0.2, 0.3, 0.0],
    "pixels": 65536,
    "measured_on": "against the reference",
}


def facts(name: str = "fused.tif") -> dict:
    terms = {"spectral": 0.021, "excess": 0.101, "reduced": 0.178, "total": 0.655}
    history = [{"epoch": k, **{t: v / k for t, v in terms.items()}} for k in range(1, 5)]
    history[1]["held_out"] = 0.5
    return {
        "schema": "pansharpen-report/1",
        "version": "1.2.3",
        "command": f"pansharpen fuse 'pan.tif' '{name}' -o out.tif",
        "software": {"python": "3.13.1", "torch": "2.7.7", "rasterio": "1.4.9", "gdal": "3.11.5"},
        "output": {"path": f"out/{name}", "driver": "GTiff", "rows": 640, "cols": 960, "valid_pixels": 600000},
        "scene": {
            "pan": "in/pan.tif",
            "pan_files": ["in/pan.tif"],
            "ms": [f"in/{name}"],
            "bands": 4,
            "band_names": list(NAMES),
            "standard_names": list(NAMES),
            "dtype": "uint16",
            "nodata": 0.0,
            "crs": "EPSG:32631",
            "ratio": [4.0, 4.0],
            "offset": [1.37, 2.61],
            "sensor": "worldview-2",
            "sensor_recognised_in": "TIFF metadata of ms.tif",
            "warped": False,
            "window": [0, 640, 0, 960],
        },
        "method": {
            "name": "glpnet",
            "weights": "glpnet.safetensors",
            "weights_sha256": "ab" * 32,
            "scale": 1341.03,
            "mtf": "auto",
            "mtf_gains": [0.3] * 4,
            "device": "cpu",
            "precision": "bfloat16",
            "tile_size": 512,
            "seed": 0,
        },
        "options": {"adapt": "fast"},
        "adaptation": {
            "mode": "fast", "kept": True, "tiles": 24, "reduced_tiles": 8, "epochs": 4, "seconds": 3.2,
            "before": terms, "after": {t: v * 0.9 for t, v in terms.items()}, "reason": "better", "history": history,
        },
        "quality": copy.deepcopy(QUALITY),
        "comparison": {
            "measured_on": "the whole scene",
            "rows": [{"name": "this result", **QUALITY}, {"name": "exp", **EXP}],
        },
        "seconds": {"reading": 0.5, "adapting": 3.2, "fusing": 4.0, "scoring": 1.0, "total": 8.7},
        "megapixels_per_second": 0.61,
        "warnings": ["the sky was cloudy"],
        "notes": [], "verdict": [], "groups": [], "pan_tells": [], "registration": None, "fit": None,
    }  # fmt: skip


def evaluation(kind: str = "full") -> dict:
    praised = [{"about": "sharpness", "level": "good", "text": "as sharp as the PAN <100%>"}]
    blamed = [{"about": "sharpness", "level": "warning", "text": "softer than the PAN"}, *praised]
    best, second = (QUALITY, EXP) if kind == "full" else (REDUCED, REDUCED | {"q2n": 0.9, "sam": 2.9, "psnr": None})
    return {
        "schema": "pansharpen-evaluation/1",
        "version": "1.2.3",
        "command": "pansharpen evaluate",
        "kind": kind,
        "software": facts()["software"],
        "scene": facts()["scene"] if kind != "reference" else None,
        "results": [
            {"rank": 1, "name": "a/first.tif", "path": "a/first.tif", "quality": best, "verdict": praised},
            {"rank": 2, "name": "a/second.tif", "path": "a/second.tif", "quality": second, "verdict": blamed},
        ],
        "warnings": [],
        "notes": [],
        "groups": [],
        "registration": None,
    }


def tinted(rows: int, cols: int, colour: tuple[int, int, int], noise: int = 8, seed: int = 0) -> np.ndarray:
    grain = np.random.default_rng(seed).integers(-noise, noise + 1, (rows, cols, 1))
    return np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8)


def drawn(side: int = 300, noise: int = 8, window: tuple[int, int, int, int] = (0, 640, 0, 960)) -> Pictures:
    """Made-up pictures: PAN grey, MS blue, fused green; red in false colour."""

    def view(title: str, size: int, where, scale: float) -> View:
        def panel(label: str, colour: tuple[int, int, int], seed: int, grey: bool = False) -> Panel:
            false = None if grey else tinted(size, size, (200, 30, 30), noise, seed + 9)
            return Panel(label, tinted(size, size, colour, noise, seed), false)

        panels = panel("PAN", (128,) * 3, 1, True), panel("MS", (40, 60, 200), 2), panel("Fused", (40, 180, 60), 3)
        return View(title, where, scale, panels)

    edges = np.linspace(0, 900, 65)
    shares = {"MS": np.hanning(64) / 32, "Fused": np.hanning(64) ** 2 / 24}
    inner = (100, 100 + 320, 200, 200 + 320)
    return Pictures(
        view("Overview", side, window, 0.5),
        tuple(view(f"Detail {k}", 320, inner, 1) for k in (1, 2, 3)),
        tuple(view(f"Close-up {k}", 80, (110, 190, 210, 290), 1) for k in (1, 2, 3)),
        Composition((3, 2, 1), ("red", "green", "blue")),
        Composition((4, 3, 2), ("nir", "red", "green")),
        tuple(Histogram(name, edges, shares) for name in NAMES),
        250000,
        maps={k: np.random.default_rng(5).random((20, 30)) for k in ("hqnr", "d_lambda_k", "d_s", "sam")},
    )


def page_of(command: str) -> str:
    """The page of a run with made-up pictures, drawn once for all tests."""
    made = facts() if command == "fuse" else evaluation()
    return once(f"page {command}", lambda: html_report.to_html(made, [("fused.tif", drawn())]))


class References(HTMLParser):
    """All that a page refers to, its tags, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.found += re.findall(r"url\(([^)]*)\)", page)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.found += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "action")]

    def handle_data(self, data) -> None:
        self.text += data


# Text


def test_the_table_has_all_figures_that_are_defined() -> None:
    text = texts.table(facts())
    for figure in ("HQNR 0.9123", "QNR 0.9211", "D_lambda_K 0.0312", "D_s 0.0584", "D_lambda 0.0217", "0.913"):
        assert figure in text
    assert "fidelity 0.8765  colour error 2.50 %  detail error 1.25 %  sharpness 0.962" in text
    assert "flat-area activity 1.07" in text and "4.25 5.5 6.75 9.12" in text and "1.50 %" in text
    undefined = facts() | {"quality": QUALITY | {"reprojection": None, "fidelity": None}}
    assert "PAN detail 0.913" in texts.table(undefined)
    assert all(word not in texts.table(undefined) for word in ("reprojection", "fidelity"))
    assert "quality" not in texts.table(facts() | {"quality": None})


def test_the_terminal_shows_the_verdict_and_five_lines() -> None:
    remarks = [{"level": "good", "about": "colours", "text": text} for text in ("sharp", "true", "calm")]
    lines = texts.table(facts() | {"verdict": remarks}, full=False).splitlines()
    shown = ["verdict", "", "", "sensor", "method", "quality", "time", "output"]
    assert [line.split(" ")[0] for line in lines] == shown and not lines[5].endswith("(sampled)")
    sampled = facts() | {"quality": {**QUALITY, "sampled": True, "blocks_in_all": 9000}}
    assert texts.table(sampled, full=False).splitlines()[2].endswith("sharpness 0.962  (sampled)")
    assert len(texts.table(facts()).splitlines()) > len(lines)


def test_the_ranking_is_aligned_and_marks_the_best() -> None:
    lines = texts.ranking(evaluation()).splitlines()
    assert lines[0].split()[:2] == ["name", "fidelity"]
    assert "0.8765*" in lines[1] and "0.9123*" in lines[1] and "0.8902" in lines[2] and "0.8902*" not in lines[2]
    assert lines[1].index("0.9123") == lines[2].index("0.8902")
    assert "0.913*" not in lines[1] and "1.07*" in lines[1] and "0.962*" in lines[1]
    assert lines[3:6] == [
        "verdict",
        "1  a/first.tif   as sharp as the PAN <100%>",
        "2  a/second.tif  softer than the PAN; as sharp as the PAN <100%>",
    ]
    against = texts.ranking(evaluation("reference")).splitlines()
    assert "2.900°*" in against[2] and "0.9377*" in against[1] and " - " in against[2] + " "


def test_columns_are_as_wide_as_their_characters_are_on_a_terminal() -> None:
    rows = [["scene", "figure "], ["\u65e5\u672c", "0.5*"], ["a", "12 "]]
    assert in_columns(rows, "lr") == "scene  figure\n\u65e5\u672c      0.5*\na          12"


def test_the_best_is_the_highest_the_lowest_the_nearest_to_one_or_none() -> None:
    near, over = QUALITY | {"pan_sharpness": 0.97}, QUALITY | {"pan_sharpness": 1.04, "pan_detail_correlation": 0.97}
    assert figures.best_of("pan_sharpness", [over, near]) == {1}
    assert figures.best_of("pan_detail_correlation", [over, near]) == set()
    assert figures.best_of("hqnr", [QUALITY, QUALITY | {"hqnr": None}]) == set()
    assert figures.best_of("hqnr", [QUALITY, QUALITY, EXP]) == {0, 1}
    assert figures.best_of("d_s", [EXP, QUALITY]) == {1}


def test_the_best_sharpness_is_the_nearest_to_one() -> None:
    assert figures.best_of("sharpness", [{"sharpness": v} for v in (0.7, 1.2, 1.9)]) == {1}
    assert figures.best_of("sharpness", [{"sharpness": v} for v in (0.9, 1.2)]) == {0}


def test_the_csv_has_one_row_per_result_and_a_column_per_band() -> None:
    rows = list(csv.DictReader(io.StringIO(texts.ranking_csv(evaluation("wald")))))
    assert [r["name"] for r in rows] == ["a/first.tif", "a/second.tif"]
    assert float(rows[0]["rmse_4"]) == 20 and float(rows[1]["q2n"]) == 0.9 and rows[1]["psnr"] == ""
    full = list(csv.DictReader(io.StringIO(texts.ranking_csv(evaluation()))))
    assert float(full[0]["reprojection_bias_2"]) == -0.25


def test_json_has_null_for_what_was_not_measured(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(files.json_bytes(facts() | {"quality": QUALITY | {"hqnr": float("nan")}}))
    assert json.loads((tmp_path / "r.json").read_text())["quality"]["hqnr"] is None


# The page


def test_the_page_has_every_figure_and_everything_that_makes_it_repeatable(tmp_path: Path) -> None:
    (tmp_path / "r.html").write_bytes(html_report.html_bytes(facts(), [("fused.tif", drawn())]))
    page = References((tmp_path / "r.html").read_text())
    for text in (
        "0.9123", "0.0312", "0.0584", "0.9211", "0.0217", "0.913", "0.8765", "0.962", "1.07", "0.8902", "1.81",
        "6.75", "+0.5",
        "1.20%", "3.13.1", "2.7.7", "1.4.9", "3.11.5", "1.2.3", "pansharpen fuse 'pan.tif'", "the sky was cloudy",
        "the whole scene", "812 blocks", "1.37, 2.61", "0.655", "0.5895", "glpnet.safetensors", "ab" * 32, "100 %",
        "400 %", "250,000",
    ):  # fmt: skip
        assert text in page.text, text
    assert page.tags.count("svg") == 1 + len(NAMES) + 4
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_the_page_refers_to_nothing_but_itself() -> None:
    for page in (page_of("fuse"), page_of("evaluate")):
        found = References(page).found
        assert sum(r.startswith("data:image/") for r in found) >= 30
        assert all(r.startswith(("data:image/", "#")) for r in found)
        assert not re.search(r"https?:|@import|<link|<iframe", page)
        assert all(r[1:] in re.findall(r'id="([^"]+)"', page) for r in found if r.startswith("#"))


def test_hostile_names_stay_text() -> None:
    made = facts(HOSTILE)
    made["scene"]["band_names"] = [HOSTILE, "green", "$", "a\nb"]
    made["comparison"]["rows"][0]["name"] = HOSTILE
    made["warnings"] = [HOSTILE, "\x1b[31m\u202e"]
    shown = drawn()
    histograms = tuple(replace(h, band=HOSTILE) for h in shown.histograms)
    panels = tuple(replace(p, label=HOSTILE) for p in shown.overview.panels)
    shown = replace(shown, histograms=histograms, overview=replace(shown.overview, panels=panels))
    page = html_report.to_html(made, [(HOSTILE, shown)])
    assert "<script>alert" not in page and page.count("<script") == 1
    assert HOSTILE in References(page).text
    assert not {"\x1b", "\u202e"} & set(page) and r"\x1b[31m\u202e" in page


def test_the_script_is_allowed_by_its_hash_and_nothing_else_is() -> None:
    page = html_report.to_html(facts(), [])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and "default-src 'none'" in policy[1] and "script-src 'sha256-" in policy[1]


@pytest.mark.slow
def test_pictures_of_a_huge_noisy_scene_stay_below_three_megabytes() -> None:
    made = facts()
    made["scene"] |= {"bands": 8, "band_names": [None] * 8, "standard_names": [None] * 8}
    noisy = replace(
        drawn(report_pictures.OVERVIEW, 90), maps={k: np.random.default_rng(1).random((1250, 1250)) for k in "abcd"}
    )
    page = html_report.to_html(made, [("fused.tif", noisy)])
    assert 1_000_000 < len(page.encode()) < 3_000_000
    most = [(f"{k}.tif", noisy) for k in range(SHOWN)]
    assert len(html_report.to_html(evaluation(), most).encode()) < 3_000_000


def test_any_picture_can_be_encoded() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 700, 3)).astype(np.uint8)
    for quality, scale in sections.ENCODINGS:
        decoded = Image.open(io.BytesIO(charts.photograph(noise, quality, scale)))
        assert decoded.size == (round(700 * scale), round(900 * scale)) and decoded.load()


def test_maps_are_transparent_where_nothing_was_measured() -> None:
    blocks = np.array([[0.0, 1.0], [0.5, np.nan]])
    for bright_is_low in (False, True):
        decoded = np.asarray(Image.open(io.BytesIO(charts.map_picture(blocks, 0, 1, bright_is_low))).convert("RGBA"))
        assert (decoded[..., 3] == [[255, 255], [255, 0]]).all()
        assert (decoded[0, 0, :3].sum() > decoded[0, 1, :3].sum()) == bright_is_low


def test_reports_without_figures_are_rendered() -> None:
    page = html_report.to_html(facts() | {"quality": None, "comparison": None, "adaptation": {"mode": "off"}}, [])
    assert "not scored" in page and "0.9123" not in page


@pytest.mark.slow
def test_results_at_the_same_places_stand_side_by_side() -> None:
    first, second = drawn(), drawn()
    panels = [replace(p, true=p.true[::-1]) for p in second.overview.panels]
    second = replace(second, overview=replace(second.overview, panels=tuple(panels)))
    page = html_report.to_html(evaluation(), [("a/first.tif", first), ("a/second.tif", second)])
    assert page.count('data-view="Overview"') == 1
    assert [page.count(f'data-label="{n}"') for n in ("PAN", "MS", "first.tif", "second.tif")] == [7] * 4
    elsewhere = drawn(window=(0, 64, 0, 64))
    page = html_report.to_html(evaluation(), [("a/first.tif", first), ("a/second.tif", elsewhere)])
    assert page.count('data-view="Overview"') == 2


@pytest.mark.parametrize("kind", ["full", "reference", "wald"])
def test_the_evaluation_page_ranks_with_the_best_marked(kind: str) -> None:
    page = html_report.to_html(evaluation(kind), [])
    assert page.index("first.tif") < page.index("second.tif")
    assert 'class="best">0.9' in page
    assert page.count('<ul class="verdict">') == 2 and '<li class="warning">softer than the PAN</li>' in page
    assert "as sharp as the PAN &lt;100%&gt;" in page
    assert ("Error per band" in page) == (kind != "full")


# Pictures of a scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """768 x 1152 pixels with a border of nodata: a landscape sixteen times."""
    folder: Path = tmp_path_factory.mktemp("scene")
    made = painted(simulate.Simulation(rows=192, cols=288, bands=4, seed=4))
    wide = {k: np.tile(getattr(made, k), (4, 4)) for k in ("pan", "ms", "truth", "pan_valid", "ms_valid")}
    wide["pan"][:, :100], wide["ms"][..., :25] = 0, 0
    write_scene(replace(made, **wide), folder)
    with Scene.open(folder / "pan.tif", [folder / "ms.tif"]) as opened:
        yield opened


@pytest.mark.slow
def test_the_gallery_shows_the_right_pixels(scene: Scene) -> None:
    read = scene.ms_at  # the MS itself stands for a fused image
    pictures = report_pictures.collect(scene, read, scene.window)
    pan, ms, fused = pictures.overview.panels
    assert (pan.label, ms.label, fused.label) == ("PAN", "MS", "Fused")
    assert np.array_equal(ms.true, fused.true) and not np.array_equal(ms.true, ms.false)
    assert pan.false is None and max(pan.true.shape) <= report_pictures.OVERVIEW
    assert pictures.true.names and len(pictures.histograms) == 4
    for h in pictures.histograms:
        assert np.array_equal(h.shares["MS"], h.shares["Fused"]) and 0.9 < h.shares["MS"].sum() <= 1
    for detail, closeup in zip(pictures.details, pictures.closeups, strict=True):
        assert scene.pan.read(detail.window)[1].all()  # wholly valid
        assert detail.panels[0].true.shape == (report_pictures.CROP, report_pictures.CROP, 3)
        r, c = closeup.window.seen_from(detail.window).corner
        assert np.array_equal(closeup.panels[2].true, detail.panels[2].true[r : r + 80, c : c + 80])
        assert 0 <= r <= 240 and 0 <= c <= 240
    assert len({d.window for d in pictures.details}) == len(pictures.details) > 1


def test_the_ms_is_read_at_its_own_phase(scene: Scene) -> None:
    window = Window(401, 409, 600, 616)
    values, valid = scene.ms_at(window)
    (r, c), (dr, dc) = scene.phase.ratio, scene.phase.offset
    i, j = int((404 + 0.5 - dr) // r), int((609 + 0.5 - dc) // c)
    own, _ = scene.read_ms(Window.at(i, j, (1, 1)))
    assert valid.all() and np.array_equal(values[:, 3, 9], own[:, 0, 0])


def test_details_are_where_the_blocks_are_richest(scene: Scene) -> None:
    energy = np.full((24, 36), 0.01)
    rows, cols = scene.window.shape
    energy = energy[: rows // 32, : cols // 32]
    energy[10:14, 20:24] = 9
    detail = report_pictures.collect(scene, scene.ms_at, scene.window, energy).details[0].window
    at = detail.seen_from(scene.window).corner
    assert at[0] <= 10 * 32 and at[0] + 320 >= 14 * 32 and at[1] <= 20 * 32 and at[1] + 320 >= 24 * 32


@pytest.mark.parametrize(
    "window",
    [
        Window(300, 340, 500, 548),
        pytest.param(Window(300, 301, 500, 501), marks=pytest.mark.slow),
        pytest.param(Window(200, 456, 300, 700), marks=pytest.mark.slow),
    ],
)
def test_small_windows_have_pictures(scene: Scene, window) -> None:
    pictures = report_pictures.collect(scene, scene.ms_at, window)
    assert pictures.details and pictures.overview.panels[0].true.shape[:2] == window.shape
    assert html_report.to_html(facts(), [("f", pictures)])


def test_a_scene_without_a_valid_pixel_is_black(scene: Scene) -> None:
    def nothing(window):
        return np.zeros((4, *window.shape), np.uint16), np.zeros(window.shape, bool)

    pictures = report_pictures.collect(scene, nothing, Window(300, 600, 500, 800))
    assert not pictures.overview.panels[2].true.any() and pictures.histograms == ()
    assert html_report.to_html(facts(), [("f", pictures)])


@pytest.mark.slow
def test_the_overview_of_a_large_scene_is_averaged_and_samples_are_few() -> None:
    rows, cols = 4 * report_pictures.OVERVIEW, 3000
    ramp = np.linspace(0, 1000, rows, dtype=np.float32)[:, None] + np.zeros((1, cols), np.float32)

    def read(window):
        part = ramp[window.slices]
        return np.stack([part] * 3), np.ones(part.shape, bool)

    pictures = report_pictures.collect_reference(read, read, Window(0, rows, 0, cols), (None, None, None))
    assert pictures.overview.panels[0].true.shape == (report_pictures.OVERVIEW, 750, 3)
    assert pictures.histogram_pixels < 2 * report_pictures.SAMPLES and pictures.true.assumed and pictures.false is None
    steps = np.diff(pictures.overview.panels[0].true[..., 0].astype(int), axis=0)
    assert (steps >= 0).all()


def test_errors_are_shown_on_a_scale_of_the_reference() -> None:
    reference = np.random.default_rng(0).random((4, 400, 500)).astype(np.float32) * 1000
    fused = reference.copy()
    fused[:, 100:120, 200:220] += 400

    def reader(values):
        return lambda w: (values[:, w[0] : w[1], w[2] : w[3]], np.ones((w[1] - w[0], w[3] - w[2]), bool))

    pictures = report_pictures.collect_reference(reader(reference), reader(fused), Window(0, 400, 0, 500), NAMES)
    assert [p.label for p in pictures.overview.panels] == ["Reference", "Fused", "Fused: error"]
    error = pictures.overview.panels[2].true
    assert error[110, 210].min() > 100 and error[50, 50].max() < 10
    assert pictures.error_white == pytest.approx(report_pictures.ERROR_WHITE * 980, rel=0.02)


@pytest.mark.parametrize(
    ("names", "true", "false"),
    [
        (NAMES, (3, 2, 1), (4, 3, 2)),
        (("Red", "Green", "Blue", "NIR1"), (1, 2, 3), (4, 1, 2)),
        ((None,) * 4, (3, 2, 1), (4, 3, 2)),
        ((None,) * 8, (5, 3, 2), (7, 5, 3)),
        (("blue", "green", "red"), (3, 2, 1), None),
        ((None,), (1, 1, 1), None),
    ],
)
def test_colours_by_name_or_by_the_usual_order(names, true, false) -> None:
    assert report_pictures.true_colour(names).bands == true
    found = report_pictures.false_colour(names)
    assert (found and found.bands) == false


def test_reduced_maps_keep_gaps() -> None:
    blocks = np.ones((500, 300))
    blocks[:100] = np.nan
    small = report_pictures.reduce_map(blocks, 100)
    assert small.shape == (100, 60) and np.isnan(small[:20]).all() and (small[20:] == 1).all()


# In a browser

browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-device-scale-factor=1",
)  # fmt: skip

DRIVER = """
<script>
window.addEventListener("error", e => { document.title = "error: " + e.message; });
const told = {};
function tick() {
  if (document.documentElement.dataset.ready !== "yes") { setTimeout(tick, 20); return; }
  const one = s => document.querySelector(s), fire = (e, n) => e.dispatchEvent(new Event(n));
  const stage = one(".stage"), range = one(".range"), blink = one(".blink");
  const clip = () => getComputedStyle(one(".over")).clipPath;
  told.images = [...document.images].every(i => i.complete && i.naturalWidth > 0);
  told.count = document.images.length;
  told.shown = !one(".compare").hidden;
  told.places = [...one(".view").options].map(o => o.text);
  told.labels = [...one(".left").options].map(o => o.text);
  told.names = [one(".name-left").textContent, one(".name-right").textContent];
  range.value = 20; fire(range, "input"); told.swiped = stage.style.getPropertyValue("--at"); told.clip = clip();
  const before = one(".over").src;
  one(".left").value = 0; fire(one(".left"), "change"); told.changed = one(".over").src !== before;
  one("#colour-false").click(); told.recoloured = one(".under").src === one(".panel[data-label=Fused] img.false").src;
  told.hidden = getComputedStyle(one(".panel[data-label=Fused] img.true")).display;
  one("#colour-true").click();
  one(".view").value = 1; fire(one(".view"), "change");
  told.detail = one(".under").src === document.querySelectorAll(".panel[data-label=Fused] img.true")[1].src;
  blink.click(); told.blinking = blink.getAttribute("aria-pressed");
  const first = clip();
  setTimeout(() => {
    told.blinked = clip() !== first;
    document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
    told.stopped = blink.getAttribute("aria-pressed");
    document.body.dataset.told = JSON.stringify(told);
  }, 1000);
}
tick();
</script>
"""


def chromium(tmp_path: Path, page: Path, *arguments: str) -> subprocess.CompletedProcess:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def dumped(tmp_path: Path, page: Path, marker: str, *arguments: str) -> subprocess.CompletedProcess:
    """The page's document when its script has left the marker; a busy machine decodes pictures late."""
    for budget in (5_000, 20_000, 60_000, 60_000):
        done = chromium(tmp_path, page, f"--virtual-time-budget={budget}", "--dump-dom", *arguments)
        if marker in done.stdout:
            break
    return done


@pytest.mark.slow
@browser
def test_the_page_looks_as_it_should(tmp_path: Path) -> None:
    page, picture = tmp_path / "r.html", tmp_path / "r.png"
    page.write_bytes(html_report.html_bytes(facts(HOSTILE), [("fused.tif", drawn(noise=2))]))
    chromium(tmp_path, page, "--window-size=1200,3000", f"--screenshot={picture}")
    shot = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert shot.shape[1] == 1200 and len(np.unique(shot.reshape(-1, 3), axis=0)) > 100

    def share(colour: tuple[int, int, int]) -> np.ndarray:
        return (np.abs(shot - colour) < 12).all(-1)

    ms, fused, pan = share((40, 60, 200)), share((40, 180, 60)), share((128, 128, 128))
    stage = np.flatnonzero(ms.sum(1) > 200)[0] + 20  # a row of the swipe: MS on the left, fused on the right
    assert np.flatnonzero(ms[stage]).max() < np.flatnonzero(fused[stage]).min()
    assert abs(ms[stage].sum() - fused[stage].sum()) < 20
    rows = [r for r in range(len(shot)) if min(m[r].sum() for m in (pan, ms, fused)) > 250]
    assert len(rows) > 3 * 320  # overview, details and close-ups: three panels side by side
    for r in (rows[10], rows[-10]):
        columns = [np.flatnonzero(m[r]).mean() for m in (pan, ms, fused)]
        assert columns == sorted(columns)
    assert not share((200, 30, 30)).any()  # false colour waits for its button


@pytest.mark.slow
@browser
def test_swipe_blink_and_colours_work(tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    html = html_report.to_html(facts(HOSTILE), [("fused.tif", drawn())])
    driven = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html).replace(
        "</body>", DRIVER + "</body>"
    )
    page.write_text(driven)
    found = dumped(tmp_path, page, "data-told=").stdout
    told = References(found)
    text = re.search(r'data-told="([^"]*)"', found)
    assert text, re.search(r"<title>(.*)</title>", found)
    values = json.loads(text[1].replace("&quot;", '"'))
    assert told.tags.count("img") == values.pop("count") > 30
    assert values == {
        "images": True,
        "shown": True,
        "places": ["Overview", "Detail 1", "Detail 2", "Detail 3"],
        "labels": ["PAN", "MS", "Fused"],
        "names": ["MS", "Fused"],
        "swiped": "20%",
        "clip": "inset(0px 80% 0px 0px)",
        "changed": True,
        "recoloured": True,
        "hidden": "none",
        "detail": True,
        "blinking": "true",
        "blinked": True,
        "stopped": "false",
    }


@pytest.mark.slow
@browser
def test_the_page_as_written_runs_its_script_without_a_word(tmp_path: Path) -> None:
    """The policy lets the script run, all pictures decode, nothing is reported to the console."""
    page = tmp_path / "r.html"
    page.write_bytes(html_report.html_bytes(evaluation(), [("a", drawn()), ("b", drawn(200))]))
    done = dumped(tmp_path, page, 'data-ready="yes"', "--enable-logging=stderr", "--window-size=400,800")
    assert 'data-ready="yes"' in done.stdout
    assert "CONSOLE" not in done.stderr


def test_pictures_are_what_they_say() -> None:
    page = References(page_of("fuse"))
    kinds = {"data:image/jpeg": b"\xff\xd8", "data:image/png": b"\x89PNG"}
    for uri in (r for r in page.found if r.startswith("data:")):
        head, content = uri.split(";base64,")
        assert base64.b64decode(content).startswith(kinds[head])


def test_every_term_of_the_adaptation_is_explained():
    weights = {f.name for f in dataclasses.fields(tailor.Settings) if f.name in ("reduced", *dir(losses))}
    assert {"reduced", "colour", "consistency"} <= weights
    assert weights | {"total"} == set(html_report.TERMS)
