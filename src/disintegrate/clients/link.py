"""One HTTP exchange, and what its failure says: surely not answered, refused, in doubt, or answered badly."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

import httpx
import orjson

from disintegrate.clients.credentials import Credentials
from disintegrate.errors import (
    BadAnswer,
    DisintegrateError,
    InDoubt,
    KeyRefused,
    NotPermitted,
    UnknownName,
    Unreachable,
)

LARGEST_ANSWER = 256 * 2**20
SHOWN = 200


@dataclass(frozen=True)
class Message:
    """A request's URL, body and headers."""

    url: str
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """A whole answer with status 200."""

    content: bytes
    headers: dict[str, str]


class Link:
    """The one way out: httpx without redirects, proxies or .netrc, every failure one of our exceptions.

    Args:
        credentials: what the service wants to see; None for nothing.
        seconds: how long to wait for a connection, and for each part of an answer.
        connections: the most requests under way at once.
        transport: another transport than the network, for tests.
        verify: a context for TLS; None for the system's certificates.
    """

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        seconds: float = 60,
        connections: int = 16,
        transport: httpx.BaseTransport | None = None,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self.credentials = credentials or Credentials()
        self._client = httpx.Client(
            timeout=httpx.Timeout(seconds, connect=min(seconds, 10)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
            verify=verify if verify is not None else True,
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def post(self, message: Message) -> Reply:
        """Send a message and wait for its whole answer.

        Raises:
            Unreachable: it surely was not answered.
            InDoubt: it went out, and no whole answer came back.
            KeyRefused: the service wants another key.
            NotPermitted: the service refused the question.
            UnknownName: the service knows no such path or model.
            BadAnswer: the answer is too large.
        """
        target = shown(message.url)
        headers = {"content-type": "application/json", **message.headers, **self.credentials.headers()}
        try:
            with self._client.stream("POST", message.url, content=message.content, headers=headers) as response:
                content = self._read(response, target)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            raise self._unreachable(error, target) from None
        except httpx.HTTPError as error:
            raise InDoubt(
                f"{target} gave no whole answer.",
                got=self._cause(error),
                instead="The query may have been paid for; it is not asked again unless told to.",
            ) from None
        if response.status_code == 200:
            return Reply(content, dict(response.headers))
        raise self._refused(response, content, target)

    def _read(self, response: httpx.Response, target: str) -> bytes:
        parts, size = [], 0
        for part in response.iter_bytes():
            size += len(part)
            if size > LARGEST_ANSWER:
                raise BadAnswer(f"{target} answered too much.", got=f"over {LARGEST_ANSWER} bytes")
            parts.append(part)
        return b"".join(parts)

    def _cause(self, error: Exception) -> str:
        return self.credentials.masked(f"{type(error).__name__}: {error}".rstrip(": "))[:SHOWN]

    def _unreachable(self, error: Exception, target: str) -> Unreachable:
        cause = self._cause(error)
        tls = "SSL" in cause or "certificate" in cause.lower()
        instead = "Check its certificate." if tls else "Check the address, and that the service runs."
        lasting = tls or isinstance(error, httpx.UnsupportedProtocol)
        return Unreachable(f"{target} cannot be reached.", got=cause, instead=instead, lasting=lasting)

    def _refused(self, response: httpx.Response, content: bytes, target: str) -> DisintegrateError:
        status = response.status_code
        said = self.credentials.masked(sentence(content))
        got = f"status {status}: {said}" if said else f"status {status}"
        if 300 <= status < 400:
            elsewhere = shown(str(response.url.join(response.headers.get("location", ""))))
            return Unreachable(
                f"{target} redirects, and redirects are not followed.",
                got=self.credentials.masked(elsewhere),
                instead="Name the service's own address.",
                lasting=True,
            )
        waits = retry_after(response.headers.get("retry-after"))
        if status == 429 or (status == 503 and waits is not None):
            return Unreachable(f"{target} turns requests away.", got=got, instead="Ask more slowly.", retry_after=waits)
        if status in (401, 403):
            return KeyRefused(
                f"{target} does not accept the key.",
                got=got,
                instead="Set DISINTEGRATE_KEY, or give --key-file FILE; or its budget is spent.",
            )
        if status in (404, 405):
            return UnknownName(f"{target} is not known there.", got=got, instead="Check the path and the model's name.")
        if 400 <= status < 500:
            return NotPermitted(f"{target} refused the question.", got=got)
        return InDoubt(
            f"{target} failed.",
            got=got,
            instead="The query may have been paid for; it is not asked again unless told to.",
        )


def shown(url: str) -> str:
    """A URL without what may be secret: user, password, query and fragment."""
    try:
        parsed = httpx.URL(url)
        return str(parsed.copy_with(username=None, password=None, query=None, fragment=None))
    except (httpx.InvalidURL, ValueError):
        return "that address"


def retry_after(header: str | None) -> float | None:
    """Seconds that a service asks to wait; None where it says no number."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        return 1.0


def sentence(content: bytes) -> str:
    """What an error body says, of whichever protocol, on one line."""
    try:
        said = orjson.loads(content)
    except orjson.JSONDecodeError:
        said = content[: 4 * SHOWN].decode("utf-8", "replace")
    for name in ("error", "detail", "message"):
        if isinstance(said, dict) and name in said:
            said = said[name]
    return " ".join(str(said).split())[:SHOWN]
