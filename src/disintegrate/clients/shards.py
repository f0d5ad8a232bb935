"""A journal of several writers: a file for each, gathered into the whole when they have ended."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from disintegrate.clients.journal import Journal

# A writer whose run has ended may still write down the answer it waits for.
PATIENCE = 20.0


@dataclass(frozen=True)
class Shards:
    """The files of the writers of one run, beside the whole.

    What the whole holds is known to every writer, so that nothing is asked that an earlier run has paid for. Nobody may
    write to the whole while they are open.

    Attributes:
        whole: the journal that all belong to.
        run: tells these files from those of other runs.
    """

    whole: Path
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    def path(self, writer: int) -> Path:
        """The file of a writer; whoever replaces it goes on there."""
        return self.whole.with_name(f"{self.whole.name}.{self.run}-{writer}.shard")

    def open(self, writer: int) -> Journal:
        """A writer's file, with the whole behind it."""
        return Journal(self.path(writer), behind=self.whole, patience=PATIENCE)


def gather_shards(whole: Journal) -> int:
    """Take over the shards that earlier runs, killed perhaps, have left, and remove them; how many there were.

    Raises:
        InvalidValue: another process still writes to one of them.
    """
    begin, end = f"{whole.path.name}.", ".shard"
    left = sorted(
        path for path in whole.path.parent.iterdir() if path.name.startswith(begin) and path.name.endswith(end)
    )
    for path in left:
        whole.gather([path], patience=PATIENCE)
        for ending in ("", "-wal", "-shm", ".lock"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
    return len(left)
