"""``kappa-rtl findings``: the questions of whoever designs a chip, each answered by a search, with its table and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..golden.files import write_atomically
from ..hw.synth.costs import text
from .experiments.findings.finding import FINDINGS
from .explore import processors
from .interrupts import interruptible
from .outputs import Folder

SEEDS = 5


HELP = """Answer a question about widths with a search, over several seeds. Without a NAME all of them, which takes an hour on two
cores.

\b
{names}

Leaves in OUT/NAME a table, results.json, plot.png, and the search of each task as a file that `kappa-rtl explore` takes. What
was interrupted goes on where it was. docs/findings.md has what it says.

\b
Example:
  kappa-rtl findings weight
  kappa-rtl findings noise still --seeds 10 --out build/findings
""".format(names="\n".join(f"{name:<10}{one.asks}" for name, one in FINDINGS.items()))


@click.command("findings", help=HELP)
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(list(FINDINGS)))
@click.option("--out", type=Folder(), default=Path("findings"), show_default=True, help="The folder to write.")
@click.option("--seeds", type=click.IntRange(1, 1000), default=SEEDS, show_default=True, help="Runs of each point.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes (default: as many as there are processors).")
def command(names: tuple[str, ...], out: Path, seeds: int, jobs: int | None) -> None:
    from .experiments.findings.figure import draw
    from .experiments.findings.run import run
    from .experiments.findings.table import rows

    try:
        for name in names or FINDINGS:
            finding, folder = FINDINGS[name], out / name
            click.echo(f"{finding.asks}\n", err=True)
            with interruptible():
                folder.mkdir(parents=True, exist_ok=True)
                content = run(finding, folder, seeds=seeds, jobs=jobs or processors())
            table = text(rows(finding, content))
            write_atomically(folder / "results.json", json.dumps(content) + "\n")
            write_atomically(folder / "table.txt", table + "\n")
            write_atomically(folder / "plot.png", draw(finding, content))
            click.echo(f"{table}\n\npicture: {folder / 'plot.png'}\n")
    except OSError as error:
        raise click.ClickException(f"out = {str(out)!r} must be a folder that can be written: {error}") from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None
