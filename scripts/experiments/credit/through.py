"""The experiment on the throttle: which credit methods need it, and which it costs."""

from __future__ import annotations

from ....golden.credit.samples import Net
from .arms import Claim, Experiment, claims
from .plan import Plan
from .synthetic import arm
from .throttling import Throttled

FORMS = {"two": 2, "one": 1}
"""Blocks of two matrices and of one, by what they are called in a group."""


def throttle(plan: Plan) -> Experiment:
    """Update fields through the throttle: methods by precision by law, in both forms of blocks, on digits.

    Steps that round to nothing are not taken for curvature (``release``), updates are rounded at random, a residual of 4 bits is
    kept, and the curvature is that along the intended step.
    """
    arms = []
    for form, matrices in FORMS.items():
        net = Net(width=plan.width, depth=plan.one("depths"), kind=plan.one("activations"), matrices=matrices)
        base = Throttled(net=net, steps=plan.steps, rate=plan.rate, warmup=plan.one("warmups"))
        for method in plan.methods:
            for bits in plan.bits:
                for law in plan.laws:
                    task = Throttled(**vars(base) | {"bits": bits, "law": law})
                    arms.append(arm(plan, f"{form} {method} {bits or 'float'}", law, method, task))
    return Experiment(
        name="throttle",
        title="Update fields through the throttle, digits",
        size=f"d={plan.width}, L={plan.one('depths')}, eta={base.rate:g}, {plan.steps} full batches; "
        "updates rounded at random, a residual of 4 bits, the intended motion (not published)",
        plan=plan,
        arms=tuple(arms),
        columns=("accuracy", "gamma", "best", "alpha", "min_alpha", "margin", "angle", "still", "diverged", "verdict"),
        drawn=("accuracy",),
        claims=_claims(plan),
    )


def _claims(plan: Plan) -> tuple[Claim, ...]:
    """None was published: that the stability margin costs no method anything, and saves it."""
    asked: list[Claim] = []
    if {"off", "stability_margin"} <= set(plan.laws):
        for form in FORMS:
            for method in plan.methods:
                for bits in plan.bits:
                    asked += claims(
                        f"{form} {method} {bits or 'float'}",
                        {
                            "the stability margin ends within .02 of no throttle, or above (not published)": lambda m: (
                                m["stability_margin"]["accuracy"] >= m["off"]["accuracy"] - 0.02
                            )
                        },
                    )
    return tuple(asked)
