"""Which number formats a convolutional network with batch norm survives, on scikit-learn's digits.

    python examples/torch/digits.py

trains in float without throttle, then in 16, 12 and 8 bits, to nearest, at random and with a residual, the throttle on and off;
prints a table and draws digits.png. ``calibrate`` finds the binary points; with ``--presets`` they are the presets'.

    python examples/torch/digits.py --grids

compares one binary point for all parameters with one for each, in 8 and 6 bits, over five seeds.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from kappa_rtl.torch import GlobalThrottle, calibrate, presets

COLOURS = {"nearest": "#D55E00", "stochastic": "#0072B2", "residual": "#009E73"}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name, default in {"steps": 250, "rate": 0.02, "seed": 0, "out": "digits.png"}.items():
    parser.add_argument(f"--{name}", type=type(default), default=default)
parser.add_argument("--presets", action="store_true")
parser.add_argument("--grids", action="store_true")
args = parser.parse_args()
torch.set_num_threads(1)  # so small a network is slower on two

digits = load_digits()


def rows_of(seed):
    order = np.random.default_rng(seed).permutation(1797)  # of which the first 360 are held out
    return torch.tensor(digits.images[order, None] / 16, dtype=torch.float32), torch.tensor(digits.target[order])


def network():
    first, second = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
    norms = nn.BatchNorm2d(16), nn.BatchNorm2d(32)
    return nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))


def batches():
    generator = torch.Generator().manual_seed(args.seed)
    for _ in range(args.steps):
        rows = torch.randint(360, 1797, (64,), generator=generator)
        yield X[rows], Y[rows]


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def formats_of(model, optimizer, bits, rounding, grids):
    if args.presets:
        table = presets.PRESETS[f"sq{bits}_stochastic" if rounding == "stochastic" and bits < 16 else f"sq{bits}"]["*"]
        return {"*": {**table, "residual_bits": 4 if rounding == "residual" else 0}}
    more = {"nearest": {}, "stochastic": {"rounding": "stochastic"}, "residual": {"residual_bits": 4}}[rounding]
    return calibrate(model, optimizer, batches(), loss_of, bits, grids=grids, **more)


def run(bits=None, rounding=None, on=True, grids="one"):
    torch.manual_seed(args.seed)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.rate, momentum=0.9)
    throttle = None
    if bits:
        formats = formats_of(model, optimizer, bits, rounding, grids)
        throttle = GlobalThrottle(optimizer, model=model, formats=formats, enabled=on)
    for batch in batches():
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    with torch.no_grad():
        return float((model.eval()(X[:360]).argmax(1) == Y[:360]).double().mean()), throttle and throttle.history


if args.grids:
    print("bits rounding   grids   median  least   most")
    cases = [(None, "float", "none"), *((b, r, g) for b in (8, 6) for r in COLOURS for g in ("one", "tensor"))]
    for bits, rounding, grids in cases:
        found = []
        for args.seed in range(5):
            X, Y = rows_of(args.seed)
            found.append(run(bits, rounding, grids=grids)[0])
        print(f"{bits or 32:4} {rounding:10} {grids:6} {np.median(found):7.3f} {min(found):6.3f} {max(found):6.3f}", flush=True)
    raise SystemExit
X, Y = rows_of(args.seed)
plain, _ = run()
print(f"bits rounding   throttle  accuracy  alpha  angle  ratio  still\n  32 float      none     {plain:8.3f}")
figure, panels = plt.subplots(1, 2, figsize=(10, 4.6), sharey=True, width_ratios=(2, 1), layout="constrained")
rows = [(bits, rounding) for bits in (16, 12, 8) for rounding in COLOURS]
for row, (bits, rounding) in enumerate(rows):
    for on in (True, False):
        found, history = run(bits, rounding, on)
        alpha, angle, ratio = (np.median(history[key]) for key in ("alpha", "update_angle_rad", "update_radius_ratio"))
        print(f"{bits:4} {rounding:10} {'on' if on else 'off':8} {found:8.3f} {alpha:6.2f}", end="")
        print(f" {np.degrees(angle):5.0f}° {ratio:6.2f} {history['still'].mean():6.0%}", flush=True)
        for axes, x in zip(panels, (found, np.degrees(angle)), strict=True):
            axes.plot(x, row, "o", color=COLOURS[rounding], markersize=9 if on else 14, fillstyle="full" if on else "none")
panels[0].axvline(plain, color="black", label="float, no throttle")
panels[0].plot([], [], "o", color="grey", label="throttle on")
panels[0].plot([], [], "o", color="grey", fillstyle="none", markersize=13, label="throttle off")
panels[0].legend()
panels[0].set(yticks=range(len(rows)), yticklabels=[f"{b} bits, {r}" for b, r in rows], xlabel="accuracy, held out")
panels[0].invert_yaxis()
panels[1].set(xlabel="angle of the update, degrees", xlim=(0, 95))
for axes, title in zip(panels, (f"What survives: digits, rate {args.rate:g}", "How far rounding turns it"), strict=True):
    axes.set_title(title, loc="left", weight="bold")
    axes.grid(color="#dddddd")
figure.savefig(args.out, dpi=130)
