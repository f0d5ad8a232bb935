"""A proxy that misbehaves by a seed, and remembers what it did: the ground truth of the study of faults."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum


class Fault(Enum):
    """What the proxy does to a request; the value is the word in records."""

    NONE = "none"
    DELAY = "delay"
    DUPLICATE = "duplicate: the service is asked twice"
    TOO_MANY = "429 without asking the service"
    UNAVAILABLE = "503 with Retry-After, without asking the service"
    REFUSE = "connections refused for a moment"
    RESET_BEFORE = "reset before the service is asked"
    RESET_AFTER = "reset after the service has answered"
    TRUNCATE = "answer cut in half"
    FAIL_BEFORE = "500 without asking the service"
    FAIL_AFTER = "500 after the service has answered"
    UNSURE = "503 without Retry-After"


# After these the client knows that it was not answered; after the others but NONE, DELAY and DUPLICATE it cannot know.
SURELY_NOT = {Fault.TOO_MANY, Fault.UNAVAILABLE, Fault.REFUSE}
HARMLESS = {Fault.NONE, Fault.DELAY, Fault.DUPLICATE}


@dataclass
class Seen:
    """What happened, by the checksum of a request's body.

    Attributes:
        maybe_paid: how often it came and was not surely turned away.
        delivered: how often a whole answer was sent.
        doubtful: how often the proxy left the client in doubt.
        faults: how often each fault was drawn.
    """

    maybe_paid: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    doubtful: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """Requests that came whole."""
        return sum(self.faults.values())


class FaultProxy:
    """Forwards to one port of this machine, with faults.

    Args:
        upstream: the service's port.
        seed: of the faults.
        share: how many of all requests meet one.
    """

    def __init__(self, upstream: int, seed: int, share: float = 0.1) -> None:
        self.upstream = upstream
        self.share = share
        self.seen = Seen()
        self.port = 0
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        if self._server is not None:
            self._server.close()
        for task in (pending := asyncio.all_tasks(self._loop)):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._client, "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _message(reader)) is not None:
                if not await self._answer(request, writer):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client was killed
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        drawn = self._random.random() < self.share
        fault = self._random.choice([each for each in Fault if each is not Fault.NONE]) if drawn else Fault.NONE
        key = hashlib.sha256(request.partition(b"\r\n\r\n")[2]).hexdigest()
        self.seen.faults[fault.value] += 1
        if fault not in SURELY_NOT:
            self.seen.maybe_paid[key] += 1
        if fault not in SURELY_NOT | HARMLESS:
            self.seen.doubtful[key] += 1
        if fault is Fault.DELAY:
            await asyncio.sleep(self._random.uniform(0, 0.05))
        told = {
            Fault.TOO_MANY: b"429 Too Many Requests\r\nretry-after: 0",
            Fault.UNAVAILABLE: b"503 Service Unavailable\r\nretry-after: 0",
            Fault.REFUSE: b"429 Too Many Requests\r\nretry-after: 0\r\nconnection: close",
            Fault.FAIL_BEFORE: b"500 Internal Server Error",
            Fault.UNSURE: b"503 Service Unavailable",
        }.get(fault)
        if told is None and fault is not Fault.RESET_BEFORE:
            for _ in range(2 if fault is Fault.DUPLICATE else 1):
                answer = await self._forwarded(request)
            if fault is Fault.FAIL_AFTER:
                told = b"500 Internal Server Error"
        if told is not None:
            writer.write(b"HTTP/1.1 " + told + b"\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            if fault is Fault.REFUSE:
                await self._refuse()
            return fault is not Fault.REFUSE
        if fault in (Fault.RESET_BEFORE, Fault.RESET_AFTER):
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        if fault is Fault.TRUNCATE:
            writer.write(answer[: len(answer) // 2])
            await writer.drain()
            return False
        writer.write(answer)
        await writer.drain()
        self.seen.delivered[key] += 1
        return True

    async def _forwarded(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        writer.write(request)
        answer = await _message(reader)
        writer.close()
        if answer is None:
            raise OSError
        return answer

    async def _refuse(self) -> None:
        """Close the door for a moment; who comes meanwhile is refused by the system."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        task = asyncio.create_task(self._open_again())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open_again(self) -> None:
        await asyncio.sleep(0.03)
        await self._listen()


async def _message(reader: asyncio.StreamReader) -> bytes | None:
    """A whole HTTP message with its content-length; None where the other side has closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return head + await reader.readexactly(int(length))
