"""Which points of a large space are trained: Optuna asks for them, and is told how good and how large they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .space import TRAINED, Axes

STARTUP = 16
"""Points at random, before what was found decides."""


class Search:
    """A study of two aims: the best score, and the fewest bits of memory. It lives in memory: results on disk are the truth.

    Args:
        axes: the space.
        larger_is_better: of the score.
        seed: of what is drawn.

    Raises:
        ValueError: Optuna is not installed.
    """

    def __init__(self, axes: Axes, *, larger_is_better: bool, seed: int = 0) -> None:
        self._optuna = optuna = _module()
        self._axes = axes
        distributions = optuna.distributions
        self._of: dict[str, Any] = {}
        for name in TRAINED:
            values = getattr(axes, name)
            ordered = all(isinstance(value, int) for value in values) and list(values) == sorted(values)
            last = len(values) - 1
            self._of[name] = (
                distributions.IntDistribution(0, last) if ordered else distributions.CategoricalDistribution(range(last + 1))
            )
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)
        self._study = optuna.create_study(
            directions=["maximize" if larger_is_better else "minimize", "minimize"], sampler=sampler
        )

    def ask(self) -> tuple[int, dict[str, Any]]:
        """The number of a trial, and the combination that it is about."""
        trial = self._study.ask(self._of)
        return trial.number, self.choice([trial.params[name] for name in TRAINED])

    def tell(self, number: int, score: float, memory_bits: int) -> None:
        """What became of a trial."""
        self._study.tell(number, [score, memory_bits])

    def drop(self, number: int) -> None:
        """A combination that no unit can be."""
        self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    def add(self, places: Sequence[int], score: float, memory_bits: int) -> None:
        """A combination that was trained before, by the places of its values in the axes."""
        params = dict(zip(TRAINED, places, strict=True))
        trial = self._optuna.trial.create_trial(params=params, distributions=self._of, values=[score, memory_bits])
        self._study.add_trial(trial)

    def choice(self, places: Sequence[int]) -> dict[str, Any]:
        """The values at these places of the axes."""
        return {name: getattr(self._axes, name)[place] for name, place in zip(TRAINED, places, strict=True)}

    def places(self, choice: Mapping[str, Any]) -> list[int]:
        """The inverse of :meth:`choice`."""
        return [getattr(self._axes, name).index(choice[name]) for name in TRAINED]


def _module() -> Any:
    try:
        import optuna  # here: it takes a second
    except ImportError:
        raise ValueError('search must have Optuna: pip install "kappa-rtl[explore]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
