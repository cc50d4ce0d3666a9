"""``kappa-rtl soak``: millions of random operations of the exported Verilog against the golden model."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed

import click
from tqdm import tqdm

from ..sim.runner import SimulationError
from ..sim.stress.parts import build, parts, work

UNITS = {"elements": "element updates", "scalars": "scalar steps", "layouts": "layouts of segments"}


@click.command("soak")
@click.option("--elements", type=click.IntRange(0, 10**10), default=10_000_000, show_default=True, help="Random element updates.")
@click.option("--steps", type=click.IntRange(0, 10**9), default=1_000_000, show_default=True, help="Random scalar steps.")
@click.option(
    "--layouts",
    type=click.IntRange(0, 10**7),
    default=2000,
    show_default=True,
    help="Random layouts of segments, of three steps.",
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1, 64), default=os.cpu_count() or 1, show_default="processors", help="Processes.")
def command(elements: int, steps: int, layouts: int, seed: int, jobs: int) -> None:
    """Compare random element updates, in every rounding and overflow, random scalar steps, and units whose layout of segments
    changes every three steps, with the golden model.

    The Verilog runs in compiled programs that read and write files. The first difference is shown with the
    fewest operations that have it, and ends the soak with status 1.

    \b
    Example:
      kappa-rtl soak --elements 100000 --steps 2000 --seed 7
    """
    if not elements + steps + layouts:
        raise click.UsageError("elements, steps and layouts must not all be 0: nothing would be compared")
    todo = parts(elements, steps, seed, layouts)
    done: Counter[str] = Counter()
    cycles: Counter[str] = Counter()
    seconds = dict.fromkeys(UNITS, 0.0)
    begun = time.perf_counter()
    try:
        for kind, name in tqdm(sorted({(part.kind, part.name) for part in todo}), desc="building", leave=False):
            build(kind, name)
        with (
            ProcessPoolExecutor(jobs) as pool,
            tqdm(total=sum(part.size for part in todo), unit="op", unit_scale=True, dynamic_ncols=True) as bar,
        ):
            running = {pool.submit(work, part): part for part in todo}
            for future in as_completed(running):
                part, result = running[future], future.result()
                if result.failure:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise click.ClickException(f"a difference, in part {part}:\n{result.failure}")
                done[part.kind] += result.done
                cycles[part.kind] += result.cycles
                seconds[part.kind] += result.seconds
                bar.update(part.size)
    except SimulationError as error:
        raise click.ClickException(str(error)) from None
    for kind, unit in UNITS.items():
        if done[kind]:
            rate = done[kind] / seconds[kind]
            click.echo(f"{done[kind]} {unit}, no difference: {cycles[kind]} cycles, {rate:.0f} {unit} a second and process")
    click.echo(f"{time.perf_counter() - begun:.0f} s in all, with building, on {jobs} processes")
