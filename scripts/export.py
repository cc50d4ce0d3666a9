"""``kappa-rtl export``: Verilog and manifest."""

from __future__ import annotations

from pathlib import Path

import click

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import BUSES, VARIANTS, write


@click.command("export")
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="TOML with a table [throttle]."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("throttle.v"), show_default=True)
@click.option(
    "--variant",
    type=click.Choice(list(VARIANTS)),
    default="memory",
    show_default=True,
    help="On chip: the gradients; nothing, the previous gradient and the direction being streams; or the weights too.",
)
@click.option("--streaming", is_flag=True, help="The same as --variant streaming.")
@click.option(
    "--bus",
    type=click.Choice(BUSES),
    default=None,
    help="Vectors on AXI4-Stream, all else on AXI4-Lite; the register map goes beside as .md, .h and .py.",
)
def command(config: Path, output: Path, variant: str, streaming: bool, bus: str | None) -> None:
    """Write the throttle unit of a configuration as Verilog-2005, and its manifest beside it (.json).

    \b
    Example:
      printf '[throttle]\\nlaw = "stability_margin"\\nelements = 640\\neta = 0.1\\nlanes = 8\\n' > throttle.toml
      kappa-rtl export --config throttle.toml -o throttle.v
    """
    try:
        if streaming and variant not in ("memory", "streaming"):
            raise ValueError(f"--streaming must not be given with --variant {variant}")
        if output.resolve() == config.resolve():
            raise ValueError(f"output must be another file than the configuration, {str(config)!r}")
        chosen = "streaming" if streaming else variant
        first, *others = write(ThrottleConfig.from_toml(config), output, variant=chosen, bus=bus or "")
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {', '.join(str(path) for path in (first, *others[:-1]))} and {others[-1]}")
