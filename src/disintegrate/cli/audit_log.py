"""`disintegrate audit --log`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from disintegrate.cli.planning import steps_of
from disintegrate.cli.root import bars
from disintegrate.cli.terminal import new_table, screen

if TYPE_CHECKING:
    from disintegrate.audit import LogAudit

# Rows of the table that is printed; the record has all.
SHOWN = 20


def audited_log(
    path: Path, model: str | None, rule: str | None, steps: str | None, architecture: str | None, trust: bool
) -> LogAudit:
    """Audit a log under a rule, with the model behind it as the truth where one is named."""
    from disintegrate.audit import audit_log, read_log
    from disintegrate.models import load_model
    from disintegrate.rules import PRESETS

    preset = PRESETS.get(rule or "captum")
    own = steps_of(steps)[1] if steps is not None else preset.steps if preset else 50
    name = preset.rule if preset else rule or "captum"
    log = read_log(path, own_steps=own)
    truth = load_model(model, architecture=architecture, trust=trust).module if model is not None else None
    with bars() as progress:
        return audit_log(log, name, model=truth, progress=progress)


def print_log(found: LogAudit) -> None:
    """The verdict, and the rows that give away most."""
    from disintegrate.measure import Exactness

    console = screen()
    console.print(found.judgement.sentence, style="bold", highlight=False)
    apart = "distance" if found.check is not None else "distance to expect"
    table = new_table("row", "target", apart, "exact for", "rows on its ray")
    order = sorted(range(len(found.rows)), key=lambda row: (found.distance[row], row))
    for number in order[:SHOWN]:
        row = found.rows[number]
        used = ", ".join(map(str, row.rows[1:6])) + (", ..." if len(row.rows) > 6 else "")
        exact = "no class of models: an estimate" if row.exactness is Exactness.NONE else row.exactness.value
        told = (f"{found.distance[number]:.2g}", exact.removeprefix("exact for "), used or "none")
        table.add_row(str(number), str(found.targets[number]), *told)
    console.print(table)
    if len(order) > SHOWN:
        console.print(f"{len(order) - SHOWN} more rows stand in the record (--out FILE, or --json).", highlight=False)
