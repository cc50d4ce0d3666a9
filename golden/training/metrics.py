"""What is measured at each training step: one ordered list of names, each one float a step.

"Before" means at the weights that the step starts from; unless told otherwise a value is the one before the step's update. Norms
are Euclidean. C and S are the curvature and its moving average, D is the optimiser's direction (g itself for plain descent).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..network.overflow import KINDS
from ..registers import MEANINGS, element_counters

FRACTIONS = element_counters(every_rail=False)
"""The unit's per-element counters, as fractions of the elements of one step."""

LOST = tuple(f"{kind}_overflow_fraction" for kind in KINDS)
"""What the loop's own quantisers did not hold, kind by kind."""

DEFINITIONS: dict[str, str] = {
    "loss": "loss of the batch; half_mse is sum((yhat - y)**2) / (2 * rows)",
    "rmse": "sqrt(mean((yhat - y)**2)) over all entries of the batch",
    "accuracy": "share of the batch's rows whose largest output is their label, before the step; only with labels",
    "accuracy_held_out": "the same share of the rows that no step trains on, at gain 1 and after the step; only where some are",
    "loss_held_out": "loss of the rows that no step trains on, at gain 1 and after the step; only where some are",
    "gain": "factor on the inputs (the exposure)",
    "theta_norm": "||theta||, theta all trainable variables",
    "theta_norm_after": "||theta|| after the update",
    "grad_norm": "||g||, g the gradient after its quantisation",
    "unthrottled_update_norm": "||eta * D||, the intended update without the throttle",
    "raw_update_norm": "||alpha_applied * eta * D0||, the intended update: D0 is D without any grid on the way from the gradient",
    "actual_update_norm": "||theta after - theta before||, after quantisation of update and storage",
    "dtheta_zero": "1 if the update moved no variable at all, else 0",
    "update_cosine": "cosine between applied and intended update, within [-1, 1]; 0 if either is zero",
    "update_angle_rad": "arccos(update_cosine), radians",
    "update_radius_ratio": "||applied update|| / (||intended update|| + eps); 1 is undistorted",
    "alpha": "what the law gives, applied or not",
    "alpha_applied": "factor on the step size: alpha (with a delay that of the step before), or 1 where the throttle is off",
    "curvature": "C = ||g - previous g|| / (||previous applied change|| + eps), or what motion and source make of it; 0 at first",
    "ema": "S, the moving average of C: (1 - rho) * previous S + rho * C",
    "curvature_applied": "||g - previous g|| / ||previous change of theta||, whatever the law goes by; NaN without such a change",
    "curvature_intended": "||g - previous g|| / ||previous alpha_applied * eta * D||; NaN where that is 0",
    "curvature_projection": "-<g - previous g, D> / (alpha_applied * eta * <D, D>) of the previous step, and no less than 0; "
    "NaN where that is 0",
    "curvature_true": "<D, H D> / <D, D>, H the loss's Hessian before the step, on the inputs as they are, and D the previous "
    "direction; NaN where no Hessian is asked for",
    "curvature_for_control": "max(C, S)",
    "norm_gradient": "||g - previous g||, as the unit has it; with a projection the root of <previous g, previous g - g>, "
    "with the sources norm and ratio ||g||",
    "norm_motion": "||previous applied change||, as the unit has it; with an intended motion that of the intended one, "
    "with ratio ||theta||",
    "dG_norm": "||g - previous g||; 0 at the first step",
    "dtheta_norm": "||theta - previous theta||; 0 at the first step",
    "step_size": "alpha * eta as the lanes multiply by it",
    "eta_eff": "alpha_applied * eta",
    "learning_rate": "eta of the step, by the schedule where there is one",
    "step_bits_left": "significant bits of the step size that was applied, on its grid; NaN without a grid",
    "clip_factor": "what clipping multiplied the gradient by before the optimiser; 1 leaves it",
    "skipped": "1 if no step was made because the batch was not finite (on_bad_gradient), else 0",
    "noise_index": "C * alpha_applied * eta / sqrt(2); about 1 where minibatch noise makes up C, and 0.7 of a projection",
    "still": "1 if the step before moved no weight, else 0",
    "held": "1 if C and S were kept because theta had not moved, else 0",
    "forward_gain_spectral": "product of the largest singular values of the Dense kernels",
    "hessian_lambda_max": "largest eigenvalue of the loss's Hessian; NaN where it is not computed",
    "hessian_lambda_min": "smallest eigenvalue of the loss's Hessian",
    "hessian_spectral_norm": "largest magnitude of an eigenvalue of the loss's Hessian",
    "autodiff_lambda_max": "largest eigenvalue of the Hessian by differentiation, through the quantisers where there are any",
    "eta_lambda_max": "eta times the largest eigenvalue of the loss's Hessian, for one layer that of the float batch "
    "after the gain; plain descent is unstable above 2",
    "alpha_eta_lambda_max": "alpha_applied times eta_lambda_max",
    "stability_margin_norm_raw": "eta * hessian_spectral_norm",
    "stability_margin_norm_ctrl": "alpha_applied * eta * hessian_spectral_norm",
    "spectral_radius_raw": "max over the eigenvalues of |1 - eta * lambda|; unstable above 1",
    "spectral_radius_ctrl": "max over the eigenvalues of |1 - alpha_applied * eta * lambda|",
    "weight_error_fro": "Frobenius norm of kernel^T - reference_A; NaN without a matching reference",
    "weight_error_fro_after": "weight_error_fro after the update",
    "angle": "radians between the applied change and -alpha_applied * eta * g, g the float gradient; pi/2 if either is zero",
    "cosine": "cosine of that angle; 0 if either is zero",
    "radius_ratio": "||applied change|| / ||alpha_applied * eta * g||; 1 if both are zero",
    **{name: f"share of a step's {MEANINGS[name]}" for name in FRACTIONS},
    "weight_saturation_fraction_max": "fraction of a variable on a rail after the update, largest over the variables",
    "weight_near_rail_fraction_max": "fraction of a variable with at least 0.95 of the larger rail's magnitude, largest",
    "gradient_saturation_fraction_max": "fraction of a quantised gradient on a rail, largest over the variables",
    "gradient_near_rail_fraction_max": "fraction of a quantised gradient near a rail, largest over the variables",
    "gradient_underflow_fraction_max": "fraction of a gradient that is not 0 but below half a grid step in magnitude, largest",
    "update_saturation_fraction_max": "fraction of an update that is at or beyond a rail before its quantisation, largest",
    "update_underflow_fraction_max": "fraction of an update that is not 0 but below half a grid step in magnitude, largest",
    **{
        f"{kind}_overflow_fraction": f"share of {what} beyond the rails of the grid once rounded, before it was clipped, "
        "wrapped or zeroed; 0 without a grid"
        for kind, what in KINDS.items()
    },
    "loss_is_finite": "1 if the loss is finite, else 0",
    "grad_is_finite": "1 if all of g is finite, else 0",
    "theta_is_finite_before": "1 if all of theta is finite before the update, else 0",
    "theta_is_finite_after": "1 if all of theta is finite after the update, else 0",
    "finite": "1 if everything in the step is finite, else 0",
    "diverged": "1 if something is not finite or the loss passes its bound, else 0; the run ends with such a row",
}
"""Name of each metric -> its definition."""

