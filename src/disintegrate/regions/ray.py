"""The regions of a network on a ray: what Integrated Gradients are without any quadrature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from disintegrate.errors import InvalidValue
from disintegrate.regions.network import Network
from disintegrate.regions.walk import Track, walk


@dataclass(frozen=True)
class Unit:
    """One ReLU, or one window of max pooling: the operation's name in the model, and the place in its output."""

    layer: str
    place: int


@dataclass(frozen=True)
class Kink:
    """A point of the ray where the gradient may jump, with the units that change there."""

    position: float
    units: tuple[Unit, ...]


@dataclass(frozen=True, eq=False)
class Regions:
    """The pieces of a ray between two positions, on each of which the model is affine.

    Attributes:
        edges: where the pieces begin and end, one more than there are pieces.
        gradients: the target output's gradient on each piece.
        kinks: what lies between the pieces.
        ties: units whose choice is no choice: windows that hold their largest value twice, ReLUs that stay at zero. The
            gradient through them is not unique; here the first entry is taken, and zero.
        stepped_over: places where units went to and fro without end, which only rounding can bring about.
    """

    edges: tuple[float, ...]
    gradients: Float[Tensor, "pieces *shape"]
    kinks: tuple[Kink, ...]
    ties: tuple[Unit, ...]
    stepped_over: int = 0

    def mean(self, begin: float, stop: float) -> Float[Tensor, "*shape"]:
        """The mean gradient between two positions: `1 / (stop - begin)` times the integral of g, exactly.

        Raises:
            InvalidValue: a position outside the regions.
        """
        if not self.edges[0] <= begin < stop <= self.edges[-1]:
            raise InvalidValue(
                "The regions do not reach so far.",
                got=f"{begin} to {stop}",
                instead=f"Use positions from {self.edges[0]} to {self.edges[-1]}.",
            )
        inner = np.clip(np.array(self.edges), begin, stop)
        # Differences before they are divided, for pieces may be as short as rounding.
        weights = torch.tensor(
            np.diff(inner) / (stop - begin), dtype=self.gradients.dtype, device=self.gradients.device
        )
        mean: Tensor = torch.tensordot(weights, self.gradients, dims=1)
        return mean

    def at(self, position: float) -> Float[Tensor, "*shape"]:
        """The gradient at a position; at a kink that of the piece before it."""
        piece = int(np.searchsorted(np.array(self.edges[1:-1]), position))
        gradient: Tensor = self.gradients[piece]
        return gradient


def ray_regions(
    model: nn.Module,
    x: Float[Tensor, "*shape"],
    b: Float[Tensor, "*shape"],
    t0: float = 0.0,
    t1: float = 1.0,
    *,
    target: int = 0,
    walkers: int = 16,
) -> Regions:
    """Every kink of a piecewise linear model on the ray `b + t (x - b)`, and the gradient between.

    `walkers` begin at as many places of the ray and go side by side from region to region: in each, one evaluation
    under the region's pattern gives value and slope of all units, and the nearest zero ahead is the next kink. Where
    two walkers meet, their patterns are compared, so nothing between them is lost.

    Args:
        model: linear layers, convolutions, ReLU, LeakyReLU, max and average pooling, batch normalisation, addition and
            flattening, in eval mode and of the dtype of the input; float64 to be exact.
        x: the end of the ray, one input.
        b: its beginning.
        t0: the first position.
        t1: the last.
        target: the output whose gradient is asked for.
        walkers: evaluated together.

    Raises:
        InvalidValue: an operation that is not piecewise linear (the first is named), shapes that do not match.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).double().eval()
        >>> with torch.no_grad():
        ...     for parameter, value in zip(model.parameters(), (1.0, -0.25, 4.0, 0.0)):
        ...         _ = parameter.fill_(value)
        >>> found = ray_regions(model, torch.ones(1).double(), torch.zeros(1).double())
        >>> [kink.position for kink in found.kinks], found.gradients.flatten().tolist()
        ([0.25], [0.0, 4.0])
    """
    network = Network.of(model)
    if x.shape != b.shape or not t0 < t1 or walkers < 1:
        raise InvalidValue(
            "A ray has two ends of one shape, and its positions grow.",
            got=f"shapes {tuple(x.shape)} and {tuple(b.shape)}, from {t0} to {t1}, {walkers} walkers",
            instead="Use t0 < t1 and at least one walker.",
        )
    bounds = torch.linspace(t0, t1, walkers + 1, dtype=torch.float64, device=x.device)
    bounds[0], bounds[-1] = t0, t1
    with torch.no_grad():
        many = (walkers, *x.shape)
        targets = torch.full((walkers,), target, device=x.device)
        tracks = walk(network, b.expand(many), (x - b).expand(many), bounds[:-1], bounds[1:], targets)
    return _joined(tracks)


