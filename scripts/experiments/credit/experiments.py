"""The credit experiments: arms that differ in one thing, what was published of them, and what they claim.

The default sizes take minutes; ``full`` has those that the published figures stand for. All arms of a group are compared with
each other, and with the copy of the output's credit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ....golden.credit.methods import METHODS
from ....golden.credit.tasks import LQ, Data, Frozen, Net, Online
from .throttling import LAWS, Throttled

Task = LQ | Online | Frozen | Throttled
Figure = tuple[float, float]
"""A published mean and its spread, 0 where none was given."""
Means = Mapping[str, Mapping[str, float]]
"""Arm name -> column -> the mean over the seeds."""

WIDE: dict[str, Any] = {"hidden": (256, 256, 256), "rows": 256, "single": True}
"""The estimators' published size; in float32, and on 256 pairs of sample and layer a step."""
NARROW: dict[str, Any] = {"rows": 128}

COLUMNS: dict[str, str] = {
    "gamma": "mean cosine of credit and exact credit below the last state",
    "rho": "correlation of what the credit says of a small change with what it does to the loss",
    "nudge": "change of the loss when states move against the credit by eta",
    "S1": "gamma minus that of dfa",
    "S2": "rho minus that of dfa",
    "accuracy": "share of the test samples whose largest output is their label",
    "best": "the best accuracy at any look",
    "min_alpha": "the smallest alpha that was applied",
    "angle": "median angle between applied and intended update, radians",
    "still": "steps that moved no weight",
    "diverged": "the step whose numbers were no longer finite",
    "verdict": "of the diagnostic protocol",
}
"""The columns that a table may have."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One method on one task; ``group`` says which others it is compared with, ``label`` what it is there."""

    label: str
    method: str
    task: Task
    options: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    published: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique in its experiment, and fit for a file."""
        return "-".join(part.replace(" ", "_") for part in (self.group, self.label) if part)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published finding, and whether the means of a run bear it out."""

    text: str
    holds: Callable[[Means], bool]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Arms, the columns of their table, the claims that it is held against."""

    name: str
    title: str
    size: str
    arms: tuple[Arm, ...]
    columns: tuple[str, ...] = ("gamma", "rho", "nudge", "S1", "S2")
    drawn: tuple[str, ...] = ("gamma", "rho")
    claims: tuple[Claim, ...] = ()
    seeds: int = 3

    def shortened(self, steps: int) -> Experiment:
        """The same with so many steps in every task."""
        arms = []
        for arm in self.arms:
            task = replace(arm.task, steps=steps)
            if isinstance(task, Frozen):
                task = replace(task, training=replace(task.training, steps=steps))
            arms.append(replace(arm, task=task))
        return replace(self, arms=tuple(arms), size=f"{self.size}; {steps} steps")


def _figures(**columns: float | Figure) -> dict[str, Figure]:
    return {name: value if isinstance(value, tuple) else (value, 0.0) for name, value in columns.items()}


def lq(full: bool = False) -> Experiment:
    """Every method on the linear-quadratic system; ``bare`` is a credit bridge whose net sees h as it is."""
    task = LQ(width=64, depth=12, classes=10, steps=6000, batch=64) if full else LQ()
    short = replace(task, steps=2000) if full else task
    own = WIDE | {"rows": 64} if full else NARROW
    return Experiment(
        name="lq",
        title="Linear-quadratic system",
        size=f"d={task.width}, m={task.classes}, L={task.depth}, {task.steps} steps of {task.batch}, "
        "the field's 2000 (published: 64, 10, 12, 8000 of 256)"
        if full
        else f"d={task.width}, m={task.classes}, L={task.depth}, {task.steps} steps (published: 64, 10, 12, 8000)",
        arms=(
            Arm(
                label="dfa",
                method="dfa",
                task=task,
                published=_figures(gamma=(0.001, 0.003), rho=(0.001, 0.007), nudge=(0.0, 0.001)),
            ),
            Arm(label="copy", method="copy", task=task),
            Arm(
                label="state_bridge",
                method="state_bridge",
                task=task,
                options=own,
                published=_figures(gamma=(0.945, 0.002), rho=(0.931, 0.003), nudge=(-0.344, 0.019)),
            ),
            Arm(
                label="credit_bridge",
                method="credit_bridge",
                task=task,
                options=own,
                published=_figures(gamma=(0.944, 0.001), rho=(0.930, 0.002), nudge=(-0.342, 0.019)),
            ),
            Arm(
                label="no terminal",
                method="credit_bridge",
                task=task,
                options=own | {"terminal": 0.0},
                published=_figures(gamma=0.03),
            ),
            Arm(label="vector_field", method="vector_field", task=short, options=own),
            Arm(label="bare", method="credit_bridge", task=task, options=own | {"layer_norm": False}),
            Arm(label="bare perturbed", method="credit_bridge", task=task, options=own | {"layer_norm": False, "perturb": 0.3}),
        ),
        claims=(
            Claim(text="dfa is at chance: |gamma| < .05", holds=lambda m: abs(m["dfa"]["gamma"]) < 0.05),
            Claim(
                text="both bridges are above .9 in gamma",
                holds=lambda m: min(m["state_bridge"]["gamma"], m["credit_bridge"]["gamma"]) > 0.9,
            ),
            Claim(
                text="the bridges are better than a copy of the output's credit, in gamma",
                holds=lambda m: min(m["state_bridge"]["gamma"], m["credit_bridge"]["gamma"]) > m["copy"]["gamma"],
            ),
            Claim(
                text="without the terminal gradient the credit bridge collapses: gamma < .1",
                holds=lambda m: m["no_terminal"]["gamma"] < 0.1,
            ),
            Claim(text="the vector field is above .98 in gamma", holds=lambda m: m["vector_field"]["gamma"] > 0.98),
        ),
    )


LADDER: dict[int, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    2: ((0.03, 0.52, 0.53), (0.03, 0.47, 0.57)),
    4: ((0.05, 0.34, 0.45), (0.06, 0.32, 0.51)),
    8: ((0.06, 0.25, 0.36), (0.07, 0.23, 0.42)),
    12: ((0.07, 0.22, 0.24), (0.07, 0.21, 0.32)),
}
"""Published at alpha = 1, by L: gamma and rho of dfa, state_bridge, credit_bridge."""

VECTOR: dict[int, Figure] = {4: (0.91, 0.96), 8: (0.96, 0.95)}
"""Published at alpha = 1 with M = 4, by L: gamma and rho."""


def ladder(full: bool = False) -> Experiment:
    """Students of a teacher from linear to tanh, each trained by the method that is measured."""
    width, steps = (128, 2560) if full else (32, 1500)
    own = WIDE if full else NARROW
    arms = []
    for alpha in (0, 0.25, 0.5, 1) if full else (0, 1):
        for depth in (2, 4, 8, 12) if full else (4,):
            task = Online(net=Net(width=width, depth=depth, kind=f"phi:{alpha}"), steps=steps)
            known: dict[str, dict[str, Figure]] = {}
            if alpha == 1:
                known = {
                    method: _figures(gamma=g, rho=r)
                    for method, g, r in zip(("dfa", "state_bridge", "credit_bridge"), *LADDER[depth], strict=True)
                }
                if depth in VECTOR:
                    known["vector_field"] = _figures(gamma=VECTOR[depth][0], rho=VECTOR[depth][1])
            for method in ("dfa", "copy", "state_bridge", "credit_bridge", "vector_field"):
                learns = method not in ("dfa", "copy")
                arms.append(
                    Arm(
                        group=f"alpha {alpha:g} L {depth}",
                        label=method,
                        method=method,
                        task=task,
                        options=own if learns else {},
                        published=known.get(method, {}),
                    )
                )
    at = "alpha_1_L_4-"

    def lead(m: Means, column: str, a: str, b: str) -> float:
        return m[at + a][column] - m[at + b][column]

    return Experiment(
        name="ladder",
        title="Nonlinearity ladder",
        size=f"d={width}, C=10, {steps} steps (published: d=128, 80 epochs)",
        arms=tuple(arms),
        columns=("gamma", "rho", "nudge", "S1", "S2", "accuracy"),
        drawn=("gamma", "rho", "accuracy"),
        claims=(
            Claim(
                text="alpha 1, L 4: the vector field leads the credit bridge by at least .15 in gamma and .25 in rho",
                holds=lambda m: (
                    lead(m, "gamma", "vector_field", "credit_bridge") >= 0.15
                    and lead(m, "rho", "vector_field", "credit_bridge") >= 0.25
                ),
            ),
            Claim(
                text="alpha 1, L 4: the credit bridge beats the state bridge in gamma and rho",
                holds=lambda m: min(lead(m, column, "credit_bridge", "state_bridge") for column in ("gamma", "rho")) > 0,
            ),
            Claim(
                text="alpha 1, L 4: both bridges beat the copy of the output's credit in gamma",
                holds=lambda m: min(lead(m, "gamma", name, "copy") for name in ("credit_bridge", "state_bridge")) > 0,
            ),
        ),
    )


def audit(full: bool = False) -> Experiment:
    """What the vector field owes to what: targets shuffled, no terminal term, one-sided differences, more directions."""
    width, steps = (128, 2560) if full else (32, 1500)
    own = WIDE if full else NARROW
    task = Online(net=Net(width=width, depth=4, kind="phi:1"), steps=steps)
    made: tuple[tuple[str, str, dict[str, Any], dict[str, Figure]], ...] = (
        ("dfa", "dfa", {}, {}),
        ("copy", "copy", {}, {}),
        ("credit_bridge", "credit_bridge", own, _figures(gamma=0.224, rho=0.210)),
        ("central", "vector_field", own, _figures(gamma=0.847, rho=0.951)),
        ("one-sided", "vector_field", own | {"one_sided": True}, _figures(gamma=0.832, rho=0.943)),
        ("no terminal", "vector_field", own | {"terminal": 0.0}, _figures(gamma=0.955, rho=0.971)),
        ("shuffled", "vector_field", own | {"shuffled": True}, _figures(gamma=0.051, rho=0.068)),
        ("8 directions", "vector_field", own | {"directions": 8}, _figures(gamma=(0.84, 0.10), rho=(0.92, 0.05))),
    )
    return Experiment(
        name="audit",
        title="Audit of the vector field, alpha 1",
        size=f"d={width}, L=4, {steps} steps (published: d=128, 80 epochs)",
        arms=tuple(
            Arm(label=label, method=method, task=task, options=options, published=known) for label, method, options, known in made
        ),
        columns=("gamma", "rho", "nudge", "S1", "S2", "accuracy"),
        drawn=("gamma", "rho"),
        claims=(
            Claim(
                text="shuffled targets bring it down to dfa: gamma at most .1 above",
                holds=lambda m: m["shuffled"]["gamma"] - m["dfa"]["gamma"] <= 0.1,
            ),
            Claim(
                text="one-sided differences do as well as central ones: gamma and rho within .02",
                holds=lambda m: max(abs(m["one-sided"][c] - m["central"][c]) for c in ("gamma", "rho")) <= 0.02,
            ),
            Claim(
                text="the terminal term is not needed: gamma without it at most .05 lower",
                holds=lambda m: m["no_terminal"]["gamma"] >= m["central"]["gamma"] - 0.05,
            ),
        ),
    )


def boundary(full: bool = False) -> Experiment:
    """What the credit bridge is given at the output: its code, the terminal gradient's weight, the warm-up."""
    width, steps = (128, 2560) if full else (32, 1000)
    own = WIDE if full else NARROW
    base = Online(net=Net(width=width, depth=4, kind="phi:1"), steps=steps)

    def arm(label: str, warmup: float = 0.2, *, known: dict[str, Figure], **options: Any) -> Arm:
        return Arm(label=label, method="credit_bridge", task=replace(base, warmup=warmup), options=own | options, published=known)

    return Experiment(
        name="boundary",
        title="Boundary conditions of the credit bridge, alpha 1",
        size=f"d={width}, L=4, {steps} steps (published: d=128, 80 epochs)",
        arms=(
            Arm(label="dfa", method="dfa", task=base),
            Arm(label="copy", method="copy", task=base),
            arm("eT", known=_figures(gamma=(0.452, 0.042), rho=(0.509, 0.033), accuracy=0.523)),
            arm("deltaL", s_type="deltaL", known=_figures(gamma=(0.562, 0.007), rho=(0.510, 0.014), accuracy=0.448)),
            arm("eT hL", s_type="eT_hL", known=_figures(gamma=0.002, rho=0.016, accuracy=0.559)),
            arm("deltaL hL", s_type="deltaL_hL", known=_figures(gamma=0.018, rho=0.026, accuracy=0.564)),
            arm("terminal 0", terminal=0.0, known=_figures(gamma=0.12)),
            arm("terminal 4", terminal=4.0, known=_figures(gamma=0.57)),
            arm("warm-up 0", 0.0, known=_figures(gamma=0.68, accuracy=0.46)),
            arm("warm-up .5", 0.5, known=_figures(gamma=0.23, accuracy=0.66)),
            arm("deltaL warm-up .05", 0.05, s_type="deltaL", known=_figures(gamma=0.768, rho=0.691)),
        ),
        columns=("gamma", "rho", "nudge", "S1", "S2", "accuracy"),
        drawn=("gamma", "rho", "accuracy"),
        claims=(
            Claim(text="deltaL is a better code than eT, in gamma", holds=lambda m: m["deltaL"]["gamma"] > m["eT"]["gamma"]),
            Claim(
                text="a code with h_L destroys the credit: gamma < .1",
                holds=lambda m: max(m["eT_hL"]["gamma"], m["deltaL_hL"]["gamma"]) < 0.1,
            ),
            Claim(
                text="more weight on the terminal gradient, more gamma: 0, 1, 4",
                holds=lambda m: m["terminal_0"]["gamma"] < m["eT"]["gamma"] < m["terminal_4"]["gamma"],
            ),
            Claim(
                text="a longer warm-up costs gamma and brings accuracy: 0, .2, .5",
                holds=lambda m: (
                    m["warm-up_0"]["gamma"] > m["eT"]["gamma"] > m["warm-up_.5"]["gamma"]
                    and m["warm-up_0"]["accuracy"] < m["eT"]["accuracy"] < m["warm-up_.5"]["accuracy"]
                ),
            ),
        ),
        seeds=3 if full else 1,
    )