METRICS: dict[str, str] = {
    name: DEFINITIONS[name]
    for name in (
        *(
            "loss",
            "accuracy",
            "accuracy_held_out",
            "loss_held_out",
            "gain",
            "eta_lambda_max",
            "alpha_eta_lambda_max",
            "alpha",
            "alpha_applied",
            "curvature",
            "ema",
        ),
        *("curvature_applied", "curvature_intended", "curvature_projection", "curvature_true"),
        *("norm_gradient", "norm_motion", "step_size", "still", "angle", "cosine", "radius_ratio"),
        *FRACTIONS,
        *LOST,
    )
}
"""Those of the co-simulation's rows."""

PUBLISHED_NAMES: dict[str, str] = {
    "alpha_applied": "alpha",
    "alpha": "alpha_would",
    "curvature": "curvature_proxy",
    "ema": "curvature_ema",
    "eta_lambda_max": "stability_margin_lambda_raw",
    "alpha_eta_lambda_max": "stability_margin_lambda_ctrl",
}
"""Metric -> the key that it was published under, where that is another one: a history of the harness has these keys."""


def published(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same under the published keys, in the order of the list."""
    order = {name: place for place, name in enumerate(DEFINITIONS)}
    names = sorted(row, key=lambda name: order.get(name, len(order)))
    return {PUBLISHED_NAMES.get(name, name): row[name] for name in names}
