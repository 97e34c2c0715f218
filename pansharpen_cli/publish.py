"""One way to write files: made beside their places, brought to the disk, then renamed together with their families.

A dataset is a file and what readers look for beside it: overviews, masks, `.aux.xml`, `.aux`, world files. What is
replaced is replaced with those. Nothing is renamed before everything is ready, and a rename that fails puts back what
was there.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType

from . import untrusted
from .errors import InputError, PansharpenError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PARTIAL = ".pansharpen-"
"""Temporary folders beside the outputs begin so. A process holds a lock in each of its own as long as it lives."""

TIFF = (".tif", ".tiff")
"""How the names of GeoTIFFs end."""

_ERDAS = b"ehfa_header_tag"
_HELD, _MARK = "lock", b"a temporary folder of pansharpen\n"
"""The file in a temporary folder that is locked, and what it holds: a folder without it is not ours."""
_LIVING: set[Path] = set()
_RENAMING = threading.Lock()
_RASTERS = (*TIFF, ".png", ".jpg", ".jpeg")
_MISLEADING = (
    ".wld", ".tab", ".imd", ".rpb", ".rpc", "_rpc.txt", ".pvl", ".pass", "_mtl.txt", "_metadata.txt", "_metadata.xml",
)  # fmt: skip
"""Endings in the place of a GeoTIFF's own of files that are read with it and that others have made: place, sensor."""
_OF_IMAGES = (4, ("dim_", "rpc_"), ".xml"), (3, ("hdr", "rpc"), ".txt")
"""How such files of Airbus (IMG_x_R1C1.tif) and of ALOS (IMG-x.tif) are called: signs of the image's name that others
stand for, and the ending."""
_HEADERS = (".hdr", ".prj", ".stx", ".clr", ".ige", ".rrd")
"""Such endings of files that describe pixels stored raw, or in another file."""

_WRITTEN = (".imd", ".rpb", "_rpc.txt")
"""Such endings of files that GDAL also writes beside a TIFF, of a delivery's metadata or by a creation option."""

_OF_DELIVERIES = (*_RASTERS, ".til", ".ntf", ".nitf", ".img", ".jp2", ".pix")
"""How the names of rasters end that those may be of."""

_NOTHING_ELSE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NOTHING_ELSE |= getattr(os, "O_BINARY", 0)

# What belongs to a file ---------------------------------------------------------------------------------------------


class Listing:
    """The names in folders, each listed once: for many paths in turn, in a moment in which nothing changes there."""

    def __init__(self) -> None:
        self._folders: dict[Path, list[tuple[str, str]]] = {}

    def near(self, path: Path) -> list[str]:
        """The names beside a path, and its own, that begin as its name does without its ending, whatever their case."""
        folder, stem = path.parent, path.stem.lower()
        if folder not in self._folders:
            try:
                self._folders[folder] = sorted((name.lower(), name) for name in os.listdir(folder))
            except (OSError, ValueError):
                self._folders[folder] = []
        names = self._folders[folder]
        at = bisect_left(names, (stem, ""))
        return [name for _, name in itertools.takewhile(lambda each: each[0].startswith(stem), names[at:])]


def family(path: Path, listing: Listing | None = None) -> list[Path]:
    """The files beside a path that readers take for parts of it and of no other file, whether there is a file at the
    path or not."""
    near = (listing or Listing()).near(path)
    return [side for side in _read_with(path, near) if not _shared(side, path, near)]


def _read_with(path: Path, near: Sequence[str]) -> list[Path]:
    written = _WRITTEN if path.suffix.lower() in TIFF and path.is_file() else ()
    worlds = {(path.stem + end).lower() for end in {*_world_suffixes(path), *written}}
    if path.suffix.lower() in _RASTERS:  # what GDAL asks for place and nodata before the raster itself
        worlds |= {f"{path.stem}.aux".lower(), f"{path.name}.aux".lower()}
    name = path.name.lower()
    found = [n for n in near if n.lower() in worlds or (n.lower() != name and owner_of(n).lower() == name)]
    own = [path.parent / n for n in found if not _of_another(n, path, near)]
    return [p for p in own if p.suffix.lower() != ".aux" or _is_erdas(p, path.name)]


def owner_of(name: str) -> str:
    """The name or path of the file that a side file belongs to by its own; of any other file, its own."""
    return re.sub(r"(\.(ovr|msk|aux\.xml))+$", "", name, flags=re.IGNORECASE)


