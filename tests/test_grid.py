"""Phases, overlaps and windows of two grids."""

from __future__ import annotations

import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from pansharpen_cli.raster.geometry import Phase, Window
from pansharpen_cli.raster.grid import Grid

UTM = CRS.from_epsg(32631)
PAN = Grid(UTM, Affine(0.5, 0, 431200, 0, -0.5, 4583600), 400, 600)


def ms_grid(ratio: float, offset: tuple[float, float], rows: int, cols: int, pan: Grid = PAN) -> Grid:
    """An MS grid at a ratio and an offset (row, col) in PAN pixels."""
    transform = pan.transform * Affine.translation(offset[1], offset[0]) * Affine.scale(ratio)
    return Grid(pan.crs, transform, rows, cols)


@pytest.mark.parametrize(
    ("ratio", "offset"),
    [
        (4.0, (0.0, 0.0)),
        (4.0, (0.5, -1.5)),
        (4.0, (1.37, 2.61)),
        (2.0, (-1.0, -1.0)),
        (2.76, (0.37, -3.2)),
        (3.0, (100.25, -7.3)),
        (1.5, (0.1, 0.2)),
        (8.0, (-3.9, 55.55)),
    ],
)
def test_phase_is_exact(ratio, offset):
    phase = PAN.phase_of(ms_grid(ratio, offset, 100, 150))
    assert phase is not None
    assert phase.ratio == pytest.approx((ratio, ratio), abs=1e-8)
    assert phase.offset == pytest.approx(offset, abs=1e-6)


def test_landsat_s_ms_lies_half_an_ms_pixel_off():
    """30 m pixels over 15 m ones: the file's corners are 7.5 m apart."""
    pan = Grid(UTM, Affine(15, 0, 483292.5, 0, -15, 4741507.5), 400, 400)
    ms = Grid(UTM, Affine(30, 0, 483285, 0, -30, 4741515), 200, 200)
    assert pan.phase_of(ms) == Phase.of((2.0, 2.0), (-0.5, -0.5))


def test_axes_have_their_own_ratio_and_offset():
    ms = Grid(UTM, PAN.transform * Affine.translation(3.25, -1) * Affine.scale(4, 2), 100, 100)
    assert PAN.phase_of(ms) == Phase.of((2.0, 4.0), (-1.0, 3.25))


@pytest.mark.parametrize("noise", [1e-13, -3e-10])
def test_rounding_noise_in_a_geotransform_is_snapped(noise):
    """Degrees with a dozen decimals: the ratio is 4 and the offset 1/2, not nearly so."""
    pan = Grid(CRS.from_epsg(4326), Affine(4.5e-6, 0, 2.1, 0, -4.5e-6, 41.4), 4000, 4000)
    exact = ms_grid(4, (0.5, -1.5), 1000, 1000, pan).transform
    noisy = Affine(exact.a * (1 + noise), 0, exact.c + 1e-10 * abs(exact.a), 0, exact.e * (1 - noise), exact.f)
    assert pan.phase_of(Grid(pan.crs, noisy, 1000, 1000)) == Phase.of((4.0, 4.0), (0.5, -1.5))


@pytest.mark.parametrize(
    ("ratio", "offset"), [(4.0001, 0.0), (3.9999, 0.25), (2.7601, 0.0), (4.0, 0.0101), (4.0, 0.252)]
)
def test_what_shifts_pixels_is_not_snapped(ratio, offset):
    """Over 1000 pixels a ratio of 4.0001 is a tenth of a PAN pixel."""
    phase = PAN.phase_of(ms_grid(ratio, (offset, offset), 1000, 1000))
    assert phase is not None
    assert phase.ratio == pytest.approx((ratio, ratio), abs=1e-9)
    assert phase.offset == pytest.approx((offset, offset), abs=1e-6)


