"""Which share of a model's tensors may stand still before the throttle is blind to the rest of it.

    python examples/still_tensors/run.py

A bowl whose steep tensors lie on fine grids and would diverge at this rate (eta * lambda = 4), beside flat ones on grids so
coarse that no step moves them. Three ways to measure how far the weights moved: what was applied (B), the same with half an
ulp for every weight of a segment that stood still (B'), and the step that was intended. Prints what the throttle lets
through, and how far the steep weights got before it held them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kappa_rtl import Throttle, ThrottleConfig
from kappa_rtl.golden.segments import Segment
from kappa_rtl.scripts.experiments.training.segments import FlooringThrottle

TENSORS, EACH, STEPS, SEEDS = 20, 32, 200, 5
SHARES = (0, 0.5, 0.8, 0.95)
PUSHES = (0.9, 0.1)
"""What the steps of the tensors that stand still are meant to be, in halves of their ulp."""

KINDS: dict[str, tuple[type[Throttle], str]] = {
    "B": (Throttle, "applied"),
    "B'": (FlooringThrottle, "applied"),
    "intended": (Throttle, "intended"),
}


def unit_of(kind: str, share: float) -> tuple[Any, int]:
    """The unit, and how many of its tensors stand still; these come last, on grids 7 bits coarser."""
    still = round(share * TENSORS)
    make, motion = KINDS[kind]
    config = ThrottleConfig.stability_margin(
        elements=TENSORS * EACH,
        eta=4,
        chi=1.5,
        rho=0.1,
        gradient="SQ4.14",
        weight="SQ4.8",
        update="SQ4.14",
        motion=motion,
        segments=[Segment(EACH, 7 * (k < TENSORS - still), f"tensor{k}") for k in range(TENSORS)],
    )
    return make(config, np.zeros(config.elements)), still


def run(kind: str, share: float, push: float, seed: int) -> tuple[float, float]:
    """The median of alpha * eta * lambda over the last half, and the largest steep weight in halves of the coarse ulp."""
    unit, still = unit_of(kind, share)
    steep = (TENSORS - still) * EACH
    half = float(unit.config.grids.weight.ulp) / 2
    numbers = np.random.default_rng(seed)
    theta = np.zeros(TENSORS * EACH)
    theta[:steep] = numbers.normal(0, half / 64, steep)
    unit.load_weights(_on_grid(theta, unit.config, "weight"), codes=True)
    let, largest = [], 0.0
    for _ in range(STEPS):
        weights = unit.weights
        gradient = weights + numbers.normal(0, half / 256, theta.size)  # lambda is 1 in the steep ones
        gradient[steep:] = push * half / 4 * numbers.choice([-1, 1], theta.size - steep)  # at alpha = 1 a step of push halves
        record = unit.step(_on_grid(gradient, unit.config, "gradient"), codes=True)
        let.append(4 * float(record.registers.alpha))
        largest = max(largest, float(np.abs(record.weights[:steep]).max()) / half)
    return float(np.median(let[STEPS // 2 :])), largest


def _on_grid(values: Any, config: ThrottleConfig, name: str) -> Any:
    codes = []
    for place, segment in zip(config.stretches, config.segments, strict=True):
        fmt = getattr(config.grids_at(segment.scale), name)
        codes.append(np.rint(np.ldexp(values[place.place], fmt.fraction_bits)).clip(*fmt.rails).astype(np.int64))
    return np.concatenate(codes)


def main() -> None:
    """Print the table."""
    print("alpha * eta * lambda (stable below 2) and, in brackets, the largest steep weight in halves of the coarse ulp; medians")
    head = "still   meant to move"
    print(head + "".join(f"{kind:>22}" for kind in KINDS))
    for push in PUSHES:
        for share in SHARES:
            cells = []
            for kind in KINDS:
                found = np.array([run(kind, share, push, seed) for seed in range(SEEDS)])
                let, largest = np.median(found, axis=0)
                cells.append(f"{let:.2f} ({largest:.3g})")
            print(f"{share:>5.0%}   {push:>13}" + "".join(f"{cell:>22}" for cell in cells))


if __name__ == "__main__":
    main()
