"""``kappa-rtl cache``: what is kept between runs."""

from __future__ import annotations

import click
from tabulate import tabulate

from ..sim import cache


@click.command("cache")
@click.option("--clear", is_flag=True, help="Remove everything that is kept; the next runs build anew.")
def command(clear: bool) -> None:
    """Say where compiled simulations and generated Verilog are kept and how much there is; --clear removes them.

    KAPPA_RTL_CACHE names another folder, KAPPA_RTL_CACHE_LIMIT another bound in MiB; beyond it what was used longest ago goes.

    \b
    Example:
      kappa-rtl cache
      kappa-rtl cache --clear
    """
    try:
        bound = cache.limit()
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if clear:
        click.echo(f"removed {_size(cache.clear())} from {cache.root()}")
        return
    kept = cache.entries()
    rows = []
    for kind, what in cache.KINDS.items():
        sizes = [entry.size for entry in kept if entry.kind == kind]
        if sizes:
            rows.append((what, len(sizes), _size(sum(sizes))))
    click.echo(f"{cache.root()}: {_size(sum(entry.size for entry in kept))} of at most {_size(bound)}")
    if rows:
        click.echo(tabulate(rows, headers=("kept", "number", "size"), colalign=("left", "right", "right")))


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