@settings(max_examples=60)
@given(
    ratio=st.floats(1.5, 8.0),
    row=st.floats(-500, 500),
    col=st.floats(-500, 500),
    size=st.floats(1e-6, 100),
    length=st.integers(8, 10_000),
)
def test_snapping_moves_no_pixel_by_more_than_a_thousandth(ratio, row, col, size, length):
    pan = Grid(UTM, Affine(size, 0, 431200.123, 0, -size, 4583600.456), 100, 100)
    if 4.6e6 / size * 2.3e-16 > 1e-6:
        pan = Grid(UTM, Affine(size, 0, 2.1, 0, -size, 41.4), 100, 100)
    phase = pan.phase_of(ms_grid(ratio, (row, col), length, length, pan))
    assert phase is not None
    for axis, offset in enumerate((row, col)):
        for index in (0, length):
            assert phase.offset[axis] + phase.ratio[axis] * index == pytest.approx(offset + ratio * index, abs=2.1e-3)


@pytest.mark.parametrize(
    "change",
    [
        Affine.rotation(0.01),
        Affine.rotation(90),
        Affine.rotation(180),
        Affine.scale(-1, 1),
        Affine.scale(1, -1),
        Affine.shear(0.05, 0),
    ],
    ids=["slightly rotated", "rotated by 90", "turned round", "mirrored", "south up", "sheared"],
)
def test_no_phase_between_grids_of_another_orientation(change):
    ms = Grid(UTM, PAN.transform * Affine.scale(4) * change, 100, 150)
    assert PAN.phase_of(ms) is None
    assert ms.phase_of(PAN) is None


@pytest.mark.parametrize("angle", [0.01, 30, 135, 180])
def test_phase_of_two_grids_rotated_alike(angle):
    pan = Grid(UTM, PAN.transform * Affine.rotation(angle), 400, 600)
    assert pan.phase_of(ms_grid(4, (0.5, 1.25), 100, 150, pan)) == Phase.of((4.0, 4.0), (0.5, 1.25))


def test_phase_of_two_south_up_grids():
    pan = Grid(UTM, Affine(1, 0, 0, 0, 1, 0), 400, 400)
    assert pan.phase_of(ms_grid(2, (0.0, 3.0), 100, 100, pan)) == Phase.of((2.0, 2.0), (0.0, 3.0))


@pytest.mark.parametrize(
    ("ratio", "offset", "shape", "expected"),
    [
        (4, (0, 0), (100, 150), (0, 400, 0, 600)),
        (4, (10, 20), (10, 12), (10, 50, 20, 68)),
        (4, (-6, -3), (10, 12), (0, 34, 0, 45)),
        (4, (0.5, 0.4), (10, 12), (0, 40, 0, 48)),
        (4, (0.6, -0.6), (10, 12), (1, 41, 0, 47)),
        (2.76, (0.3, 5.2), (10, 10), (0, 28, 5, 33)),
        (4, (380, 580), (100, 150), (380, 400, 580, 600)),
    ],
)
def test_overlap_is_the_pixels_whose_centres_the_ms_covers(ratio, offset, shape, expected):
    ms = ms_grid(ratio, offset, *shape)
    phase = PAN.phase_of(ms)
    assert phase is not None
    window = PAN.overlap(phase, ms)
    assert window == expected
    rows = [r for r in range(400) if offset[0] <= r + 0.5 < offset[0] + ratio * shape[0]]
    cols = [c for c in range(600) if offset[1] <= c + 0.5 < offset[1] + ratio * shape[1]]
    assert window == (rows[0], rows[-1] + 1, cols[0], cols[-1] + 1)


@pytest.mark.parametrize("offset", [(-41, 0), (401, 0), (0, -60), (0, 600), (-100, -100)])
def test_no_overlap_is_empty(offset):
    ms = ms_grid(4, offset, 10, 12)
    phase = PAN.phase_of(ms)
    assert phase is not None
    assert PAN.overlap(phase, ms).is_empty


