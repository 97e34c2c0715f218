"""`pansharpen train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..publish import file_named
from .options import AsJson, Debug, Device, Overwrite, Quiet, check_finite
from .printing import command_line, import_jobs
from .progress import ProgressBar, after, say_line

if TYPE_CHECKING:
    from ..training.settings import TrainingSettings

Sources = Annotated[list[str] | None, typer.Argument(metavar="SOURCE...")]


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained, and how."""

    network: str | None = None
    bands: Annotated[int | None, typer.Option(min=1)] = None
    start: Annotated[str | None, typer.Option("--from", metavar="WEIGHTS")] = None
    config: Path | None = None
    minutes: Annotated[float | None, typer.Option(min=0.0)] = None
    steps: Annotated[int | None, typer.Option(min=1)] = None
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1)] = None

    def settings(self) -> TrainingSettings:
        """Raises InputError for choices that do not go together."""
        from ..training import settings

        check_finite(minutes=self.minutes)
        if self.minutes is not None and self.steps is not None:
            raise InputError("--minutes and --steps exclude each other")
        chosen = settings.read(self.config) if self.config is not None else settings.TrainingSettings()
        return chosen.changed(
            network=self.network, bands=self.bands, start=self.start, seed=self.seed, minutes=self.minutes,
            steps=self.steps,
        )  # fmt: skip


@dataclass(frozen=True)
class Running:
    """How the training runs, and what it writes."""

    output: Annotated[Path | None, typer.Option("--output", "-o", parser=file_named, metavar="PATH")] = None
    print_config: Annotated[bool, typer.Option("--print-config")] = False
    validation: Annotated[list[str] | None, typer.Option(metavar="SOURCE")] = None
    resume: bool = True
    device: Device = "auto"
    threads: Annotated[int | None, typer.Option(min=1)] = None
    overwrite: Overwrite = False
    as_json: AsJson = False
    quiet: Quiet = False
    debug: Debug = False

    def tell(self, made: Mapping[str, Any]) -> None:
        """Print what the training made, and on stderr its warnings."""
        from ..report.files import to_json
        from ..training.train import summary

        for warning in () if self.quiet else made["warnings"]:
            say_line(f"warning: {warning}", err=True)
        with after(self.output):
            if self.as_json:
                say_line(to_json(made))
            elif not self.quiet:
                say_line(summary(made))


def train(choices: TrainingOptions, running: Running, sources: Sources = None) -> None:
    """Train a network on GeoTIFFs of your own and write its weights for `fuse --weights`."""
    from ..training import settings

    chosen = choices.settings()
    if running.print_config:
        say_line(settings.to_toml(chosen), nl=False)
        return
    if not sources or running.output is None:
        raise InputError("train needs scenes and --output, e.g. pansharpen train scenes -o my.safetensors")
    import_jobs()
    from ..training import train as training

    target = training.TrainingOutput(running.output, running.overwrite, running.resume, command_line())
    with ProgressBar(running.quiet, verbose=False) as progress:
        made = training.run(
            sources, running.validation or (), target, chosen, device=running.device, threads=running.threads,
            say=progress.say, progress=progress,
        )  # fmt: skip
    running.tell(made)
