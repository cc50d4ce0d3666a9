"""A fault campaign: single-bit upsets in the unit's registers and memory while it runs, each judged against the golden model."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...golden.clamp import step_size
from ...golden.config import OnStill, ThrottleConfig
from ...golden.decide import Decide
from ...golden.formats import ZERO
from ...golden.registers import COUNTER_BITS, COUNTERS, FLAGS, Registers
from ...golden.throttle import StepRecord, Throttle, real_of
from ...hw.export import export
from ..cosim import RtlThrottle, harness
from ..runner import SimulationError, run
from ..upset import SURVEY, Bit

CLASSES = ("masked", "corrected", "offset", "flagged", "slight", "silent", "hang")
"""What becomes of an upset; see :func:`judge`."""

WARM_UP = 5
"""The upset falls into one of that many first steps."""

HORIZON = 8
"""Steps that are compared after the one with the upset."""

SLIGHT_STEP, SLIGHT_WEIGHT = 0.01, 2**-8
"""What is still slight: a step size off by this ratio, a weight by this much."""

SATURATED = ("gradient_saturated", "update_saturated", "weight_saturated")


# ------------------------------------------------------------------------------------------------ the registers


NAME = r"(?:\\(\S+)|([A-Za-z_]\w*))"
MODULE = re.compile(rf"^module\s+{NAME}(.*?)^endmodule", re.DOTALL | re.MULTILINE)


def modules(verilog: str) -> dict[str, dict[str, Any]]:
    """Of each module of an exported text its registers, which are the targets of ``<=``, and its instances with their modules."""
    found: dict[str, dict[str, Any]] = {}
    for escaped, plain, body in MODULE.findall(verilog):
        instances = re.findall(rf"^ +{NAME}\s+(?:#\([^;]*?\)\s+)?{NAME}\s*\(\s*\n? *\.", body, re.MULTILINE)
        found[escaped or plain] = {
            "registers": _registers(body),
            "instances": {c or d: a or b for a, b, c, d in instances},
        }
    return found


def _registers(body: str) -> list[str]:
    targets = re.findall(rf"(?:^|\)|begin|else|'h[0-9a-f]+:|default:)\s*{NAME}\s*(?:\[[\w:]+\])?\s*<=", body, re.MULTILINE)
    return sorted({a or b for a, b in targets})


def within_reach(verilog: str) -> str:
    """The text with its registers, and nothing else, public for Verilator: if all were, it would take far too long to compile."""

    def mark(module: re.Match[str]) -> str:
        names = "|".join(map(re.escape, _registers(module[3])))
        each = re.compile(rf"(?<![\w$.])({names or '(?!)'})(?![\w$.])( \[[^]]*\])?")
        declared = re.compile(r"^ *(?:\(\* \w+ \*\) )?(?:output )?reg [^=;\n]*", re.MULTILINE)
        return declared.sub(lambda reg: each.sub(r"\g<0> /* verilator public_flat_rw */", reg[0]), module[0])

    return MODULE.sub(mark, verilog)


def bits(config: ThrottleConfig, verilog: str) -> list[Bit]:
    """Every bit of a unit :func:`within_reach` that is kept from cycle to cycle: flip-flops, and words of memory."""
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-") as name:
        folder = Path(name)
        source = folder / "throttle.v"
        source.write_text(verilog)
        (folder / "modules.json").write_text(json.dumps(modules(verilog)))
        files = {"modules": str(folder / "modules.json"), "registers": str(folder / "registers.json")}
        design = harness(config, source)
        run(design, "kappa_rtl.sim.upset", env={SURVEY: json.dumps(files)}, cwd=folder)
        found = json.loads((folder / "registers.json").read_text())
    return [
        Bit(path, word, bit) for path, width, words in found for word in (range(words) if words else [-1]) for bit in range(width)
    ]


def groups(every: list[Bit]) -> dict[str, str]:
    """The line of the table to which each register belongs, by its path: its component, lanes taken together, and its kind."""
    width = Counter(bit.path for bit in every)
    memories = {bit.path for bit in every if bit.word >= 0}
    published = {one.name for one in fields(Registers)}
    found = {}
    for path, size in width.items():
        *scopes, name = path.split("/")
        # Only what the generator named: not its copies' numbers, nor the branches of cells that stand for blocks of an FPGA.
        named = [scope for scope in scopes if not scope.startswith("g_")]
        where = "/".join(re.sub(r"[$_]?\d+(_\d+)*$", "", scope) for scope in named)
        name = re.sub(r"\$\d+$", "", name)
        if path in memories:
            kind = "words"
        elif name == "fsm_state":
            kind = "state machine"
        elif name in COUNTERS or (scopes[-1:] == ["counters"] and size > 1):
            kind = "counters"
        elif name in FLAGS:
            kind = "flags"
        elif name in published:
            kind = "scalars"
        else:
            kind = "control" if size == 1 or name in ("valid", "busy") else "data"
        found[path] = f"{where or 'throttle'}: {kind}"
    return found


# ------------------------------------------------------------------------------------------------ one upset


@dataclass(frozen=True)
class Upset:
    """One bit, flipped in one cycle of one step of a run from reset."""

    number: int
    bit: Bit
    step: int
    cycle: int
    workload: int


@dataclass
class Outcome:
    """What became of an upset.

    Attributes:
        differing: for each step with a difference its number and what differs: registers (counters by what the step counted),
            ``update``, ``theta`` (by what the step changed).
        alarms: what the unit itself says.
        checks: what a host could find in the registers alone, see :func:`checks`.
        worst_step: the largest ratio by which a step size was off, less one; from the upset's step on.
        worst_weight: by how much a weight was off in the last step.
    """

    upset: Upset
    verdict: str = ""
    differing: list[tuple[int, list[str]]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    worst_step: float = 0.0
    worst_weight: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Outcome:
        upset = table["upset"]
        return cls(**table | {"upset": Upset(**upset | {"bit": Bit(*upset["bit"])})})


class Struck(RtlThrottle):
    """A unit :func:`within_reach`; ``upset`` strikes in the next step, once."""

    upset: Upset | None = None
    answer: Mapping[str, int] = {}

    def _host_words(self) -> dict[str, int]:
        return super()._host_words() | {"limit": 4 * (2 * self._config.beats + 1000)}

    def _send(self, message: dict[str, Any] | None) -> Any:
        if message and "load" in message and self.upset is not None:
            message |= {"upset": (*self.upset.bit, self.upset.cycle)}
            self.upset = None
        answer = super()._send(message)
        if answer:
            self.answer = answer
        return answer


def ulps_of(config: ThrottleConfig, grid: str) -> NDArray[np.float64]:
    """The ulp of every element on its own grid of that name, (N,)."""
    return real_of(np.ones(config.elements, np.int64), config, grid)


class Workload:
    """A training run for the unit: a quadratic bowl with noise, steep enough that the throttle works and no rail is near.

    The golden unit descends it; the struck unit gets the same gradients, whatever becomes of its weights.
    """

    def __init__(self, config: ThrottleConfig, seed: int) -> None:
        random = np.random.default_rng(seed)
        g, w = config.grids.gradient, config.grids.weight
        curvature = np.exp(random.uniform(0, np.log(30), config.elements))
        gradient_ulps, ulps = ulps_of(config, "gradient"), ulps_of(config, "weight")
        first = np.rint(random.uniform(-0.25, 0.25, config.elements) / ulps).clip(*w.rails)
        self.weights: NDArray[Any] = first.astype(np.int64)
        self.gradients: list[NDArray[Any]] = []
        self.records: list[StepRecord] = []
        golden = Throttle(config, self.weights, codes=True)
        for _ in range(WARM_UP + HORIZON):
            real = curvature * golden.weights + random.normal(0, 0.05, config.elements)
            gradient = np.rint(real / gradient_ulps).astype(np.int64).clip(*g.rails)
            self.gradients.append(gradient)
            self.records.append(golden.step(gradient, codes=True))


def judge(upset: Upset, config: ThrottleConfig, golden: list[StepRecord], rtl: list[StepRecord], hung: bool) -> Outcome:
    """The class of an upset, the first of these that fits; of counters it is what a step adds, of weights how it moves them.

    hang: the unit stops answering, or takes or gives another number of beats.
    masked: no register, update or weight differs from golden's, from the upset to the last step compared.
    flagged: the unit says that something is wrong: a flag is up, or saturations are counted, where golden has none, or a
    counter counts more in a step than there is to count.
    corrected, offset: the records of a single step differ, and from the next on all registers and updates are golden's again.
    Corrected if the weights, which are the host's, keep no error beyond :data:`SLIGHT_WEIGHT`.
    slight: more steps differ, but no step size is off by more than :data:`SLIGHT_STEP`, nor any weight at the end by more than
    :data:`SLIGHT_WEIGHT`.
    silent: all else.
    """
    outcome = Outcome(upset)
    alarms: set[str] = set()
    for k in range(upset.step, len(rtl)):
        ours, theirs = (_told(records, k) for records in (golden, rtl))
        differing = [name for name in ours if not np.array_equal(ours[name], theirs[name])]
        if differing:
            outcome.differing.append((k, differing))
        alarms |= _alarms(config, ours, theirs)
        outcome.worst_step = max(outcome.worst_step, _ratio(ours["step_size"], theirs["step_size"]))
        off = np.abs(golden[k].theta.astype(np.int64) - rtl[k].theta)
        outcome.worst_weight = float((off * ulps_of(config, "weight")).max())
    outcome.alarms, outcome.checks = sorted(alarms), checks(config, rtl)
    lasting = outcome.worst_weight > SLIGHT_WEIGHT
    if hung:
        outcome.verdict = "hang"
    elif not outcome.differing:
        outcome.verdict = "masked"
    elif alarms:
        outcome.verdict = "flagged"
    elif len(outcome.differing) == 1:
        outcome.verdict = "offset" if lasting else "corrected"
    else:
        outcome.verdict = "silent" if lasting or outcome.worst_step > SLIGHT_STEP else "slight"
    return outcome


def checks(config: ThrottleConfig, records: list[StepRecord]) -> list[str]:
    """What a host finds in the registers of a run, without golden's run beside it.

    bounds: a scalar is not normalised, alpha not within its clamp, the step size beyond eta, the average beyond what it averages.
    scalars: they are not what the golden model makes of the run's own A and B. Where B does not say whether a weight moved
        (source ``ratio``, an intended motion), ``still`` is taken at its word.
    """
    found: set[str] = set()
    unit, motion, average = Decide(config), 0, ZERO
    decided, size = config.initial_step, 0  # for the step to come, and what the last one was made with
    one, half = config.scalar.one, 1 << config.mantissa_bits - 1
    most, _ = step_size(config.step, one, config.constants["eta"])
    for record in records:
        now = record.registers
        decision = unit.decide(now.A, motion, not now.still if config.asks_moved else None, size)
        motion, size, decided = now.B, decided if config.delay else now.step_size, now.step_size
        if any(getattr(now, name) != value for name, value in decision._asdict().items()):
            found.add("scalars")
        scalars = (now.norm_gradient, now.norm_motion, now.curvature, now.ema, now.alpha)
        least, mean, largest = (float(x) for x in (average, now.ema, now.curvature))
        if config.on_still is OnStill.RELEASE:
            least *= float(config.constants["keep"])  # after a step without motion S forgets, whatever C is
        if (
            any(x.m < half and x != ZERO for x in scalars)
            or not float(config.constants["alpha_min"]) <= float(now.alpha) <= 1
            or now.step_size > most
            or not min(least, largest) * (1 - 1e-6) <= mean <= max(float(average), largest) * (1 + 1e-6)
        ):
            found.add("bounds")
        average = now.ema
    return sorted(found)


def _told(records: list[StepRecord], k: int) -> dict[str, Any]:
    """What a step tells: registers, counters by what it added to them, the updates, and how the weights moved."""
    record, before = records[k], records[k - 1] if k else None
    told = {one.name: getattr(record.registers, one.name) for one in fields(Registers)}
    for name in COUNTERS:
        told[name] = (told[name] - (getattr(before.registers, name) if before else 0)) % (1 << COUNTER_BITS)
    return told | {"update": record.update, "theta": record.theta.astype(np.int64) - (before.theta if before else 0)}


def _alarms(config: ThrottleConfig, golden: Mapping[str, Any], rtl: Mapping[str, Any]) -> set[str]:
    """What in a step's registers says that something is wrong."""
    most = dict.fromkeys(COUNTERS, config.elements) | {"still_steps": 1}
    return (
        {name for name in (*FLAGS, "memory_fault") if rtl[name] and not golden[name]}
        | {name for name in SATURATED if rtl[name] and not golden[name]}
        | {f"{name} counts too much" for name in COUNTERS if rtl[name] > most[name]}
    )


