"""The experiments on made data: the linear-quadratic system, and students of a random teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from ....golden.credit.samples import Data, Net
from ....golden.credit.tasks import LQ, Online
from .arms import Arm, Claim, Experiment, Figure, Means, Task, claims, figures
from .plan import Plan

METHODS = ("dfa", "copy", "state_bridge", "credit_bridge", "vector_field")
LEARN = ("state_bridge", "credit_bridge", "vector_field")
STUDENT_COLUMNS = ("gamma", "rho", "nudge", "S1", "S2", "accuracy")

LADDER: dict[int, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    2: ((0.03, 0.52, 0.53), (0.03, 0.47, 0.57)),
    4: ((0.05, 0.34, 0.45), (0.06, 0.32, 0.51)),
    8: ((0.06, 0.25, 0.36), (0.07, 0.23, 0.42)),
    12: ((0.07, 0.22, 0.24), (0.07, 0.21, 0.32)),
}
"""Published at alpha = 1, by L: gamma and rho of dfa, state_bridge, credit_bridge."""

VECTOR: dict[int, tuple[Figure, Figure]] = {4: ((0.91, 0.05), (0.96, 0.01)), 8: ((0.96, 0.01), (0.95, 0.01))}
"""Published at alpha = 1 with M = 4, by L: gamma and rho."""


def options(plan: Plan, method: str, **changed: Any) -> dict[str, Any]:
    """What a method is made with."""
    own = dict(plan.estimator) if method in LEARN else {}
    if method == "credit_bridge":
        own["terminal"] = plan.one("terminals")
    return own | changed


Known = Mapping[str, Mapping[str, Figure]]
"""Label -> column -> what was published."""


def arm(plan: Plan, group: str, label: str, method: str, task: Task, known: Known | None = None, **changed: Any) -> Arm:
    """An arm whose method is made as the plan says, but for what is changed."""
    published = (known or {}).get(label, {})
    return Arm(group=group, label=label, method=method, task=task, options=options(plan, method, **changed), published=published)


def groups(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """``(group, activation, depth)``: a group is named by what there are several of."""
    for kind in plan.activations:
        for depth in plan.depths:
            yield group_of(plan, kind, depth), kind, depth


def group_of(plan: Plan, kind: str, depth: int) -> str:
    """The name of a group."""
    parts = [kind.replace("phi:", "alpha ")] if len(plan.activations) > 1 else []
    return " ".join(parts + ([f"L {depth}"] if len(plan.depths) > 1 else []))


def student(plan: Plan, kind: str, depth: int) -> Online:
    """A student of a teacher of its own form."""
    data = Data(name="ladder", samples=plan.samples)
    net = Net(width=plan.width, depth=depth, kind=kind, matrices=plan.matrices, single=plan.single)
    return Online(
        data=data, net=net, steps=plan.counted(data.samples), batch=plan.batch, warmup=plan.one("warmups"), rate=plan.rate
    )


def _size(plan: Plan) -> str:
    blocks = "two matrices" if plan.matrices == 2 else "one matrix"
    return f"d={plan.width}, {plan.length} (published: d=128, 80 epochs), blocks of {blocks}"


def lq(plan: Plan) -> Experiment:
    """Every method on the linear-quadratic system.

    ``flow`` is a credit bridge with flow matching as an auxiliary, ``bare`` one whose net sees h as it is, and ``skip`` a state
    bridge whose net is added to h.
    """
    known: dict[str, dict[str, Figure]] = {
        "dfa": figures(gamma=(0.001, 0.003), rho=(0.001, 0.007), nudge=(0.0, 0.001)),
        "state_bridge": figures(gamma=(0.945, 0.002), rho=(0.931, 0.003), nudge=(-0.344, 0.019)),
        "credit_bridge": figures(gamma=(0.944, 0.001), rho=(0.930, 0.002), nudge=(-0.342, 0.019)),
        "no terminal": figures(gamma=0.03),
        "flow": figures(gamma=0.946),
    }
    made: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("dfa", "dfa", {}),
        ("copy", "copy", {}),
        ("state_bridge", "state_bridge", {}),
        ("skip", "state_bridge", {"skip": True}),
        ("credit_bridge", "credit_bridge", {}),
        ("no terminal", "credit_bridge", {"terminal": 0.0}),
        ("flow", "credit_bridge", {"flow": 1.0}),
        ("vector_field", "vector_field", {}),
        ("bare", "credit_bridge", {"layer_norm": False}),
        ("bare perturbed", "credit_bridge", {"layer_norm": False, "perturb": 0.3}),
    )
    arms, asked = [], []
    for depth in plan.depths:
        group = f"L {depth}" if len(plan.depths) > 1 else ""
        theirs = known if depth == 12 or len(plan.depths) == 1 else {}  # the small system stands for the published one
        task = LQ(
            width=plan.width, depth=depth, classes=plan.classes, sigma=plan.sigma, steps=plan.steps, batch=plan.batch,
            single=plan.single,
        )  # fmt: skip
        for label, method, changed in made:
            arms.append(arm(plan, group, label, method, task, theirs, **changed))
        asked += _lq_claims(group)
    return Experiment(
        name="lq",
        title="Linear-quadratic system",
        size=f"d={plan.width}, m={plan.classes}, L={', '.join(map(str, plan.depths))}, {plan.length} "
        "(published: 64, 10, 12, 8000 of 256)",
        plan=plan,
        arms=tuple(arms),
        claims=tuple(asked),
    )


def _lq_claims(group: str) -> list[Claim]:
    def bridges(m: Means) -> float:
        return min(m["state_bridge"]["gamma"], m["credit_bridge"]["gamma"])

    return claims(
        group,
        {
            "dfa is at chance: |gamma| < .05": lambda m: abs(m["dfa"]["gamma"]) < 0.05,
            "both bridges are above .9 in gamma": lambda m: bridges(m) > 0.9,
            "the bridges are better than a copy of the output's credit, in gamma (not published)": lambda m: (
                bridges(m) > m["copy"]["gamma"]
            ),
            "without the terminal gradient the credit bridge collapses: |gamma| < .1": lambda m: (
                abs(m["no terminal"]["gamma"]) < 0.1
            ),
            "flow matching as an auxiliary is worth little: gamma within .02": lambda m: (
                abs(m["flow"]["gamma"] - m["credit_bridge"]["gamma"]) <= 0.02
            ),
        },
    )


def ladder(plan: Plan) -> Experiment:
    """Students of a teacher from linear to tanh, each trained by the method that is measured."""
    arms, asked = [], []
    for group, kind, depth in groups(plan):
        task = student(plan, kind, depth)
        known: dict[str, dict[str, Figure]] = {}
        if kind == "phi:1" and depth in LADDER:
            known = {
                method: figures(gamma=g, rho=r)
                for method, g, r in zip(("dfa", "state_bridge", "credit_bridge"), *LADDER[depth], strict=True)
            }
            if depth in VECTOR:
                known["vector_field"] = figures(gamma=VECTOR[depth][0], rho=VECTOR[depth][1])
        arms += [arm(plan, group, method, method, task, known) for method in METHODS]
        asked += _ladder_claims(group, kind, depth)
    return Experiment(
        name="ladder",
        title="Nonlinearity ladder",
        size=_size(plan),
        plan=plan,
        arms=tuple(arms),
        columns=STUDENT_COLUMNS,
        drawn=("gamma", "rho", "accuracy"),
        claims=tuple(asked),
        lines=len(plan.depths) > 1,
    )


def _ladder_claims(group: str, kind: str, depth: int) -> list[Claim]:
    def lead(m: Means, a: str, b: str) -> float:
        return min(m[a][column] - m[b][column] for column in ("gamma", "rho"))

    if kind == "phi:0":
        return claims(group, {"the state bridge leads the credit bridge in gamma and rho": lambda m: lead(m, *LEARN[:2]) > 0})
    if kind != "phi:1":
        return []
    asked: dict[str, Callable[[Means], bool]] = {
        "the credit bridge beats the state bridge in gamma and rho": lambda m: lead(m, "credit_bridge", "state_bridge") > 0,
        "both bridges beat dfa in gamma and rho": lambda m: min(lead(m, bridge, "dfa") for bridge in LEARN[:2]) > 0,
        "both bridges beat the copy of the output's credit (not published)": lambda m: (
            min(lead(m, bridge, "copy") for bridge in LEARN[:2]) > 0
        ),
    }
    if depth in VECTOR:
        asked["the vector field leads the credit bridge by at least .3 in gamma and rho"] = lambda m: (
            lead(m, "vector_field", "credit_bridge") >= 0.3
        )
    return claims(group, asked)


def audit(plan: Plan) -> Experiment:
    """What the vector field owes to what: targets shuffled, no terminal term, one-sided differences, more directions."""
    made: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("dfa", "dfa", {}),
        ("copy", "copy", {}),
        ("credit_bridge", "credit_bridge", {}),
        ("central", "vector_field", {}),
        ("one-sided", "vector_field", {"one_sided": True}),
        ("no terminal", "vector_field", {"terminal": 0.0}),
        ("shuffled", "vector_field", {"shuffled": True}),
        ("8 directions", "vector_field", {"directions": 8}),
    )
    published: dict[int, dict[str, dict[str, Figure]]] = {
        4: {
            "credit_bridge": figures(gamma=0.224, rho=0.210),
            "central": figures(gamma=0.847, rho=0.951),
            "one-sided": figures(gamma=0.832, rho=0.943),
            "no terminal": figures(gamma=0.955, rho=0.971),
            "shuffled": figures(gamma=0.051, rho=0.068),
            "8 directions": figures(gamma=(0.84, 0.10), rho=(0.92, 0.05)),
        },
        8: {
            "dfa": figures(gamma=(0.08, 0.04), rho=(0.08, 0.04)),
            "credit_bridge": figures(gamma=(0.26, 0.03), rho=(0.29, 0.02)),
            "central": figures(gamma=(0.96, 0.01), rho=(0.95, 0.01)),
            "8 directions": figures(gamma=(0.90, 0.10), rho=(0.93, 0.04)),
        },
    }
    arms, asked = [], []
    for group, kind, depth in groups(plan):
        task, known = student(plan, kind, depth), published.get(depth, {}) if kind == "phi:1" else {}
        for label, method, changed in made:
            arms.append(arm(plan, group, label, method, task, known, **changed))
        asked += _audit_claims(group)
    return Experiment(
        name="audit",
        title="Audit of the vector field",
        size=_size(plan),
        plan=plan,
        arms=tuple(arms),
        columns=STUDENT_COLUMNS,
        claims=tuple(asked),
    )


def _audit_claims(group: str) -> list[Claim]:
    def lead(m: Means, a: str, b: str, column: str) -> float:
        return m[a][column] - m[b][column]

    both = ("gamma", "rho")
    return claims(
        group,
        {
            "shuffled targets bring it down to dfa: gamma and rho at most .1 above": lambda m: (
                max(lead(m, "shuffled", "dfa", c) for c in both) <= 0.1
            ),
            "one-sided differences do as well as central ones: gamma and rho within .02": lambda m: (
                max(abs(lead(m, "one-sided", "central", c)) for c in both) <= 0.02
            ),
            "the terminal term is not needed: without it gamma and rho are higher": lambda m: (
                min(lead(m, "no terminal", "central", c) for c in both) > 0
            ),
            "it leads the credit bridge by at least .49 in gamma and .55 in rho": lambda m: (
                lead(m, "central", "credit_bridge", "gamma") >= 0.49 and lead(m, "central", "credit_bridge", "rho") >= 0.55
            ),
        },
    )


def boundary(plan: Plan) -> Experiment:
    """What the credit bridge is given at the output: its code, the terminal gradient's weight, the warm-up."""
    known: dict[str, dict[str, Figure]] = {
        "eT": figures(gamma=(0.452, 0.042), rho=(0.509, 0.033), accuracy=0.523),
        "deltaL": figures(gamma=(0.562, 0.007), rho=(0.510, 0.014), accuracy=0.448),
        "eT hL": figures(gamma=0.002, rho=0.016, accuracy=0.559),
        "deltaL hL": figures(gamma=0.018, rho=0.026, accuracy=0.564),
        "terminal 0": figures(gamma=0.12),
        "terminal 4": figures(gamma=0.57),
        "warm-up 0": figures(gamma=0.68, accuracy=0.46),
        "warm-up 0.5": figures(gamma=0.23, accuracy=0.66),
        "deltaL warm-up 0.05": figures(gamma=0.768, rho=0.691),
    }
    made: list[tuple[str, float, dict[str, Any]]] = [
        ("eT", 0.2, {}),
        ("deltaL", 0.2, {"s_type": "deltaL"}),
        ("eT hL", 0.2, {"s_type": "eT_hL"}),
        ("deltaL hL", 0.2, {"s_type": "deltaL_hL"}),
        *((f"terminal {weight:g}", 0.2, {"terminal": weight}) for weight in (0.0, 0.25, 4.0)),
        *((f"warm-up {part:g}", part, {}) for part in (0.0, 0.05, 0.5)),
        *((f"deltaL warm-up {part:g}", part, {"s_type": "deltaL"}) for part in (0.0, 0.05, 0.5)),
    ]
    arms, asked = [], []
    for group, kind, depth in groups(plan):
        base = student(plan, kind, depth)
        theirs = known if (kind, depth) == ("phi:1", 4) else {}
        arms += [arm(plan, group, method, method, base) for method in ("dfa", "copy")]
        for label, part, changed in made:
            arms.append(arm(plan, group, label, "credit_bridge", replace(base, warmup=part), theirs, **changed))
        asked += _boundary_claims(group)
    return Experiment(
        name="boundary",
        title="Boundary conditions of the credit bridge",
        size=_size(plan),
        plan=plan,
        arms=tuple(arms),
        columns=STUDENT_COLUMNS,
        drawn=("gamma", "rho", "accuracy"),
        claims=tuple(asked),
    )


