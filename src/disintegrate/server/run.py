"""Running the service: uvicorn on loopback, with bounds on connections and on how slowly a head may come."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from disintegrate.errors import InvalidValue
from disintegrate.server.application import LOG, application
from disintegrate.server.keys import Keys
from disintegrate.server.service import Service
from disintegrate.server.settings import Limits

KEEP_ALIVE_SECONDS = 15
BACKLOG = 1024
FIELDS = ("route", "status", "reason", "key", "milliseconds")


def run(
    service: Service, *, host: str = "127.0.0.1", port: int = 8080, keys: Keys | None = None, quiet: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted.

    Raises:
        InvalidValue: an address beyond loopback without keys, or one that cannot be bound.
    """
    keys = keys or Keys()
    if not keys and not is_loopback(host):
        raise InvalidValue(
            "A service without keys listens on loopback only.",
            got=repr(host),
            instead="Use 127.0.0.1, or give --keys FILE (make one with `disintegrate new-key`).",
        )
    set_up_logs(quiet=quiet)
    listener = bound(host, port)
    address = listener.getsockname()
    LOG.info("listening", extra={"host": address[0], "port": address[1], "model": service.settings.name})
    with stopped_by_signals():
        prepared(service, keys).run(sockets=[listener])


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Uvicorn raises the signal that stopped it once more at its end; a stop that was asked for is no failure."""
    before = {kind: signal.signal(kind, lambda number, frame: None) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def prepared(service: Service, keys: Keys) -> uvicorn.Server:
    """The HTTP server around a service, to be run on a bound socket."""
    limits = service.settings.limits
    config = uvicorn.Config(
        application(service, keys),
        http=guarded_protocol(limits),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(limits.stop_seconds) + 1,
        backlog=BACKLOG,
        loop="asyncio",
    )
    return uvicorn.Server(config)


def is_loopback(host: str) -> bool:
    """Whether an address or a name reaches this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 lets the system choose.

    Raises:
        InvalidValue: the address cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sends small answers at once only where the socket says that it is TCP.
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unusable(host, port, error) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _unusable(host, port, error) from None
    return listener


def _unusable(host: str, port: int, error: OSError) -> InvalidValue:
    return InvalidValue(
        "The address cannot be listened on.",
        got=f"{host}:{port} ({error.strerror or error})",
        instead="Give another --port.",
    )


def guarded_protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """Uvicorn's protocol with a bound on connections, and on how long the head of a request may take."""

    class Guarded(HttpToolsProtocol):
        late: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self.turn_away(429, "The service is overloaded. Try again later.", "Retry-After: 1\r\n")
            else:
                self.expect_head()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self.late is None:
                self.expect_head()

        def on_headers_complete(self) -> None:
            self.stop_waiting()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop_waiting()
            super().connection_lost(exc)

        def expect_head(self) -> None:
            self.late = self.loop.call_later(
                limits.send_seconds, self.turn_away, 408, "The request did not arrive in time.", ""
            )

        def stop_waiting(self) -> None:
            if self.late is not None:
                self.late.cancel()
                self.late = None

        def turn_away(self, status: int, sentence: str, headers: str) -> None:
            body = orjson.dumps({"error": sentence})
            head = (
                f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\n{headers}"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

    return Guarded


class JsonLines(logging.Formatter):
    """One JSON object a line; never a body, a header or a path that a caller chose."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's own fields only."""
        line: dict[str, Any] = {"time": round(record.created, 3), "level": record.levelname.lower()}
        # The template of a message, not what was put into it.
        line["event"] = str(record.msg).strip()
        for name in ("host", "port", "model", *FIELDS):
            if hasattr(record, name):
                line[name] = getattr(record, name)
        if record.exc_info and record.exc_info[0]:
            frame = traceback.extract_tb(record.exc_info[2])[-1]
            line["error"] = f"{record.exc_info[0].__name__} in {Path(frame.filename).name}:{frame.lineno}"
        return orjson.dumps(line).decode()


def set_up_logs(*, quiet: bool) -> None:
    """Our lines and uvicorn's warnings, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name, level in ((LOG.name, logging.WARNING if quiet else logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
