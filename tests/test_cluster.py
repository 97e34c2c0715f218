"""A batch on a Dask cluster of processes of this machine, one of which is killed, and one of which hangs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="needs the extra distributed")

from distributed import LocalCluster

from pansharpen_cli import batch, cluster, pairs, simulate
from pansharpen_cli.batch import Choices
from pansharpen_cli.fuse import Options
from pansharpen_cli.pool import Event

CHOICES = Choices(Options(method="gsa"), {"sensor": "generic"})


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
        simulate.write_scene(simulate.simulate(simulate.Simulation(128, 128, 4, seed=i)), folder / f"s{i}")
    return folder


def test_scenes_of_a_worker_that_is_killed_are_done_by_the_others(scheduler, scenes: Path, tmp_path: Path) -> None:
    from distributed import Client

    tasks = batch.plan(pairs.find([str(scenes)]).found, tmp_path, CHOICES)
    with Client(scheduler, set_as_default=False) as client:
        pids = client.run(os.getpid)
    killed: list[str] = []

    def watch(event: Event, tally: batch.Tally, record: dict | None) -> None:
        if event.kind == "started" and not killed and len(tally.done) >= 1:
            killed.append(str(event.worker))
            os.kill(pids[event.worker], signal.SIGKILL)

    tally = batch.run(tasks, tmp_path, cluster.execute(CHOICES, scheduler, None), watch=watch)
    assert len(killed) == 1 and tally.failed == []
    records = [json.loads(line) for line in (tmp_path / "batch.jsonl").read_text().splitlines()]
    assert sorted(r["scene"] for r in records) == sorted(t.scene for t in tasks) and len(tasks) == 8
    assert {r["status"] for r in records} == {"done"} and len({r["worker"] for r in records}) > 1
    assert all(t.output.is_file() and t.report.is_file() for t in tasks)


def test_a_scene_that_hangs_is_ended_and_one_that_fails_is_told(scheduler, scenes: Path, tmp_path: Path, run) -> None:
    os.mkfifo(tmp_path / "hang_pan.tif")
    (tmp_path / "hang_ms.tif").touch()
    (tmp_path / "bad_pan.tif").touch()
    (tmp_path / "bad_ms.tif").touch()
    options = ("--method", "exp", "--no-score", "--scheduler", scheduler, "--timeout", 3)
    finished = run("batch", tmp_path, scenes / "s0", "-o", tmp_path / "out", *options)
    records = batch.read_log(tmp_path / "out")
    assert finished.code == 1
    assert {name: r["status"] for name, r in records.items()} == {
        "hang.tif": "failed", "bad.tif": "failed", "s0.tif": "done",
    }  # fmt: skip
    assert records["hang.tif"]["error"] == "timed out after 3 s" and "0 bytes" in records["bad.tif"]["error"]


def test_a_scheduler_that_does_not_answer_is_an_error(scenes: Path, tmp_path: Path, monkeypatch, run) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    finished = run("batch", scenes, "-o", tmp_path / "out", "--method", "exp", "--scheduler", "tcp://127.0.0.1:9")
    assert finished.code == 2 and "no Dask scheduler answers at tcp://127.0.0.1:9" in finished.errors[-1]
