"""A search from end to end: points drawn, trained wherever there is room, kept as they come, and looked at together."""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from ....hw.synth.estimate import estimate
from ...settings import Settings
from ..executors import LOCAL, check
from ..pool import Task, compute
from .found import Trained
from .network import Network
from .outcome import Outcome
from .point import FLOAT, OFF, Point
from .search import Search
from .space import ONE, TENSOR, Axes, Integers, finer, floats, point_of
from .store import Store, alone
from .subject import Subject, train

SEEDS = 3
GRID = 400
"""Points of a grid that is trained whole; of a larger one some have to be chosen."""

LARGEST = 100_000
"""Points of a space that some are chosen from: each is looked at."""


def explore(
    settings: Settings,
    out: Path,
    *,
    executor: str | Executor = LOCAL,
    jobs: int = 1,
    search: int = 0,
    seeds: int = SEEDS,
    tell: Callable[[str], None] = lambda text: tqdm.write(text, file=sys.stderr),
) -> Outcome:
    """Train the points of a space on some seeds, and put their scores beside their costs.

    Args:
        settings: a configuration file; see :class:`~kappa_rtl.scripts.experiments.explore.space.Axes` and
            ``network.Network``.
        out: the folder; runs that were done there before are found again.
        executor, jobs: see :func:`~kappa_rtl.scripts.experiments.executors.workers`.
        search: how many points Optuna chooses; 0 is all of the grid.
        seeds: of each point, from the subject's own on.
        tell: is given what was decided, a sentence at a time.

    Raises:
        ValueError: a bad setting, before anything runs; somebody else works in the folder.
    """
    for name, value, least in (("seeds", seeds, 1), ("search", search, 0), ("jobs", jobs, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")
    space = settings["explore"]
    where = space.pop("task", None)
    axes = Axes(**space)
    subject: Subject = Network.of(settings) if where is None else task(settings, where)
    references = floats(axes) if where is None else [Point(weight=FLOAT, law=OFF)]
    check(executor)
    if search:
        Search(axes, larger_is_better=True)
        if axes.size > LARGEST:
            raise ValueError(f"explore must have at most {LARGEST} points to choose from, not {axes.size}")
    elif axes.size > GRID:
        raise ValueError(
            f"explore has {axes.size} points, and a grid of at most {GRID} is trained whole; choose some of them: --search N"
        )
    with alone(out):
        tell(f"{subject.title}; {seeds} seed{'' if seeds == 1 else 's'}")
        calibration = subject.calibrate(references)
        tell(str(calibration))
        integers = {ONE: calibration.integers}
        if TENSOR in axes.grids:
            integers[TENSOR] = calibration.apart
            tell(finer(integers[TENSOR]))
        work = _Work(subject, axes, integers, Store(out, subject), range(subject.seed, subject.seed + seeds), tell)
        points = work.grid() if not search else []
        first = work.tasks([*references, *points])
        tasks = itertools.chain(first, work.searched(search)) if search else first  # chosen when there is somebody to train them
        for one, result in compute(tasks, jobs, "explore", executor=executor, total=len(first) + search * seeds):
            work.done(one[0], one[1], result)
        work.told(search)
    return Outcome.of(subject, axes, calibration, [work.trained(point) for point in (*references, *(points or work.chosen))])


def task(settings: Settings, where: str) -> Subject:
    """A task of the user's; an entry point of the package says who trains it.

    Raises:
        ValueError: torch is not installed, or there is no such task.
    """
    (maker,) = entry_points(group="kappa_rtl.subjects", name="task")
    try:
        make = maker.load()
    except ImportError as error:
        raise ValueError(f'explore.task must have torch: pip install "kappa-rtl[torch]" ({error})') from None
    made: Subject = make(settings, where)
    return made


@dataclass
class _Work:
    """What is to be trained, and what has been."""

    subject: Subject
    axes: Axes
    integers: Mapping[str, Integers]  #: by grids
    store: Store
    seeds: range
    tell: Callable[[str], None]
    found: dict[tuple[Point, int], dict[str, Any]] = field(default_factory=dict)
    refused: dict[Point, str] = field(default_factory=dict)
    chosen: dict[Point, None] = field(default_factory=dict)
    before: int = 0  #: runs that were found

    def point(self, choice: dict[str, Any]) -> Point | None:
        """The point of a combination; None, and noted, if no unit can be so."""
        try:
            made = point_of(choice, self.integers[choice["grids"]])
            self.subject.config(made)
            return made
        except ValueError as error:
            self.refused[Point(weight=str(choice))] = str(error)
            return None

    def grid(self) -> list[Point]:
        """Each point once."""
        made = dict.fromkeys(point for choice in self.axes.choices() if (point := self.point(choice)))
        if not made:
            raise ValueError(f"explore must have a point that a unit can be; the first: {next(iter(self.refused.values()))}")
        return list(made)

    def told(self, search: int) -> None:
        """Say what was found and not trained, what was left out, and of a search whether it is less than was asked for."""
        if self.before:
            self.tell(f"{self.before} of {len(self.found)} runs were done before, and were found again")
        if search and len(self.chosen) != search:
            why = "with those that were trained before" if len(self.chosen) > search else "there are no more"
            self.tell(f"{len(self.chosen)} points, not {search}: {why}")
        if self.refused:
            first, why = next(iter(self.refused.items()))
            self.tell(f"{len(self.refused)} combinations were left out, which no unit can be; the first, {first.weight}: {why}")
        if search and not self.chosen:
            raise ValueError(f"explore must have a point that a unit can be; the first: {next(iter(self.refused.values()))}")

    def tasks(self, points: Sequence[Point]) -> list[Task]:
        """The runs that are not done; seeds outside, so that an interrupted search has whole pictures."""
        return [self.task(point, seed) for seed in self.seeds for point in points if not self.known(point, seed)]

    def task(self, point: Point, seed: int) -> Task:
        return Task((point, seed), f"{point}, seed {seed}", train, (self.subject, point, seed))

    def known(self, point: Point, seed: int) -> bool:
        """Whether a run is done, here or before."""
        if (point, seed) not in self.found:
            before = self.store.find(point, seed)
            if before is None:
                return False
            self.found[point, seed] = before
            self.before += 1
        return True

    def done(self, point: Point, seed: int, result: dict[str, Any]) -> None:
        self.store.keep(point, seed, result)
        self.found[point, seed] = result

    def trained(self, point: Point) -> Trained:
        return Trained(point, tuple(self.found[point, seed] for seed in self.seeds))

    # ---------------------------------------------------------------- chosen points

    def searched(self, search: int) -> Iterator[Task]:
        """The runs of the points that a study asks for, until there are so many points; those that were trained before count."""
        study = Search(self.axes, larger_is_better=self.subject.labelled, seed=self.subject.seed)
        of_choice: dict[Point, list[int]] = {}
        for choice in self.axes.choices():
            with contextlib.suppress(ValueError):
                of_choice.setdefault(point_of(choice, self.integers[choice["grids"]]), study.places(choice))
        for point in self.store.points():
            if point in of_choice and all(self.known(point, seed) for seed in self.seeds):
                self.chosen[point] = None
                study.add(of_choice[point], *self._worth(point))
        waiting: dict[int, Point] = {}
        asked = 0
        while len(self.chosen) < min(search, len(of_choice)) and asked < 50 * search:
            for number, one in list(waiting.items()):
                if all(self.known(one, seed) for seed in self.seeds):
                    study.tell(number, *self._worth(one))
                    del waiting[number]
            number, choice = study.ask()
            asked += 1
            made = self.point(choice)
            if made is None:
                study.drop(number)
            elif all(self.known(made, seed) for seed in self.seeds):
                self.chosen[made] = None
                study.tell(number, *self._worth(made))
            elif made in self.chosen:
                study.drop(number)  # under way
            else:
                self.chosen[made] = None
                waiting[number] = made
                yield from (self.task(made, seed) for seed in self.seeds if not self.known(made, seed))

    def _worth(self, point: Point) -> tuple[float, int]:
        """What a study is told of a point."""
        score = median(self.found[point, seed]["score"] for seed in self.seeds)
        worst = 0.0 if self.subject.labelled else 1e30
        return score if math.isfinite(score) else worst, estimate(self.subject.config(point)).memory_bits
