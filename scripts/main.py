"""The command line: one command a module, loaded when it is called."""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from .interrupts import ending_at_once

# The matrices here are small: more BLAS threads than one only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

COMMANDS = {
    "cosim": "Train with the RTL as the throttle, golden in lockstep, and report.",
    "train": "Run an experiment of the training harness: a table and a plot.",
    "explore": "Train on many formats: which widths are enough, and what do they cost?",
    "findings": "Answer what a bit is worth, where, and what it costs: tables and pictures over seeds.",
    "monitor": "Replay logged runs through the diagnostic protocol: where it stops them, and what that saves.",
    "calibrate": "Train healthy and failing networks, and table what the protocol sees of them.",
    "credit": "Compare learning signals with backpropagation, and send them through the throttle.",
    "export": "Write the unit of a configuration as Verilog, with its manifest.",
    "synth": "Synthesise the components and the core, and table what they cost.",
    "fit": "Fit the costs that are estimated without a tool to syntheses.",
    "energy": "Count what a step of a real training run costs in switching, by part of the unit.",
    "faults": "Flip single bits of the running unit, and table what becomes of each.",
    "soak": "Compare millions of random operations of the Verilog with the golden model.",
    "doctor": "Say what this machine has of what the commands need.",
    "cache": "Say what is kept between runs, and where; or clear it.",
    "bench": "Measure speeds side by side: golden against float, bulk against beat by beat.",
}


class _Lazy(click.Group):
    """A group that imports a command's module only when it is needed, so that --help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{name}", __package__).command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        with ending_at_once():
            try:
                return super().invoke(ctx)
            except BrokenPipeError:  # whoever read the output has seen enough
                raise
            except OSError as error:
                raise click.ClickException(str(error)) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kappa-rtl")
def main() -> None:
    """kappa-rtl: a global training throttle as hardware, with the proof and the measurement.

    \b
    Example:
      kappa-rtl cosim --out build/run
      kappa-rtl export --config throttle.toml -o throttle.v
    """


if __name__ == "__main__":
    main()