def test_pixels_of_bounds():
    assert PAN.pixels_of(PAN.bounds) == (0, 400, 0, 600)
    inner = Window(7, 20, 30, 44)
    assert PAN.pixels_of(PAN.window(inner).bounds) == inner
    left, bottom, right, top = PAN.bounds
    assert PAN.pixels_of((left - 5, bottom - 10, right + 0.5, top)) == (0, 420, -10, 601)
    assert PAN.pixels_of((left + 0.2, top - 1.1, left + 0.8, top - 0.2)) == (0, 2, 0, 2)
    assert PAN.pixels_of((left + 0.3, top - 0.2, left + 0.7, top - 0.1)).is_empty


def test_pixels_of_neighbouring_bounds_share_none():
    left, _, right, top = PAN.bounds
    for seam in (431210.0, 431210.25, 431210.4):
        west, east = PAN.pixels_of((left, 0, seam, top)), PAN.pixels_of((seam, 0, right, top))
        assert west[3] == east[2]


def test_pixels_of_bounds_of_a_rotated_grid():
    grid = Grid(UTM, Affine.translation(10, 20) * Affine.rotation(90), 40, 60)
    left, bottom, right, top = grid.bounds
    assert (right - left, top - bottom) == pytest.approx((40, 60))
    assert grid.pixels_of(grid.bounds) == (0, 40, 0, 60)


def test_window_of_a_grid_keeps_places():
    part = PAN.window(Window(30, 50, 100, 160))
    assert (part.height, part.width, part.crs) == (20, 60, UTM)
    assert part.transform * (0, 0) == PAN.transform * (100, 30)
    assert part.transform * (5.5, 7.25) == PAN.transform * (105.5, 37.25)
    assert part.window(Window(1, 3, 2, 4)) == PAN.window(Window(31, 33, 102, 104))
    rotated = Grid(UTM, PAN.transform * Affine.rotation(30), 400, 600)
    assert rotated.window(Window(30, 50, 100, 160)).transform * (0, 0) == pytest.approx(rotated.transform * (100, 30))


def test_a_window_of_the_pan_has_the_same_phase_from_its_own_origin():
    ms = ms_grid(2.76, (0.37, -3.2), 100, 150)
    whole, part = PAN.phase_of(ms), PAN.window(Window(17, 90, 31, 200)).phase_of(ms)
    assert whole is not None
    assert part is not None
    assert part.offset == pytest.approx((whole.offset[0] - 17, whole.offset[1] - 31), abs=1e-6)


def test_a_grid_says_its_extent():
    assert PAN.describe() == "431200 4583400 431500 4583600 (EPSG:32631)"
    assert "no CRS" in Grid(None, Affine.identity(), 2, 2).describe()


# CRSs of one meaning, and the meridian of 180 degrees ---------------------------------------------------------------


@pytest.mark.parametrize(("code", "same"), [(25831, True), (5555, False), (32630, False), (23031, False)])
def test_crs_that_put_pixels_in_the_same_place_are_the_same(code, same):
    """ETRS89 and WGS 84 are one to PROJ; another zone and ED50 are not."""
    other = Grid(CRS.from_epsg(code), PAN.transform, PAN.height, PAN.width)
    assert (other.called_as(PAN) == PAN) == same
    if not same:
        assert other.called_as(PAN) == other


def test_a_grid_across_180_degrees_has_its_east_beyond():
    zone = Grid(CRS.from_epsg(32660), Affine(15, 0, 637588, 0, -15, 7215651), 512, 512)
    west, south, east, north = zone.lonlat_bounds()
    assert 179 < west < 180 < east < 181 and 64 < south < north < 66
    degrees = Grid(CRS.from_epsg(4326), Affine(1e-3, 0, -180.1, 0, -1e-3, 65), 100, 200)
    there = Grid(degrees.crs, Affine.translation(360, 0) * degrees.transform, 100, 200)
    assert degrees.turned_towards(there).bounds == pytest.approx(there.bounds)
    assert degrees.turned_towards(degrees) == degrees
    assert there.turned([-180.0, 179.0, 540.0]) == [180.0, 179.0, 180.0]
    for code in (4326, 4258, 4979):
        other = Grid(CRS.from_epsg(code), there.transform, 100, 200)
        assert other.called_as(degrees).bounds == pytest.approx(degrees.bounds)
        assert degrees.place_of(other) == degrees.whole
