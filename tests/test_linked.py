"""HDF5 files whose pixels lie in other files are refused before they are opened."""

from __future__ import annotations

import os
import zipfile
import zlib
from base64 import b85decode
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

from pansharpen_cli.errors import InputError
from pansharpen_cli.raster import linked
from pansharpen_cli.raster.references import outside
from pansharpen_cli.raster.source import open_raster

FILES = {
    "external storage": (
        "c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvfcCe!IVe$!3nh{EOK<O1sFmXn(oCH){5NbZUx{x4OSCH!eXaHtU0SkoYU>F4>5qP*d27u@Y"
        "C?A$ePcWgXt3XSS9u(Tk$iN0MixI}xfY3~gDCrRw%?xxYBh<afI#_`;h|k0XF^C;#E+bS8D90G!Nbe4C^C3BknGu##9MDt-&@>(t"
        "(BdJ01uY)*k}~s<;sK^E*w5bu<Ug3d6qo^s9yt8"
    ),
    "external storage, later": (
        "c-rgqaB<`1lHy|K;9!7(|1iJ^;Tu53%U7~K@b_>DVq&OZ5<*c31zb!FKrL)M3_yypVl&J<4+g4%%%3tfU?%`AU{qmXU}9oqggG1+"
        "&CJ8VD8K-66GW61=t^cTb`78jU{OYf{fwwOV88)p641BIj4)rqL>X!r1{CDwynW)~>KFiGD?r5rp!9u4RJ9d)Ntt=@FaW9p0GHD="
        "pa"
    ),
    "link to another file": (
        "c-rgqaB<`1lHy|K;9!7(|4^_Q$~S=0Q$xeL{XJZQm>4RUgpd`&02dPjBLf4QAOiy<hXZ2;7Xw3uUQ%WrgMI}AgEIp)fM25ORsd&-BRv"
    ),
    "virtual dataset": (
        "c-rgqaB<`1lHy|K;9!7(|4_gn0pS}!#T`34+5J6Sf|wX8n1qlO!T=W&10w?i8xI4JVyxH<GtYy8Y9RBcObyrxihk$$vXL<ZBclof"
        "0}~S?Bg`YXXl5P;Mgazp8zG{sKvy$!bMP@RurR|Ef#udP3@H%(<5(5LC>RB!U=)mkQ9ulEclP%IS9StO6(0~d!xX>-D)f>v^B5`^"
        "n32RlfC*Hig2b4Zpz0aHl_-Q>ANB4yihVQq0g??fZU"
    ),
}
"""Files of h5py with a dataset `x` of 8 x 8 bytes that are in `x.bin`, or in its dataset `x`; packed."""

VRT = """<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="1">{}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


def content(kind: str) -> bytes:
    return zlib.decompress(b85decode(FILES[kind])).ljust(6144, b"\0")


@pytest.mark.parametrize("before", [0, 512, 1024])
@pytest.mark.parametrize("kind", FILES)
def test_hdf5_whose_pixels_lie_in_other_files_is_refused(tmp_path: Path, monkeypatch, kind: str, before: int) -> None:
    """Before it is opened: what it names may be a pipe."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("x.bin")
    Path("a.h5").write_bytes(bytes(before) + content(kind))
    for i, name in enumerate(("a.h5", 'HDF5:"a.h5"://x', "NETCDF:a.h5:x")):
        Path(f"{i}.vrt").write_text(VRT.format(name.replace('"', "&quot;")))
        for path in (name, f"{i}.vrt"):
            with pytest.raises(InputError, match=f"a.h5 has .*{kind.partition(',')[0]}"):
                open_raster(path)
        assert kind.partition(",")[0] in outside(f"{i}.vrt", [tmp_path])


def test_hdf5_with_links_that_lead_nowhere_is_as_others_write_it(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(content("link to another file"))
    linked.check_own("a.h5", str(tmp_path / "a.h5"))


def test_links_that_are_packed_are_refused(tmp_path: Path) -> None:
    """The heap of a group's links, with a filter of 22 bytes."""
    heap = b"FRHP\0\x07\0\x16\0\2" + bytes(64)
    (tmp_path / "a.h5").write_bytes(content("link to another file") + heap)
    with pytest.raises(InputError, match="links that are packed"):
        linked.check_own("a.h5", str(tmp_path / "a.h5"))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_hdf5_that_keeps_its_pixels_is_read(tmp_path: Path, dtype: str) -> None:
    """Whatever they are: pixels that look like a link, or a heap, are none."""
    texts = b"\1\x08\x40\1x\x0b\0\0a.tif\0/x\0" + b"HEAP\0\0\0\0GCOL\1\0\0\0" + bytes(range(256)) * 4
    pixels = np.frombuffer((texts * 8)[: 64 * 64], "uint8").reshape(1, 64, 64).astype(dtype)
    profile = {"width": 64, "height": 64, "count": 1, "dtype": dtype, "crs": "EPSG:32631"}
    with rasterio.open(tmp_path / "a.tif", "w", transform=Affine(2, 0, 5e5, 0, -2, 5e6), **profile) as dataset:
        dataset.write(pixels)
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.nc", driver="netCDF", FORMAT="NC4")
    (tmp_path / "a.tif").unlink()
    assert (tmp_path / "a.nc").read_bytes().startswith(linked.HDF5)
    with open_raster(str(tmp_path / "a.nc")) as dataset:
        assert (dataset.read() == pixels).all()


def test_hdf5_in_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.h5", content("external storage"))
    with pytest.raises(InputError, match="unpack or download it first"):
        open_raster(f'HDF5:"/vsizip/{tmp_path}/a.zip/a.h5"://x')
