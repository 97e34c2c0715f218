"""Faults while running: signals at many moments, files that change or fail, streams that are closed, no memory."""

from __future__ import annotations

import ast
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import rasterio
import torch
from rasterio.shutil import copy as raster_copy
from rasters import random_weights, seldom, write_pair
from safetensors.torch import load_file, save_file

import pansharpen_cli
from pansharpen_cli import models
from pansharpen_cli.adapt import tailor
from pansharpen_cli.errors import ReadError
from pansharpen_cli.fusion import fit, fusers, loop
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.models import weights
from pansharpen_cli.quality import assess
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.raster.writer import SceneWriter

ROOT = Path(__file__).parent.parent
NETWORK = {"features": 8, "blocks": 1}
EXP = ("--method", "exp", "--align", "off")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_pair(folder, 160, 160, 3, offset=(0.7, 1.6))
    return folder


@pytest.fixture
def scene(made: Path, tmp_path: Path, monkeypatch) -> Path:
    """The working folder with pan.tif, ms.tif and weights."""
    for name in ("pan.tif", "ms.tif"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    random_weights(tmp_path / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names_in(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


# Signals ------------------------------------------------------------------------------------------------------------

MOMENTS = {
    "before opening": "pansharpen_cli.raster.scene.Scene.open 1",
    "making the output": "pansharpen_cli.raster.writer.SceneWriter._create 1",
    "fitting": "pansharpen_cli.fusion.fit.fit 1",
    "reading": "pansharpen_cli.raster.scene.Scene.read 3",
    "fusing": "pansharpen_cli.raster.tiles.Stitcher.add 2",
    "writing": "pansharpen_cli.raster.writer.SceneWriter.write 2",
    "finishing": "pansharpen_cli.raster.writer.SceneWriter.finish 1",
    "scoring": "pansharpen_cli.quality.assess.full_resolution 1",
    "committing": "pansharpen_cli.raster.writer.os.fsync 1",
    "after the file is in place": "pansharpen_cli.raster.writer.SceneWriter.discard 1",
    "writing the report": "pansharpen_cli.publish.os.link 4",
    "printing": "pansharpen_cli.cli.fuse.print_report 1",
}
"""Before which call of which function, in whatever thread, the signal comes."""
SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL")
RUN = "fuse pan.tif ms.tif -o out.tif --method exp --tile-size 64 --report r.json -q --overwrite"


def run_and_signal(where: str, name: str) -> None:
    """Run the command line in this process, which gets the signal at a moment."""
    from pansharpen_cli.cli import app

    target, _, count = where.rpartition(" ")
    module, _, function = target.rpartition(".")
    left = int(count)
    owner = pkg_resolve(module)
    original = getattr(owner, function)

    def watched(*args, **kwargs):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), getattr(signal, name))
        return original(*args, **kwargs)

    sys.argv = ["pansharpen", *RUN.split()]
    with mock.patch.object(owner, function, watched):
        app.main()


def pkg_resolve(name: str):
    import pkgutil

    return pkgutil.resolve_name(name)


def in_a_child(action: Callable[[], None]) -> tuple[int, str]:
    """Exit code, negative for a signal, and stderr of an action in a forked process."""
    with tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            code: object = 99
            try:
                os.dup2(err.fileno(), 2)
                action()
            except SystemExit as stop:
                code = stop.code
            finally:
                sys.stderr.flush()
                os._exit(code if isinstance(code, int) else 98)
        status = os.waitpid(child, 0)[1]
        err.seek(0)
        return os.waitstatus_to_exitcode(status), err.read().decode()


def signal_server(folder: str) -> None:
    """One line of JSON per moment and signal: how the run ended and what it left."""
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_DFL if name == "SIGTERM" else signal.default_int_handler)
    os.chdir(folder)

    def plain() -> None:
        from pansharpen_cli.cli import app

        sys.argv = ["pansharpen", *RUN.split()]
        app.main()

    before = names_in(Path())
    assert in_a_child(plain)[0] == 0
    whole = Path("out.tif").read_bytes()
    for moment, where in MOMENTS.items():
        for name in SIGNALS:
            for left in names_in(Path()) - before:
                subprocess.run(["rm", "-rf", left], check=True)
            code, err = in_a_child(lambda where=where, name=name: run_and_signal(where, name))
            left = names_in(Path()) - before
            complete = not Path("out.tif").exists() or Path("out.tif").read_bytes() == whole
            report = not Path("r.json").exists() or bool(json.loads(Path("r.json").read_text()))
            again = in_a_child(plain)[0] == 0 and Path("out.tif").read_bytes() == whole if name == "SIGKILL" else None
            known = {"moment": moment, "signal": name, "code": code, "err": err, "left": sorted(left)}
            print(json.dumps(known | {"complete": complete, "report": report, "again": again}), flush=True)


