"""A network whose layers have weights of different widths: shards under one law, and what the law should measure.

    python examples/formats_by_layer/run.py build/formats_by_layer

Trains 64-32-10 on handwritten digits in batches of 64, the weights of the hidden and of the last layer in 6, 8 or 16 bits.
Prints the accuracy and the median alpha of the last 100 steps, with the curvature along the applied and the intended motion.
Then writes the Verilog of the two units of the pair 8, 16.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from kappa_rtl import export
from kappa_rtl.golden.training import digits
from kappa_rtl.golden.training.model import LinearBlockModel
from kappa_rtl.golden.training.units import unit_for

WIDTHS = [(16, 16), (8, 16), (16, 8), (6, 16), (16, 6), (8, 8)]
EPOCHS, BATCH, SEEDS, RATE, CHI = 10, 64, 3, 0.5, 1.5


def precision(hidden: int, last: int) -> dict[str, dict[str, str]]:
    """Formats by layer: weights up to 2, updates up to 1, gradients of 16 bits."""
    return {
        layer: {
            "weight": f"SQ2.{bits - 2}",
            "bias": f"SQ2.{bits - 2}",
            "gradient": "SQ1.15",
            "update": f"SQ1.{bits - 1}",
        }
        for layer, bits in (("dense0", hidden), ("dense1", last))
    }


def unit_of(hidden: int, last: int, motion: str, seed: int) -> tuple[Any, Any, Any]:
    """Data, network and its unit."""
    data = digits()
    model = LinearBlockModel(data, num_hidden=[32], activation="relu", use_bias=True, seed=seed, dtype=np.float64)
    return data, model, unit_for(model, precision(hidden, last), motion=motion, eta=RATE, chi=CHI, lanes=4)


def run(hidden: int, last: int, motion: str, seed: int) -> tuple[float, float]:
    """Accuracy, and the median alpha of the last 100 steps."""
    data, model, unit = unit_of(hidden, last, motion, seed)
    history = model.train_instrumented(data.X, data.Y, EPOCHS, BATCH, throttle=unit)
    accuracy = np.mean(model.predict(data.X).argmax(axis=1) == data.labels)
    return float(accuracy), float(np.median(history["alpha"][-100:]))


def main() -> None:
    """Print the table, then export."""
    warnings.simplefilter("ignore")  # what the harness says of narrow weights is what the table shows
    print(f"{'hidden, last':>14} {'applied':>22} {'intended':>22}")
    for hidden, last in WIDTHS:
        cells = []
        for motion in ("applied", "intended"):
            found = np.array([run(hidden, last, motion, seed) for seed in range(SEEDS)])
            cells.append(f"{found[:, 0].mean():.3f} (alpha {np.median(found[:, 1]):.4f})")
        print(f"{f'{hidden}, {last}':>14} {cells[0]:>22} {cells[1]:>22}")
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "build/formats_by_layer")
    out.mkdir(parents=True, exist_ok=True)
    for k, part in enumerate(unit_of(8, 16, "intended", 0)[2].parts):
        (out / f"shard{k}.v").write_text(export(part, name=f"shard{k}")[0])
        print(f"{out}/shard{k}.v: {part.elements} weights {part.weight}, energies on {part.gradient_grid} and {part.weight_grid}")


if __name__ == "__main__":
    main()
