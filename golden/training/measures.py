"""What is measured of one step: the shape of its update, the rails, the sharpness of the loss.

Each measure is a function of the step's tensors alone; flat ones are (P,), in the order of theta.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats import Fixed
from ..network.images import Conv2D
from ..network.layers import Dense, Layer, Variable, parameters
from ..network.losses import Loss, Squares
from ..network.precision import rail_stats
from ..network.quantisers import Segment
from . import hessian

Array = NDArray[Any]
Row = dict[str, float]

LARGEST_INPUT = 1e150
"""Beyond it squares overflow, and a Hessian has no eigenvalues."""


def geometry(
    variables: Sequence[Variable], theta: Array, after: Array, intended: Array, eps: float
) -> tuple[Row, dict[str, Row]]:
    """The applied change against the intended one: norms, cosine, angle, ratio; as a whole, and the last three by layer."""
    meant = intended.astype(np.float64)
    applied = after.astype(np.float64) - theta.astype(np.float64)
    moved, wanted, along = (_by_variable(variables, *pair) for pair in ((applied, applied), (meant, meant), (applied, meant)))
    actual, raw = math.sqrt(sum(moved)), math.sqrt(sum(wanted))
    whole: Row = {"raw_update_norm": raw, "actual_update_norm": actual, "dtheta_zero": actual == 0}
    whole |= alignment(sum(along), actual, raw, eps)
    by_layer = {}
    for name in dict.fromkeys(v.layer for v in variables):
        own = [i for i, v in enumerate(variables) if v.layer == name]
        a, b = (math.sqrt(sum(squares[i] for i in own)) for squares in (moved, wanted))
        by_layer[name] = alignment(sum(along[i] for i in own), a, b, eps)
    return whole, by_layer


RAILS = {
    "weight": ("saturation", "near_rail"),
    "gradient": ("saturation", "near_rail", "underflow"),
    "update": ("saturation", "underflow"),
}
"""What is counted of each kind of tensor."""


def rails(
    variables: Sequence[Variable],
    segments: Sequence[Segment],
    gradients: Sequence[Fixed | None],
    after: Array,
    gradient: Array,
    raw_gradient: Array,
    update: Array,
) -> tuple[Row, dict[str, Row]]:
    """The largest fractions over the variables, as a whole and by layer, as ``KIND_WHAT_fraction_max``.

    Args:
        segments, gradients: the formats, variable by variable.
        after: the stored weights; gradient: on its grid, and raw_gradient before; update: before its quantisation.
    """
    by_layer: dict[str, Row] = {}
    for v, segment, grid in zip(variables, segments, gradients, strict=True):
        found = by_layer.setdefault(v.layer, {})
        stats = {
            "weight": rail_stats(after[v.place], segment.weight)._asdict(),
            "gradient": rail_stats(gradient[v.place], grid)._asdict(),
            "update": rail_stats(update[v.place], segment.update)._asdict(),
        }
        stats["gradient"]["underflow"] = rail_stats(raw_gradient[v.place], grid).underflow
        for kind, counted in RAILS.items():
            for what in counted:
                key = f"{kind}_{what}_fraction_max"
                found[key] = max(found.get(key, 0.0), stats[kind][what])
    names = [f"{kind}_{what}_fraction_max" for kind, counted in RAILS.items() for what in counted]
    return {name: max((found[name] for found in by_layer.values()), default=0.0) for name in names}, by_layer


def sharpness(layers: Sequence[Layer], x: Array, y: Array, loss: Loss, kind: str, quantisers: Mapping[str, Any] | None) -> Row:
    """The extreme eigenvalues of the loss's Hessian at the weights that the layers hold; NaN where they are not computed.

    Under squares one bias-free Dense has the Hessian of its unquantised inputs whatever its weights are;
    ``autodiff_lambda_max`` is that of the computation as it is, straight through the quantisers.

    Args:
        kind: ``none``, ``analytic``, ``exact`` or ``lanczos``.
    """
    names = ("hessian_lambda_max", "hessian_lambda_min", "hessian_spectral_norm")
    made = dict.fromkeys((*names, "autodiff_lambda_max"), math.nan)
    if kind == "none":
        return made
    found = None
    if kind in ("exact", "lanczos") and np.isfinite(parameters(layers)).all():
        if kind == "lanczos":
            found = hessian.lanczos(layers, x, y, loss, quantisers=quantisers).extremes
        else:
            matrix = hessian.exact(layers, x, y, loss, quantisers=quantisers)
            found = hessian.extremes(np.linalg.eigvalsh(matrix)) if np.isfinite(matrix).all() else None
        made["autodiff_lambda_max"] = math.nan if found is None else found.lambda_max
    if len(layers) == 1 and isinstance(layers[0], Dense) and not layers[0].use_bias and isinstance(loss, Squares):
        fits = float(np.abs(x).max()) < LARGEST_INPUT
        found = hessian.extremes(hessian.analytic(x, layers[0].units, loss.name)) if fits else None
    if found is not None:
        made |= dict(zip(names, (found.lambda_max, found.lambda_min, found.spectral_norm), strict=True))
    return made


def curvature_along(
    layers: Sequence[Layer], x: Array, y: Array, loss: Loss, step: Array | None, quantisers: Mapping[str, Any] | None
) -> float:
    """``<D, H D> / <D, D>`` at the weights that the layers hold, by one Hessian-vector product along a step D, (P,).

    NaN without a step, for one of length 0, and where inputs or weights are so large that a square overflows.
    """
    if step is None or not step.any():
        return math.nan
    if not (float(np.abs(x).max()) < LARGEST_INPUT and float(np.abs(parameters(layers)).max()) < LARGEST_INPUT):
        return math.nan
    with np.errstate(over="ignore", invalid="ignore"):
        product = hessian.hvp(layers, x, y, loss, step, quantisers=quantisers)
        found = float(np.vdot(step, product) / np.vdot(step, step))
    return found if math.isfinite(found) else math.nan


def _by_variable(variables: Iterable[Variable], a: Array, b: Array) -> list[float]:
    """The inner product of two vectors, variable by variable."""
    return [float(a[v.place] @ b[v.place]) for v in variables]


def alignment(along: float, actual: float, raw: float, eps: float) -> dict[str, float]:
    """Cosine, angle and ratio of the applied change to the intended one, from their inner product and norms."""
    lengths = actual * raw
    if math.isfinite(along) and math.isfinite(lengths):
        cosine = min(1.0, max(-1.0, along / lengths)) if lengths > 0 else 0.0
    else:
        cosine = math.nan
    ratio = float(np.divide(actual, raw + eps))
    return {
        "update_cosine": cosine,
        "update_angle_rad": math.acos(cosine) if math.isfinite(cosine) else math.nan,
        "update_radius_ratio": ratio,
    }


def forward_gain(layers: Sequence[Layer]) -> float:
    """The product of the largest singular values of the Dense kernels; NaN with a convolution, whose kernel is not its matrix."""
    if any(isinstance(layer, Conv2D) for layer in layers):
        return math.nan
    return math.prod(spectral_norm(layer.params["kernel"]) for layer in layers if isinstance(layer, Dense))


def spectral_norm(kernel: Array) -> float:
    """The largest singular value, from the smaller of the two Gram matrices; NaN if the kernel is not finite."""
    wide = kernel.astype(np.float64)
    scale = float(np.abs(wide).max())
    if not math.isfinite(scale) or scale == 0:
        return 0.0 if scale == 0 else math.nan
    wide = wide / scale
    gram = wide.T @ wide if wide.shape[0] >= wide.shape[1] else wide @ wide.T
    return scale * math.sqrt(max(0.0, float(np.linalg.eigvalsh(gram)[-1])))
