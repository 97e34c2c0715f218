"""The first signal asks, the second ends, and the exit code is 130 whatever a library makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="blocks as Linux does")]

BLOCKED = """
import ctypes, sys
from pansharpen_cli import interrupts

interrupts.GRACE = float(sys.argv[1])
interrupts.handle(interrupts.raise_once)
interrupts.watch(lambda: print("cleared", flush=True))
mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)
print("blocked", flush=True)
lock(mutex)  # for ever, and no signal ends it
"""


def defaults() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def wait_until_blocked(pid: int) -> None:
    """Until the main thread sleeps: what it printed comes before the call that blocks."""
    asleep = 0
    while asleep < 5:
        state = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
        time.sleep(0.02)


@pytest.mark.parametrize(("grace", "signals"), [(0.2, 1), (600, 2)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_library_that_waits_for_ever_is_ended(grace: float, signals: int, number: int) -> None:
    command = [sys.executable, "-c", BLOCKED, str(grace)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=defaults
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "blocked\n"
        wait_until_blocked(process.pid)
        for k in range(signals):
            if k:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.5)
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "cleared\n", "error: interrupted\n")


@pytest.mark.parametrize(("again", "left"), [("lock(mutex)", 130), ("time.sleep(1)", 0)])
def test_an_interruption_that_a_library_loses_ends_one_that_waits_on(again: str, left: int) -> None:
    """One that is over before it has waited for long is no matter."""
    begin, _, _ = BLOCKED.rpartition("lock(mutex)")
    code = f"import time\n{begin}try:\n    time.sleep(60)\nexcept interrupts.Interrupted:\n    {again}\n"
    code = code.replace("GRACE = float(sys.argv[1])", "PATIENCE = 0.3 if sys.argv[1] == '130' else 60")
    command = [sys.executable, "-c", code, str(left)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=defaults
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "blocked\n"
        wait_until_blocked(process.pid)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    told = ("cleared\n", "error: interrupted\n") if left else ("", "")
    assert (process.returncode, out, err) == (left, *told)


def test_little_is_imported_before_signals_are_seen_to() -> None:
    """What comes first takes longer on a busy machine, and Python's own handler prints a traceback until then."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pansharpen_cli import interrupts; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not {"typing", "importlib", "inspect", "subprocess"} & set(done.stdout.split())


LOST = """
import os, signal
from pansharpen_cli import errors
from pansharpen_cli.cli import app as cli

def app(**_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        {then}

cli.app = app
cli.main()
"""


@pytest.mark.parametrize(
    "then", ["return 0", "raise errors.InputError('cannot open x')", "raise ValueError", "raise SystemError from None"]
)
def test_what_a_library_makes_of_the_first_signal_is_an_interruption(then: str) -> None:
    command = [sys.executable, "-c", LOST.format(then=then)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=defaults)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


IN_A_CALLBACK = """
import logging, os, signal, sys
from pansharpen_cli.cli import app as cli

asked = []

def once(record):
    if not asked:
        asked.append(record)
        os.kill(os.getpid(), signal.SIGTERM)

logging.getLogger("rasterio._env").addFilter(once)
sys.argv = ["pansharpen", "check", *sys.argv[1:]]
cli.main()
"""


def test_a_signal_within_a_callback_of_gdal_prints_no_traceback(tmp_path: Path) -> None:
    paths = [tmp_path / "pan.tif", tmp_path / "ms.tif"]
    for path in paths:
        path.write_bytes(b"II*\0")
    command = [sys.executable, "-c", IN_A_CALLBACK, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=defaults)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


AT_THE_END = """
import atexit
from pansharpen_cli import __main__, interrupts
from pansharpen_cli.cli import app as cli

def app(**_):
    print("partly")
    interrupts.raise_once()

atexit.register(print, "Python ends by and by")
cli.app = app
__main__.main()
"""


def test_an_interrupted_run_leaves_nothing_for_a_second_signal_to_meet() -> None:
    command = [sys.executable, "-c", AT_THE_END]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=defaults)
    assert (done.returncode, done.stdout, done.stderr) == (130, "partly\n", "error: interrupted\n")


@pytest.mark.parametrize("how", ["interrupts.leave()", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"])
def test_a_stderr_that_takes_nothing_keeps_no_signal_from_ending(how: str) -> None:
    code = "import os, signal, sys, time\nfrom pansharpen_cli import interrupts\ninterrupts.handle(interrupts.leave)\n"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code + how], cwd=ROOT, stderr=write, preexec_fn=defaults, timeout=30)
    os.close(write)
    assert done.returncode == 130


AHEAD = """
import os, signal, sys
from multiprocessing import forkserver
from pansharpen_cli import __main__, interrupts
from pansharpen_cli.archive import workers

sys.argv[1:] = ["--version"]
interrupts.handle(interrupts.leave)
workers.start_ahead("takes_long")
pid = forkserver._forkserver._forkserver_pid
blocked = open(f"/proc/{pid}/status").read().partition("SigBlk:")[2].split()[0]
print([number.name for number in interrupts.SIGNALS if not int(blocked, 16) >> number - 1 & 1], flush=True)
"""


@pytest.mark.parametrize("then", ["__main__.main()", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_what_workers_are_made_of_ends_with_the_program_and_not_before(tmp_path: Path, then: str) -> None:
    """While it imports, it would listen to no one, hold stderr open, and print a traceback of Ctrl-C."""
    (tmp_path / "takes_long.py").write_text("import time; time.sleep(60)")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    command = [sys.executable, "-c", AHEAD + then]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=defaults
    ) as process:
        out, _ = process.communicate(timeout=30)
    assert out.splitlines()[0] == "[]" and process.returncode == (0 if "main" in then else 130)


def test_a_forked_process_listens_for_itself(tmp_path: Path) -> None:
    code = (
        "import os, signal, time; from pansharpen_cli import interrupts\n"
        "interrupts.handle(interrupts.raise_once); interrupts.watch(lambda: None)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "    for _ in range(3): os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0); time.sleep(0.3)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ).returncode == 0


def test_a_signal_that_a_training_acts_on_ends_it_in_its_own_time() -> None:
    """Longer than one may go unheard; the next run counts its signals anew."""
    code = (
        "import os, signal, time; from pansharpen_cli import interrupts\n"
        "interrupts.GRACE = 0.3\n"
        "interrupts.handle(interrupts.raise_once); interrupts.watch(lambda: None)\n"
        "for run in range(2):\n"
        "    interrupts.handle(interrupts.raise_once)\n"
        "    with interrupts.deferred() as stop:\n"
        "        os.kill(os.getpid(), signal.SIGINT); time.sleep(1.0)\n"
        "    assert stop == [signal.SIGINT]\n"
        "print('done')\n"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=defaults)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