@pytest.fixture(scope="module")
def endings(made: Path, tmp_path_factory) -> dict[tuple[str, str], dict]:
    folder = tmp_path_factory.mktemp("signals")
    for name in ("pan.tif", "ms.tif"):
        (folder / name).write_bytes((made / name).read_bytes())
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    known = [json.loads(line) for line in done.stdout.splitlines()]
    return {(k["moment"], k["signal"]): k for k in known}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals are POSIX")
@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_leaves_nothing_or_a_complete_file(endings, moment: str, name: str) -> None:
    known = endings[moment, name]
    assert known["complete"] and known["report"]
    if name == "SIGKILL":
        assert known["code"] == -signal.SIGKILL
        assert known["again"], "the next run did not work"
    else:
        assert (known["code"], known["err"]) == (130, "error: interrupted\n")
        assert set(known["left"]) <= {"out.tif", "r.json"}
    if list(MOMENTS).index(moment) <= list(MOMENTS).index("committing"):
        assert not {"out.tif", "r.json"} & set(known["left"])
    if moment == "printing":
        assert {"out.tif", "r.json"} <= set(known["left"])


STARTING = """
import os, signal, sys

class Watcher:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), number)

module, number = sys.argv[1], getattr(signal, sys.argv[2])
sys.meta_path.insert(0, Watcher())
sys.argv = ["pansharpen", "fuse", "pan.tif", "ms.tif", "-o", "out.tif"]
from pansharpen_cli.__main__ import main
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize(("module", "name"), [("typer", "SIGINT"), ("typer", "SIGTERM"), ("torch.nn", "SIGTERM")])
def test_a_signal_while_modules_are_imported_ends_the_run_quietly(scene: Path, module: str, name: str) -> None:
    before = names_in(scene)
    done = subprocess.run(
        [sys.executable, "-c", STARTING, module, name], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")
    assert names_in(scene) == before


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_signal_within_exec_ends_with_the_code_of_interruptions() -> None:
    code = (
        "import os, signal, sys; from pansharpen_cli import interrupts\n"
        "interrupts.handle(interrupts.raise_once)\n"
        "try: exec('os.kill(os.getpid(), signal.SIGTERM)')\n"
        "except KeyboardInterrupt: sys.exit(130)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 130


@pytest.mark.parametrize(("moment", "removals"), [("locking", 2), ("removing", 2), ("after", 1)])
def test_a_temporary_folder_is_known_from_first_to_last(tmp_path: Path, moment: str, removals: int) -> None:
    """A second signal removes those that are known, and ends the process at once."""
    code = f"""
import contextlib, sys
from pansharpen_cli import publish
removed, remove = [], publish.shutil.rmtree
def interrupted(*_):
    raise KeyboardInterrupt
def rmtree(folder, **options):
    removed.append(folder)
    if len(removed) == 1 and {moment != "after"}:
        publish.clear()
    remove(folder, **options)
publish.shutil.rmtree = rmtree
if {moment == "locking"}:
    publish.fcntl.flock = interrupted
with contextlib.suppress(KeyboardInterrupt), publish.workspace(sys.argv[1]) as made:
    pass
if {moment == "after"}:
    publish.clear()
print(len(removed), len(set(removed)))
"""
    command = [sys.executable, "-c", code, tmp_path]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.split() == [str(removals), "1"] and not any(tmp_path.iterdir())


# Files that change or fail ------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize(
    ("late", "code", "said"),
    [
        ("class Late:\n    def __del__(self):\n        kill()\nkept = Late()", 0, ""),  # goes as Python ends
        (
            "threading.Thread(target=lambda: (time.sleep(0.1), kill(), time.sleep(9))).start()",
            130,
            "error: interrupted\n",
        ),
    ],
    ids=["finalizing", "a thread is waited for"],
)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_once_all_is_done_ends_the_run_in_order(late: str, code: int, said: str, name: str) -> None:
    script = f"""
