"""API keys: kept as hashes, compared in constant time, each with a budget of explanations and a rate."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from disintegrate.errors import DamagedFile, InvalidValue, UnknownName
from disintegrate.server.refusals import Refusal

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass
class Key:
    """One caller's key.

    A key is 256 random bits, so a plain hash of it cannot be guessed back.

    Attributes:
        name: who the caller is, for logs and metrics.
        sha256: the hash of the key.
        budget: explanations that it may ask for; None for any number.
        rate: requests a second that it may send in the long run; None for any number.
        spent: explanations that were asked so far.
    """

    name: str
    sha256: str
    budget: int | None = None
    rate: float | None = None
    spent: int = 0
    _tokens: float = field(default=1.0, repr=False)
    _at: float = field(default_factory=monotonic, repr=False)

    def __post_init__(self) -> None:
        if not SHA256.fullmatch(self.sha256):
            raise InvalidValue(
                f"The key {self.name} needs its SHA-256 hash.",
                got="something else",
                instead="Make one with `disintegrate new-key`.",
            )
        for name, value in (("budget", self.budget), ("rate", self.rate)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and (not number or value < 0 or (name == "rate" and value == 0)):
                raise InvalidValue(f"The {name} of the key {self.name} must be positive.", got=value)
        self._tokens = self.burst

    @property
    def burst(self) -> float:
        """Requests that may come at once after a pause: a second's worth, at least one."""
        return max(1.0, self.rate or 1.0)

    def admit(self) -> None:
        """Count a request against the rate.

        Raises:
            Refusal: 429, with the time to wait.
        """
        if self.rate is None:
            return
        now = monotonic()
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            wait = (1 - self._tokens) / self.rate
            raise Refusal(429, "rate", "This key sends too many requests. Wait a moment.", retry_after=wait)
        self._tokens -= 1

    def spend(self, rows: int) -> None:
        """Take so many explanations from the budget.

        Raises:
            Refusal: 403; the budget does not cover them, and nothing was taken.
        """
        if self.budget is not None and self.spent + rows > self.budget:
            raise Refusal(403, "budget", "The budget of this key does not cover the request.")
        self.spent += rows

    def give_back(self, rows: int) -> None:
        """Return what was taken for explanations that were not answered."""
        self.spent -= rows


class Keys:
    """The keys that a service accepts; none at all means that it asks for none."""

    def __init__(self, keys: tuple[Key, ...] = ()) -> None:
        self.keys = keys

    def __bool__(self) -> bool:
        return bool(self.keys)

    def find(self, authorization: str | None) -> Key | None:
        """The key of a request, None where the service asks for none.

        Every stored hash is compared, in constant time, whatever was sent.

        Raises:
            Refusal: 401, the same to the byte for no key, a malformed header and a wrong key.
        """
        if not self.keys:
            return None
        scheme, _, sent = (authorization or "").partition(" ")
        digest = hashlib.sha256(sent.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is None or scheme.lower() != "bearer":
            raise Refusal(401, "key", "A valid API key is required.")
        return found


def new_key() -> tuple[str, str]:
    """A fresh key and its hash.

    Example:
        >>> key, sha256 = new_key()
        >>> Keys((Key("alice", sha256),)).find(f"Bearer {key}").name == "alice"
        True
    """
    key = secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> Keys:
    """Keys out of a TOML file of `[[keys]]` tables with name, sha256, and perhaps budget and rate.

    Raises:
        UnknownName: there is no such file.
        DamagedFile: the file does not hold keys.
        InvalidValue: a key without a hash, two of one name, or a negative budget.
    """
    if not path.is_file():
        raise UnknownName("There is no such file of keys.", got=path, instead="Make one with `disintegrate new-key`.")
    try:
        keys = tuple(Key(**table) for table in tomllib.loads(path.read_text())["keys"])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise DamagedFile(
            f"{path} does not hold keys.",
            instead="It needs [[keys]] tables with name, sha256, and perhaps budget, rate.",
        ) from None
    if len({key.name for key in keys}) < len(keys):
        raise InvalidValue("Two keys have one name.", got=str(path), instead="Give each its own.")
    return Keys(keys)
