"""The journal of paid queries: an intent before a request, the answer after it, so that nothing is lost or paid twice.

One SQLite file in WAL mode with one connection, so one writer; several writers keep a file each, and `gather` reads
what the others have answered (see `shards.py`). A row is one query, under the name of its target and the checksum of
its content.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from jaxtyping import Float64

from disintegrate.clients.dialect import rows_of
from disintegrate.errors import DamagedFile, InvalidValue, UnwritableOutput
from disintegrate.explainers.protocol import Request
from disintegrate.explainers.wrappers import content_key

SCHEMA = """
CREATE TABLE IF NOT EXISTS queries (
    key BLOB PRIMARY KEY, -- checksum of target and content
    asked INTEGER NOT NULL DEFAULT 1, -- how often it went out, and so may have been paid for
    output REAL,          -- NULL where the service tells none
    attribution BLOB      -- float64, little endian, C order; NULL: an intent without an answer
) WITHOUT ROWID
"""
# Which other writers' files were taken over, by the number that each was given when it was made.
TAKEN = "CREATE TABLE IF NOT EXISTS taken (number INTEGER PRIMARY KEY)"
TAKE_OVER = """
INSERT INTO main.queries (key, asked, output, attribution)
SELECT key, asked, output, attribution FROM other.queries WHERE 1
ON CONFLICT (key) DO UPDATE SET
    asked = asked + excluded.asked,
    output = iif(attribution IS NULL, excluded.output, output),
    attribution = coalesce(attribution, excluded.attribution)
"""
APPLICATION = 0x49474A31  # "IGJ1", so that no other application's file is taken for a journal


@dataclass(frozen=True)
class Counts:
    """What a journal holds.

    Attributes:
        answered: queries with their answers.
        in_doubt: queries that went out, whose answers did not come whole: they may have been paid for.
        paid: the most that can have been paid for: each query as often as it went out.
    """

    answered: int
    in_doubt: int
    paid: int


@dataclass(frozen=True, eq=False)
class Answered:
    """One query's answer, flat."""

    output: float
    attribution: Float64[np.ndarray, " d"]