import os, signal, threading, time
from pansharpen_cli import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell ignore it
def kill(kill=os.kill, number=signal.{name}, pid=os.getpid()):
    kill(pid, number)
with interrupts.starting():
    pass
{late}
with interrupts.ending():
    pass
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, said)


def grown(path: Path) -> None:
    with path.open("ab") as handle:
        handle.write(b"more")


def touched(path: Path) -> None:
    os.utime(path, ns=(0, 0))


def replaced(path: Path) -> None:
    path.with_name("new").write_bytes(path.read_bytes())
    os.replace(path.with_name("new"), path)


@pytest.mark.parametrize("change", [grown, touched, replaced, Path.unlink], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", seldom(["pan.tif", "ms.tif"], ["ms.tif"]))
def test_an_input_that_changes_while_it_is_read_is_noticed(scene: Path, run, monkeypatch, name: str, change) -> None:
    finish = SceneWriter.finish
    monkeypatch.setattr(SceneWriter, "finish", lambda writer: (change(scene / name), finish(writer))[1])
    result = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *EXP, "--report", "r.json")
    assert (result.code, len(result.errors)) == (1, 1)
    assert f"{name} changed while it was read" in result.err
    assert names_in(scene) | {name} == {"pan.tif", "ms.tif", "w.safetensors"}


def test_a_source_of_a_vrt_is_watched_and_evaluate_watches_as_well(scene: Path, run, monkeypatch) -> None:
    raster_copy(scene / "ms.tif", scene / "ms.vrt", driver="VRT")
    assert run("fuse", "pan.tif", "ms.vrt", "-o", "out.tif", *EXP).code == 0
    scored = assess.full_resolution
    monkeypatch.setattr(assess, "full_resolution", lambda *a: (touched(scene / "ms.tif"), scored(*a))[1])
    result = run("evaluate", "out.tif", "--pan", "pan.tif", "--ms", "ms.vrt", "--report", "r.json")
    assert (result.code, result.out) == (1, "")
    assert "ms.tif changed while it was read" in result.err
    assert not (scene / "r.json").exists()


@pytest.mark.parametrize("command", ["fuse pan.tif ms.tif -o out.tif --method exp",
                                     "check pan.tif ms.tif --method exp",
                                     "evaluate old.tif --pan pan.tif --ms ms.tif"])  # fmt: skip
def test_a_file_cut_off_while_it_is_read_ends_the_run(scene: Path, run, monkeypatch, command: str) -> None:
    with rasterio.open(scene / "pan.tif") as dataset:
        pixels, profile = dataset.read(), dataset.profile | {"compress": None, "tiled": False, "blockysize": 8}
    with rasterio.open(scene / "pan.tif", "w", **{k: v for k, v in profile.items() if k != "blockxsize"}) as dataset:
        dataset.write(pixels)
    assert run("fuse", "pan.tif", "ms.tif", "-o", "old.tif", *EXP).code == 0
    read, calls = Scene.read, []

    def read_and_cut(self, *args, **how):
        calls.append(args)
        if len(calls) == 1:
            os.truncate(scene / "pan.tif", 20_000)
        return read(self, *args, **how)

    monkeypatch.setattr(Scene, "read", read_and_cut)
    result = run(*command.split())
    if command.startswith("check"):
        assert (result.code, result.errors) == (0, [])
        assert "fuse fails here: cannot read pan.tif" in result.out
    else:
        assert (result.code, result.out, len(result.errors)) == (1, "", 1)
        assert "pan.tif" in result.err
    assert names_in(scene) == {"pan.tif", "ms.tif", "w.safetensors", "old.tif"}


def test_a_read_error_while_scoring_is_no_warning(scene: Path, run, monkeypatch) -> None:
    def fail(*_):
        raise ReadError("cannot read pan.tif: the cable is out")

    monkeypatch.setattr(assess, "full_resolution", fail)
    result = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", *EXP)
    assert (result.code, result.err) == (1, "error: cannot read pan.tif: the cable is out\n")
    assert not (scene / "out.tif").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_only_be_read(scene: Path, run) -> None:
    (scene / "closed").mkdir(mode=0o555)
    result = run("fuse", "pan.tif", "ms.tif", "-o", "closed/out.tif", *EXP)
    assert (result.code, len(result.errors)) == (2, 1)
    assert "cannot write closed/out.tif" in result.err