def _world_suffixes(path: Path) -> set[str]:
    end = path.suffix.lower()
    own = _worlds(end) if end in _RASTERS else set()
    return own | {".wld"} if own and end not in TIFF else own


def _worlds(end: str) -> set[str]:
    """How the world file of a raster that ends so may end."""
    return {f".{end[1]}{end[-1]}w", f"{end}w"} if len(end) > 2 else set()


def _is_erdas(aux: Path, dependent: str = "") -> bool:
    """Is it an .aux of ERDAS, for a file of this name? Without one, GDAL may still take it for that of a raster."""
    try:
        with untrusted.opened(aux, sys.maxsize) as file:
            content = file.read(untrusted.MOST_TEXT).lower()
    except InputError:
        return False
    named = re.search(rb"(?<![\w.-])" + re.escape(dependent.lower().encode()), content)
    return content.startswith(_ERDAS) and named is not None


def _of_another(name: str, path: Path, there: Collection[str]) -> bool:
    """Where case counts: does the side file `name` belong to another file, whose name differs by case only?"""
    owner = name[: len(path.name)] if name.lower().startswith(path.name.lower()) else name[: len(path.stem)]
    return owner not in (path.name, path.stem) and any(n in there for n in (owner, owner + path.suffix))


def _shared(side: Path, path: Path, there: Collection[str]) -> bool:
    """Is a world file or metadata beside a path also read with another raster that is `there`?"""
    stem, end = side.name[: len(path.stem)], side.name[len(path.stem) :].lower()
    others = (path.parent / n for n in there if n != path.name and Path(n).stem == stem)
    return any(
        (end in _world_suffixes(other) or (end in (*_WRITTEN, ".wld") and other.suffix.lower() in _OF_DELIVERIES))
        and not _same(str(other), path)
        for other in others
    )


def misleading(path: Path, listing: Listing | None = None) -> list[Path]:
    """The files beside a GeoTIFF's path that would be read with it and that are no part of it."""
    if path.suffix.lower() not in TIFF:
        return []
    listing = listing or Listing()
    near, own = listing.near(path), family(path, listing)
    return [p for p in dict.fromkeys([*_describing(path, listing), *_read_with(path, near)]) if p not in own]


def told_beside(path: str, listing: Listing | None = None) -> list[str]:
    """The files beside a raster that may change how it is read: nodata, mask, place, sensor, the header of raw pixels.
    Not what viewers leave."""
    place = Path(path)
    listing, own = listing or Listing(), place.name.lower()
    ends = {*_worlds(place.suffix.lower()), *(() if place.suffix.lower() in _RASTERS else _HEADERS)}
    names = {own + end for end in (".msk", ".aux.xml", ".hdr")} | {place.stem.lower() + end for end in ends}
    found = {place.parent / n for n in listing.near(place) if n.lower() in names} | {*_describing(place, listing)}
    return sorted(str(p) for p in found if p.is_file() and (p.suffixes[-2:] != [".aux", ".xml"] or _tells(str(p))))


def _describing(path: Path, listing: Listing) -> list[Path]:
    """The files beside a path that tell the place, nodata or sensor of a raster of its name, whoever made them."""
    stem = path.stem.lower()

    def describes(file: Path) -> bool:
        end = file.name.lower().removeprefix(stem)
        if end in (".aux", f"{path.suffix.lower()}.aux"):
            return _is_erdas(file)
        return end in _MISLEADING or (end == ".xml" and _is_delivery(file))

    found = [file for name in listing.near(path) if describes(file := path.parent / name)]
    whole = path.name.lower().partition(".")[0] + ".pass"  # EROS cuts names at their first dot
    if whole != f"{stem}.pass":
        found += [path.parent / n for n in listing.near(path.with_name(whole)) if n.lower() == whole]
    for length, starts, end in _OF_IMAGES:
        part = stem[length:]
        for name in (start + each + end for each in {part, part.rpartition("_")[0]} - {""} for start in starts):
            found += [path.parent / n for n in listing.near(path.with_name(name)) if n.lower() == name]
    return found


def _tells(path: str) -> bool:
    """Does an .aux.xml tell more than statistics, which viewers write?"""
    try:
        return re.search(rb"<(NoData|SRS|GeoTrans|GCP|Offset|Scale|Color|Descr|MDI key=\"(?!STATISTICS))",
                         untrusted.read_bytes(Path(path), untrusted.MOST_SIDE)) is not None  # fmt: skip
    except InputError:
        return True


