"""What all tests share."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache

import pytest
import typer.main
from hypothesis import HealthCheck, settings

from pansharpen_cli.cli import app


def pytest_configure(config) -> None:
    gc.disable()  # until all is imported
    # rasterio itself still multiplies transforms with *
    config.addinivalue_line("filterwarnings", "ignore:Use `@` matmul:PendingDeprecationWarning")
    if "PYTEST_XDIST_WORKER" in os.environ:  # there is a worker for each core
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read as numpy is imported; its threads wait actively
        import torch  # not before the package, which says how its threads wait

        torch.set_num_threads(1)
        os.fsync = lambda handle: None  # what tests write need not outlast a power cut
    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")  # a busy machine is no fault
    typer.main.get_command = cache(typer.main.get_command)  # once, not for each of a thousand runs
    if "PANSHARPEN_TESTS" not in os.environ:  # what the processes of a run share (`rasters.once`)
        os.environ["PANSHARPEN_TESTS"] = tempfile.mkdtemp(prefix="pansharpen-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop("PANSHARPEN_TESTS")))


def pytest_collection_finish() -> None:
    gc.freeze()  # modules stay to the end, and looking through them takes a fifth of a second each time
    gc.enable()


@dataclass(frozen=True)
class Finished:
    """How a run of the command line ended: exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that are no warnings."""
        return [line for line in self.err.splitlines() if not line.startswith("warning: ")]


@pytest.fixture
def run(monkeypatch, capfd) -> Callable[..., Finished]:
    """Runs `pansharpen` with arguments inside this process; what GDAL itself writes to stderr is caught, too."""

    def run(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["pansharpen", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            app.main()
        assert isinstance(stop.value.code, int)
        return Finished(stop.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def still(monkeypatch) -> None:
    """Nothing is measured of the registration: that is for its own tests."""
    from rasters import STILL  # not in the process that starts the others

    from pansharpen_cli.fusion import register

    def found(scene, seed=0, progress=None):
        return replace(STILL, bands=STILL.bands[:1] * scene.bands)

    monkeypatch.setattr(register, "measure", found)


@pytest.fixture
def measured(still, monkeypatch) -> None:
    """The registration is measured in this test, of a file whose others are `still`."""
    from rasters import MEASURE

    monkeypatch.setattr("pansharpen_cli.fusion.register.measure", MEASURE)


@pytest.fixture
def listener() -> Iterator[int]:
    """The port of a server on this machine that accepts and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]
