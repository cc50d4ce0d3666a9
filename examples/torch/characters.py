"""Which number formats a character transformer with AdamW survives, on the help texts that Python itself ships.

    python examples/torch/characters.py

trains in float without throttle, then in 16, 12 and 8 bits, to nearest, at random and with a residual, the throttle on and off;
prints a table and draws characters.png. ``calibrate`` finds the binary points; with ``--presets`` they are the presets'.

    python examples/torch/characters.py --grids --moves 16

compares one binary point for all parameters with one for each, in 8 and 6 bits, over three seeds; gradients and directions have
16 bits, or without ``--moves`` as many as the weights.
"""

import argparse
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from kappa_rtl.torch import GlobalThrottle, calibrate, presets

COLOURS = {"nearest": "#D55E00", "stochastic": "#0072B2", "residual": "#009E73"}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name, default in {"steps": 200, "rate": 0.003, "seed": 0, "out": "characters.png"}.items():
    parser.add_argument(f"--{name}", type=type(default), default=default)
parser.add_argument("--presets", action="store_true")
parser.add_argument("--grids", action="store_true")
parser.add_argument("--moves", type=int, default=0)
args = parser.parse_args()
torch.set_num_threads(1)  # so small a network is slower on two

text = "".join(topics[name] for name in sorted(topics)).encode()[:200_000]
ids = torch.tensor(np.unique(list(text), return_inverse=True)[1])  # of which the last 20,000 are held out
LETTERS, WIDTH, LONG = int(ids.max()) + 1, 48, 48


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.places = nn.Embedding(LETTERS, WIDTH), nn.Embedding(LONG, WIDTH)
        for table in (self.embedding, self.places):  # torch's own of 1 would take three bits of every weight
            nn.init.normal_(table.weight, std=0.1)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.layers, self.norm = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, LETTERS)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(LONG)
        return self.head(self.norm(self.layers(self.embedding(x) + self.places.weight, mask, is_causal=True)))


def batches():
    generator = torch.Generator().manual_seed(args.seed)
    for _ in range(args.steps):
        yield ids[torch.randint(180_000 - LONG, (16, 1), generator=generator) + torch.arange(LONG + 1)]


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def formats_of(model, optimizer, bits, rounding, grids):
    if args.presets:
        table = presets.PRESETS[f"sq{bits}_stochastic" if rounding == "stochastic" and bits < 16 else f"sq{bits}"]["*"]
        return {"*": {**table, "residual_bits": 4 if rounding == "residual" else 0}}
    more = {"nearest": {}, "stochastic": {"rounding": "stochastic"}, "residual": {"residual_bits": 4}}[rounding]
    widths = {"gradient": args.moves or bits, "direction": args.moves or bits, "weight": bits, "update": bits}
    return calibrate(model, optimizer, batches(), loss_of, widths, grids=grids, **more)


def run(bits=None, rounding=None, on=True, grids="one"):
    torch.manual_seed(args.seed)
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.1)
    throttle = None
    if bits:
        formats = formats_of(model, optimizer, bits, rounding, grids)
        throttle = GlobalThrottle(optimizer, model=model, formats=formats, enabled=on)
    for batch in batches():
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    with torch.no_grad():
        return float(loss_of(model, ids[180_000:].unfold(0, LONG + 1, LONG + 1))), throttle and throttle.history


if args.grids:
    print("bits rounding   grids   median  least   most")
    cases = [(None, "float", "none"), *((b, r, g) for b in (8, 6) for r in COLOURS for g in ("one", "tensor"))]
    for bits, rounding, grids in cases:
        found = []
        for args.seed in range(3):
            found.append(run(bits, rounding, grids=grids)[0])
        print(f"{bits or 32:4} {rounding:10} {grids:6} {np.median(found):7.3f} {min(found):6.3f} {max(found):6.3f}", flush=True)
    raise SystemExit
plain, _ = run()
print(f"bits rounding   throttle      loss  alpha  angle  ratio  still\n  32 float      none     {plain:8.3f}")
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
panels[0].set(yticks=range(len(rows)), yticklabels=[f"{b} bits, {r}" for b, r in rows], xlabel="loss a letter, held out")
panels[0].invert_yaxis()
panels[1].set(xlabel="angle of the update, degrees", xlim=(0, 95))
for axes, title in zip(panels, (f"What survives: characters, rate {args.rate:g}", "How far rounding turns it"), strict=True):
    axes.set_title(title, loc="left", weight="bold")
    axes.grid(color="#dddddd")
figure.savefig(args.out, dpi=130)