def _is_delivery(path: Path) -> bool:
    """Is it the XML of a product of DigitalGlobe, with the place and the sensor of its pixels?"""
    try:
        return b"<isd" in untrusted.read_bytes(path, untrusted.MOST_SIDE)[:4000].lower()
    except InputError:
        return False


def check_target(path: Path, inputs: Collection[str], overwrite: bool, endings: Sequence[str] = ()) -> None:
    """Raises InputError if nothing may or can be written at the path, last if it is because of a file that is there."""
    check_place(path, inputs, overwrite, endings)
    check_absent([path], overwrite)


def check_absent(paths: Sequence[Path], overwrite: bool) -> None:
    """Raises InputError for files that are there and must not be replaced. To be asked last: who then adds --overwrite
    is not told of the next thing that is wrong."""
    if there := [] if overwrite else [str(p) for p in paths if p.exists()]:
        what = f"{there[0]} exists" if len(there) == 1 else f"{' and '.join(there)} exist"
        raise InputError(f"{what}; use --overwrite to replace {'it' if len(there) == 1 else 'them'}")


def check_place(
    path: Path, inputs: Collection[str], overwrite: bool, endings: Sequence[str] = (), makes_folders: bool = False
) -> None:
    """Raises InputError if nothing may or can be written at the path, but for a file that is there.

    `inputs`: all files that are read. `endings`: what the name may end in, with the dot; anything if empty.
    `makes_folders`: folders that are missing are made later on (`made_folders`).
    """
    check_on_disk(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name an output file")
        if endings and path.suffix.lower() not in endings:
            raise InputError(f"cannot write {path}: name a file that ends in {' or '.join(endings)}")
        if any(_same(source, path) for source in inputs):
            raise InputError(f"the output {path} is one of the inputs")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is a device or a pipe; name an output file")
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path} is a link to a file that does not exist; remove the link")
        folder = existing_folder(path) if makes_folders else path.resolve().parent
        if not folder.is_dir():
            what = f"{folder} is no folder" if folder.exists() else f"the folder {folder} does not exist"
            raise InputError(f"cannot write {path}: {what}")
        with tempfile.TemporaryFile(prefix=PARTIAL, dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    _check_family(path, inputs, overwrite)


def file_named(name: str | os.PathLike[str]) -> Path:
    """A file to write. Raises InputError for no name, or that of a folder, whose slash `Path` would drop."""
    if not os.fspath(name):
        raise InputError("the name of a file to write is empty")
    if os.fspath(name).endswith(("/", os.sep)):
        raise InputError(f"'{os.fspath(name)}' is the name of a folder; name a file")
    return Path(name)


def check_on_disk(path: Path) -> None:
    """Raises InputError for a name of GDAL's, or an address: what is written is written to this machine's disks. So it
    does for control characters, which break lines of logs and command terminals."""
    if re.search(r"[\x00-\x1f\x7f-\x9f]", str(path)):
        raise InputError(f"cannot write {str(path)!r}: its name holds a control character")
    if re.match(r"/vsi[a-z0-9_]+(/|$)|[a-z][a-z0-9+]+:/", path.as_posix(), re.IGNORECASE):
        raise InputError(f"cannot write {path}: name a file or a folder on a disk")


def existing_folder(path: Path) -> Path:
    """The folder that a path is in, or the nearest above it that there is."""
    return next(p for p in path.resolve().parents if os.path.lexists(p))


@contextmanager
def made_folders(paths: Iterable[Path]) -> Iterator[None]:
    """Make the folders that paths lack; if the block fails, those that are empty are removed again. Raises
    PansharpenError where there is no making one."""
    made: list[Path] = []
    try:
        for path in paths:
            missing = [p for p in path.resolve().parents if not p.exists()]
            for folder in reversed(missing):
                try:
                    folder.mkdir()
                except OSError as error:
                    raise PansharpenError(f"cannot make the folder {folder}: {error.strerror}") from error
                made.append(folder)
        yield
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        raise


def _check_family(path: Path, inputs: Collection[str], overwrite: bool) -> None:
    for side in dict.fromkeys([*family(path), *(family(path.resolve()) if path.is_symlink() else [])]):
        if any(_same(source, side) for source in inputs):
            raise InputError(f"{side} is one of the inputs, and would be read as a part of the output {path}")
        if side.is_dir():
            raise InputError(f"{side} is a folder in the place of a part of {path.name}; move it away")
        if not path.exists() and not overwrite:
            raise InputError(
                f"{side} is there without {path.name} and would be read as a part of it; remove it or use --overwrite"
            )
    for other in misleading(path):
        raise InputError(f"{other} would be read with {path.name}, which it does not describe; choose another name")


def _same(one: str, other: Path) -> bool:
    return other.exists() and os.path.exists(one) and os.path.samefile(one, other)


# Publishing ---------------------------------------------------------------------------------------------------------


class Publication(ExitStack):
    """Files that appear at their places together, complete and on the disk, or not at all. As a context manager it
    removes what it made and did not publish. A link to a file is followed: what lies behind it is replaced.

    `keeps` says of each place that is not free any more, once all files are ready, whether what is there stays: a file,
    or beside none what would be read with the new one.
    """

    def __init__(self, keeps: Callable[[Path], bool] = lambda path: False) -> None:
        super().__init__()
        self._keeps = keeps
        self._rooms: dict[Path, Path] = {}
        self._parts: dict[Path, Path] = {}

    def part(self, path: Path) -> Path:
        """Where the file for a path is to be made: alone in a folder. What is made beside it is its family. Raises
        PansharpenError if there is no making it."""
        with writing(path):
            self._parts[path] = self.room(path) / path.resolve().name
        return self._parts[path]

    def room(self, path: Path) -> Path:
        """An empty folder for what is needed on the way; it is not published."""
        with writing(path):
            return Path(tempfile.mkdtemp(dir=self._room(path.resolve().parent)))

    def add(self, path: Path, content: bytes) -> None:
        """Make a file of bytes. Raises PansharpenError if it cannot be made."""
        part = self.part(path)
        with writing(path):
            part.write_bytes(content)

    def publish(self) -> None:
        """Bring all files to the disk, then to their places. Raises PansharpenError with everything as it was."""
        for path, part in self._parts.items():
            with writing(path):
                _ready(part, path.resolve())
        with _RENAMING:
            for path in self._parts:
                there = [path] if path.exists() else [*family(path), *misleading(path)]
                if there and self._keeps(path):
                    raise PansharpenError(
                        f"{there[0]} has come or changed while this ran, and stays: move it away, or use --overwrite"
                    )
            self._rename()
        for folder in {path.resolve().parent for path in self._parts}:
            _sync_folder(folder)
        self._parts = {}
        self.close()

    def _rename(self) -> None:
        undo: list[tuple[Path, Path]] = []
        try:
            for path, part in reversed(self._parts.items()):  # the output last: its report tells whose it is
                with writing(path):
                    self._replace(path, part, undo)
        except BaseException as error:
            if kept := [where for where, place in reversed(undo) if not self._is_back(where, place)]:
                raise PansharpenError(f"{error}; what was there and cannot be put back is {kept[0]}") from error
            raise

    def _is_back(self, where: Path, place: Path) -> bool:
        """Rename what was put aside back. Where that fails, the folder that it is in stays, and no batch takes it for
        one of a run that was killed."""
        try:
            os.replace(where, place)
        except OSError:
            for room in {*self._rooms.values()} & {*where.parents}:
                _LIVING.discard(room)
                (room / _HELD).unlink(missing_ok=True)
                return False
        return True

    def _room(self, folder: Path) -> Path:
        if folder not in self._rooms:
            self._rooms[folder] = self.enter_context(workspace(folder))
        return self._rooms[folder]

    def _replace(self, path: Path, part: Path, undo: list[tuple[Path, Path]]) -> None:
        """Rename a part and its family; `undo` receives what has moved: where it is, and where it was."""
        target = path.resolve()
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(target).st_mode):
                raise OSError(0, "something that is no file has taken its place")
        for old in dict.fromkeys([*family(path.parent.resolve() / path.name), *family(target)]):
            aside = Path(tempfile.mkdtemp(dir=self._room(old.parent))) / old.name
            os.replace(old, aside)
            undo.append((aside, old))
        made = sorted(part.parent.iterdir(), key=lambda each: each == part)  # the file itself last
        for each in made:
            place = target.parent / each.name
            aside = Path(tempfile.mkdtemp(dir=self._room(target.parent))) / each.name
            new = not place.exists()
            try:
                os.link(place, aside)
            except OSError:  # a file system without hard links; after the output nothing is renamed
                if not new and part != next(iter(self._parts.values())):
                    shutil.copy2(place, aside)
            _place_anew(each, place) if new else os.replace(each, place)
            if new:
                undo.append((place, each))
            elif aside.exists():
                undo.append((aside, place))


