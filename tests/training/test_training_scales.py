"""A scale for every tensor from a short run, the unit that is made of it, and a unit that several models share."""

from __future__ import annotations

import numpy as np
import pytest

from kappa_rtl.golden.network.data import digits
from kappa_rtl.golden.network.layers import variables
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.model import LinearBlockModel
from kappa_rtl.golden.training.scales import alike, bits, calibrate
from kappa_rtl.golden.training.units import first_weights, grids_of
from support.strategies import exactly


def model(hidden: int = 32, seed: int = 0, **more: object) -> LinearBlockModel:
    return LinearBlockModel(digits(), num_hidden=[hidden], activation="relu", seed=seed, **more)  # type: ignore[arg-type]


def test_what_a_scale_is() -> None:
    """By how many bits a tensor's grid may be finer: rails of four times its largest weight, of the start and of the end."""
    network = model()
    before = network.theta
    found = calibrate(network, digits(), 8, steps=5)
    assert (network.theta == before).all(), "the model stays as it is"
    needed = [bits(4 * one.largest) for one in found.tensors]
    assert found.weight.integer_bits == max(needed) and found.weight.width == found.update.width == 8
    assert [one.wanted for one in found.tensors] == [max(needed) - own for own in needed]
    assert found.tensors[0].largest >= np.abs(before[:2048]).max()
    for one in found.tensors:
        assert bits(one.quantile) + 2 <= found.gradient.integer_bits - one.scale, "two bits beyond the quantile"
    assert found.gradient.width == 16
    assert found.update.fraction_bits == found.weight.fraction_bits + 1
    assert calibrate(model(), digits(), 8, steps=5, random=True).update.fraction_bits == found.weight.fraction_bits


@pytest.mark.parametrize(
    ("largest", "wanted"), [(1.0, 1), (0.75, 1), (1.01, 2), (0.5, 0), (4.0, 3), (2.0**-9, -8), (0.0, -7), (float("inf"), -7)]
)
def test_bits(largest: float, wanted: int) -> None:
    assert bits(largest) == wanted


def test_a_scale_is_clamped() -> None:
    network = model()
    theta = network.theta
    theta[2048:2080] = 1e-6
    theta[2080:] *= 100
    network.theta = theta
    found = calibrate(network, digits(), 8, steps=1, learning_rate=1e-9, scale_max=5)
    bias = found.tensors[1]
    assert bias.wanted > 5 and bias.scale == 5 and f"5 ({bias.wanted} wanted)" in str(found)


def test_the_unit() -> None:
    """A segment for every tensor, on which the weights lie; one grid for all; finer ones."""
    network = model()
    found = calibrate(network, digits(), 10, steps=3)
    config = found.config("inverse_curvature", eta=0.1, beta=2, lanes=4)
    assert [segment.name for segment in config.segments] == ["dense0/kernel", "dense0/bias", "dense1/kernel", "dense1/bias"]
    unit = Throttle(config, first_weights(network.theta, config))
    assert np.abs(unit.weights - network.theta).max() <= float(config.weight.ulp) / 2  # type: ignore[union-attr]
    grids = grids_of(unit, variables(network.layers))
    assert [own.weight.fraction_bits - config.grids.weight.fraction_bits for own in grids] == [one.scale for one in found.tensors]
    one = found.on_one_grid()
    assert {tensor.scale for tensor in one.tensors} == {0} and one.weight == found.weight
    assert one.gradient.integer_bits <= found.gradient.integer_bits
    finer = found.finer(2)
    assert finer.weight.fraction_bits == found.weight.fraction_bits + 2 and finer.weight.width == 10
    assert finer.gradient == found.gradient and finer.update.width == found.update.width


def test_shares() -> None:
    """On a rail or beyond, and below half an ulp, of each tensor on its own grids; counted by hand."""
    network = model()
    found = calibrate(network, digits(), 6, steps=2)
    theta, gradient = network.theta, np.zeros(network.theta.size)
    shares = found.shares(theta, gradient)
    first = 0
    for one, share in zip(found.tensors, shares, strict=True):
        part = theta[first : first + one.elements]
        first += one.elements
        ulp = 2.0 ** -(found.weight.fraction_bits + one.scale)
        assert share.weight_beyond == np.mean((part >= 31 * ulp) | (part <= -32 * ulp))
        assert share.weight_below == np.mean((np.abs(part) < ulp / 2) & (part != 0))
        assert share.gradient_beyond == share.gradient_below == 0
    assert sum(share.weight_below for share in shares) > 0
    text = found.table(found.start, shares)
    assert text.count("w beyond") == 2 and "SQ" in text


def test_several_models_on_one_unit() -> None:
    """The widest range of all, from which every scale is counted; the second model runs on the first one's unit."""
    small, large = model(8, seed=1), model(32, seed=2)
    theta = large.theta
    theta[:2048] *= 8
    large.theta = theta
    apart = [calibrate(one, digits(), 8, steps=2, learning_rate=1e-3) for one in (small, large)]
    one, other = alike(*apart)
    assert (one.weight, one.gradient, one.update) == (other.weight, other.gradient, other.update)
    assert one.weight.integer_bits == max(found.weight.integer_bits for found in apart)
    for before, after in zip(apart, (one, other), strict=True):
        moved = after.weight.integer_bits - before.weight.integer_bits
        assert [t.scale for t in after.tensors] == [min(7, t.scale + moved) for t in before.tensors]
    config = one.config(eta=0.1, capacity=large.theta.size, entries=4)
    unit = Throttle(config, first_weights(small.theta, config))
    unit.layout(other.segments, np.zeros(large.theta.size))
    assert unit.config.elements == large.theta.size


def test_alike_keeps_to_one_width_and_to_its_largest_scale() -> None:
    found = [calibrate(model(seed=seed), digits(), 8, steps=1, scale_max=2) for seed in (0, 1)]
    moved = alike(*found)
    assert max(one.scale for made in moved for one in made.tensors) <= 2 and not moved[0].start
    assert moved[0].config(eta=0.1).scale_max == 2
    with pytest.raises(ValueError, match="scales must be of one width and rounding, not 8 "):
        alike(found[0], calibrate(model(), digits(), 10, steps=1))


def test_refused() -> None:
    with pytest.raises(ValueError, match=exactly("width must be an integer from 4 to 24, not 3")):
        calibrate(model(), digits(), 3)
    with (
        pytest.raises(ValueError, match="of the short run must be finite: take a learning_rate below 1e"),
        np.errstate(all="ignore"),
    ):
        calibrate(model(), digits(), 8, learning_rate=1e30, steps=6)
