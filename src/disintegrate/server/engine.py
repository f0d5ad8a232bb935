"""The engine: one thread that computes; what arrives while it works is computed as the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float

from disintegrate.errors import Misuse
from disintegrate.explainers.protocol import Explainer, Explanation, Request
from disintegrate.server.refusals import bad, overloaded
from disintegrate.server.settings import Limits

T = TypeVar("T")
Outputs = Float[np.ndarray, "n classes"]


@dataclass(eq=False)
class _Job(Generic[T]):
    """Rows that wait: what they may be computed together with, and where their answer goes."""

    key: Hashable
    rows: int
    content: Request | np.ndarray
    answer: asyncio.Future[T]


@dataclass
class Load:
    """What the engine has to do, for the metrics."""

    waiting_rows: int = 0
    batches: int = 0
    rows: int = 0
    largest_batch: int = 0
    seconds: float = field(default=0.0)


class Engine:
    """Explanations and outputs of a model, for many callers at once.

    Args:
        explainer: the explanation service in this process.
        predict: all outputs of a batch.
        limits: how many rows may wait, and how many are computed together.
        together: whether requests that arrive together are computed as one batch.
    """

    def __init__(
        self, explainer: Explainer, predict: Callable[[np.ndarray], np.ndarray], limits: Limits, *, together: bool
    ) -> None:
        self.explainer = explainer
        self._predict = predict
        self.limits = limits
        self.together = together
        self.load = Load()
        self._waiting: deque[_Job[Explanation] | _Job[Outputs]] = deque()
        self._something = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._open = False

    async def explain(self, request: Request) -> Explanation:
        """Answer a request, together with others of the same steps that wait.

        Raises:
            Refusal: too much waits already, the answer took too long, or the engine finds the request wrong.
        """
        own = request.baselines is None
        key = ("explain", request.steps, own, request.inputs.shape[1:], request.inputs.dtype.str)
        future: asyncio.Future[Explanation] = asyncio.get_running_loop().create_future()
        return await self._enqueue(_Job(key, len(request.inputs), request, future))

    async def predict(self, inputs: Float[np.ndarray, "n *shape"]) -> Outputs:
        """All outputs of some inputs.

        Raises:
            Refusal: as for `explain`.
        """
        key = ("predict", inputs.shape[1:], inputs.dtype.str)
        future: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        return await self._enqueue(_Job(key, len(inputs), inputs, future))

    async def _enqueue(self, job: _Job[T]) -> T:
        full = self._waiting and self.load.waiting_rows + job.rows > self.limits.waiting_rows
        if full or not self._open:
            raise overloaded()
        self._waiting.append(job)  # type: ignore[arg-type]
        self.load.waiting_rows += job.rows
        self._something.set()
        try:
            return await asyncio.wait_for(job.answer, self.limits.answer_seconds)
        except TimeoutError:
            raise overloaded("The service could not answer in time. Try again later.") from None

    def start(self) -> asyncio.Task[None]:
        """Begin to compute, in the loop that runs; after a stop it may begin again."""
        self._something, self._open = asyncio.Event(), True
        return asyncio.create_task(self._work())

    async def _work(self) -> None:
        """Compute until `close`, and then what still waits."""
        loop = asyncio.get_running_loop()
        while True:
            await self._something.wait()
            self._something.clear()
            while self._waiting:
                batch = self._take()
                if not batch:
                    continue
                started = loop.time()
                await loop.run_in_executor(self._thread, self._compute, loop, batch)
                self.load.seconds += loop.time() - started
                self.load.batches += 1
                rows = sum(job.rows for job in batch)
                self.load.rows += rows
                self.load.largest_batch = max(self.load.largest_batch, rows)
            if not self._open:
                return

    def close(self) -> None:
        """Let the work end when nothing waits any more."""
        self._open = False
        self._something.set()

    def _take(self) -> list[_Job[Explanation] | _Job[Outputs]]:
        """The job that waits longest, and all that can be computed with it."""
        batch: list[_Job[Explanation] | _Job[Outputs]] = []
        left: deque[_Job[Explanation] | _Job[Outputs]] = deque()
        rows = 0
        for job in self._waiting:
            if job.answer.done():
                # Its caller has gone, or waited too long.
                self.load.waiting_rows -= job.rows
            elif not batch or (self.together and job.key == batch[0].key and rows + job.rows <= self.limits.batch_rows):
                batch.append(job)
                rows += job.rows
                self.load.waiting_rows -= job.rows
            else:
                left.append(job)
        self._waiting = left
        return batch

    def _compute(self, loop: asyncio.AbstractEventLoop, batch: list[_Job[Explanation] | _Job[Outputs]]) -> None:
        """In the engine's thread: compute a batch, job by job where it fails as a whole."""
        try:
            answers = self._answers([job.content for job in batch])
        except Exception as error:
            if len(batch) == 1:
                refused = bad(str(error)) if isinstance(error, Misuse) else error
                loop.call_soon_threadsafe(_fail, batch[0].answer, refused)
                return
            for job in batch:
                self._compute(loop, [job])
            return
        loop.call_soon_threadsafe(_deliver, batch, answers)

    def _answers(self, contents: list[Request | np.ndarray]) -> list[Explanation] | list[np.ndarray]:
        if isinstance(contents[0], Request):
            requests = [content for content in contents if isinstance(content, Request)]
            ends = np.cumsum([len(request.inputs) for request in requests])[:-1]
            answer = self.explainer.explain(merged(requests))
            parts = zip(np.split(answer.output, ends), np.split(answer.attribution, ends), strict=True)
            return [Explanation(output, attribution) for output, attribution in parts]
        arrays = [content for content in contents if isinstance(content, np.ndarray)]
        return np.split(self._predict(np.concatenate(arrays)), np.cumsum([len(array) for array in arrays])[:-1])


def merged(requests: list[Request]) -> Request:
    """Several requests of the same steps as one."""
    if len(requests) == 1:
        return requests[0]
    baselines = [request.baselines for request in requests if request.baselines is not None]
    return Request(
        np.concatenate([request.inputs for request in requests]),
        np.concatenate(baselines) if baselines else None,
        np.concatenate([request.targets for request in requests]),
        requests[0].steps,
    )


def _deliver(batch: list[_Job[Explanation] | _Job[Outputs]], answers: list[Explanation] | list[np.ndarray]) -> None:
    for job, answer in zip(batch, answers, strict=True):
        if not job.answer.done():
            job.answer.set_result(answer)  # type: ignore[arg-type]


def _fail(future: asyncio.Future[Explanation] | asyncio.Future[Outputs], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
