"""Many callers of a service at once, cheap enough to leave the machine to it: raw HTTP over kept connections."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Traffic:
    """What came of some traffic.

    Attributes:
        statuses: how many answers had each status; 0 stands for a connection that broke.
        seconds: how long each answer with status 200 took.
        wall: how long it all took.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0


class Caller:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, traffic: Traffic) -> int:
        """Send a request and read its whole answer."""
        started = time.perf_counter()
        try:
            status = await self._asked(request)
        except (OSError, asyncio.IncompleteReadError):
            status = 0
            self.close()
        traffic.statuses[status] += 1
        if status == 200:
            traffic.seconds.append(time.perf_counter() - started)
        return status

    async def _asked(self, request: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        at = head.index(b"\r\ncontent-length:") + 17
        await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
        return int(head[9:12])

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def closed_loop(port: int, requests: list[bytes], callers: int, seconds: float) -> Traffic:
    """Each caller asks again as soon as it is answered."""
    traffic, started = Traffic(), time.perf_counter()

    async def one(number: int) -> None:
        caller, turn = Caller(port), number
        while time.perf_counter() - started < seconds:
            await caller.ask(requests[turn % len(requests)], traffic)
            turn += callers
        caller.close()

    await asyncio.gather(*map(one, range(callers)))
    traffic.wall = time.perf_counter() - started
    return traffic


async def open_loop(port: int, requests: list[bytes], rate: float, seconds: float) -> Traffic:
    """So many requests a second, whatever becomes of them."""
    traffic, started = Traffic(), time.perf_counter()
    idle: list[Caller] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one(request: bytes) -> None:
        caller = idle.pop() if idle else Caller(port)
        await caller.ask(request, traffic)
        idle.append(caller)

    sent = 0
    while (now := time.perf_counter() - started) < seconds:
        while sent < rate * now:
            task = asyncio.create_task(one(requests[sent % len(requests)]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    for caller in idle:
        caller.close()
    traffic.wall = time.perf_counter() - started
    return traffic
