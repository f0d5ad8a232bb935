"""What is printed with; rich is imported when something is printed, since `--help` needs none of it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@cache
def screen() -> Console:
    """The console for results."""
    from rich.console import Console

    return Console()


@cache
def errors() -> Console:
    """The console for everything else."""
    from rich.console import Console

    return Console(stderr=True)


def new_table(*columns: str, header: bool = True, title: str | None = None) -> Table:
    """An empty table as all commands draw them."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(*columns, show_header=header, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
