"""The experiments on images: digits, or a local copy of CIFAR-10 in its published format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ....golden.credit import cifar
from ....golden.credit.samples import Data, Net
from ....golden.credit.tasks import Frozen, Online
from .arms import Experiment, Figure, claims, figures
from .plan import Plan
from .synthetic import METHODS, STUDENT_COLUMNS, arm, groups

ALL = ("bp", *METHODS)


def _data(plan: Plan) -> Data:
    if not plan.cifar:
        return Data(name="digits")
    return Data(name="cifar10", folder=str(Path(plan.cifar).resolve()), digest=cifar.digest(plan.cifar))


def _shown(plan: Plan) -> str:
    return "CIFAR-10" if plan.cifar else "digits"


def _student(plan: Plan, kind: str, depth: int, warmup: float | None = None) -> Online:
    data = _data(plan)
    net = Net(
        width=plan.width,
        depth=depth,
        kind=kind,
        final_norm=True,  # as in the network of the documents' protocol; the ladder's students have none
        matrices=plan.matrices,
        single=plan.single,
    )
    share = plan.one("warmups") if warmup is None else warmup
    return Online(data=data, net=net, steps=plan.counted(data.size), batch=plan.batch, warmup=share, rate=plan.rate)


def _size(plan: Plan, published: str) -> str:
    return f"d={plan.width}, {plan.length} (published: CIFAR-10, {published}, 100 epochs)"


def frozen(plan: Plan) -> Experiment:
    """Methods fitted to a network that backpropagation has trained, and that stays as it is."""
    known: dict[str, dict[str, Figure]] = {}
    if plan.cifar:
        known = {
            "dfa": figures(gamma=0.005, rho=0.005, nudge=-0.000006),
            "state_bridge": figures(gamma=0.287, rho=0.264, nudge=-0.000957),
            "credit_bridge": figures(gamma=0.115, rho=0.120, nudge=-0.000370),
            "credit_bridge deltaL": figures(gamma=0.070, rho=0.062, nudge=-0.000160),
            "vector_field": figures(gamma=0.364, rho=0.426, nudge=-0.001406),
        }
    arms, asked = [], []
    for group, kind, depth in groups(plan):
        training = _student(plan, kind, depth)
        task = Frozen(training=training, steps=training.steps, batch=plan.batch)
        for label, method, changed in (
            *((name, name, {"s_type": "eT"} if name == "state_bridge" else {}) for name in METHODS),
            ("credit_bridge deltaL", "credit_bridge", {"s_type": "deltaL"}),
        ):
            arms.append(arm(plan, group, label, method, task, known if depth == 4 else None, **changed))
        asked += claims(
            group,
            {
                f"{column}: vector field, state bridge, credit bridge, dfa, in this order": lambda m, column=column: (  # type: ignore[misc]
                    m["vector_field"][column] > m["state_bridge"][column] > m["credit_bridge"][column] > m["dfa"][column]
                )
                for column in ("gamma", "rho")
            },
        )
    return Experiment(
        name="frozen",
        title=f"Frozen network on {_shown(plan)}",
        size=_size(plan, "d=256, L=4"),
        plan=plan,
        arms=tuple(arms),
        columns=STUDENT_COLUMNS,
        claims=tuple(asked),
    )


DEPTH: dict[int, dict[str, dict[str, Figure]]] = {
    2: {"dfa": figures(accuracy=0.312, gamma=0.196, rho=0.001), "credit_bridge": figures(accuracy=0.311, gamma=0.175, rho=0.031)},
    4: {
        "dfa": figures(accuracy=0.314, gamma=0.100, rho=0.003),
        "credit_bridge": figures(accuracy=0.298, gamma=0.123, rho=-0.002),
    },
}
"""Published of CIFAR-10 at d = 512 by L, one seed, preliminary."""

ONLINE: dict[int, dict[str, dict[str, Figure]]] = {
    4: {
        "dfa": figures(accuracy=0.312, gamma=0.101, rho=-0.005),
        "credit_bridge": figures(accuracy=0.283, gamma=0.179, rho=0.009),
        "vector_field": figures(accuracy=0.243, gamma=0.001, rho=0.0),
    },
}
"""Published of CIFAR-10 at d = 256, one seed."""

MAIN: dict[str, dict[str, Figure]] = {
    "bp": figures(accuracy=(0.592, 0.004)),
    "dfa": figures(accuracy=(0.300, 0.003)),
    "credit_bridge": figures(accuracy=(0.296, 0.010)),
    "state_bridge": figures(accuracy=(0.185, 0.018)),
}
"""Published of CIFAR-10: 12 blocks of 512, three seeds."""


def _students(plan: Plan, name: str, title: str, published: str, known: dict[int, dict[str, dict[str, Figure]]]) -> Experiment:
    """Students trained by each method from the start."""
    arms, asked = [], []
    for group, kind, depth in groups(plan):
        task, theirs = _student(plan, kind, depth), known.get(depth, {}) if plan.cifar else {}
        arms += [arm(plan, group, method, method, task, theirs) for method in ALL]
        asked += claims(
            group,
            {
                "a better credit does not train better: dfa's accuracy is above the vector field's": lambda m: (
                    m["dfa"]["accuracy"] > m["vector_field"]["accuracy"]
                ),
                "dfa's accuracy is above both bridges'": lambda m: (
                    m["dfa"]["accuracy"] > max(m["credit_bridge"]["accuracy"], m["state_bridge"]["accuracy"])
                ),
            },
        )
    return Experiment(
        name=name,
        title=f"{title} on {_shown(plan)}",
        size=_size(plan, published),
        plan=plan,
        arms=tuple(arms),
        columns=("accuracy", "gamma", "rho", "nudge", "S1", "S2"),
        drawn=("accuracy", "gamma", "rho"),
        claims=tuple(asked),
        lines=len(plan.depths) > 1,
    )


def online(plan: Plan) -> Experiment:
    """Students trained by each method from the start."""
    return _students(plan, "online", "Students", "d=256, L=4", ONLINE)


def depth(plan: Plan) -> Experiment:
    """The same by the number of blocks."""
    return _students(plan, "depth", "Students by depth", "d=512, L=2, 4, 6, 8, 12", DEPTH)


def main(plan: Plan) -> Experiment:
    """The published main run: 12 blocks of 512."""
    return _students(plan, "main", "Main run", "d=512, L=12", {12: MAIN})


def scan(plan: Plan) -> Experiment:
    """The credit bridge online, by warm-up and weight of the terminal gradient, and the others by warm-up."""
    known = {
        (0.2, 1.0): figures(accuracy=0.283, gamma=0.179, rho=0.009),
        (0.2, 4.0): figures(accuracy=0.285, gamma=0.187, rho=0.002),
    }
    one = replace(plan, terminals=plan.terminals[:1])
    arms = []
    for group, kind, layers in groups(plan):
        first = _student(plan, kind, layers, plan.warmups[0])
        arms += [arm(one, group, method, method, first) for method in ("bp", "dfa", "copy")]
        for share in plan.warmups:
            task = replace(first, warmup=share)
            arms += [
                arm(one, group, f"{method} warm-up {share:.15g}", method, task) for method in ("state_bridge", "vector_field")
            ]
            for code in ("eT", "deltaL"):
                for weight in plan.terminals:
                    there = plan.cifar and code == "eT" and layers == 4
                    label = f"{code} warm-up {share:.15g} terminal {weight:.15g}"
                    theirs = {label: known.get((share, weight), {})} if there else None
                    arms.append(arm(one, group, label, "credit_bridge", task, theirs, terminal=weight, s_type=code))
    return Experiment(
        name="scan",
        title=f"Warm-up and terminal weight on {_shown(plan)}",
        size=_size(plan, "d=256, L=4"),
        plan=plan,
        arms=tuple(arms),
        columns=("accuracy", "gamma", "rho", "nudge", "S1", "S2"),
        drawn=("accuracy", "gamma", "rho"),
    )
