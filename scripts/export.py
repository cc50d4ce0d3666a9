"""``kappa-rtl export``: Verilog and manifest."""

from __future__ import annotations

from pathlib import Path

import click

from ..hw.bus.map import FRAMES
from ..hw.export import BUSES, POLARITIES, RESETS, VARIANTS, outputs, write
from ..hw.words import named
from .outputs import Output
from .settings import HELP, USED, read, unit_of


@click.command("export")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help=HELP)
@click.option("-o", "--output", type=Output(parents=True), default=None, help="The Verilog.  [default: NAME.v]")
@click.option(
    "--name",
    default=None,
    help="The top module, with which all others and the macros begin; of two names in a design none may begin with the other and "
    "an underscore.  [default: throttle, throttle_axi]",
)
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
    help="Vectors on AXI4-Stream, all else on AXI4-Lite; what programs and other tools need goes beside (docs/axi.md).",
)
@click.option(
    "--reset",
    type=click.Choice(RESETS),
    default="sync",
    show_default=True,
    help="Of the registers; the end of an asynchronous one has to be synchronous with the clock.",
)
@click.option(
    "--reset-polarity",
    type=click.Choice(POLARITIES),
    default="high",
    show_default=True,
    help="high: the port rst; low: rst_n.",
)
@click.option(
    "--frames",
    type=click.Choice(FRAMES),
    default="drop",
    show_default=True,
    help="A vector that ends early or late on a bus: dropped whole, with buffers for that; or only told, its beats being taken.",
)
@click.option("--bus-clock", is_flag=True, help="AXI4-Lite on a clock of its own, s_axi_aclk with s_axi_aresetn.")
def command(
    config: Path,
    output: Path | None,
    name: str | None,
    variant: str,
    streaming: bool,
    bus: str | None,
    reset: str,
    reset_polarity: str,
    frames: str,
    bus_clock: bool,
) -> None:
    """Write the throttle unit of a configuration as Verilog-2005, which is SystemVerilog too, and its manifest beside it (.json).

    \b
    Example:
      printf '[throttle]\\nlaw = "stability_margin"\\nelements = 640\\neta = 0.1\\nlanes = 8\\n' > throttle.toml
      kappa-rtl export --config throttle.toml -o throttle.v
      kappa-rtl export --config throttle.toml --name second --reset async --reset-polarity low
    """
    try:
        if streaming and variant not in ("memory", "streaming"):
            raise ValueError(f"--streaming must not be given with --variant {variant}")
        called = named(("throttle_axi" if bus else "throttle") if name is None else name)
        output = output or Path(f"{called}.v")
        if config.resolve() in {place.resolve() for place in outputs(output, bus or "")}:
            raise ValueError(f"output and what lies beside it must be other files than the configuration, {str(config)!r}")
        chosen = "streaming" if streaming else variant
        settings = read(config)
        settings.tell_unused("export", USED["export"])
        first, *others = write(
            unit_of(settings),
            output,
            variant=chosen,
            bus=bus or "",
            name=called,
            reset=reset,
            reset_polarity=reset_polarity,
            frames=frames,
            bus_clock=bus_clock,
        )
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {', '.join(str(path) for path in (first, *others[:-1]))} and {others[-1]}")