def _place_anew(part: Path, place: Path) -> None:
    """Rename a file to a place that is free. Raises FileExistsError if it is not any more, which all file systems with
    hard links notice."""
    try:
        os.link(part, place)
    except OSError as error:
        if isinstance(error, FileExistsError):
            raise
        os.replace(part, place)
    else:
        part.unlink()


def write(path: Path, content: bytes) -> None:
    """Publish one file of bytes. Raises PansharpenError if it cannot be written."""
    with Publication() as files:
        files.add(path, content)
        files.publish()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses becomes PansharpenError, in one line that names the file."""
    try:
        yield
    except OSError as error:
        raise PansharpenError(f"cannot write {path}: {error.strerror or error}") from error


def _ready(part: Path, target: Path) -> None:
    """On the disk, and with the mode of what they replace where the file system has modes to set."""
    for each in part.parent.iterdir():
        with open(each, "r+b") as file:  # Windows syncs no file that is open for reading only
            os.fsync(file.fileno())
    with suppress(OSError):  # also where nothing is replaced
        os.chmod(part, stat.S_IMODE(os.stat(target).st_mode))


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# Temporary folders --------------------------------------------------------------------------------------------------


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """A temporary folder in a folder, removed at the end; `sweep` tells it from those of processes that died."""
    handle = None
    while handle is None:  # a batch may sweep the folder before it is locked
        made = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder))
        _LIVING.add(made)
        try:
            handle = _held(made)
        except BaseException:
            _removed(made)
            raise
        if handle is None:
            _LIVING.discard(made)
    try:
        yield made
    finally:
        if handle >= 0:
            os.close(handle)
        _removed(made)


def _removed(made: Path) -> None:
    """Until it is gone, `clear` removes it, too: a second signal may end the process meanwhile."""
    if made in _LIVING:
        shutil.rmtree(made, ignore_errors=True)
        _LIVING.discard(made)


def clear() -> None:
    """Remove this process's temporary folders, as the process is going to end; a renaming is waited for."""
    with suppress(RuntimeError):
        _RENAMING.acquire(timeout=5)
        for folder in list(_LIVING):
            shutil.rmtree(folder, ignore_errors=True)


