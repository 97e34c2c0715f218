"""What a VRT asks GDAL for that is short to write and takes long, or much memory, is refused before it is read."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from pansharpen_cli.errors import InputError
from pansharpen_cli.raster import references, source

VRT = (
    '<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><SRS>EPSG:32631</SRS><GeoTransform>0,2,0,0,0,-2'
    '</GeoTransform><VRTRasterBand band="1" dataType="{kind}"{more}>{sources}</VRTRasterBand></VRTDataset>'
)
SOURCE = '<SimpleSource><SourceFilename relativeToVRT="{}">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
DERIVED = ' subClass="VRTDerivedRasterBand"'


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    """The folder of `a.tif`, 400 x 400 pixels, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    profile = {"count": 1, "height": 400, "width": 400, "dtype": "uint8", "transform": Affine(2, 0, 9, 0, -2, 9)}
    with rasterio.open("a.tif", "w", driver="GTiff", crs="EPSG:32631", **profile) as dataset:
        dataset.write(np.ones((1, 400, 400), "uint8"))
    return tmp_path


@pytest.mark.parametrize(
    ("count", "kind", "size", "more", "fine"),
    [
        (129, "Float64", 5000, DERIVED, False),
        (129, "Float64", 500, DERIVED, True),
        (129, "Float32", 5000, DERIVED, True),
        (129, "Byte", 5000, DERIVED + ' sourceTransferType="CFloat32"', False),
        (65, "CFloat64", 5000, "><subclass>VRTDerivedRasterBand</subclass><x /", False),
        (400, "Byte", 5000, DERIVED, True),
        (400, "Float64", 5000, "", True),
    ],
)
def test_a_derived_band_that_takes_too_much_memory_is_refused(here: Path, count, kind, size, more, fine) -> None:
    """GDAL holds a window of each of its sources at once."""
    sources = count * SOURCE.format(1, "a.tif")
    Path("d.vrt").write_text(VRT.format(size=size, kind=kind, more=more, sources=sources))
    Path("e.vrt").write_text(VRT.format(size=9, kind="Byte", more="", sources=SOURCE.format(1, "d.vrt")))
    for each in ("d.vrt", "e.vrt"):
        if fine:
            references.check_raw(each)
            continue
        with pytest.raises(InputError, match=r"d.vrt derives a band from so many sources that they take 1\.\d GB"):
            references.check_raw(each)


class Server(BaseHTTPRequestHandler):
    """Gives parts of the files of the working directory."""

    def do_GET(self) -> None:
        file = Path(self.path[1:])
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        first, last = map(int, asked.groups()) if asked else (0, len(content))
        self.send_response(206 if asked else 200)
        part = content[first : last + 1]
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    do_HEAD = do_GET

    def log_message(self, *_) -> None: ...


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"/vsicurl/http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_name_on_a_server_by_which_gdal_merges_many_pixels_is_refused(here: Path, address: str) -> None:
    kernel = f"<Kernel><Size>101</Size><Coefs>{101 * 101 * '1 '}</Coefs></Kernel></KernelFilteredSource>"
    kernel = SOURCE.format(1, "a.tif").replace("Simple", "KernelFiltered").replace("</KernelFilteredSource>", kernel)
    Path("far.vrt").write_text(VRT.format(size=9, kind="Byte", more="", sources=kernel))
    for name, fine in {
        f"{address}/a.tif": True,
        f"vrt://{address}/a.tif?outsize=4,4&amp;r=nearest": True,
        f"vrt://{address}/a.tif?outsize=4,4&amp;r=average": False,
        f"{address}/far.vrt": False,
    }.items():
        sources = SOURCE.format(0, name)
        Path("near.vrt").write_text(VRT.format(size=4, kind="Byte", more="", sources=sources))
        Path("outer.vrt").write_text(VRT.format(size=4, kind="Byte", more="", sources=SOURCE.format(1, "near.vrt")))
        for each in ("near.vrt", "outer.vrt"):
            if fine:
                source.open_raster(each).close()
                continue
            with pytest.raises(InputError, match=r"takes [\d.e+]+ reads, .* more than 500"):
                source.open_raster(each)
