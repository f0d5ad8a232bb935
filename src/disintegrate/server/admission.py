"""What is let in: so many requests at once, bodies of bounded size and time, and a bound on all bodies together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.requests import Request

from disintegrate.server.refusals import Refusal, bad, overloaded
from disintegrate.server.settings import Limits


class Admission:
    """Counts requests and bytes under way, and refuses what exceeds the limits before it is read."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request under way.

        Raises:
            Refusal: 429; there are too many.
        """
        if self.requests >= self.limits.requests:
            raise overloaded()
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, counted until the request is answered.

        Raises:
            Refusal: it is too large (413), comes too slowly (408), or all bodies together are too much (429).
        """
        held = 0
        try:
            self._check_announced(request)
            parts = []
            async with asyncio.timeout(self.limits.send_seconds):
                async for part in request.stream():
                    held += len(part)
                    self.bytes += len(part)
                    if held > self.limits.body_bytes:
                        raise self._too_large()
                    if self.bytes > self.limits.bodies_bytes:
                        raise overloaded()
                    parts.append(part)
            yield b"".join(parts)
        except TimeoutError:
            raise Refusal(408, "slow", "The request did not arrive in time.") from None
        finally:
            self.bytes -= held

    def _check_announced(self, request: Request) -> None:
        announced = request.headers.get("content-length")
        if announced is None:
            return
        if not (announced.isascii() and announced.isdigit()):
            raise bad("The content-length is not a number.")
        if int(announced) > self.limits.body_bytes:
            raise self._too_large()
        if self.bytes + int(announced) > self.limits.bodies_bytes:
            raise overloaded()

    def _too_large(self) -> Refusal:
        return Refusal(413, "size", f"A body may have {self.limits.body_bytes} bytes.")
