"""The page of every key that the commands read from a file, made from what reads them.

Keys, types and defaults are those of the fields, meanings those of the docstrings, and what a value must be is what the reader
says when it refuses another one. So the page cannot promise what the code does not do.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..golden import config as unit
from ..golden.config import ThrottleConfig
from ..golden.laws import LAWS
from ..golden.network.data import synthetic
from ..golden.network.optimisers import OPTIMISERS
from ..golden.network.precision import DEFAULT, FIELDS, RESERVED, PrecisionDict
from ..golden.protocol import trace
from ..golden.training.estimators import ESTIMATORS
from ..golden.training.instrumented import train_instrumented
from ..golden.training.linear import GainRamp
from ..golden.training.model import LinearBlockModel
from ..golden.training.recipe import Recipe
from ..golden.training.schedules import NAMES as SCHEDULES
from ..sim.runner import check
from .experiments.cosim.job import EXPERIMENTS, NARROW, TABLE_OF, Job
from .experiments.credit.plan import USES, Plan
from .experiments.explore.space import Axes
from .experiments.subject import DataSpec, ModelSpec
from .settings import LOOP, USED

Rows = Sequence[Sequence[str]]

NUMBERS = (2, 0, -1)
REFUSED: dict[str, Sequence[Any]] = {
    "integer": (-1,),
    "number": NUMBERS,
    "text": ("?",),
    "format": ("?",),
    "true or false": ("?",),
    "list of names": (["?"],),
    "list of numbers": ("?",),
    "table": ("?",),
    "list of tables": ("?",),
}
"""Values of each type that no key takes, or only some: the first one that is refused tells what the rule is."""

ANY_REFUSED: Sequence[Any] = (-1, 2.5, "?", True, [])
"""Values of which every key of a table with fields of its own refuses one."""

TYPES = {
    "int": "integer",
    "Real": "number",
    "float": "number",
    "str": "text",
    "bool": "true or false",
    "Fixed | str": "format",
    "Motion | str": "text",
    "tuple[str, ...]": "list of names",
    "tuple[Segment, ...]": "list of tables",
    "list[float]": "list of numbers",
    "GainRamp": "table",
    "tuple[Column, ...]": "names or numbers",
    "Column": "name or number",
    "int | float": "integer or share",
    "tuple[int, ...]": "list of integers",
    "tuple[float, ...]": "list of numbers",
}

# ------------------------------------------------------------------------------------------------ reading the code


def plain(text: str) -> str:
    """A docstring's text in Markdown: roles and double backquotes become code, line breaks spaces."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return " ".join(text.replace("``", "`").split())


def meanings(documented: Any) -> dict[str, str]:
    """The ``Args`` of a docstring by name; several names may share an entry."""
    found: dict[str, str] = {}
    section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", inspect.getdoc(documented) or "", re.MULTILINE)
    for entry in re.findall(r"^    (\w[\w, ]*): (.*(?:\n     .*)*)", section[1] if section else "", re.MULTILINE):
        found |= dict.fromkeys(entry[0].split(", "), plain(entry[1]))
    return found


def summary(documented: Any) -> str:
    """The first sentence of a docstring."""
    return plain((inspect.getdoc(documented) or "").split("\n\n")[0])


def comments(kind: type[StrEnum]) -> dict[str, str]:
    """What the source says behind ``#:`` of each member."""
    found = re.findall(r"^ +\w+ = \"(\w+)\"  #: (.*)$", inspect.getsource(kind), re.MULTILINE)
    assert [name for name, _ in found] == [member.value for member in kind]
    return dict(found)


def rule(read: Callable[..., object], key: str, values: Sequence[Any]) -> str:
    """What the value of a key must be, in the words with which the first of some values is refused."""
    for value in values:
        try:
            read(**{key: value})
        except ValueError as error:
            said = re.search(r"\bmust (.*), not ", str(error))
            if said is None:
                raise
            return re.sub(r" = [\d.]+", "", f"must {said[1]}")
    raise ValueError(f"{key} must refuse one of {values}, not take all of them")


def shown(value: Any) -> str:
    """A default as TOML has it."""
    match value:
        case None | dataclasses.MISSING:
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case str():
            return f'`"{value}"`'
        case tuple():
            return f"`{list(value)}`"
        case _:
            return f"`{value}`"


