"""All blocks in this process, one after the other."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from disintegrate.audit.engines.doubts import Doubts
from disintegrate.audit.engines.protocol import Block, Found, Work
from disintegrate.errors import InDoubt
from disintegrate.explainers.protocol import Explainer


@dataclass(frozen=True)
class LocalEngine:
    """Asks the explainer that it is given."""

    def run(self, explainer: Explainer, work: Work, blocks: Sequence[Block]) -> Generator[Found, None, None]:
        """Do every block in order.

        Raises:
            InDoubt: at the end, if some blocks have queries in doubt.
            DisintegrateError: what the explainer raised.
        """
        doubts = Doubts()
        for block in blocks:
            try:
                found = work(explainer, block)
            except InDoubt as doubt:
                doubts.add(doubt)
            else:
                yield found
        doubts.raise_any()
