"""From region to region along a ray: every kink, and the gradient between."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from disintegrate.regions.network import Network, Passage

# Kinks nearer to each other than so many roundings of the position coincide.
COINCIDENT = 64
# A walk that does not come forward for so many flips stands on a tie, and steps over it.
PATIENCE = 200
# At the end of a walk a kink counts that lies so many tolerances beyond it, if the next walker is behind it already.
NEARLY = 10_000


@dataclass
class Track:
    """What one walker has met: the edges of its pieces, the gradient of each, and who caused each kink.

    `first` and `last` are its patterns at both ends; `leaving` are the units that change at its end.
    """

    edges: list[float]
    gradients: list[Tensor] = field(default_factory=list)
    causes: list[list[tuple[str, int]]] = field(default_factory=list)
    first: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)
    leaving: dict[str, Tensor] = field(default_factory=dict)
    ties: dict[str, Tensor] = field(default_factory=dict)
    stepped_over: int = 0


def walk(
    network: Network,
    start: Float[Tensor, "n *shape"],
    direction: Float[Tensor, "n *shape"],
    begin: Float64[Tensor, " n"],
    stop: Float64[Tensor, " n"],
    targets: Int[Tensor, " n"],
    *,
    most: int | None = None,
) -> list[Track]:
    """Walk along `start + t direction` from `begin` to `stop`, all lines at once, each at most so many kinks far."""
    tracks = [Track([float(position)]) for position in begin]
    wide = (-1, *[1] * (start.ndim - 1))
    rows, at = torch.arange(len(start), device=start.device), begin.clone()
    tolerance = COINCIDENT * torch.finfo(start.dtype).eps * torch.maximum(begin.abs(), stop.abs()).clamp_min(1.0)
    passage = _follow(network, start + begin.to(start.dtype).view(wide) * direction, direction, None)[0]
    pattern = passage.pattern
    stuck = torch.zeros(len(start), dtype=torch.long)
    for row, track in enumerate(tracks):
        track.first = {name: value[row] for name, value in pattern.items()}
    while len(rows):
        points = start[rows] + at[rows].to(start.dtype).view(wide) * direction[rows]
        passage, gradients = _follow(network, points, direction[rows], pattern, targets[rows])
        room = torch.stack([one.flatten(1).amin(1) for one in passage.room.values()]) if passage.room else None
        nearest = room.amin(0).double() if room is not None else torch.full((len(rows),), torch.inf).double()
        there = torch.minimum(at[rows] + nearest, stop[rows])
        pattern, causes = _flipped(passage, nearest + tolerance[rows])
        going = []
        for index, row in enumerate(rows.tolist()):
            track, position = tracks[row], float(there[index])
            ended = position >= float(stop[row])
            if position - track.edges[-1] > float(tolerance[row]) or (
                ended and len(track.gradients) < len(track.edges)
            ):
                track.gradients.append(gradients[index])
                track.edges.append(position)
                track.causes.append([])
                stuck[row] = 0
                _note_ties(track, passage, index)
            if ended:
                left = float(stop[row] - at[row]) + float(tolerance[row]) * NEARLY
                track.last = {name: value[index] for name, value in passage.pattern.items()}
                track.leaving = {name: one[index] <= left for name, one in passage.room.items()}
                track.causes.pop()
                continue
            stuck[row] += 1
            if track.causes:
                track.causes[-1] += causes[index]
            if most is not None and len(track.gradients) >= most:
                continue
            going.append(index)
            at[row] = there[index]
        kept = torch.tensor(going, dtype=torch.long, device=start.device)
        rows, pattern = rows[kept], {name: value[kept] for name, value in pattern.items()}
        for index, row in enumerate(rows.tolist()):
            if stuck[row] > PATIENCE:
                _step_over(network, start, direction, at, row, pattern, index, float(tolerance[row]))
                tracks[row].stepped_over += 1
                stuck[row] = 0
    return tracks


def _follow(network: Network, points: Tensor, direction: Tensor, pattern: dict[str, Tensor] | None,
            targets: Tensor | None = None) -> tuple[Passage, Tensor]:  # fmt: skip
    with torch.enable_grad():
        leaf = points.detach().requires_grad_(targets is not None)
        passage = network.follow(leaf, direction, pattern)
        if targets is None:
            return passage, points
        chosen = passage.output.value.gather(1, targets[:, None]).sum()
        return passage, torch.autograd.grad(chosen, leaf)[0]


def _flipped(passage: Passage, reach: Tensor) -> tuple[dict[str, Tensor], list[list[tuple[str, int]]]]:
    """The pattern behind the nearest kink: of the first layer that has one there, all units that do."""
    rows = len(reach)
    pending, pattern = torch.ones(rows, dtype=torch.bool, device=reach.device), {}
    causes: list[list[tuple[str, int]]] = [[] for _ in range(rows)]
    for name, kept in passage.pattern.items():
        room = passage.room[name].flatten(1)
        leaves = (room <= reach.to(room.dtype)[:, None]) & room.isfinite() & pending[:, None]
        pattern[name] = torch.where(leaves.view_as(kept), passage.other[name], kept)
        for row, unit in leaves.nonzero().tolist():
            causes[row].append((name, unit))
        pending &= ~leaves.any(1)
    return pattern, causes


def _note_ties(track: Track, passage: Passage, index: int) -> None:
    for name, tied in passage.ties.items():
        track.ties[name] = track.ties[name] | tied[index] if name in track.ties else tied[index].clone()


def _step_over(network: Network, start: Tensor, direction: Tensor, at: Tensor, row: int, pattern: dict[str, Tensor],
               index: int, tolerance: float) -> None:  # fmt: skip
    """Take the pattern that holds just ahead."""
    at[row] += 4 * tolerance
    points = start[row : row + 1] + at[row].to(start.dtype) * direction[row : row + 1]
    ahead = _follow(network, points, direction[row : row + 1], None)[0]
    for name, value in ahead.pattern.items():
        pattern[name][index] = value[0]