# Streams ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a shell and /dev/full")
@pytest.mark.parametrize(
    ("arguments", "closed", "code"),
    [
        ("fuse pan.tif ms.tif -o out.tif --method exp --no-score", ">&-", 1),
        ("fuse pan.tif ms.tif -o out.tif --method exp --no-score -q", ">&- 2>&- <&-", 0),
        ("fuse pan.tif ms.tif -o out.tif --method exp --no-score --dtype uint8", "> /dev/null 2> /dev/full", 0),
        ("evaluate old.tif --pan pan.tif --ms ms.tif --report page.html", ">&-", 1),
        ("evaluate old.tif --pan pan.tif --ms ms.tif --csv", "> /dev/full", 1),
        ("weights list", ">&- 2>&-", 1),
        ("train --print-config", "> /dev/full", 1),
    ],
)
def test_a_result_that_cannot_be_printed_is_none(scene: Path, run, arguments: str, closed: str, code: int) -> None:
    assert run("fuse", "pan.tif", "ms.tif", "-o", "old.tif", "--method", "exp", "--no-score", "-q").code == 0
    shell = f"exec {sys.executable} -m pansharpen_cli {arguments} {closed}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", shell], env=environment, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    if "2>" not in closed:
        written = next((name for name in ("out.tif", "page.html") if name in arguments), None)
        (told,) = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
        assert told.startswith(
            f"error: {written} is written; the report on it cannot be printed: stdout: "
            if written
            else "error: stdout: "
        )
    if (
        arguments.startswith("fuse") and "--dtype" not in arguments
    ):  # no file that was opened has taken the place of a stream
        assert (scene / "out.tif").read_bytes() == (scene / "old.tif").read_bytes()


# Memory of an accelerator -------------------------------------------------------------------------------------------


