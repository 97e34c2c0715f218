"""A batch on a Dask cluster of processes of this machine, one of which is killed, and one of which hangs."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pansharpen_cli.fusion.options import Options

pytest.importorskip("distributed", reason="needs the extra distributed")

from distributed import LocalCluster
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from rasters import write_pair

from pansharpen_cli.archive import batch, batch_log, cluster, pairs, planning
from pansharpen_cli.archive.batch import Choices
from pansharpen_cli.archive.workers import Event
from pansharpen_cli.errors import InputError, PansharpenError
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.report.facts import Record

pytestmark = pytest.mark.slow

CHOICES = Choices(Options(method="gsa"), OpenOptions("generic"))


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster of three worker processes."""
    with LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as local:
        yield local.scheduler_address


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    for i in range(8):
        write_pair(folder / f"s{i}", 128, 128, 4, seed=i)
    return folder


def test_scenes_of_a_worker_that_is_killed_are_done_by_the_others(scheduler, scenes: Path, tmp_path: Path) -> None:
    from distributed import Client

    tasks = planning.plan(pairs.find([str(scenes)]).found, tmp_path, CHOICES)
    with Client(scheduler, set_as_default=False) as client:
        pids = client.run(os.getpid)
    killed: list[str] = []

    def watch(event: Event, tally: batch.Tally, record: Record | None) -> None:
        if event.kind == "started" and not killed and len(tally.done) >= 1:
            killed.append(str(event.worker))
            os.kill(pids[event.worker], signal.SIGKILL)

    tally = batch.run(tasks, tmp_path, cluster.execute(CHOICES, scheduler, None), watch=watch)
    assert len(killed) == 1 and tally.failed == []
    records = [json.loads(line) for line in (tmp_path / "batch.jsonl").read_text().splitlines()]
    assert sorted(r["scene"] for r in records) == sorted(t.scene for t in tasks) and len(tasks) == 8
    assert {r["status"] for r in records} == {"done"} and len({r["worker"] for r in records}) > 1
    assert all(t.output.is_file() and t.report.is_file() for t in tasks)