def nearest_kinks(
    model: nn.Module, x: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], *, furthest: float = 1.0
) -> tuple[float, float]:
    """How far the nearest kink lies before the input and behind it, in lengths of the ray; infinity if further.

    Raises:
        InvalidValue: as for `ray_regions`.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double().eval()
        >>> nearest_kinks(model, torch.ones(1).double(), torch.full((1,), -1.0).double())
        (0.5, inf)
    """
    network = Network.of(model)
    way = x - b
    with torch.no_grad():
        zero = torch.zeros(2, dtype=torch.float64, device=x.device)
        both = torch.stack([-way, way])
        chosen = torch.zeros(2, dtype=torch.long, device=x.device)
        before, behind = walk(network, x.expand(2, *x.shape), both, zero, zero + furthest, chosen, most=1)
    return tuple(track.edges[1] if track.causes and track.causes[0] else float("inf") for track in (before, behind))  # type: ignore[return-value]


def exact_integrated_gradients(
    model: nn.Module, x: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], *, target: int = 0
) -> Float[Tensor, "*shape"]:
    """Integrated Gradients without quadrature: `(x - b)` times the mean gradient on the ray.

    Raises:
        InvalidValue: as for `ray_regions`.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 1)).double().eval()
        >>> x, b = torch.randn(2, 3).double()
        >>> total = exact_integrated_gradients(model, x, b).sum()
        >>> bool((total - (model(x[None]) - model(b[None])).sum()).abs() < 1e-12)
        True
    """
    return (x - b) * ray_regions(model, x, b, target=target).mean(0.0, 1.0)


def _joined(tracks: list[Track]) -> Regions:
    edges, gradients, kinks = [tracks[0].edges[0]], [], []
    for index, track in enumerate(tracks):
        gradients += track.gradients
        edges += track.edges[1:]
        kinks += [
            Kink(position, _units(causes)) for position, causes in zip(track.edges[1:-1], track.causes, strict=True)
        ]
        if index + 1 == len(tracks):
            break
        changed = [
            (name, unit)
            for name, value in track.last.items()
            for unit in ((value != tracks[index + 1].first[name]) & track.leaving[name])
            .flatten()
            .nonzero()[:, 0]
            .tolist()
        ]
        if changed:
            kinks.append(Kink(track.edges[-1], _units(changed)))
        else:
            # No kink: the piece goes on in the next track, whose first gradient is the same.
            edges.pop()
            gradients.pop()
    ties = {
        (name, place)
        for track in tracks
        for name, tied in track.ties.items()
        for place in tied.flatten().nonzero()[:, 0].tolist()
    }
    return Regions(
        edges=tuple(edges),
        gradients=torch.stack(gradients),
        kinks=tuple(kinks),
        ties=_units(sorted(ties)),
        stepped_over=sum(track.stepped_over for track in tracks),
    )


def _units(causes: list[tuple[str, int]]) -> tuple[Unit, ...]:
    return tuple(Unit(name, place) for name, place in causes)
