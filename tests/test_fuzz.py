"""Mutated files into the command line: one line and an exit code, or a file that is complete; no crash, no hang.

PANSHARPEN_FUZZ_SECONDS and PANSHARPEN_FUZZ_SEED make a longer run and another one; a failure names its case, and
`python tests/test_fuzz.py SEED CASE` runs that one alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SECONDS = float(os.environ.get("PANSHARPEN_FUZZ_SECONDS", "15"))
SEED = int(os.environ.get("PANSHARPEN_FUZZ_SEED", "0"))
LIMIT = 60
"""Seconds for one case; on an idle machine it takes a tenth of one."""
MEMORY = 2 << 30
"""Bytes that the process may have used at most in the end."""

FILES = ("pan.tif", "ms.tif", "w.safetensors", "manifest.toml")
NUMBERS = (0, 1, 2, 3, 7, 8, 16, 255, 256, 32767, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of TIFF's types."""


def entries_of(data: bytes) -> list[int]:
    """Where the entries of a classic little-endian TIFF's directories begin."""
    found, at = [], struct.unpack_from("<I", data, 4)[0]
    while at and at + 2 < len(data) and len(found) < 1000:
        count = struct.unpack_from("<H", data, at)[0]
        found += [at + 2 + 12 * i for i in range(count) if at + 14 + 12 * i <= len(data)]
        after = at + 2 + 12 * count
        at = struct.unpack_from("<I", data, after)[0] if after + 4 <= len(data) else 0
    return found


def flipped(data: bytearray, rng: random.Random, first: int, last: int) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        data[rng.randrange(first, max(first + 1, last))] ^= 1 << rng.randrange(8)
    return data


def tagged(data: bytearray, rng: random.Random) -> bytearray:
    """Other values, types, counts or tag numbers in some of the entries."""
    entries = entries_of(bytes(data))
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.choice(entries)
        tag, kind, count = struct.unpack_from("<HHI", data, at)
        how = rng.randrange(6)
        if how == 0:
            struct.pack_into("<H", data, at + 2, rng.choice((0, *SIZES, 99)))
        elif how == 1:
            struct.pack_into("<I", data, at + 4, rng.choice(NUMBERS))
        elif how == 2:
            struct.pack_into("<H", data, at, rng.choice((256, 257, 258, 259, 262, 277, 284, 317, 322, 323, 339, 0)))
        elif how == 3:
            other = rng.choice(entries)
            data[at + 8 : at + 12], data[other + 8 : other + 12] = data[other + 8 : other + 12], data[at + 8 : at + 12]
        elif SIZES.get(kind, 1) * count <= 4:
            struct.pack_into("<I", data, at + 8, rng.choice(NUMBERS))
        else:
            place = struct.unpack_from("<I", data, at + 8)[0]
            if kind == 12 and place + 8 * count <= len(data):
                value = rng.choice((0.0, -1.0, 1e-300, 1e300, float("nan"), float("inf"), rng.uniform(-1e7, 1e7)))
                struct.pack_into("<d", data, place + 8 * rng.randrange(count), value)
            elif place + 4 <= len(data):
                struct.pack_into("<I", data, min(place + 4 * rng.randrange(count), len(data) - 4), rng.choice(NUMBERS))
    return data


def cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.choice((0, 1, 8, 100, rng.randrange(len(data)), len(data) - rng.randrange(1, 200)))]


def spliced(data: bytearray, rng: random.Random) -> bytearray:
    at, length = rng.randrange(len(data)), rng.choice((1, 2, 16, 500))
    if rng.random() < 0.5:
        del data[at : at + length]
    else:
        data[at:at] = rng.randbytes(length)
    return data


