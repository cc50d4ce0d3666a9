"""``kappa-rtl faults``: what becomes of single-bit upsets in the unit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from ..golden.config import ThrottleConfig
from ..sim.runner import SimulationError
from ..sim.stress.faults import CLASSES, Campaign, Outcome, table
from .interrupts import interruptible
from .outputs import Folder
from .settings import HELP, USED, read, unit_of

HEAD = ("component: registers", "bits", "upsets", *CLASSES)


def kept(path: Path, head: dict[str, Any]) -> list[Outcome]:
    """The outcomes that an interrupted campaign of the same plan has left.

    Raises:
        ValueError: the file is another campaign's.
    """
    if path.exists():
        first, *lines = path.read_text().splitlines(keepends=True) or [""]
        if first.endswith("\n"):
            if json.loads(first) != head:
                raise ValueError(
                    f"{path} must be of this seed, configuration and Verilog, and is of another campaign; take another --out"
                )
            whole = [line for line in lines if line.endswith("\n")]
            path.write_text(first + "".join(whole))
            return [Outcome.from_json(json.loads(line)) for line in whole]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head) + "\n")
    return []


@click.command("faults")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=HELP)
@click.option("--count", type=click.IntRange(1, 10**6), default=4000, show_default=True, help="Upsets; all bits in turn.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Of the plan and the data.")
@click.option("--out", type=Folder(), default=Path("build/faults"), show_default=True)
def command(config: Path | None, count: int, seed: int, out: Path) -> None:
    """Flip single bits of the running unit, one a run, and table what becomes of each against the golden model.

    Every flip-flop and memory bit of the exported Verilog is struck in turn, in a random cycle of one of a run's first five
    steps; eight more steps are compared. OUT/upsets.jsonl holds every upset; an interrupted campaign goes on from there.

    \b
    Example:
      kappa-rtl faults --count 1000 --seed 1 --out build/faults
    """
    try:
        settings = read(config)
        settings.tell_unused("faults", USED["faults"])
        unit = unit_of(settings) if config else ThrottleConfig.stability_margin(elements=64, lanes=2, eta=0.1)
        path = out / "upsets.jsonl"
        with interruptible(), Campaign(unit, seed) as campaign:
            outcomes = kept(path, {"seed": seed, "throttle": unit.to_table(), "sha256": campaign.sha256})
            with path.open("a") as file, tqdm(total=count, initial=len(outcomes), unit="upset", dynamic_ncols=True) as bar:
                for upset in campaign.plan(count):
                    if upset.number < len(outcomes):
                        continue
                    outcomes.append(campaign.strike(upset))
                    file.write(json.dumps(outcomes[-1].to_json()) + "\n")
                    bar.update()
            rows = table(campaign.bits, outcomes[:count])
    except (ValueError, OSError, SimulationError) as error:
        raise click.ClickException(str(error)) from None
    for row in (HEAD, ("---",) + ("---:",) * (len(HEAD) - 1), *rows):
        click.echo(f"| {' | '.join(str(cell) for cell in row)} |")
    alarms = Counter(alarm for outcome in outcomes[:count] for alarm in outcome.alarms)
    click.echo(f"\nAlarms: {', '.join(f'{name} {times}' for name, times in alarms.most_common()) or 'none'}.")