def table(head: Sequence[str], rows: Rows) -> str:
    """Markdown."""
    lines: list[Sequence[str]] = [head, ["---"] * len(head)]
    lines += [[cell.replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


WHAT = {"decay_exclude": "list of text", "clip": "text", "on_bad_gradient": "text", "schedule": "text"}
"""Types of keys that have no default to tell them."""

BY_NAME: dict[str, Iterable[str]] = {"optimiser": OPTIMISERS, "estimator": ESTIMATORS, "schedule": SCHEDULES}

OWN = ("elements", "lanes", "law", "eta")
KEYS = ("key", "type", "default", "rule", "meaning")


# ------------------------------------------------------------------------------------------------ the tables


def commands() -> Iterator[Sequence[str]]:
    """Every command that reads a configuration file, and the tables that it uses."""
    for name, tables in USED.items():
        yield (
            f"`kappa-rtl {name} {'SPACE.toml' if name == 'explore' else '--config'}`",
            ", ".join(f"`[{table}]`" for table in tables),
        )


def laws() -> Iterator[Sequence[str]]:
    """A row a law."""
    for law in LAWS.values():
        read = partial(_unit, law=law.name)
        parameters = [f"`{name}` = {default} ({rule(read, name, NUMBERS)})" for name, default in law.parameters.items()]
        constructor = getattr(ThrottleConfig, law.name, None)
        yield f"`{law.name}`", summary(constructor) if constructor else "", ", ".join(parameters), _names(law.sets)


def throttle() -> Iterator[Sequence[str]]:
    """A row a field of the unit's configuration."""
    meaning = meanings(ThrottleConfig)
    for field in dataclasses.fields(ThrottleConfig):
        name, kind = field.name, _choice(field)
        what = "text" if kind else TYPES[str(field.type).removesuffix(" | None")]
        says = rule(_unit, name, REFUSED[what])
        if what == "format":
            says = "; ".join(rule(_unit, name, [text]) for text in ("UQ1.1", f"SQ{unit.MAX_FORMAT_WIDTH}.1"))
        default = "must be given" if field.default is dataclasses.MISSING else shown(field.default)
        yield f"`{name}`", what, default, says, summary(kind) if kind else meaning[name]


def choices() -> Iterator[str]:
    """A table for each field that is a choice."""
    for field in dataclasses.fields(ThrottleConfig):
        if kind := _choice(field):
            yield table((f"`{field.name}`", summary(kind)), [(f"`{name}`", said) for name, said in comments(kind).items()])


def own() -> Iterator[Sequence[str]]:
    """A row an experiment of ``cosim``, which has defaults of its own."""
    for experiment in EXPERIMENTS:
        made = Job.read(experiment=experiment).throttle.to_table()
        yield f"`{experiment}`", *(shown(made[key]) for key in OWN)


def run() -> Iterator[Sequence[str]]:
    """A row a key of ``[run]``."""
    meaning = meanings(Job)
    small = partial(Job.read, experiment="synthetic")
    for field in dataclasses.fields(Job):
        name = field.name
        if TABLE_OF.get(name) != "run":
            continue
        what = "format" if name == "input" else TYPES[str(field.type).removesuffix(" | None")]
        # The job leaves its simulator to the run, which refuses another one.
        says = rule(check, "simulator", ["?"]) if name == "sim" else rule(small, name, REFUSED[what])
        yield f"`{name}`", what, shown(field.default), says, meaning[name]


def data() -> Iterator[Sequence[str]]:
    """A row a key of ``[data]``."""
    yield from _of_spec(DataSpec, lambda **given: DataSpec.of_table({"file": "x"} | given))


def model() -> Iterator[Sequence[str]]:
    """A row a key of ``[model]``."""
    yield from _of_spec(ModelSpec, ModelSpec)


def _of_spec(spec: Any, read: Callable[..., object]) -> Iterator[Sequence[str]]:
    meaning = meanings(spec)
    for field in dataclasses.fields(spec):
        what = TYPES[str(field.type).removesuffix(" | None")]
        default = "" if field.default == "" else shown(field.default)
        yield f"`{field.name}`", what, default, rule(read, field.name, ANY_REFUSED), meaning[field.name]


def gain() -> Iterator[Sequence[str]]:
    """A row a key of ``[run.gain]``."""

    def read(**values: Any) -> Job:
        return Job.read(experiment="synthetic", gain=values)

    for field in dataclasses.fields(GainRamp):
        says = rule(read, field.name, ["?"])
        if field.name == "last":
            says += "; " + rule(read, field.name, [-1])
        yield f"`{field.name}`", TYPES[str(field.type)], shown(field.default), says


def training() -> Iterator[Sequence[str]]:
    """A row a key of ``[training]``: what a job has, and what the loop takes under the same names."""
    meaning, small = meanings(Job), partial(Job.read, experiment="synthetic")
    for name in ("steps", "batch", "seed"):
        yield f"`{name}`", "integer", shown(getattr(Job, name)), rule(small, name, REFUSED["integer"]), meaning[name]
    problem = synthetic(0)
    net = LinearBlockModel(problem, num_hidden=[], use_bias=False, seed=0)
    loop = partial(net.train_instrumented, problem.X[:2], problem.Y[:2], epochs=1)
    parameters, meaning = inspect.signature(train_instrumented).parameters, meanings(train_instrumented) | meanings(Recipe)
    for name in LOOP:
        default = parameters[name].default
        if name in BY_NAME:
            what, says, means = "text", f"must be one of {', '.join(BY_NAME[name])}", f"the {name}, by name."
        else:
            what = "true or false" if isinstance(default, bool) else "text" if isinstance(default, str) else "number"
            what = WHAT.get(name, what)
            says, means = rule(loop, name, ANY_REFUSED), meaning.get(name, "")
        yield f"`{name}`", what, shown(default), says, means


def credit() -> Iterator[Sequence[str]]:
    """A row a key of ``[credit]``, with the experiments that have it."""
    meaning = meanings(Plan)
    for field in dataclasses.fields(Plan):
        what = TYPES[str(field.type)]
        values: Sequence[Any] = (-1, "?")
        if what.startswith("list"):
            values = {"seeds": ((-1,),), "depths": ((0,),), "hidden": ((0,),), "bits": ((5,),)}.get(field.name, (("?",),))
        users = [name for name, sizes in USES.items() if field.name in sizes]
        shown_users = "all" if len(users) == len(USES) else _names(users)
        says = rule(Plan, field.name, values)
        yield f"`{field.name}`", what, says, meaning[field.name], shown_users


def explore() -> Iterator[Sequence[str]]:
    """A row a key of ``[explore]``."""
    meaning = meanings(Axes)
    for field in dataclasses.fields(Axes):
        assert isinstance(field.default, tuple)
        yield (
            f"`{field.name}`",
            f"`{json.dumps(list(field.default))}`",
            rule(Axes, field.name, (-1, "?", 0.5)),
            meaning[field.name],
        )
    yield "`task`", "", "must be FILE.py:FUNCTION or MODULE:FUNCTION", "a model in torch in the place of `[data]` and `[model]`."


def traces() -> Iterator[Sequence[str]]:
    """A row a key of a trace's rows."""
    right = {"epoch": 1, "hidden_norms": [1.0], "bp_grad_norms_per_sample_med": [1.0], "acc_eval": 0.5}

    def read(**values: Any) -> trace.Row:
        return trace.parse(right | values, "row")

    for name, annotation in trace.Row.__annotations__.items():
        what = TYPES[annotation.__forward_arg__]
        yield f"`{name}`", what, rule(read, name, [*REFUSED[what], "?"])


def page() -> str:
    """The whole page."""
    text = Path(__file__).with_suffix(".md.j2").read_text()
    change = partial(dataclasses.replace, Job.read(experiment="synthetic"))
    return (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True)
        .from_string(text)
        .render(
            commands=table(("command", "tables"), list(commands())),
            laws=table(("`law`", "what it does", "parameters", "sets"), list(laws())),
            throttle=table(KEYS, list(throttle())),
            choices="\n\n".join(choices()),
            own=table(("experiment", *(f"`{key}`" for key in OWN)), list(own())),
            run=table(KEYS, list(run())),
            gain_doc=summary(GainRamp),
            gain=table(KEYS[:-1], list(gain())),
            narrow=table(("key", "default"), [(f"`{name}`", shown(value)) for name, value in NARROW.items()]),
            narrow_rule="The table " + rule(change, "narrow", [{"weight": "SQ2.6"}]),
            first_of_loop=LOOP[0],
            training=table(KEYS, list(training())),
            data=table(KEYS, list(data())),
            model=table(KEYS, list(model())),
            reserved=_names((*RESERVED, DEFAULT)),
            fields=_names(FIELDS),
            values=_names(RESERVED),
            default=DEFAULT,
            precision_rule=rule(lambda **layer: PrecisionDict({"dense0": layer}), "weight", ["SQ48.1"]),
            credit=table(("key", "type", "rule", "meaning", "of"), list(credit())),
            explore=table(("key", "default", "rule", "meaning"), list(explore())),
            trace=table(("key", "type", "rule"), list(traces())),
        )
    )


def _unit(**fields: Any) -> ThrottleConfig:
    return ThrottleConfig.from_table({"elements": 8, "eta": 0.1} | fields)


def _choice(field: dataclasses.Field[Any]) -> type[StrEnum] | None:
    """The choice that a field of the unit is; None for another one."""
    kind = getattr(unit, str(field.type).removesuffix(" | None").removesuffix(" | str"), None)
    return kind if isinstance(kind, type) and issubclass(kind, StrEnum) else None


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