def mutated(name: str, content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    tiff = name.endswith(".tif")
    how = rng.randrange(6)
    if how in (0, 1) and tiff:
        return bytes(tagged(data, rng))
    if how == 2:
        return bytes(cut(data, rng))
    if how == 3:
        return bytes(spliced(data, rng))
    head = min(len(data), 700)
    return bytes(flipped(data, rng, 0, head) if how == 4 else flipped(data, rng, 0, len(data)))


def base_files(folder: Path) -> list[dict[str, bytes]]:
    """Pairs of several layouts, and weights with their manifest, by the name that they have in a case."""
    import numpy as np
    import rasterio
    import torch
    from safetensors.torch import save_file

    from pansharpen_cli import models
    from pansharpen_cli.training import simulate

    made = simulate.simulate(simulate.Simulation(80, 80, 3, offset=(0.4, 1.3), border=6.0))
    generator = torch.Generator().manual_seed(1)
    config = {"features": 4, "blocks": 1}
    state = models.create("glpnet", config).state_dict()
    save_file(
        {k: 0.1 * torch.randn(v.shape, generator=generator) for k, v in state.items()},
        folder / "w",
        {"network": "glpnet", "config": json.dumps(config)},
    )
    import hashlib

    weights = (folder / "w").read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    card = f'[w]\nfile = "w.safetensors"\nnetwork = "glpnet"\nconfig = {json.dumps(config).replace(":", " =")}\n'
    manifest = (
        card.replace('"features"', "features").replace('"blocks"', "blocks") + f'sha256 = "{digest}"\n'
    ).encode()
    layouts = (
        ({"compress": "deflate", "tiled": True, "blockxsize": 32, "blockysize": 48, "predictor": 2}, "uint16", 0),
        ({"blockysize": 5}, "int16", None),
        (
            {"compress": "lzw", "interleave": "pixel", "tiled": True, "blockxsize": 16, "blockysize": 16},
            "float32",
            None,
        ),
        ({"compress": "packbits", "photometric": "rgb"}, "uint8", 0),
    )
    bases = []
    for profile, dtype, nodata in layouts:
        files = {"w.safetensors": weights, "manifest.toml": manifest}
        for name, image, transform in (
            ("pan.tif", made.pan[None], made.pan_transform), ("ms.tif", made.ms, made.ms_transform)
        ):  # fmt: skip
            pixels = (image // 16 if dtype == "uint8" else image).astype(dtype)
            own = {k: v for k, v in profile.items() if len(pixels) == 3 or k != "photometric"}
            with rasterio.open(
                folder / name, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2],
                dtype=dtype, crs=made.crs, transform=transform, nodata=nodata, **own,
            ) as target:  # fmt: skip
                target.write(np.ascontiguousarray(pixels))
                target.update_tags(ACQUISITION="2020-02-02", SENSOR="none")
            files[name] = (folder / name).read_bytes()
        bases.append(files)
    return bases


COMMANDS = (
    "fuse pan.tif ms.tif -o out.tif --method exp --no-score",
    "fuse pan.tif ms.tif -o out.tif --method exp --tile-size 64",
    "fuse pan.tif ms.tif -o out.tif --method gsa --driver COG --report r.json --quicklook q.png",
    "fuse pan.tif ms.tif -o out.tif --method none --extent pan --dtype float32",
    "fuse pan.tif ms.tif -o out.tif --weights w.safetensors --adapt off --precision float32",
    "evaluate out0.tif --pan pan.tif --ms ms.tif --report r.json --map maps",
    "weights verify w.safetensors",
)


class Harness:
    """Runs cases of a seed in this process and a folder of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        from pansharpen_cli.cli import app
        from pansharpen_cli.jobs import (
            fuse,  # noqa: F401 - all that is heavy
        )

        self.cli, self.seed, self.folder = app, seed, folder / "case"
        self.bases = base_files(folder)
        for files in self.bases:
            self.place(files)
            assert self.command(COMMANDS[0])[0] == 0
            files["out0.tif"] = (self.folder / "out.tif").read_bytes()

    def place(self, files: dict[str, bytes]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        os.chdir(self.folder)
        for name, content in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)

    def command(self, line: str) -> tuple[object, str, str]:
        """Exit code, stdout and stderr, also what C code writes to it."""
        sys.argv = ["pansharpen", *line.split()]
        code: object = None
        out, saved = io.StringIO(), os.dup(2)
        with tempfile.TemporaryFile() as caught:
            os.dup2(caught.fileno(), 2)
            try:
                with contextlib.redirect_stdout(out), open(os.dup(2), "w") as err, contextlib.redirect_stderr(err):
                    self.cli.main()
            except SystemExit as stop:
                code = stop.code
            finally:
                os.dup2(saved, 2)
                os.close(saved)
            caught.seek(0)
            return code, out.getvalue(), caught.read().decode(errors="replace")

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """Ends the process if a case takes too long."""
        signal.alarm(LIMIT)
        try:
            yield
        finally:
            signal.alarm(0)

    def case(self, number: int) -> tuple[str, list[str]]:
        """What was run and what is wrong with how it ended."""
        rng = random.Random(f"{self.seed} {number}")
        files, line = dict(rng.choice(self.bases)), rng.choice(COMMANDS)
        used = [name for name in (*FILES, "out0.tif") if name in line or name == "manifest.toml" and "w.safe" in line]
        if rng.random() < 0.5:
            files.pop("manifest.toml")  # whose hash would find every change
        for name in rng.sample(used, rng.choice((1, 1, 1, 2)) if len(used) > 1 else 1):
            if name in files:
                files[name] = mutated(name, files[name], rng)
        self.place(files)
        with self.limited():
            code, out, err = self.command(line)
        return f"{line} -> {code} {err.strip()[-200:]}", self.faults(line, files, code, out, err)

    def faults(self, line: str, files: dict[str, bytes], code: object, out: str, err: str) -> list[str]:
        found = []
        left = {p.name for p in self.folder.iterdir()} - set(files)
        if code not in (0, 1, 2):
            found.append(f"exit code {code}")
        # rasterio itself says so where GDAL quotes bytes that are no UTF-8, libtiff where it cannot seek
        beside = ("warning: ", "UnicodeDecodeError: 'utf-8'", "_tiffSeekProc: ")
        errors = [text for text in err.splitlines() if not text.startswith(beside)]
        if "Traceback" in err or "error: unexpected" in err or len(errors) != (code != 0):
            found.append(f"stderr is {err!r}")
        if code == 0:
            if "out.tif" in left:
                found += self.unreadable("out.tif")
            elif line.startswith("fuse"):
                found.append("no output")
        elif left - {"r.json", "maps"} or (line.startswith("fuse") and left):
            found.append(f"{left} is left")
        if {name: (self.folder / name).read_bytes() for name in files} != files:
            found.append("the inputs have changed")
        return found

    def unreadable(self, name: str) -> list[str]:
        import rasterio

        try:
            with rasterio.open(self.folder / name) as dataset:
                dataset.read()
        except Exception as error:
            return [f"{name} is not readable: {error}"]
        return []


def peak_memory() -> int:
    """Bytes that this program has used at most; ru_maxrss of Linux counts those of the process that started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run_cases(seed: int, seconds: float, only: int | None, kind: Callable[[Path, int], Harness] = Harness) -> None:
    """Run cases for a time; a line of JSON before each, and a last one with what was found."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with tempfile.TemporaryDirectory(prefix="pansharpen-fuzz-") as folder:
        harness, found, codes = kind(Path(folder), seed), [], {}
        started, number = time.monotonic(), only or 0
        while (number == only) if only is not None else time.monotonic() - started < seconds:
            print(json.dumps({"case": number}), flush=True)
            what, faults = harness.case(number)
            codes[what.partition(" -> ")[2].split()[0]] = codes.get(what.partition(" -> ")[2].split()[0], 0) + 1
            found += [f"case {number}: {what}: {fault}" for fault in faults]
            if only is not None:
                print(what)
            number += 1
        os.chdir(folder)
        print(json.dumps({"done": number, "codes": codes, "found": found, "peak": peak_memory()}), flush=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits and alarms are POSIX")
def test_mutated_files_end_in_one_line_or_a_complete_output(tmp_path: Path) -> None:
    check_cases(__file__, tmp_path)


def check_cases(program: str, tmp_path: Path) -> None:
    """Run cases in a process of their own, as some end a process or stop it for ever."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, program, str(SEED), "", str(SECONDS)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS + 5 * LIMIT
    )
    lines = done.stdout.strip().splitlines()
    assert done.returncode == 0, f"seed {SEED}, {lines[-1:]} ended it with {done.returncode}: {done.stderr[-2000:]}"
    summary = json.loads(lines[-1])
    assert not summary["found"], "\n".join(summary["found"][:10])
    assert summary["done"] >= 10
    assert summary["peak"] < MEMORY


Mutation = Callable[[bytearray, random.Random], bytearray]


@pytest.mark.parametrize("change", [tagged, cut, spliced])
def test_mutations_change_files_and_are_repeatable(change: Mutation, tmp_path: Path) -> None:
    content = base_files(tmp_path)[0]["ms.tif"]
    made = [[bytes(change(bytearray(content), random.Random(seed))) for seed in range(9)] for _ in range(2)]
    assert made[0] == made[1] and len(set(made[0])) > 3
    assert content not in made[0]


def main(kind: Callable[[Path, int], Harness] = Harness) -> None:
    number = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2] else None
    run_cases(int(sys.argv[1]), float(sys.argv[3]) if len(sys.argv) > 3 else SECONDS, number, kind)


if __name__ == "__main__":
    main()