def _data(cifar: str) -> tuple[Data, str]:
    return (Data(name="cifar10", folder=cifar), "CIFAR-10") if cifar else (Data(name="digits"), "digits")


def frozen(full: bool = False, cifar: str = "") -> Experiment:
    """Methods fitted to a network that backpropagation has trained, and that stays as it is."""
    data, shown = _data(cifar)
    own = WIDE if full else NARROW
    width, steps = (256, 10_000) if full else (32, 1000)
    training = Online(data=data, net=Net(width=width, kind="gelu"), steps=steps if full else 400, rate=1e-3 if full else 3e-3)
    task = Frozen(training=training, steps=steps)
    known: dict[str, dict[str, Figure]] = {}
    if cifar:
        known = {
            "dfa": _figures(gamma=0.005, rho=0.005),
            "state_bridge": _figures(gamma=0.287, rho=0.264, nudge=-0.000957),
            "credit_bridge": _figures(gamma=0.115, rho=0.120, nudge=-0.000370),
            "vector_field": _figures(gamma=0.364, rho=0.426, nudge=-0.001406),
        }
    return Experiment(
        name="frozen",
        title=f"Frozen network on {shown}",
        size=f"d={width}, L=4, {steps} steps (published: CIFAR-10, d=256, L=4, 100 epochs)",
        arms=tuple(
            Arm(
                label=method,
                method=method,
                task=task,
                options={"s_type": "eT", **own} if method not in ("dfa", "copy") else {},
                published=known.get(method, {}),
            )
            for method in ("dfa", "copy", "state_bridge", "credit_bridge", "vector_field")
        ),
        columns=("gamma", "rho", "nudge", "S1", "S2", "accuracy"),
        claims=(
            Claim(
                text="gamma: vector field, state bridge, credit bridge, dfa, in this order",
                holds=lambda m: (
                    m["vector_field"]["gamma"] > m["state_bridge"]["gamma"] > m["credit_bridge"]["gamma"] > m["dfa"]["gamma"]
                ),
            ),
        ),
    )