class Scarce:
    """A network's `extract` that fails a number of times on what is larger than `room`, and notes all it is given."""

    def __init__(self, extract, failures: int, room: int) -> None:
        self.extract, self.failures, self.room, self.seen = extract, failures, room, list[int]()

    def __deepcopy__(self, memo) -> Scarce:
        return self

    def __call__(self, encoded: torch.Tensor) -> torch.Tensor:
        self.seen.append(max(encoded.shape[-2:]))
        if self.failures > 0 and self.seen[-1] > self.room:
            self.failures -= 1
            raise fusers.OutOfMemory("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return self.extract(encoded)


def fused_with(folder: Path, monkeypatch, failures: int = 0, room: int = 0) -> tuple[np.ndarray, list[int], list[str]]:
    """The pixels of a fuser that stands for one on an accelerator, the sizes it was given, and the warnings."""
    options = Options(weights=str(folder / "w.safetensors"), adapt="off", precision="float32")
    monkeypatch.setattr(fit, "LOADED", {})
    with Scene.open(folder / "pan.tif", [folder / "ms.tif"]) as scene:
        fuser = fit.fit(scene, options).fuser
        assert isinstance(fuser, fusers.NetworkFuser)
        fuser.on_cpu = False
        scarce = Scarce(fuser.backbone.extract, failures, room)
        monkeypatch.setattr(fuser.backbone, "extract", scarce)
        pixels = loop.fuse_array(scene, fuser, 128)[0]
        assert fuser.on_cpu == any("CPU" in note for note in scene.warnings)
        return pixels, scarce.seen, list(scene.warnings)


def test_too_little_memory_means_smaller_parts(scene: Path, monkeypatch) -> None:
    expected, sizes, notes = fused_with(scene, monkeypatch)
    assert (notes, min(sizes) > 60) == ([], True)
    pixels, sizes, notes = fused_with(scene, monkeypatch, 1000, room=170)
    np.testing.assert_array_equal(pixels, expected)
    assert notes == ["cpu ran out of memory: it was given smaller parts"]
    assert max(sizes[1:]) <= 170 < sizes[0]


def test_far_too_little_memory_means_the_cpu(scene: Path, monkeypatch) -> None:
    expected, whole, _ = fused_with(scene, monkeypatch)
    pixels, sizes, notes = fused_with(scene, monkeypatch, 2)
    np.testing.assert_array_equal(pixels, expected)
    # tiles at a border are a little smaller, and which of two comes first is chance
    assert {sizes[0], sizes[2]} <= set(whole[:3]) and sizes[1] < min(whole[:3])
    assert notes == [
        "cpu ran out of memory: it was given smaller parts",
        "cpu ran out of memory: what was left was fused on the CPU",
    ]
    with pytest.raises(fusers.OutOfMemory):
        fused_with(scene, monkeypatch, 3)


@pytest.mark.slow
def test_too_little_memory_for_the_adaptation_means_the_cpu(made: Path, scene: Path, run, monkeypatch) -> None:
    write_pair(scene, 320, 320, 3)
    arguments = ("fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--weights", "w.safetensors", "--precision", "float32")
    assert run(*arguments, "--no-score", "--overwrite").code == 0
    expected = (scene / "out.tif").read_bytes()
    adapt, failures = tailor.adapt, [1]

    def scarce(*args, **kwargs):
        if failures:
            failures.pop()
            raise fusers.OutOfMemory("CUDA out of memory")
        return adapt(*args, **kwargs)

    monkeypatch.setattr(tailor, "adapt", scarce)
    result = run(*arguments, "--no-score", "--overwrite", "--json")
    assert result.code == 0
    warned, *_ = result.err.splitlines()  # random weights are doubtful, too
    assert warned == "warning: cpu ran out of memory while adapting: the CPU did all"
    assert json.loads(result.out)["method"]["device"] == "cpu"
    assert (scene / "out.tif").read_bytes() == expected
    failures += [1, 1]
    result = run(*arguments, "--no-score", "--overwrite")
    assert (result.code, result.errors) == (1, ["error: out of memory; try a smaller --tile-size"])
    assert (scene / "out.tif").read_bytes() == expected


# Untrusted files ----------------------------------------------------------------------------------------------------


def test_nothing_is_unpickled_but_weights() -> None:
    """No pickle, no eval; every torch.load says weights_only=True."""
    loads = 0
    for path in Path(pansharpen_cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                roots = {n.split(".")[0] for n in names}
                assert not roots & {"cPickle", "dill", "joblib", "shelve", "marshal", "yaml"}, path
                assert isinstance(node, ast.Import) or "pickle" not in roots, path
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "__import__", "torch.jit.load", "torch.hub.load"}, path
            assert not called.startswith(("pickle.load", "pickle.Unpickler", "np.load", "numpy.load")), path
            if called == "torch.load":
                loads += 1
                only = {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only")
                assert only == "True", f"{path}:{node.lineno}"
    assert loads >= 2


def with_header(path: Path, header: bytes, length: int | None = None, body: bytes = b"") -> None:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)


def rewritten(path: Path, change: Callable[[dict], object], config: dict | None = None, network="glpnet") -> None:
    state = load_file(path)
    change(state)
    save_file(state, path, {"network": network, "config": json.dumps(NETWORK if config is None else config)})


def first(state: dict) -> str:
    return sorted(state)[0]


MALFORMED: dict[str, Callable[[Path], object]] = {
    "a huge header": lambda p: with_header(p, b"{}", 1 << 62),
    "a header beyond the file": lambda p: with_header(p, b"{}", 1 << 20),
    "a header that is no JSON": lambda p: with_header(p, b"x" * 64),
    "a deep header": lambda p: with_header(p, b'{"a":' * 40_000 + b"1" + b"}" * 40_000),
    "tensors beyond the file": lambda p: with_header(
        p, b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,399999999996]}}'
    ),
    "shapes that overflow": lambda p: with_header(
        p, b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'
    ),
    "overlapping tensors": lambda p: with_header(
        p,
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        body=bytes(4),
    ),
    "metadata of another kind": lambda p: with_header(p, b'{"__metadata__":[1,2]}'),
    "wrong shapes": lambda p: rewritten(p, lambda s: s.update({first(s): torch.zeros(2, 2)})),
    "a tensor too many": lambda p: rewritten(p, lambda s: s.update(extra=torch.zeros(2))),
    "a tensor too few": lambda p: rewritten(p, lambda s: s.pop(first(s))),
    "integers": lambda p: rewritten(p, lambda s: s.update({first(s): s[first(s)].long()})),
    "complex numbers": lambda p: rewritten(p, lambda s: s.update({first(s): s[first(s)].to(torch.complex64)})),
    "eight-bit floats": lambda p: rewritten(p, lambda s: s.update({first(s): s[first(s)].to(torch.float8_e4m3fn)})),
    "NaN": lambda p: rewritten(p, lambda s: s[first(s)].fill_(torch.nan)),
    "values beyond float32": lambda p: rewritten(
        p, lambda s: s.update({first(s): torch.full_like(s[first(s)], 1e300, dtype=torch.float64)})
    ),
    "a network of a billion features": lambda p: rewritten(p, lambda s: None, {"features": 10**9, "blocks": 1}),
    "a network of many gigabytes": lambda p: rewritten(p, lambda s: None, {"features": 30_000, "blocks": 4}),
    "a network of a billion blocks": lambda p: rewritten(p, lambda s: None, {"features": 8, "blocks": 10**9}),
    "a negative size": lambda p: rewritten(p, lambda s: None, {"features": -8, "blocks": 1}),
    "an option that is none": lambda p: rewritten(p, lambda s: None, {"__class__": 1}),
    "a truth value": lambda p: rewritten(p, lambda s: None, {"features": True, "blocks": 1}),
    "a size of 4000 digits": lambda p: rewritten(p, lambda s: None, {"features": 10**4000}),
}


