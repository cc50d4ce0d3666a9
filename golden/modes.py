"""What a unit's law may see, and what it does where there is nothing to see: the fields of a configuration that are choices."""

from __future__ import annotations

import enum


class Source(enum.StrEnum):
    """What the law sees as x."""

    INSTANT = "instant"  #: the curvature C of this step
    EMA = "ema"  #: S, its moving average
    MAX = "max"  #: the larger of the two
    PROJECTION = "projection"  #: the larger of the two, where C is the projection of dG onto the step
    PROJECTION_INSTANT = "projection_instant"  #: C by projection
    PROJECTION_EMA = "projection_ema"  #: its moving average
    NORM = "norm"  #: ||G||; C is this norm
    RATIO = "ratio"  #: ||G|| / ||theta||; C is this ratio

    @property
    def is_curvature(self) -> bool:
        """Whether x comes from changes of G and theta, not from G and theta themselves."""
        return self not in (Source.NORM, Source.RATIO)

    @property
    def is_projection(self) -> bool:
        """Whether C is the projection of dG onto the step, not a quotient of norms."""
        return self.value.startswith("projection")

    @property
    def x(self) -> Source:
        """``instant``, ``ema`` or ``max``: what the law sees of C and S, however C is found."""
        of = {Source.PROJECTION: Source.MAX, Source.PROJECTION_EMA: Source.EMA, Source.PROJECTION_INSTANT: Source.INSTANT}
        return of.get(self, self if self.is_curvature else Source.INSTANT)

    @property
    def alike(self) -> tuple[Source, ...]:
        """The sources among which the host may switch a unit that was built for this one."""
        if not self.is_curvature:
            return (self,)
        return tuple(one for one in Source if one.is_curvature and one.is_projection == self.is_projection)

    def seeing(self, x: Source) -> Source:
        """The one of them by which the law sees ``x``: ``instant``, ``ema`` or ``max``."""
        return next(one for one in self.alike if one.x is x)


class Motion(enum.StrEnum):
    """Which length of a step the curvature is measured along; not given, intended where the applied one is mostly rounding.

    That is with a projection; and with any other curvature where the update rounds at random or a residual is kept.
    """

    APPLIED = "applied"  #: that of theta' - theta, as published
    INTENDED = "intended"  #: that of step * D, before any rounding


class OnStill(enum.StrEnum):
    """What a step does after one without motion: that moved no weight, or with an intended motion whose size was 0."""

    RELEASE = "release"  #: C = ||dG|| / still_norm; S forgets, keep * S
    FLOOR = "floor"  #: C = ||dG|| / still_norm; S keeps
    HOLD = "hold"  #: C and S keep
    DIVIDE = "divide"  #: the formula as published, C = ||dG|| / eps


class EmaStart(enum.StrEnum):
    """Where the moving average starts."""

    ZERO = "zero"  #: from 0, as published
    FIRST = "first"  #: from the first C
