"""``kappa-rtl fit``: the costs that ``estimate`` gives without a tool, fitted to syntheses."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import click
from amaranth.hdl import UnusedElaboratable
from tqdm import tqdm

from ..golden.files import write_atomically
from ..hw.synth.costs import CORE, renewed, text
from ..hw.synth.design import Sample, designed
from ..hw.synth.estimate import Fit
from ..hw.synth.families import FAMILIES
from ..hw.synth.fit import Measured, errors, fitted, read, synthesised, table, written
from ..hw.synth.synthesis import Figures, SynthesisError, target_of, version
from ..hw.synth.targets import Target
from .outputs import Output

CORES = {
    "core": CORE,
    "streaming": re.compile(r"core, streaming, (\d+) lanes?"),
    "one pass": re.compile(r"core of one pass, .+, (\d+) lanes?"),
}
"""The names of the cores in figures of ``kappa-rtl synth``, by kind."""


def clocks(path: Path, target: Target) -> dict[str, dict[int, float]]:
    """The clocks of the cores in a file of ``kappa-rtl synth``, by kind and lanes, in MHz; of several motions the least.

    Raises:
        ValueError: it is no such file, or of another target, or has no core with a clock.
    """
    try:
        document = json.loads(path.read_text())
        if document.get("target", target.name) != target.name:
            raise ValueError(f"it is of the target {document['target']}, not {target.name}")
        blocks = [Figures.from_json(block, target) for block in document["blocks"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"clocks must name a file of kappa-rtl synth --json, not {str(path)!r}: {error}") from None
    found: dict[str, dict[int, float]] = {}
    for kind, pattern in CORES.items():
        for block in blocks:
            if (name := pattern.fullmatch(block.name)) and block.mhz:
                lanes, by_lanes = int(name[1]), found.setdefault(kind, {})
                by_lanes[lanes] = min(round(block.mhz, 1), by_lanes.get(lanes, math.inf))
    if "core" not in found:
        raise ValueError(f"clocks must name a file with the clock of a core, not {str(path)!r}, which has none")
    return {kind: dict(sorted(by_lanes.items())) for kind, by_lanes in found.items()}


def kept(path: Path, target: Target, samples: Sequence[Sample], yosys: str | None) -> dict[str, Figures]:
    """The figures in the file of syntheses that are of samples of the set, by name; tells which others there are.

    Args:
        yosys: the version that goes on with the file; None if none does, and then all have to be of this set.

    Raises:
        ValueError: it is no such file, or of another version, or of other configurations.
    """
    found, by_name = read(path, target), {sample.name: sample for sample in samples}
    before = json.loads(path.read_text()).get("tools", {}).get("yosys")
    if yosys and before != yosys:
        raise ValueError(
            f"json must have syntheses of Yosys {yosys} alone, and {str(path)!r} has those of {before}: name another"
        )
    others = [sample.name for sample, _ in found if sample.name not in by_name]
    if others:
        click.echo(f"left out: {len(others)} samples of {str(path)!r} that are not in the set, {others[0]} first", err=True)
    changed = [sample.name for sample, _ in found if by_name.get(sample.name, sample) != sample]
    if changed and not yosys:
        raise ValueError(f"json must have the configurations of the set, and {len(changed)} are others, {changed[0]} first")
    return {sample.name: figures for sample, figures in found if by_name.get(sample.name) == sample}


def document(fit: Fit) -> str:
    """What ``--out`` writes."""
    return json.dumps({"target": fit.target, "mhz": fit.mhz, "lut": fit.lut, "ff": fit.ff}, indent=1) + "\n"


@click.command("fit")
@click.option(
    "--target", type=click.Choice(tuple(FAMILIES)), default="ecp5", show_default=True, help="What it is synthesised for."
)
@click.option(
    "--json",
    "path",
    type=Output(".json"),
    required=True,
    help="Where the syntheses are kept, each as it is done; those of the same Verilog are not made again.",
)
@click.option("--measured", is_flag=True, help="Fit to what --json has, and look at no Verilog.")
@click.option("--only", default="", metavar="REGEX", help="Synthesise only the samples whose name it matches.")
@click.option(
    "--clocks",
    "clocked",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The figures of kappa-rtl synth, for the clock of a core; without them the fit has none.",
)
@click.option("--out", type=Output(".json"), help="Write the coefficients; estimate has those of hw/synth/estimate_TARGET.json.")
@click.option(
    "--page",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Renew the table of this Markdown page, between <!-- estimate_TARGET --> and <!-- end -->.",
)
def command(
    target: str, path: Path, measured: bool, only: str, clocked: Path | None, out: Path | None, page: Path | None
) -> None:
    """Synthesise the designed set, fit the sizes, and table how far the estimates are off.

    The set has parts and whole units, of widths from 4 to 32, lanes from 1 to 32, M from 8 to 32 and every option; it takes half
    an hour to two hours, and goes on where it was cut off. Units that are not fitted are kept apart to measure the error. It
    needs the extra `synth`.

    \b
    Example:
      kappa-rtl fit --json build/estimate_ecp5.json --clocks docs/synthesis.json
      kappa-rtl fit --json docs/estimate_ecp5.json --clocks docs/synthesis.json --measured
      kappa-rtl fit --target xilinx --json build/estimate_xilinx.json
    """
    warnings.simplefilter("ignore", UnusedElaboratable)  # they are made to be counted
    try:
        aim = target_of(target)
        mhz = clocks(clocked, aim) if clocked else {}
        named = [one.resolve() for one in (path, clocked, out, page) if one]
        if len(set(named)) < len(named):
            raise ValueError("json, clocks, out and page must be different files")
        samples = designed(target=target)
        try:
            chosen = [sample for sample in samples if not measured and re.search(only, sample.name)]
        except re.error as error:
            raise ValueError(f"only must be a regular expression, not {only!r}: {error}") from None
        yosys = version("yosys") if chosen else None
        known = kept(path, aim, samples, yosys) if path.exists() else {}
        missing = [sample.name for sample in samples if sample.name not in known and sample not in chosen]
        if (out or page) and missing:
            raise ValueError(f"out and page must be of the whole set, of which {len(missing)} are missing, {missing[0]} first")
        if chosen:
            about = {"tools": {"yosys": yosys}, "target": aim.name, "macro": aim.define}
            with tqdm(total=len(chosen), unit="synthesis", dynamic_ncols=True) as bar:

                def keep(found: dict[str, Figures]) -> None:
                    write_atomically(path, written(samples, found, about))
                    bar.update()

                known = synthesised(chosen, target, known, keep)
        rows = [Measured.of(sample, known[sample.name]) for sample in samples if sample.name in known]
        if not rows:
            raise ValueError(f"json must name a file of syntheses with --measured, not {str(path)!r}, which has none")
        fit = fitted(rows, target, mhz)
        found = table(rows, fit)
        renew = renewed(page.read_text(), {f"estimate_{target}": found}) if page else ""
        if out:
            write_atomically(out, document(fit))
        if page:
            write_atomically(page, renew)
        click.echo(text(found))
        units = [row for row in rows if row.sample.part == "unit"]
        for of in ("lut", "ff") if units else ():
            worst = max(errors(units, fit), key=lambda off: abs(getattr(off, of)))
            click.echo(f"farthest off in {of.upper()}: {worst.name}, {getattr(worst, of):+.1%}")
    except (ValueError, SynthesisError, OSError) as error:
        raise click.ClickException(str(error)) from None
