"""``kappa-rtl synth``: what the components and the core cost on an FPGA or in a cell library."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from amaranth.hdl import UnusedElaboratable
from tqdm import tqdm

from ..golden.config import ThrottleConfig
from ..golden.files import write_atomically
from ..hw.synth.blocks import LANES, blocks
from ..hw.synth.costs import CORE, bandwidths, blocks_table, goals, renewed, tables, text
from ..hw.synth.synthesis import SEEDS, Figures, SynthesisError, dated, measure, target_of, tool, version
from ..hw.synth.targets import TARGETS, Target, liberty
from .outputs import Output
from .settings import HELP, USED, read, unit_of


def plot(found: Iterable[Figures], target: Target, elements: int, path: Path) -> None:
    """Size and time of a step of the core against its lanes.

    Raises:
        ValueError: no core was measured.
    """
    from matplotlib.figure import Figure  # here: it takes half a second, and most runs want no picture

    cores = {int(name[1]): f for f in found if (name := CORE.fullmatch(f.name))}
    if not cores:
        raise ValueError("plot must have a core to show: only must match 'core, 8 lanes' and the like")
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    size = figure.subplots()
    time = size.twinx()
    lanes = sorted(cores)
    size.plot(lanes, [cores[n].cells.size for n in lanes], "o-", color="tab:blue")
    timed = [n for n in lanes if cores[n].step_us]
    time.plot(timed, [cores[n].step_us or 0 for n in timed], "s--", color="tab:red")
    size.set_xscale("log", base=2)
    size.set_xticks(lanes, [str(n) for n in lanes])
    size.set_xlabel("lanes")
    size.set_ylabel(target.unit, color="tab:blue")
    time.set_ylabel(f"step of {elements} elements, us", color="tab:red")
    size.set_ylim(bottom=0)
    time.set_ylim(bottom=0)
    size.set_title(f"The core on {target.name}")
    figure.savefig(path, dpi=150)


def document(config: ThrottleConfig, target: Target, found: Iterable[Figures], timed: bool, macro: str) -> str:
    """What ``--json`` writes."""
    programs = ["yosys", *target.placer[:1]] if timed else ["yosys"]
    tools = {name: version(name) for name in programs}
    if timed and not target.size and tool("sta"):
        tools["sta"] = version("sta")
    about = {"tools": tools, "target": target.name, "macro": macro, "configuration": config.to_table()}
    return json.dumps(about | {"blocks": [figures.to_json() for figures in found]}, indent=1) + "\n"


def earlier(path: Path | None, target: Target, macro: str) -> dict[str, Figures]:
    """The blocks in a file of an earlier run for the same target and with the same macro, by name."""
    if not (path and path.exists()):
        return {}
    try:
        known: dict[str, Any] = json.loads(path.read_text())
        if (known.get("target"), known.get("macro")) != (target.name, macro):
            return {}
        return {block["name"]: Figures.from_json(block, target) for block in known["blocks"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"json must name a file of figures, or none yet, not {str(path)!r}: {error}") from None


@click.command("synth")
@click.option("--target", type=click.Choice(list(TARGETS)), default="ecp5", show_default=True, help="What it is synthesised for.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=HELP)
@click.option("--only", default="", metavar="REGEX", help="Measure only the blocks whose name it matches.")
@click.option("--lanes", type=click.IntRange(1, 32), multiple=True, default=LANES, show_default=True, help="Lanes of the cores.")
@click.option(
    "--seeds", type=click.IntRange(0, 20), default=len(SEEDS), show_default=True, help="Placements a block; 0: size only."
)
@click.option(
    "--plain", is_flag=True, help="Infer multipliers and memories, in place of the target's blocks with their registers."
)
@click.option("--liberty", "library", type=click.Path(path_type=Path), help="The cell library of osu018.")
@click.option(
    "--bandwidth", type=click.FloatRange(0, min_open=True), metavar="GB/S", help="Also table what a memory of that rate feeds."
)
@click.option(
    "--page",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Renew the tables of this Markdown page: between <!-- TARGET --> and <!-- end -->, and what else is known of an ECP5.",
)
@click.option("--plot", "picture", type=Output(".png"), help="Draw size and step time of the cores.")
@click.option(
    "--json",
    "path",
    type=Output(),
    help="Write the figures here too, after each block; blocks that it already has, of the same Verilog, are not measured again.",
)
def command(
    target: str,
    config: Path | None,
    only: str,
    lanes: tuple[int, ...],
    seeds: int,
    plain: bool,
    library: Path | None,
    bandwidth: float | None,
    page: Path | None,
    picture: Path | None,
    path: Path | None,
) -> None:
    """Synthesise each block with Yosys, place it with nextpnr, and print a table.

    Placed are ecp5 (45k, speed 6), ice40 (hx8k), nexus (LIFCL-40, speed 9), machxo2 (on a MachXO3LF-6900) and gatemate
    (CCGM1A1). For gowin (GW2A) and xilinx (7 series) no open tool gives a clock that holds; for osu018 OpenSTA does if it is
    there, of gates without wires.

    LUT4 counts a carry cell of an ECP5 as two; a block stands between scan registers, which are not counted; Fmax is the median
    over the seeds. AT is size times the time of a result. A dagger marks what --json has of an earlier text of the Verilog. Needs
    the extra `synth`.

    \b
    Example:
      kappa-rtl synth --only 'divider|square root'
      kappa-rtl synth --target ice40 --lanes 1 --seeds 1 --json build/ice40.json
    """
    warnings.simplefilter("ignore", UnusedElaboratable)  # some are made for their contracts alone
    try:
        aim = target_of(target)
        if not aim.size:
            liberty(library)
        elif library:
            raise ValueError(f"liberty must be left out with target {target}, which has cells of its own, not {str(library)!r}")
        settings = read(config)
        settings.tell_unused("synth", USED["synth"])
        unit = unit_of(settings) if config else ThrottleConfig.stability_margin(elements=640, eta=0.1)
        try:
            chosen = {name: make for name, make in blocks(unit, lanes).items() if re.search(only, name)}
        except re.error as error:
            raise ValueError(f"only must be a regular expression, not {only!r}: {error}") from None
        if not chosen:
            raise ValueError(f"only must match the name of a block, not {only!r}")
        macro = "" if plain else aim.define
        known = earlier(path, aim, macro)
        if page:
            renewed(page.read_text(), tables(unit, aim, known, plain))  # refused before hours are spent
        made = blocks(unit)
        known = {name: dated(made[name][0](), figures) if name in made else figures for name, figures in known.items()}
        found: dict[str, Figures] = {}

        def finished(stage: str) -> None:
            bar.update()

        with tqdm(total=len(chosen) * (1 + seeds), unit="stage", dynamic_ncols=True) as bar:
            for name, (make, cycles) in chosen.items():
                bar.set_description(name)
                component = make()
                found[name] = measure(
                    component,
                    name,
                    target=target,
                    cycles=cycles(component),
                    primitives=not plain,
                    library=library,
                    seeds=range(1, seeds + 1),
                    progress=finished,
                    known=known.get(name),
                )
                if path:
                    write_atomically(path, document(unit, aim, (known | found).values(), bool(seeds), macro))
        everything = known | found
        if picture:
            plot(everything.values(), aim, unit.elements, picture)
        if page:
            write_atomically(page, renewed(page.read_text(), tables(unit, aim, everything, plain)))
        click.echo(text(blocks_table(found.values(), aim)))
        if target == "ecp5" and not plain and len(wanted := goals(found)) > 1:
            click.echo("\n" + text(wanted))
        for n in lanes if bandwidth else ():
            click.echo(f"\n{n} lane{'s' * (n > 1)}:\n" + text(bandwidths(unit.replace(lanes=n), everything, bandwidth or 0)))
    except (ValueError, SynthesisError, OSError) as error:
        raise click.ClickException(str(error)) from None
