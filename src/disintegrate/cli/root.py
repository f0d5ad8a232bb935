"""The root of the command line: the application that commands join, and its progress bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from disintegrate import __version__
from disintegrate.cli.terminal import errors

if TYPE_CHECKING:
    from rich.progress import Progress

app = typer.Typer(
    help="Does an explanation endpoint give away the model's gradient, and so the model?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # a third of the time of `--help` would go to importing what draws its boxes
    context_settings={"max_content_width": 120},
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"disintegrate {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Does an explanation endpoint give away the model's gradient, and so the model?"""


def names_endpoint(target: str) -> bool:
    """Whether a target is an endpoint, such as `kserve+http://...` or `http-json:FILE`, and not a model."""
    return "+" in target or target.startswith("http-json:")


class Bar:
    """One bar on the terminal."""

    def __init__(self, progress: Progress, description: str, total: int) -> None:
        self.progress = progress
        self.bar = progress.add_task(description, total=total, note="")

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Move the bar on."""
        self.progress.update(self.bar, advance=amount, note=note)


class Bars:
    """Bars on the terminal, one below the other."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def task(self, description: str, total: int) -> Bar:
        """Open a bar."""
        return Bar(self.progress, description, total)


STOPPED = "Stopped. Finished epochs and units are kept; the same command goes on behind them."


@contextmanager
def bars(stopped: str = STOPPED) -> Iterator[Bars]:
    """Bars while a command works; Ctrl-C ends it with a sentence."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    try:
        with Progress(*columns, console=errors()) as progress:
            yield Bars(progress)
    except KeyboardInterrupt:
        errors().print(stopped)
        raise typer.Exit(130) from None