def _ratio(a: int, b: int) -> float:
    """By how much two step sizes differ, as the larger over the smaller less one; at most 1e9."""
    return min(1e9, max(a, b) / max(1e-9, min(a, b)) - 1) if a != b else 0.0


# ------------------------------------------------------------------------------------------------ many upsets


class Campaign:
    """Upsets of one configuration; a context manager that holds the simulator.

    The plan is a random order of all bits, and another one after it, each with a step, a cycle and a workload: a longer
    campaign of the same seed begins with the shorter one.
    """

    WORKLOADS = 8

    def __init__(self, config: ThrottleConfig, seed: int = 0) -> None:
        self.config, self.seed = config, seed
        verilog, manifest = export(config)
        self.sha256: str = manifest["sha256"]
        verilog = within_reach(verilog)
        self.bits = bits(config, verilog)
        self.workloads = [Workload(config, seed * self.WORKLOADS + i) for i in range(self.WORKLOADS)]
        self._rtl = Struck(config, self.workloads[0].weights, codes=True, verilog=verilog)
        try:
            # The two agree, or no upset could be judged; and this is how long each step takes undisturbed.
            self.cycles: list[list[int]] = []
            for workload in self.workloads:
                begun = len(self._rtl.cycles)
                self._rtl.restart(config, workload.weights, codes=True)
                for gradient, record in zip(workload.gradients, workload.records, strict=True):
                    if _differs(self._rtl.step(gradient, codes=True), record):
                        raise SimulationError(f"golden and RTL differ in step {record.step} without any upset")
                self.cycles.append(self._rtl.cycles[begun:])
        except BaseException:
            self._rtl.close()
            raise

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        self._rtl.close()

    def plan(self, count: int) -> Iterator[Upset]:
        """The first ``count`` upsets."""
        random = np.random.default_rng(self.seed)
        order: list[int] = []
        for number in range(count):
            if not number % len(self.bits):
                order = random.permutation(len(self.bits)).tolist()
            workload, step = int(random.integers(self.WORKLOADS)), int(random.integers(WARM_UP))
            cycle = int(random.integers(self.cycles[workload][step]))
            yield Upset(number, self.bits[order[number % len(self.bits)]], step, cycle, workload)

    def strike(self, upset: Upset) -> Outcome:
        """Run one upset, from reset."""
        workload, rtl = self.workloads[upset.workload], self._rtl
        rtl.restart(self.config, workload.weights, codes=True)
        found: list[StepRecord] = []
        hung = False
        for step, gradient in enumerate(workload.gradients[: upset.step + HORIZON + 1]):
            if step == upset.step:
                rtl.upset = upset
            try:
                found.append(rtl.step(gradient, codes=True))
            except SimulationError:
                if not (rtl.answer["hung"] or rtl.answer["violations"]):
                    raise
                hung = True
                break
            if step < upset.step and _differs(found[-1], workload.records[step]):
                raise SimulationError(f"upset {upset.number}: step {step} before it differs from golden")
        return judge(upset, self.config, workload.records, found, hung)


def _differs(rtl: StepRecord, golden: StepRecord) -> bool:
    same = np.array_equal(rtl.theta, golden.theta) and np.array_equal(rtl.update, golden.update)
    return not same or rtl.registers != golden.registers


def table(every: list[Bit], outcomes: list[Outcome]) -> list[tuple[str | int, ...]]:
    """Rows of the table: the group, its bits, the upsets in it, and how many of them are of each of :data:`CLASSES`; all last."""
    of = groups(every)
    size = Counter(of[bit.path] for bit in every)
    found = Counter((of[outcome.upset.bit.path], outcome.verdict) for outcome in outcomes)
    rows: list[tuple[str | int, ...]] = []
    for name in dict.fromkeys(of.values()):
        counts = [found[name, verdict] for verdict in CLASSES]
        rows.append((name, size[name], sum(counts), *counts))
    return [*rows, ("all", *(sum(int(row[i]) for row in rows) for i in range(1, 3 + len(CLASSES))))]
