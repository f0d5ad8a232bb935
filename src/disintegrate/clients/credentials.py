"""Secrets that are never shown: from the environment or a file, masked everywhere else."""

from __future__ import annotations

import os
from pathlib import Path

from disintegrate.errors import InvalidValue, UnknownName

VARIABLE = "DISINTEGRATE_KEY"
MASK = "***"


class Credentials:
    """An API key on its way to a service; every text that shows it shows a mask instead.

    Example:
        >>> credentials = Credentials("secret-key")
        >>> "secret" in repr(credentials) or "secret" in credentials.masked("got secret-key")
        False
    """

    def __init__(self, key: str | None = None, *, header: str = "Authorization", scheme: str = "Bearer") -> None:
        if key is not None and (not key.isascii() or not key.isprintable() or not key.strip()):
            raise InvalidValue("A key is one line of printable ASCII.", got=MASK, instead="Check the file or variable.")
        self._key = key
        self.header = header
        self.scheme = scheme

    def __repr__(self) -> str:
        return f"Credentials({'none' if self._key is None else MASK})"

    def __reduce__(self) -> str:
        raise TypeError("Credentials are not pickled.")

    def headers(self) -> dict[str, str]:
        """What a request carries."""
        return {} if self._key is None else {self.header: f"{self.scheme} {self._key}".strip()}

    def masked(self, text: str) -> str:
        """The text without the key."""
        return text if self._key is None else text.replace(self._key, MASK)


def read_credentials(path: Path | None) -> Credentials:
    """The key in a file's first line, or in the environment's DISINTEGRATE_KEY; none where neither is there.

    Raises:
        UnknownName: there is no such file.
        InvalidValue: it holds no key.
    """
    if path is None:
        return Credentials(os.environ.get(VARIABLE) or None)
    if not path.is_file():
        raise UnknownName("There is no such file with a key.", got=path, instead=f"Give one, or set {VARIABLE}.")
    return Credentials((path.read_text(errors="replace").splitlines() or [""])[0].strip())