def online(full: bool = False, cifar: str = "") -> Experiment:
    """Students trained by each method from the start."""
    data, shown = _data(cifar)
    own = WIDE if full else NARROW
    width, steps = (256, 10_000) if full else (32, 1000)
    task = Online(data=data, net=Net(width=width, kind="gelu"), steps=steps)
    known: dict[str, dict[str, Figure]] = {}
    if cifar:
        known = {
            "dfa": _figures(accuracy=0.312, gamma=0.101, rho=-0.005),
            "credit_bridge": _figures(accuracy=0.283, gamma=0.179, rho=0.009),
            "vector_field": _figures(accuracy=0.243, gamma=0.001, rho=0.0),
        }
    return Experiment(
        name="online",
        title=f"Students on {shown}",
        size=f"d={width}, L=4, {steps} steps (published: CIFAR-10, d=256, L=4, 100 epochs)",
        arms=tuple(
            Arm(
                label=method,
                method=method,
                task=task,
                options={"s_type": "eT", **own} if method not in ("bp", "dfa", "copy") else {},
                published=known.get(method, {}),
            )
            for method in ("bp", "dfa", "copy", "state_bridge", "credit_bridge", "vector_field")
        ),
        columns=("accuracy", "gamma", "rho", "nudge", "S1", "S2"),
        drawn=("accuracy", "gamma", "rho"),
        claims=(
            Claim(
                text="a better credit does not train better: dfa's accuracy is above the vector field's",
                holds=lambda m: m["dfa"]["accuracy"] > m["vector_field"]["accuracy"],
            ),
        ),
    )