def _held(folder: Path) -> int | None:
    """A handle whose lock shows that the folder is in use, -1 where there are no locks; None if it is taken."""
    if fcntl is None:
        return -1
    try:
        handle = os.open(folder / _HELD, os.O_RDWR | os.O_CREAT | _NOTHING_ELSE, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists():
            with suppress(OSError):  # a full disk
                os.pwrite(handle, _MARK, 0)
            return handle
    except BlockingIOError:
        pass
    except OSError:  # a file system without locks
        os.close(handle)
        return -1
    os.close(handle)
    return None


def sweep(folder: Path) -> None:
    """Remove a temporary folder that a killed process has left; nothing if a live one holds it, or one not ours."""
    if fcntl is None or not _is_ours(folder):
        return
    try:
        handle = _held(folder)
    except OSError:
        return
    if handle is not None and handle >= 0:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _is_ours(folder: Path) -> bool:
    """Is it a folder with our mark in its lock, or with nothing that could be lost?"""
    try:
        names = set() if folder.is_symlink() else set(os.listdir(folder))
        content = read_own(folder / _HELD, 1 << 10) if _HELD in names else b""
    except (OSError, InputError):
        return False
    return not folder.is_symlink() and (content == _MARK or not (names - {_HELD} or content))


# Own files ----------------------------------------------------------------------------------------------------------


def open_own(path: Path, flags: int) -> int:
    """A handle of a regular file that is no link. Raises OSError, InputError for anything else at the path."""
    try:
        handle = os.open(path, flags | _NOTHING_ELSE, 0o666)
    except OSError as error:
        if path.is_symlink() or not (path.is_file() or not path.exists()):
            raise InputError(f"{path} is a link or no file; move it away") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"{path} is no file; move it away")
    return handle


def read_own(path: Path, limit: int = 1 << 28) -> bytes:
    """The content of a regular file that is no link. Raises InputError if it is another thing, or too large."""
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise InputError(f"cannot read {path}: it is larger than {limit >> 20} MB")
            return file.read(limit)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def check_own(path: Path, proof: Callable[[bytes], bool]) -> None:
    """Raises InputError if there is anything at the path that `proof` does not tell from its content to be ours."""
    if (path.exists() or path.is_symlink()) and not proof(read_own(path)):
        raise InputError(f"{path} is not a file of pansharpen; move it, or choose another output folder")
