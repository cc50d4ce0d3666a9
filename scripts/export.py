"""``kappa-rtl export``: Verilog and manifest."""

from __future__ import annotations

from pathlib import Path

import click

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import write


@click.command("export")
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="TOML with a table [throttle]."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("throttle.v"), show_default=True)
@click.option(
    "--streaming", is_flag=True, help="The variant without gradient memory: previous gradient and direction are streams."
)
def command(config: Path, output: Path, streaming: bool) -> None:
    """Write the throttle unit of a configuration as Verilog-2005, and its manifest beside it (.json).

    \b
    Example:
      printf '[throttle]\\nlaw = "stability_margin"\\nelements = 640\\neta = 0.1\\nlanes = 8\\n' > throttle.toml
      kappa-rtl export --config throttle.toml -o throttle.v
    """
    try:
        verilog, manifest = write(ThrottleConfig.from_toml(config), output, streaming=streaming)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {verilog} and {manifest}")
