"""A unit that is saved and loaded goes on bit for bit, and a file that is not its own is refused and changes nothing."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden import checkpoint
from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.network.quantisers import Segment
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.sharded import ShardedThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.history import FitHistory
from kappa_rtl.golden.training.published import Law, PublishedThrottle
from support.strategies import exactly

N = 9
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "residual": {"residual_bits": 4, "update": "SQ1.6", "weight": "SQ2.6"},
    "stochastic": {"update": "SQ1.6,stochastic", "weight": "SQ2.6", "lanes": 4},
    "delay": {"delay": 1},
    "growth": {"law": "adgd"},
    "growth_with_delay": {"law": "adgd", "delay": 1},
    "norm": {"law": "clip_norm"},
    "ratio": {"law": "trust_ratio"},
    "ema": {"law": "inverse_curvature", "ema_start": "first", "dead_after": 2, "weight": "SQ2.4", "every_rail": True},
    "intended": {"motion": "intended", "residual_bits": 3, "weight": "SQ2.6"},
    "projection": {"source": "projection", "law": "stability_margin"},
    "projection_with_delay": {"source": "projection", "law": "stability_margin", "delay": 1},
    "watchdog": {"watchdog": ("gradient_floor", "norm_growth", "learning_dead"), "gradient_floor": 0.3},
}


def gradients(count: int = 16) -> list[np.ndarray]:
    """Of all magnitudes, with still stretches."""
    rng = np.random.default_rng(5)
    return [
        (rng.integers(-1, 2, N) * (step % 4 != 2) * int(rng.choice([1, 40, 4000, 32000]))).astype(np.int16)
        for step in range(count)
    ]


def config(name: str) -> ThrottleConfig:
    return ThrottleConfig.from_table({"elements": N, "eta": 0.25, "eta_max": 0.5} | OPTIONS[name])


def published(_: str) -> PublishedThrottle:
    fmt = Fixed.parse("SQ2.6")
    law = Law(eta=0.25, on_still="hold", ema_start="first")
    return PublishedThrottle(law, np.zeros(N, np.float32), [Segment(4, None, fmt), Segment(5)])


def sharded(name: str) -> ShardedThrottle:
    return ShardedThrottle(config(name), np.zeros(N), [4, 5])


CASES: list[Any] = [
    *((lambda name: Throttle(config(name), np.zeros(N)), name) for name in OPTIONS),
    *((lambda name: FloatThrottle(config(name), np.zeros(N)), name) for name in OPTIONS),
    (sharded, "stochastic"),
    (sharded, "residual"),
    (published, "plain"),
]


def step(unit: Any, gradient: np.ndarray, number: int) -> tuple[Any, ...]:
    """One step with all that may come between two; what it shows."""
    if isinstance(unit, PublishedThrottle):
        gradient = (gradient / 4096).astype(np.float32)
    if number == 4:
        unit.set_rate("1/3")
    if isinstance(unit, Throttle) and unit.config.watchdog:
        unit.watchdog.blocks([number, 3 * number**2])
    record = unit.step(gradient)
    return record.step, record.registers, record.theta.tobytes(), record.update.tobytes()


@pytest.mark.parametrize(("make", "name"), CASES)
@pytest.mark.parametrize("at", [0, 1, 2, 9])
def test_what_is_loaded_goes_on_bit_for_bit(make: Callable[[str], Any], name: str, at: int, tmp_path: Path) -> None:
    whole, begun, other = make(name), make(name), make(name)
    steps = list(enumerate(gradients()))
    want = [step(whole, g, number) for number, g in steps]
    got = [step(begun, g, number) for number, g in steps[:at]]
    step(other, gradients()[3], 0)  # what is loaded takes the place of everything
    path = begun.save(tmp_path / "unit.npz")
    other.load(path)
    assert other.save(tmp_path / "again.npz").read_bytes() == path.read_bytes(), "equal states are equal files"
    got += [step(other, g, number) for number, g in steps[at:]]
    assert got == want
    before = begun.state_dict()
    step(begun, gradients()[3], 1)
    other.load_state_dict(before)
    assert checkpoint.write(tmp_path / "kept.npz", type(begun).__name__, before).read_bytes() == path.read_bytes(), "copies"


def test_blocks_of_a_step_under_way_are_part_of_the_state() -> None:
    unit, other = (Throttle(config("watchdog"), np.zeros(N)) for _ in range(2))
    unit.watchdog.blocks([1])
    other.load_state_dict(unit.state_dict())
    other.watchdog.blocks([10**6])
    assert other.step(np.zeros(N)).registers.watchdog & 2


def refused(path: Path, message: str, *, unit: Any = None) -> None:
    """The file is refused with this message, and the unit is what it was."""
    unit = unit or Throttle(config("plain"), np.full(N, 0.5))
    unit.step(np.full(N, 0.25))
    before = json.dumps(checkpoint._packed(unit.state_dict(), "", {})), unit.theta.tobytes()
    with pytest.raises(ValueError, match=message):
        unit.load(path)
    assert (json.dumps(checkpoint._packed(unit.state_dict(), "", {})), unit.theta.tobytes()) == before


def test_files_that_are_not_its_own_are_refused(tmp_path: Path) -> None:
    path = Throttle(config("plain"), np.zeros(N)).save(tmp_path / "unit.npz")
    data = path.read_bytes()
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.npz").write_bytes(data[:length])
        refused(tmp_path / "cut.npz", r"cut\.npz must be a whole checkpoint, not one that is cut off or something else: ")
    for place in range(0, len(data), 41):  # a flipped bit is noticed, or stands where nothing is said, as in a date
        flipped = bytearray(data)
        flipped[place] ^= 4
        (tmp_path / "flipped.npz").write_bytes(flipped)
        unit = Throttle(config("plain"), np.full(N, 0.5))
        said = ""
        try:
            unit.load(tmp_path / "flipped.npz")
        except ValueError as error:
            said = str(error)
        assert said.startswith(str(tmp_path / "flipped.npz")) or unit.save(tmp_path / "same.npz").read_bytes() == data
    FitHistory(loss=[1.0]).save(tmp_path / "history.npz")
    refused(tmp_path / "history.npz", r"history\.npz: format must be 'kappa_rtl\.checkpoint', not None")
    np.savez(tmp_path / "weights.npz", np.zeros(N))
    refused(tmp_path / "weights.npz", r"weights\.npz: format must be ")
    with pytest.raises(ValueError, match=r"^path must end in \.npz, not 'unit\.pt'"):
        Throttle(config("plain"), np.zeros(N)).save("unit.pt")
    with pytest.raises(ValueError, match=r"^path must be the name of an \.npz file, not array"):
        Throttle(config("plain"), np.zeros(N)).load(np.zeros(N))  # type: ignore[arg-type]
    assert not list(tmp_path.glob(".*")), "nothing half written is left"


def test_other_versions_kinds_and_contents_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = Throttle(config("plain"), np.zeros(N))
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    path = unit.save(tmp_path / "later.npz")
    monkeypatch.undo()
    refused(path, r"later\.npz: version must be 1, not 2")
    refused(
        FloatThrottle(config("plain"), np.zeros(N)).save(tmp_path / "f.npz"),
        r"f\.npz: kind must be 'Throttle', not 'FloatThrottle'",
    )
    # A file whose members are whole, with other weights in it than its digest says.
    with zipfile.ZipFile(unit.save(tmp_path / "unit.npz")) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    theta = next(name for name in members if name.endswith("theta.npy"))
    members[theta] = members[theta][:-2] + b"\x01\x00"
    with zipfile.ZipFile(tmp_path / "bent.npz", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    refused(tmp_path / "bent.npz", r"bent\.npz: digest must be that of the content, not '[0-9a-f]{64}': the file was changed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": "SQ3.13"}, "weight must be 'SQ2.14' as here, not 'SQ3.13' as in what is loaded"),
        ({"eta": 0.5}, "eta must be 0.25 as here, not 0.5 as in what is loaded"),
        ({"elements": 10}, "elements must be 9 as here, not 10 as in what is loaded"),
        ({"residual_bits": 4, "motion": "applied"}, "residual_bits must be 0 as here, not 4 as in what is loaded"),
        ({"law": "adgd"}, "law must be 'stability_margin' as here, not 'adgd' as in what is loaded"),
    ],
)
def test_another_configuration_is_refused_by_its_field(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    table = {"elements": N, "eta": 0.25, "eta_max": 0.5, "law": "stability_margin"}
    other = ThrottleConfig.from_table(table | changes)
    path = Throttle(other, np.zeros(other.elements)).save(tmp_path / "unit.npz")
    refused(path, exactly(f"{path}: {message}"), unit=Throttle(ThrottleConfig.from_table(table), np.full(N, 0.5)))


def test_states_that_are_none_are_refused_by_their_field() -> None:
    unit = Throttle(config("residual"), np.zeros(N))
    good = unit.state_dict()
    shard = good["shards"]["0"]
    short, none, large = ({"shards": {"0": shard | bad}} for bad in (
        {"theta": shard["theta"][1:]}, {"residual": None}, {"residual": np.full(N, 99, np.int8)}
    ))  # fmt: skip
    for bad, message in (
        ({}, r"^state must have applied, config, .*, not "),
        (good | {"steps": 1.5}, r"^steps must be of int, not 1\.5"),
        (good | {"steps": True}, r"^steps must be of int, not True"),
        (good | {"rate": "1"}, r"^eta must be from 0 to eta_max = 0\.5, not 1"),
        (good | short, r"^shards\.0\.theta must be int8 of \(9,\), not int8 of \(8,\)"),
        (good | none, r"^shards\.0\.residual must be int8 of \(9,\), not None"),
        (good | large, r"^residual\[0\] must be a code of SQ4\.0, -8\.\.7, not 99"),
    ):
        with pytest.raises(ValueError, match=message):
            unit.load_state_dict(bad)
    sizes = sharded("residual").state_dict()
    with pytest.raises(ValueError, match=r"^sizes must be \[9\] as here, not \[4, 5\]|^shards must have 0, not 0, 1"):
        unit.load_state_dict(sizes)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("decide.average", [1], r"average must be \[m, e\] of a scalar of 24\+10 bits, not \[1\]"),
        ("decide.curvature", [-5, 3], r"curvature must be \[m, e\] of a scalar"),
        ("decide.average", [1 << 23, 512], r"average must be \[m, e\] of a scalar"),
        ("decide.alphas", [[0, 0]] * 3, "alphas must be of the last two steps"),
        ("decide.alphas", ["x"], r"alphas must be \[m, e\] of a scalar"),
        ("step_size", 1 << 40, "step_size must be an integer from 0 to 131071, not 1099511627776"),
        ("last.motion_energy", -1, "last.motion_energy must be an integer from 0 to "),
        ("last.update_underflow", 10, "last.update_underflow must be an integer from 0 to 9, not 10"),
        ("counters.still_steps", -1, "counters.still_steps must be an integer from 0 to 4294967295, not -1"),
        ("steps", -1, "steps must be an integer of at least 0, not -1"),
        ("watchdog.last", ["x"], "watchdog.last must be an integer from 0 to "),
        ("watchdog.mask", 16, "watchdog.mask must be an integer from 0 to 15, not 16"),
    ],
)
@pytest.mark.parametrize("make", [Throttle, lambda c, w: ShardedThrottle(c, w, [4, 5])], ids=["whole", "shards"])
def test_a_state_that_no_unit_can_have_changes_nothing(make: Any, place: str, value: Any, message: str) -> None:
    """As a dictionary that was edited or converted: refused by its field, before the first one is taken over."""
    made = ThrottleConfig.stability_margin(elements=N, eta=0.25, watchdog=("learning_dead",))
    unit = make(made, np.zeros(N))
    before = unit.state_dict()
    state = unit.state_dict() | {"rate": "1/8"}
    *path, last = place.split(".")
    inner = state
    for name in path:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(ValueError, match="^" + message):
        unit.load_state_dict(state)
    assert str(unit.state_dict()) == str(before) and unit.rate == made.eta


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [("energy", -1.0, "energy must not be negative"), ("law.last", ["x"], "law.last must be the last alpha or nothing")],
)
def test_a_state_that_no_float_unit_can_have(place: str, value: Any, message: str) -> None:
    unit = FloatThrottle(config("plain"), np.zeros(N))
    state = unit.state_dict()
    (state["law"] if place.startswith("law.") else state)[place.removeprefix("law.")] = value
    with pytest.raises(ValueError, match=f"^{message}"):
        unit.load_state_dict(state)