UNMEASURED = ("--adapt", "off", "--align", "off", "--mtf", "sensor")


@pytest.mark.parametrize("spoil", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_weights_are_refused_in_one_line(scene: Path, run, spoil: Callable[[Path], object]) -> None:
    spoil(scene / "w.safetensors")
    before = names_in(scene)
    result = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--weights", "w.safetensors", *UNMEASURED)
    assert (result.code, result.out, len(result.errors)) == (2, "", 1), result.err
    assert "w.safetensors" in result.errors[0]
    assert len(result.errors[0]) < 600
    assert names_in(scene) == before
    assert run("weights", "verify", "w.safetensors").code == 1


MANIFESTS = {
    "no TOML": "[[[",
    "a list": "w = [1]",
    "no file": '[w]\nnetwork = "glpnet"\nsha256 = ""',
    "a file that is no text": '[w]\nfile = 3\nnetwork = "glpnet"\nsha256 = ""',
    "a config that is none": '[w]\nfile = "w.safetensors"\nnetwork = "glpnet"\nsha256 = "SHA"\nconfig = "x"',
    "a config of words": '[w]\nfile = "w.safetensors"\nnetwork = "glpnet"\nsha256 = "SHA"\nconfig = {features = "8"}',
    "a network that is no text": '[w]\nfile = "w.safetensors"\nnetwork = ["glpnet"]\nsha256 = "SHA"',
    "a hash that is no text": '[w]\nfile = "w.safetensors"\nnetwork = "glpnet"\nsha256 = 3',
    "a NUL in the name": '[w]\nfile = "w\\u0000.safetensors"\nnetwork = "glpnet"\nsha256 = ""',
    "bands of a wrong kind": '[w]\nfile = "w.safetensors"\nnetwork = "glpnet"\nsha256 = "SHA"\nconfig = {bands = [4]}',
    "a scale of a wrong kind": '[w]\nfile = "w.safetensors"\nnetwork = "glpnet"\nsha256 = "SHA"\nscale = "big"',
}


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_malformed_manifests_are_refused_in_one_line(scene: Path, run, monkeypatch, text: str) -> None:
    digest = weights.sha256_of(scene / "w.safetensors")
    (scene / "manifest.toml").write_text(text.replace("SHA", digest))
    result = run("fuse", "pan.tif", "ms.tif", "-o", "out.tif", "--weights", "w.safetensors", "--adapt", "off")
    if result.code == 0:  # the entry is of another file
        assert "NUL" in text or "\\u0000" in text
        return
    assert (result.code, result.out, len(result.errors)) == (2, "", 1), result.err
    monkeypatch.setattr(weights, "folder", lambda: scene)
    for command in ("weights list", "weights verify", "weights show w"):
        listed = run(*command.split())
        assert "Traceback" not in listed.err and "unexpected" not in listed.err, listed.err


def test_a_checkpoint_that_is_no_plain_data_is_not_resumed(tmp_path: Path) -> None:
    """The trap of tests/test_weights.py for the checkpoint of a training."""
    from pansharpen_cli.errors import InputError
    from pansharpen_cli.training.train import State

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    content = io.BytesIO()
    torch.save({"identity": Trap()}, content)
    (tmp_path / "c").write_bytes(content.getvalue())
    network = models.create("glpnet", NETWORK)
    state = mock.Mock(spec=State, network=network)
    with pytest.raises(InputError, match="not a checkpoint"):
        State.resume(state, tmp_path / "c", "{}")
    assert not (tmp_path / "sprung").exists()


if __name__ == "__main__":
    signal_server(sys.argv[1])
