"""How long work tells of its progress: a seam, so that only the command line prints."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Task(Protocol):
    """One bar: work of a known size, under way."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Say that `amount` more units of the work are done."""


@runtime_checkable
class Progress(Protocol):
    """Something that shows bars."""

    def task(self, description: str, total: int) -> Task:
        """Open a bar of `total` units."""


class _SilentTask:
    def advance(self, amount: int = 1, note: str = "") -> None:
        pass


class _Silent:
    def task(self, description: str, total: int) -> Task:
        return _SilentTask()


SILENT: Progress = _Silent()