def throttle(
    full: bool = False,
    methods: Sequence[str] = ("bp", "dfa", "copy", "vector_field"),
    bits: Sequence[int] = (0, 16, 12, 8),
) -> Experiment:
    """Update fields through the throttle: methods by precision by law, on digits."""
    base = Throttled(steps=400) if full else Throttled()
    return Experiment(
        name="throttle",
        title="Update fields through the throttle, digits",
        size=f"d={base.net.width}, L={base.net.depth}, eta={base.rate:g}, {base.steps} full batches (not published)",
        arms=tuple(
            Arm(
                group=f"{method} {width or 'float'}",
                label=law,
                method=method,
                task=replace(base, bits=width, law=law),
                options=NARROW if METHODS[method].learns else {},
            )
            for method in methods
            for width in bits
            for law in LAWS
        ),
        columns=("accuracy", "best", "min_alpha", "angle", "still", "diverged", "verdict"),
        drawn=("accuracy", "min_alpha", "angle", "still"),
        seeds=3 if full else 1,
    )


EXPERIMENTS: dict[str, Callable[..., Experiment]] = {
    "lq": lq,
    "ladder": ladder,
    "audit": audit,
    "boundary": boundary,
    "frozen": frozen,
    "online": online,
    "throttle": throttle,
}
"""Name -> maker; ``full`` is an argument of all, ``cifar``, a folder, of frozen and online, ``methods`` and ``bits`` of
throttle."""