def _boundary_claims(group: str) -> list[Claim]:
    def rising(m: Means, column: str, *labels: str) -> bool:
        return all(m[a][column] < m[b][column] for a, b in pairwise(labels))

    def best(m: Means) -> str:
        return max((label for label in m if label not in ("dfa", "copy")), key=lambda label: m[label]["gamma"])

    return claims(
        group,
        {
            "deltaL is a better code than eT, in gamma": lambda m: m["deltaL"]["gamma"] > m["eT"]["gamma"],
            "a code with h_L destroys the credit: gamma < .1": lambda m: max(m["eT hL"]["gamma"], m["deltaL hL"]["gamma"]) < 0.1,
            "more weight on the terminal gradient, more gamma: 0, .25, 1, 4": lambda m: rising(
                m, "gamma", "terminal 0", "terminal 0.25", "eT", "terminal 4"
            ),
            "a longer warm-up costs gamma: 0, .2, .5": lambda m: rising(m, "gamma", "warm-up 0.5", "eT", "warm-up 0"),
            "a longer warm-up brings accuracy: 0, .2, .5": lambda m: rising(m, "accuracy", "warm-up 0", "eT", "warm-up 0.5"),
            "deltaL with a warm-up of .05 is the best in gamma": lambda m: best(m) == "deltaL warm-up 0.05",
        },
    )


