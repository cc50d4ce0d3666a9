"""Which number formats a network of 1D convolutions survives, on MNIST-1D.

    python examples/torch/signals.py

trains in float without throttle, then in 16, 12 and 8 bits, to nearest, at random and with a residual, the throttle on and off;
prints a table and draws signals.png. ``calibrate`` finds the binary points; with ``--presets`` they are the presets'. The rate
follows a cosine. ``pip install mnist1d``: the package makes its data by itself.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
import torch
from mnist1d.data import make_dataset
from torch import nn

from kappa_rtl.torch import GlobalThrottle, calibrate, presets

COLOURS = {"nearest": "#D55E00", "stochastic": "#0072B2", "residual": "#009E73"}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name, default in {"steps": 250, "rate": 0.5, "seed": 0, "out": "signals.png"}.items():
    parser.add_argument(f"--{name}", type=type(default), default=default)
parser.add_argument("--presets", action="store_true")
args = parser.parse_args()
torch.set_num_threads(1)  # so small a network is slower on two

data = make_dataset()
X, X_held = (torch.tensor(data[name][:, None], dtype=torch.float32) for name in ("x", "x_test"))
Y, Y_held = torch.tensor(data["y"]), torch.tensor(data["y_test"])


def network():
    first, *others = (nn.Conv1d(inner, 16, 5, stride=2, padding=2) for inner in (1, 16, 16))
    return nn.Sequential(first, nn.ReLU(), others[0], nn.ReLU(), others[1], nn.ReLU(), nn.Flatten(), nn.Linear(80, 10))


def batches():
    generator = torch.Generator().manual_seed(args.seed)
    for _ in range(args.steps):
        rows = torch.randint(len(X), (128,), generator=generator)
        yield X[rows], Y[rows]


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def formats_of(model, optimizer, bits, rounding):
    if args.presets:
        table = presets.PRESETS[f"sq{bits}_stochastic" if rounding == "stochastic" and bits < 16 else f"sq{bits}"]["*"]
        return {"*": {**table, "residual_bits": 4 if rounding == "residual" else 0}}
    more = {"nearest": {}, "stochastic": {"rounding": "stochastic"}, "residual": {"residual_bits": 4}}[rounding]
    return calibrate(model, optimizer, batches(), loss_of, bits, **more)


def run(bits=None, rounding=None, on=True):
    torch.manual_seed(args.seed)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.rate, momentum=0.9)
    throttle = None
    if bits:
        formats = formats_of(model, optimizer, bits, rounding)
        throttle = GlobalThrottle(optimizer, model=model, formats=formats, enabled=on)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    for batch in batches():
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float((model(X_held).argmax(1) == Y_held).double().mean()), throttle and throttle.history


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
for axes, title in zip(panels, (f"What survives: MNIST-1D, rate {args.rate:g}", "How far rounding turns it"), strict=True):
    axes.set_title(title, loc="left", weight="bold")
    axes.grid(color="#dddddd")
figure.savefig(args.out, dpi=130)
