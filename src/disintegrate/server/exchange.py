"""What a handler gets and gives: a body with the headers that its protocol reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

JSON = "application/json"


@dataclass(frozen=True)
class Asked:
    """A request's body, headers in lower case, and the parts of its path."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """An answer with status 200."""

    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = JSON