FORMS: dict[str, tuple[dict[str, Any], float]] = {
    "two matrices": ({"matrices": 2}, 1.0),
    "one matrix": ({"matrices": 1}, 1.0),
    "large W2": ({"matrices": 2, "w2_std": 0.1}, 1.0),
    "no sum": ({"matrices": 2, "residual_add": False, "w2_std": 0.1}, 1.0),
    "faster": ({"matrices": 2}, 10**0.5),
    "slower": ({"matrices": 2}, 10**-0.5),
}
"""Blocks by name: as in the documents; as here before; with a W2 that is not small; with a state that is replaced; and the
first with a student that is faster or slower."""


def forms(plan: Plan) -> Experiment:
    """The same experiment in other networks, and the state bridge with a skip: what hangs on the form."""
    made: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("dfa", "dfa", {}),
        ("copy", "copy", {}),
        ("state_bridge", "state_bridge", {}),
        ("state_bridge skip", "state_bridge", {"skip": True}),
        ("credit_bridge", "credit_bridge", {}),
        ("vector_field", "vector_field", {}),
        ("vector_field no terminal", "vector_field", {"terminal": 0.0}),
    )
    arms = []
    for above, kind, depth in groups(plan):
        for form, (changed, faster) in FORMS.items():
            task = student(plan, kind, depth)
            task = replace(task, net=replace(task.net, **changed), rate=task.rate * faster)
            for label, method, more in made:
                arms.append(arm(plan, f"{above} {form}".strip(), label, method, task, **more))
    return Experiment(
        name="forms",
        title="The same credit in other networks",
        size=f"d={plan.width}, {plan.length}",
        plan=plan,
        arms=tuple(arms),
        columns=STUDENT_COLUMNS,
        drawn=("gamma", "rho", "accuracy"),
    )
