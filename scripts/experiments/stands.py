"""How tensors stand to their grids before they are rounded onto them, as a table and in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from ...golden.formats import Fixed

HEAD = ("tensor", "grid", "below the lower rail", "above the upper rail", "below half an ulp", "zero", "largest magnitude")

TELLING = 0.01
"""A share beyond a rail from which a sentence says so."""

SWALLOWED = 0.5
"""A share below half an ulp from which a sentence says so."""


@dataclass(frozen=True)
class Stand:
    """How a tensor stands to its grid: shares of its elements, and its largest magnitude."""

    tensor: str
    grid: Fixed | None
    below: float
    above: float
    swallowed: float
    zero: float
    largest: float

    @property
    def cells(self) -> tuple[str, ...]:
        """For a table."""
        shares = [self.zero] if self.grid is None else [self.below, self.above, self.swallowed, self.zero]
        shown = [f"{share:.2%}" if share else "0" for share in shares]
        return (self.tensor, self.grid.name if self.grid else "float", *["–"] * (4 - len(shown)), *shown, f"{self.largest:.4g}")


def stand(tensor: str, elements: NDArray[Any], grid: Fixed | None) -> Stand:
    """How elements stand to a grid, before they are rounded onto it; one that is not finite counts beyond the upper rail."""
    count = max(1, elements.size)
    zero = np.count_nonzero(elements == 0) / count
    size = np.abs(elements)
    largest = float(np.max(size, initial=0.0))
    if grid is None:
        return Stand(tensor, None, 0.0, 0.0, 0.0, zero, largest)
    ulp = float(grid.ulp)
    low, high = (rail * ulp for rail in grid.rails)
    # Within half an ulp beyond a rail, rounding to nearest still ends on it.
    return Stand(
        tensor,
        grid,
        np.count_nonzero(elements < low - ulp / 2) / count,
        np.count_nonzero(~(elements <= high + ulp / 2)) / count,
        (np.count_nonzero(size < ulp / 2) - np.count_nonzero(elements == 0)) / count,
        zero,
        largest,
    )


def table(stands: Iterable[Stand]) -> str:
    """For a terminal."""
    return tabulate([HEAD, *(one.cells for one in stands)], tablefmt="plain", disable_numparse=True)


def sentences(stands: Iterable[Stand]) -> Iterator[str]:
    """What the table says, where it says something bad."""
    for one in stands:
        if one.grid is None:
            continue
        beyond = one.below + one.above
        name = one.tensor[0].upper() + one.tensor[1:]
        if beyond >= TELLING:
            top = max(abs(rail) for rail in one.grid.rails) * float(one.grid.ulp)
            yield (
                f"{name}: {beyond:.1%} lies beyond the rails of {one.grid.name} ({top:g}), up to {one.largest:.4g}: more integer "
                "bits, or data on a smaller scale."
            )
        if one.swallowed >= SWALLOWED:
            yield (
                f"{name}: {one.swallowed:.1%} is below half an ulp of {one.grid.name} ({float(one.grid.ulp / 2):.3g}), not zero: "
                "more fraction bits, or data on a larger scale."
            )