class Journal:
    """A file of queries of one writer, safe to kill at any moment.

    Args:
        path: the file; made if it is not there.
        durable: whether what is written outlives a power cut as well as a kill, at two syncs an exchange.
        behind: another journal, to which nobody writes meanwhile; what is not answered here is looked for there.
        patience: seconds to wait for another writer to end.

    Raises:
        DamagedFile: the file is no journal.
        InvalidValue: another process writes to it.
        UnwritableOutput: it cannot be written.
    """

    def __init__(self, path: Path, *, durable: bool = True, behind: Path | None = None, patience: float = 0.0) -> None:
        self.path = path
        self.behind = behind
        self._lock = threading.Lock()
        self._held = _hold(path, patience)
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(str(path))}", uri=True, check_same_thread=False, isolation_level=None
            )
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and application != APPLICATION:
                raise sqlite3.DatabaseError("another application's file")
            self._connection.execute(f"PRAGMA application_id={APPLICATION}")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            if not tables:
                self._connection.execute(f"PRAGMA user_version={1 + secrets.randbelow(2**31 - 1)}")
            self._connection.execute(SCHEMA)
            self._connection.execute(TAKEN)
            if behind is not None:
                # nobody writes to it, so that it needs no locks; a second connection to a WAL file could lose commits
                self._connection.execute("ATTACH ? AS behind", (f"file:{quote(str(behind))}?immutable=1",))
        except sqlite3.DatabaseError as error:
            os.close(self._held)
            raise DamagedFile(
                f"{path} is not a journal of queries.", got=str(error), instead="Give another file."
            ) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and let others write to it."""
        with self._lock:
            self._connection.close()
            if self._held >= 0:
                os.close(self._held)
            self._held = -1

    def counts(self) -> Counts:
        """How many queries are answered and in doubt."""
        with self._told() as connection:
            row = connection.execute(
                "SELECT count(attribution), count(*) - count(attribution), coalesce(sum(asked), 0) FROM queries"
            ).fetchone()
        return Counts(*row)

    def doubtful(self) -> set[bytes]:
        """The queries in doubt, also of the journal behind."""
        ask = "SELECT key FROM {}.queries WHERE attribution IS NULL"
        with self._told() as connection:
            found = {key for (key,) in connection.execute(ask.format("main"))}
            if self.behind is not None:
                # those that are answered here are in doubt no more
                known = " AND key NOT IN (SELECT key FROM main.queries WHERE attribution IS NOT NULL)"
                found |= {key for (key,) in connection.execute(ask.format("behind") + known)}
        return found

    def look_up(self, keys: list[bytes]) -> dict[bytes, Answered | None]:
        """The answers to these queries; None where one is in doubt, no entry where one was never asked."""
        found: dict[bytes, Answered | None] = {}
        with self._told() as connection:
            for name in ("main",) if self.behind is None else ("main", "behind"):
                ask = f"SELECT output, attribution FROM {name}.queries WHERE key = ?"  # noqa: S608  one of two names
                for key in keys:
                    row = None if found.get(key) else connection.execute(ask, (key,)).fetchone()
                    if row is not None:
                        output, blob = row
                        found[key] = None if blob is None else Answered(_number(output), np.frombuffer(blob, "<f8"))
        return found

    def intend(self, keys: list[bytes]) -> None:
        """Write down that these queries are about to go out."""
        with self._told() as connection:
            connection.executemany(
                "INSERT INTO queries (key) VALUES (?) ON CONFLICT (key) DO UPDATE SET asked = asked + 1",
                [(key,) for key in keys],
            )

    def withdraw(self, keys: list[bytes]) -> None:
        """Strike the intents of queries that surely were not answered."""
        with self._told() as connection:
            several = [(key,) for key in keys]
            connection.executemany("UPDATE queries SET asked = asked - 1 WHERE key = ?", several)
            connection.executemany("DELETE FROM queries WHERE key = ? AND asked = 0", several)

    def keep(self, answers: Iterable[tuple[bytes, Answered]]) -> None:
        """Write down answers; they stand when this returns."""
        rows = [
            (None if np.isnan(answer.output) else answer.output, answer.attribution.astype("<f8").tobytes(), key)
            for key, answer in answers
        ]
        with self._told() as connection:
            connection.executemany("UPDATE queries SET output = ?, attribution = ? WHERE key = ?", rows)

    def entries(self) -> Iterator[tuple[bytes, int, Answered | None]]:
        """All queries in the order of their keys, with how often each went out."""
        with self._told() as connection:
            rows = connection.execute("SELECT key, asked, output, attribution FROM queries ORDER BY key").fetchall()
        for key, asked, output, blob in rows:
            yield key, asked, None if blob is None else Answered(_number(output), np.frombuffer(blob, "<f8"))

    def gather(self, others: Iterable[Path], *, patience: float = 0.0) -> None:
        """Take over what other writers' files hold, each once; an answer wins over a doubt.

        Raises:
            InvalidValue: another process still writes to one of them.
        """
        for path in others:
            with Journal(path, patience=patience) as other:
                number = other.number
            held = _hold(path, patience)
            try:
                self._take_over(path, number)
            finally:
                os.close(held)

    @property
    def number(self) -> int:
        """What tells this file from all others."""
        with self._told() as connection:
            (number,) = connection.execute("PRAGMA user_version").fetchone()
        return int(number)

    def settle(self) -> None:
        """Bring everything into the one file, so that others may read it while nothing is written."""
        with self._lock:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _take_over(self, path: Path, number: int) -> None:
        with self._lock:
            self._connection.execute("ATTACH ? AS other", (f"file:{quote(str(path))}",))
        try:
            with self._told() as connection:
                if not connection.execute("SELECT 1 FROM taken WHERE number = ?", (number,)).fetchone():
                    connection.execute(TAKE_OVER)
                    connection.execute("INSERT INTO taken VALUES (?)", (number,))
        finally:
            with self._lock:
                self._connection.execute("DETACH other")

    @contextmanager
    def _told(self) -> Iterator[sqlite3.Connection]:
        """One transaction under the lock."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.DatabaseError as error:
                raise UnwritableOutput(
                    f"{self.path} cannot be written.", got=str(error), instead="Give a disk with room."
                ) from None
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def query_keys(target: str, request: Request) -> list[bytes]:
    """For each row, the checksum of the target's name and of all that the row asks."""
    named = hashlib.sha256(target.encode()).digest()
    rows = (rows_of(request, np.array([row])) for row in range(len(request.inputs)))
    return [hashlib.sha256(named + content_key(row)).digest() for row in rows]


def _number(output: float | None) -> float:
    return float("nan") if output is None else output


def _hold(path: Path, patience: float) -> int:
    """A lock on the file, held until the process ends, however it ends; the file tells which process it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnwritableOutput(
            f"{path} cannot be written.", got=error.strerror, instead="Give a file that you may write to."
        ) from None
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            writer = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise InvalidValue(
                "A journal has one writer.",
                got=f"{path}, which another process ({writer}) has open",
                instead="Give another file.",
            ) from None
        return handle