def test_a_worker_that_is_frozen_is_done_without(scenes: Path, tmp_path: Path, monkeypatch) -> None:
    """Also of its nanny nothing is heard: it would see to a worker that has ended only."""
    from distributed import Client

    for name, seconds in (("ASK_SECONDS", 0.5), ("SILENT_SECONDS", 10.0)):
        monkeypatch.setattr(cluster, name, seconds)
    tasks = planning.plan(pairs.find([str(scenes)]).found, tmp_path, CHOICES)
    kind: dict = {"processes": True, "dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(n_workers=2, threads_per_worker=1, **kind) as local:
        with Client(local.scheduler_address, set_as_default=False) as client:
            pids = client.run(os.getpid)
        frozen: list[str] = []

        def watch(event: Event, tally: batch.Tally, record: Record | None) -> None:
            if event.kind == "started" and not frozen:
                frozen.append(str(event.worker))
                os.kill(pids[event.worker], signal.SIGSTOP)

        begun = time.monotonic()
        try:
            tally = batch.run(tasks, tmp_path, cluster.execute(CHOICES, local.scheduler_address, 15), watch=watch)
            taken = time.monotonic() - begun
        finally:
            for address in frozen:
                os.kill(pids[address], signal.SIGKILL)
    assert taken < 100 and len(tally.done) >= len(tasks) - 1, "those that waited for it are done by the other one"
    for record in tally.failed:  # it may have been done before it was frozen
        assert record.refused and f"its worker, {frozen[0]}, does not answer any more" in (record.error or "")


def test_a_worker_that_sees_other_content_does_not_try_the_scene(
    scheduler, scenes: Path, tmp_path: Path, monkeypatch
) -> None:
    tasks = planning.plan(pairs.find([str(scenes)]).found, tmp_path, CHOICES)[:1]
    monkeypatch.setattr(planning, "fingerprint", lambda path: "0" * 64)
    (failed,) = batch.run(tasks, tmp_path, cluster.execute(CHOICES, scheduler, None)).failed
    assert failed.refused and "is another file on the worker" in (failed.error or "")


def test_a_scene_that_hangs_is_ended_and_one_that_fails_is_told(
    scheduler, listener: int, scenes: Path, tmp_path: Path, run
) -> None:
    (tmp_path / "list.csv").write_text(f"pan,ms,name\n/vsicurl/http://127.0.0.1:{listener}/pan.tif,ms.tif,hang\n")
    (tmp_path / "bad_pan.tif").touch()
    (tmp_path / "bad_ms.tif").touch()
    options = (
        "--method",
        "exp",
        "--no-score",
        "--scheduler",
        scheduler,
        "--timeout",
        12,
    )
    finished = run("batch", tmp_path / "list.csv", tmp_path, scenes / "s0", "-o", tmp_path / "out", *options)
    records = batch_log.read_log(tmp_path / "out")
    assert finished.code == 1
    assert {name: r.status for name, r in records.items()} == {
        "hang.tif": "failed", "bad.tif": "failed", "s0.tif": "done",
    }  # fmt: skip
    assert records["hang.tif"].error == "timed out after 12 s" and "0 bytes" in records["bad.tif"].error


def test_a_scheduler_that_does_not_answer_is_an_error(scenes: Path, tmp_path: Path, monkeypatch, run) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    finished = run("batch", scenes, "-o", tmp_path / "out", "--method", "exp", "--scheduler", "tcp://127.0.0.1:9")
    assert finished.code == 2 and "no Dask scheduler answers at tcp://127.0.0.1:9" in finished.errors[-1]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:{port}", "no Dask scheduler answers at tcp://127.0.0.1:{port}"),
        ("TCP://127.0.0.1:{port}", "no Dask scheduler answers at tcp://127.0.0.1:{port}"),
        ("tls://127.0.0.1:{port}", "tls://127.0.0.1:{port} needs certificates"),
        ("TLS://127.0.0.1:{port}", "tls://127.0.0.1:{port} needs certificates"),
        ("ucx://127.0.0.1:{port}", "Dask has no ucx here"),
        ("nonsense://127.0.0.1:{port}", "takes an address such as tcp://host:8786"),
        ("http://127.0.0.1:{port}", "takes an address such as tcp://host:8786"),
        ("127.0.0.1:99999", "there is no port 99999, only 1 to 65535"),
        ("a-name", "takes an address such as tcp://host:8786"),
    ],
)
def test_what_is_no_scheduler_is_refused_soon(
    address: str, words: str, listener: int, scenes: Path, tmp_path: Path, monkeypatch, run
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    if "no Dask scheduler" not in words:  # nothing is asked, so nothing is waited for
        monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
        monkeypatch.setattr(cluster, "within_seconds", lambda *_: pytest.fail("connected"))
    address = address.format(port=listener)
    finished = run("batch", scenes / "s0", "-o", tmp_path / "out", "--method", "exp", "--scheduler", address)
    assert finished.code == 2 and words.format(port=listener) in finished.errors[-1], finished.err


def test_a_worker_of_another_version_fuses_nothing(monkeypatch) -> None:
    plugin = cluster.Fuse("any", None, None)
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with pytest.raises(PansharpenError, match=r"tcp://a:1 has version 0.0.1 .* install the same"):
        plugin.setup(SimpleNamespace(address="tcp://a:1"))


@pytest.mark.parametrize(
    "kind",
    [TimeoutError("x"), FutureCancelledError("k", "r"), concurrent.futures.CancelledError(), OSError("CancelledError")],
)
def test_a_peer_that_says_nothing_is_called_so(listener: int, monkeypatch, kind: Exception) -> None:
    def give_up(*_, **__) -> None:
        raise kind

    monkeypatch.setattr(cluster, "within_seconds", give_up)
    with pytest.raises(InputError, match="nothing there speaks as one in time"):
        cluster.connected(f"tcp://127.0.0.1:{listener}")


def test_a_frame_without_end_is_told_in_our_words(listener: int, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "within_seconds", lambda *_, **__: struct.unpack_from("<Q", b""))
    with pytest.raises(InputError, match="what answers is no Dask"):
        cluster.connected(f"tcp://127.0.0.1:{listener}")


def test_a_server_of_another_protocol_is_told_from_a_lack_of_memory(monkeypatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 5)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    server.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Dask scheduler answers at {address}: what answers is no Dask"):
            cluster.connected(address)


CLUSTER = """
import sys, time
from distributed import LocalCluster
from pansharpen_cli.archive import cluster
fuse = cluster.fuse_task
cluster.fuse_task = lambda *given: (time.sleep(0.5), fuse(*given))[1]  # else all may be done before a worker has left
kind = {"processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": None}
with LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, **kind) as made:
    print(made.scheduler_address, flush=True)
    sys.stdin.readline()
    made.scale(0)
    time.sleep(1000)
"""


@contextmanager
def cluster_of(workers: int) -> Iterator[tuple[str, subprocess.Popen]]:
    """A cluster in one process, which loses its workers when it reads a line."""
    command = [sys.executable, "-c", CLUSTER, str(int(workers))]
    environment = os.environ | {"PYTHONPATH": str(Path(batch.__file__).parents[2])}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("fault", ["no worker", "the last worker", "stopped", "killed"])
def test_scenes_of_a_cluster_that_is_lost_are_done_by_the_next_run(
    fault: str, scenes: Path, tmp_path: Path, monkeypatch
) -> None:
    silent = 60.0 if "worker" in fault else 3.0  # a busy machine is silent, too
    for name, seconds in (("ASK_SECONDS", 0.1), ("SILENT_SECONDS", silent), ("WORKERLESS_SECONDS", 3.0)):
        monkeypatch.setattr(cluster, name, seconds)
    tasks = planning.plan(pairs.find([str(scenes)]).found, tmp_path, CHOICES)
    with cluster_of(fault != "no worker") as (address, process):

        def watch(event: Event, tally: batch.Tally, record: Record | None) -> None:
            if event.kind != "started" or len(tally.done) != 1:
                return
            if fault == "the last worker":
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            else:
                process.send_signal(signal.SIGSTOP if fault == "stopped" else signal.SIGKILL)

        words = "had no worker for 3 s" if "worker" in fault else "does not answer any more|was lost"
        with pytest.raises(cluster.Lost, match=f"({words}).* scenes are not done"):
            batch.run(tasks, tmp_path, cluster.execute(CHOICES, address, None), watch=watch)
    assert {r.status for r in batch_log.read_log(tmp_path).values()} <= {"done", "started"}
    done = batch.run(tasks, tmp_path, batch.local(CHOICES, 1, None, None))
    assert done.failed == [] and len(done.done) + done.before == len(tasks)


@pytest.mark.parametrize("error", [CommClosedError("Stream is closed"), FutureCancelledError("x", "y")])
def test_a_scheduler_that_is_lost_with_the_result_of_a_scene_is_told(error: Exception) -> None:
    def lost() -> None:
        raise error

    future: Any = SimpleNamespace(status="finished", result=lost)
    with pytest.raises(cluster.Lost, match="the Dask cluster was lost: 3 scenes are not done"):
        cluster.outcome_of(future, 3)


def test_a_scheduler_that_is_killed_is_told_in_one_line(scenes: Path, tmp_path: Path) -> None:
    """By the command itself: Dask writes its log, with tracebacks, to its stderr."""
    with cluster_of(1) as (address, process):
        command = [sys.executable, "-m", "pansharpen_cli", "batch", str(scenes), "-o", str(tmp_path / "out")]
        options = ["--method", "exp", "--no-score", "--scheduler", address]
        running = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        log = tmp_path / "out" / "batch.jsonl"
        while running.poll() is None and not (log.exists() and '"done"' in log.read_text()):
            time.sleep(0.1)
        process.kill()
        _, told = running.communicate(timeout=120)
    assert running.returncode == 1 and "Traceback" not in told, told
    assert "distributed" not in told and told.splitlines()[-1].startswith("error: the Dask "), told
