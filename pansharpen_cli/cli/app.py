"""The command line: its commands, and how it ends. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
import re
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__, interrupts
from ..errors import PansharpenError, unforeseen
from ..untrusted import stay_offline
from .batch import batch, report
from .evaluate import evaluate
from .fuse import check, fuse
from .options import NUMBERS, bundled
from .progress import say_line
from .shell import (
    UsageError,
    check_folder,
    check_numbers,
    complain,
    plain_message,
    replace_closed_streams,
    takes_text,
    with_home,
)
from .train import train
from .weights import weights_app


class Commands(TyperGroup):
    """The commands, of which `batch report` has a name of two words."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """What `report` is the first word of, and names no folder to write to, is the report."""
        if args[:2] == ["batch", "report"] and not any(each.startswith(("-o", "--output")) for each in args):
            args = ["batch report", *args[2:]]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="pansharpen",
    cls=Commands,
    help="Fuse a panchromatic (PAN) and a multispectral (MS) GeoTIFF into one sharp multispectral GeoTIFF.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(shown: bool) -> None:
    if shown:
        say_line(f"pansharpen {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    interrupts.hide_lost()  # here, for Typer has set a hook of its own


for command in (fuse, check, evaluate, train, batch):
    app.command()(bundled(command))
app.command("batch report", hidden=True)(bundled(report, "batch report"))
app.add_typer(weights_app, name="weights")


def main() -> None:
    """Entry point: runs the app and turns every error into one line on stderr and an exit code."""
    interrupts.handle(interrupts.raise_once)
    interrupts.watch(_clear)
    debug = "--debug" in sys.argv
    if not debug:
        warnings.simplefilter("ignore")  # libraries' remarks; what concerns the user is in the report
        os.environ.setdefault("CPL_LOG", os.devnull)  # those of GDAL in threads that nobody listens to
        sys.unraisablehook = lambda *_: None  # rasterio's about text of GDAL that is no UTF-8
    stay_offline()
    replace_closed_streams()
    try:
        check_folder()
        arguments = [with_home(argument) for argument in sys.argv[1:]]
        check_numbers(arguments, NUMBERS)
        code = app(args=arguments, prog_name="pansharpen", standalone_mode=False)
        sys.stdout.flush()
        interrupts.check()
        if code == interrupts.CODE:  # Typers differ in what they make of it
            raise KeyboardInterrupt
    except UsageError as error:
        # asked for nothing: its message is the help
        if type(error).__name__ == "NoArgsIsHelpError":
            say_line(error.format_message())
            code = 2
        else:
            code = complain(plain_message(error.format_message()), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        code = complain("interrupted", interrupts.CODE, debug)
    except PansharpenError as error:
        code = complain(str(error), error.exit_code, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        where = error.filename or ("" if takes_text(sys.stdout) else "stdout")
        code = complain(f"{where}: {error.strerror}" if where else str(error), 1, debug)
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else ""
        if isinstance(error, MemoryError) or re.search("allocate memory|not enough memory|out of memory", text):
            code = complain("out of memory; try a smaller --tile-size", 1, debug)
        else:
            code = complain(f"{unforeseen(error)} (run again with --debug)", 1, debug)
    sys.exit(interrupts.CODE if interrupts.asked() else code or 0)


def _clear() -> None:
    """Remove temporary files, if any module that makes them is there."""
    publish = sys.modules.get("pansharpen_cli.publish")
    if publish is not None:
        publish.clear()
