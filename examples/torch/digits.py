"""Which number formats a small convolutional network with batch norm survives, on scikit-learn's handwritten digits.

    python examples/torch/digits.py

trains in float without throttle, then in 16, 12 and 8 bits, to nearest, at random and with a residual, the throttle on and off;
prints a table and draws digits.png. ``calibrate`` finds the binary points; with ``--presets`` they are the presets'.
"""

import argparse

import matplotlib
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from kappa_rtl.torch import GlobalThrottle, calibrate, presets

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = {"nearest": "#D55E00", "stochastic": "#0072B2", "residual": "#009E73"}  # which the colour-blind can tell apart

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name, default in (("steps", 300), ("rate", 0.02), ("seed", 0), ("out", "digits.png")):
    parser.add_argument(f"--{name}", type=type(default), default=default)
parser.add_argument("--presets", action="store_true")
args = parser.parse_args()

digits = load_digits()
order = np.random.default_rng(args.seed).permutation(len(digits.target))
X, Y = torch.tensor(digits.images[order, None] / 16, dtype=torch.float32), torch.tensor(digits.target[order])
HELD = 360  # rows that are held out


def batches():
    generator = torch.Generator().manual_seed(args.seed)
    for _ in range(args.steps):
        rows = torch.randint(HELD, len(X), (64,), generator=generator)
        yield X[rows], Y[rows]


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def formats_of(model, optimizer, bits, rounding):
    if args.presets:
        table = getattr(presets, f"sq{bits}_stochastic" if rounding == "stochastic" else f"sq{bits}")["*"]
        return {"*": {**table, "residual_bits": 4 if rounding == "residual" else 0}}
    more = {"rounding": "stochastic"} if rounding == "stochastic" else {"residual_bits": 4} if rounding == "residual" else {}
    return calibrate(model, optimizer, batches(), loss_of, bits, **more)


def run(bits=None, rounding=None, on=True):
    torch.manual_seed(args.seed)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=args.rate, momentum=0.9)
    if bits:
        formats = formats_of(model, optimizer, bits, rounding)
        throttle = GlobalThrottle(optimizer, model=model, formats=formats, enabled=on)
    for batch in batches():
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    with torch.no_grad():
        found = float((model.eval()(X[:HELD]).argmax(1) == Y[:HELD]).float().mean())
    if not bits:
        return found
    history = throttle.history
    angle, ratio, alpha = (np.median(history[key]) for key in ("update_angle_rad", "update_radius_ratio", "alpha"))
    return found, alpha, np.degrees(angle), ratio, history["still"].mean()


plain = run()
print(f"bits rounding   throttle  accuracy  alpha  angle  ratio  still\n  32 float      none      {plain:8.3f}")
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), sharey=True, width_ratios=(2, 1), layout="constrained")
rows = [(bits, rounding) for bits in (16, 12, 8) for rounding in COLOURS]
for row, (bits, rounding) in enumerate(rows):
    for on in (True, False):
        found, alpha, angle, ratio, still = run(bits, rounding, on)
        print(f"{bits:4} {rounding:10} {'on' if on else 'off':8} {found:9.3f} {alpha:6.2f} {angle:5.0f}° {ratio:6.2f} {still:6.0%}")
        how = {"color": COLOURS[rounding], "markersize": 9 if on else 14, "fillstyle": "full" if on else "none"}
        left.plot(found, row, "o", **how)
        right.plot(angle, row, "o", **how)
left.axvline(plain, color="black", label="float, no throttle")
left.plot([], [], "o", color="grey", label="throttle on")
left.plot([], [], "o", color="grey", fillstyle="none", markersize=13, label="throttle off")
left.legend(loc="lower left")
left.set(yticks=range(len(rows)), yticklabels=[f"{bits} bits, {rounding}" for bits, rounding in rows], xlabel="accuracy, held out")
left.invert_yaxis()
right.set(xlabel="angle of the update, degrees", xlim=(0, 95))
left.set_title(f"What survives on digits at a rate of {args.rate}", loc="left", weight="bold")
right.set_title("How far rounding turns it", loc="left", weight="bold")
for axes in (left, right):
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
figure.savefig(args.out, dpi=130)
