"""Evidence that a finished run lacks: `python studies/conditions.py noisy_inputs noisy_inputs_float64`.

Conditions that were added after results/reproduction was made are measured as `disintegrate reproduce` measures them,
on the same networks and images, and take their places among its records; then the page is drawn anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

from disintegrate.paper import evidence, mnist
from disintegrate.paper.conditions import conditions_for
from disintegrate.paper.records import Run, load_run, store
from disintegrate.paper.reproduce import evidence_images
from disintegrate.paper.training import recipe, train
from disintegrate.paper.units import Units
from disintegrate.report import render_folder

RESULTS = Path(__file__).parents[1] / "results" / "reproduction"


def main() -> None:
    """Measure and store the conditions named on the command line."""
    add(RESULTS, tuple(sys.argv[1:]))
    render_folder(RESULTS)


def add(folder: Path, names: tuple[str, ...], data: Path | None = None) -> Run:
    """Measure conditions for every network of a run that they are meant for, and write its record anew."""
    run, _ = load_run(folder)
    training, test, units = mnist.load("train", data), mnist.load("test", data), Units(folder / "units")
    listed = list(run.records)
    for network in run.networks:
        trained = train(recipe(network, quick=run.quick), training, test, folder / "models")
        images = min(run.images, evidence_images(network, quick=run.quick))
        order = conditions_for(network)
        for name in (name for name in order if name in names):
            found = evidence.gather_one(name, trained, test.first(images), units)
            for record in found:
                store(folder, record)
            added = [record.name for record in found]
            listed = [other for other in listed if other not in added]
            # Behind those of the condition that is measured before it.
            before = [record.name.removesuffix(name) + order[order.index(name) - 1] for record in found]
            place = 1 + max(listed.index(other) for other in before)
            listed[place:place] = added
    done = run.model_copy(update={"records": tuple(listed), "computing_seconds": run.computing_seconds + units.seconds})
    store(folder, done)
    return done


if __name__ == "__main__":
    main()
