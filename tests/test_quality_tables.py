"""The page of `benchmarks/quality.py`: its tables, and its rows read back from it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from quality_tables import BLIND, LEVELS, Document, Tables, document

CLASSICAL = ("gsa", "exp")


def row(level: str, value: float) -> dict:
    return {key: round(value + i / 10, 4) for i, key in enumerate(LEVELS[level].columns.values())} | {"seconds": 0.25}


def made() -> dict:
    """Two scenes of known truth and a real one; ERGAS of `net off` is 0.8 of gsa's on one, 1.2 of it on the other."""
    rows = {
        ("town_soft", "true", "gsa"): row("true", 1.0),
        ("town_soft", "true", "exp"): row("true", 3.0),
        ("town_soft", "true", "net off"): row("true", 0.8),
        ("town_crisp", "true", "gsa"): row("true", 2.0),
        ("town_crisp", "true", "exp"): row("true", 1.5),
        ("town_crisp", "true", "net off"): row("true", 2.4),
        ("town_crisp", "true", "tool"): {"error": "no such thing"},
        ("town_soft", "true", "tool"): row("true", 0.1),
        ("park", "reduced", "gsa"): row("reduced", 0.5),
        ("park", "full", "gsa"): row("full", 0.25),
    }
    rows["park", "full", "gsa"]["reprojection"] = None
    return rows


def page(rows: dict, blind: str = "") -> str:
    names = list(dict.fromkeys(n for *_, n in rows))
    tables = Tables(rows, names, CLASSICAL, {"town_soft": "soft", "town_crisp": "crisp"})
    return document(tables, "python benchmarks/quality.py", 1, "GDAL 3.6.2, released 2023/01/02", blind, ["gsa"])


def test_a_page_gives_its_rows_and_what_people_wrote_back() -> None:
    blind = "12 pairs.\n\n### Against gsa\n\n| a | b |\n|---|---|\n| 7 | 5 |"
    found = Document.parse(page(made(), blind))
    assert found.rows == made()
    assert found.blind == blind
    assert found.tools == "GDAL 3.6.2, released 2023/01/02"


def test_a_page_of_a_page_is_the_same_page() -> None:
    text = page(made(), "12 pairs.")
    found = Document.parse(text)
    assert page(found.rows, found.blind) == text


def test_the_page_opens_with_the_truth_and_ends_with_full_resolution() -> None:
    headings = [line[3:] for line in page(made()).splitlines() if line.startswith("## ")]
    wanted = ["True scale, mean over scenes", BLIND, "Reduced resolution, mean over scenes"]
    places = [headings.index(h) for h in [*wanted, "Full resolution, mean over scenes", "Per scene"]]
    assert places == sorted(places) and places[0] == 0


def test_networks_are_held_against_the_best_classical_method_and_against_all() -> None:
    lines = page(made()).splitlines()
    (cells,) = ([c.strip() for c in line.split("|")] for line in lines if line.startswith("| net off | 2 |"))
    assert cells[3] == "1.6000"  # the mean ERGAS
    assert cells[-4:-2] == ["1.067", "1"]  # gsa is best by its mean: 3.2 over 3.0; under all on one scene
    after = lines[lines.index("## True scale, mean over scenes") :]
    order = [name for line in after if (name := line[2:].split(" |")[0]) in ("gsa", "exp", "net off", "tool")]
    assert order[:4] == ["gsa", "net off", "exp", "tool"]
