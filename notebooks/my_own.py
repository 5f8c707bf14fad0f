# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How do I bring my own device, method and model?
#
# Each is one class of about twenty lines, written outside of the package, and goes the whole way: programmed, learned,
# inspected, stored, served. Here all three meet: a network of *signals* (no images) in Flax Linen, on cells that obey a
# law of our own, with column gains that no published method has.
#
# Everything is made here and small: signals of 64 samples, 1,200 to learn from, a few epochs; about a minute on two CPU
# cores. Laws and rates are invented for the example.

# %%
import tempfile
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen as nn

import xbm_jax as xbm
from xbm_jax.masks import Alphabet, Column, Identity

plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 72})

# %% [markdown]
# ## 1. My data
#
# Any arrays will do. The network is to learn waves of four shapes; later the task is another one: how fast is a wave?

# %%
shapes, paces = ("sine", "square", "saw", "triangle"), ("slow", "middling", "fast")


def signals(count, seed):
    """Noisy waves float32 [count, 64, 1], their shape and their pace."""
    rng = np.random.default_rng(seed)
    shape, pace = rng.integers(0, 4, count), rng.integers(0, 3, count)
    t = np.arange(64) / 64
    turns = np.array([2, 3.5, 5])[pace] + rng.uniform(-0.6, 0.6, count)
    turn = (turns[:, None] * t + rng.uniform(0, 1, (count, 1))) % 1
    waves = np.stack([np.sin(2 * np.pi * turn), np.sign(turn - 0.5), 2 * turn - 1, 4 * abs(turn - 0.5) - 1])
    noisy = waves[shape, np.arange(count)] + rng.normal(0, 0.4, (count, 64))
    return noisy[..., None].astype(np.float32), shape, pace


x, shape, pace = signals(1200, seed=0)
x_test, shape_test, pace_test = signals(500, seed=1)

figure, axes = plt.subplots(1, 4, figsize=(9.4, 1.7), sharey=True, layout="constrained")
for i, ax in enumerate(axes):
    ax.plot(x[i, :, 0], lw=1, color="#0072B2")
    ax.set(title=f"{shapes[shape[i]]}, {paces[pace[i]]}", xticks=[])
plt.show()

# %% [markdown]
# ## 2. My model
#
# A Linen module, as one writes it; an NNX one goes as well. Its last layer is a dense one: the head, which every task
# brings anew.


# %%
class Listens(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for width, stride in ((16, 2), (32, 2), (32, 1)):
            x = nn.Conv(width, (5,), strides=stride, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(4)(x.mean(1))


model, optimizer = Listens(), optax.adam(3e-3)
variables = model.init(jax.random.key(0), x[:1])
state = optimizer.init(variables["params"])


@jax.jit
def train_step(variables, state, x, y):
    def loss(params):
        out, seen = model.apply({**variables, "params": params}, x, train=True, mutable="batch_stats")
        return optax.softmax_cross_entropy_with_integer_labels(out, y).mean(), seen

    gradient, seen = jax.grad(loss, has_aux=True)(variables["params"])
    updates, state = optimizer.update(gradient, state)
    return {**seen, "params": optax.apply_updates(variables["params"], updates)}, state


rng = np.random.default_rng(0)
for _ in range(400):
    rows = rng.choice(len(x), 32, replace=False)
    variables, state = train_step(variables, state, x[rows], shape[rows])
guess = np.argmax(model.apply(variables, x_test), -1)
print(f"shapes: {np.mean(guess == shape_test):.1%} of {len(x_test)}, in floating point")

# %% [markdown]
# ## 3. My device
#
# A device says what becomes of a conductance at three moments: when it is written, as time goes by, and in each read.
# All are functions of arrays of siemens. These cells miss their target by a share of the *square root* of what is
# asked, relax towards the middle of their range, and flicker.


# %%
@dataclass(frozen=True)
class Relaxing(xbm.Device):
    """Written with an error of ``sigma sqrt(g g_max)``; loses ``rate`` of its way to the middle each decade of time."""

    sigma: float = 0.03
    rate: float = 0.05
    flicker: float = 0.005

    def program(self, target, g_max, key):
        error = self.sigma * jnp.sqrt(target * g_max) * jax.random.normal(key, target.shape)
        return jnp.clip(target + error, 0, g_max)

    def drift(self, g, target, g_max, t_seconds, key):
        decades = jnp.log10(1 + t_seconds)
        return g + (g_max / 2 - g) * (1 - (1 - self.rate) ** decades)

    def read_sigma(self, g, g_max, t_seconds, programmed=None):
        return jnp.full_like(g, self.flicker * g_max)


spec = xbm.CrossbarSpec(rows=32, cols=64, cell=xbm.Cell(bits=7, on_off=50), adc=xbm.Adc(bits=8), device=Relaxing())
chip = xbm.program(model, spec, jax.random.key(0), inputs=x[0], variables=variables, call={"train": False})
chip = xbm.calibrate(chip, x[:256])
print(xbm.inspect(chip, x_test[:128], key=jax.random.key(1)))

# %%
ages = (0, 1, 10, 100, 1e3, 1e4, 1e5, 1e6)
source, key = xbm.source_task(chip), jax.random.key(1)
shares = [100 * xbm.evaluate(chip.at(t), source, x_test, shape_test, key=key) for t in ages]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
layer = list(chip.tiles)[1]
levels = np.ravel(chip.tiles[layer].levels)
for t, colour in ((0, "#0072B2"), (1e5, "#D55E00")):
    held = 1e6 * np.ravel(chip.at(t).tiles[layer].conductance)
    left.plot(levels, held, ".", ms=2, alpha=0.4, color=colour, label=f"after {t:,.0f} s")
left.set(xlabel="level that was asked", ylabel="conductance, µS", title=f"the cells of {layer}")
left.legend(frameon=False, markerscale=5)
right.plot(np.maximum(ages, 0.1), shares, "o-", color="#333333")
right.set(
    xscale="log", xlabel="seconds after writing", ylabel="accuracy on shapes, %", title="the network as it relaxes"
)
plt.show()

# %% [markdown]
# ## 4. My method
#
# A mask is composed of three parts: what shares a value (`Column`), which values there are (an alphabet), and what
# stands for the gradient of the decision (`Identity`, straight through). Ours is an alphabet of four gains in two
# bits: a column may count not at all, half, once, or one and a half times. It starts from 1, the backbone itself.


# %%
@dataclass(frozen=True)
class Halves(Alphabet):
    """Gains 0, 1/2, 1 and 3/2."""

    @property
    def bits(self):
        return 2

    def encode(self, logits):
        return jnp.round(2 * jnp.clip(logits, 0, 1.5)).astype(jnp.uint8)

    def decode(self, codes, dtype=jnp.float32):
        return codes.astype(dtype) / 2


halves = xbm.methods.masked("halves", Column(), Halves(), Identity(), start=1.0, mask_lr=3e-2)

# %% [markdown]
# It learns like any other, beside its control (no mask) and the binary mask:

# %%
speed = xbm.Dataset("pace", x, pace, x_test, pace_test, class_names=paces, kind="arrays")
recipe = xbm.Recipe(epochs=4, batch_size=32)
learned = {
    method.name: xbm.adapt(chip, speed, method=method, key=jax.random.key(2), config=recipe)
    for method in (xbm.methods.norm_only(), xbm.methods.xbm(), halves)
}
for name, task in learned.items():
    bits = xbm.hardware.task_bits(chip, task)
    share = 100 * task.meta["accuracy"]
    half = 1.96 * (share * (100 - share) / len(x_test)) ** 0.5
    print(f"{name:10} {share:.1f} ± {half:.1f} % at {bits.mask_bits:,} mask bits, {bits.total:,} in all")

# %% [markdown]
# One seed says little about which is better (the notebook `methods`); that it runs is what was to be shown. The gains:

# %%
task = learned["halves"]
figure, axes = plt.subplots(3, 1, figsize=(8, 3.4), height_ratios=[1, 3, 5], layout="constrained")
for ax, (path, tiles) in zip(axes, chip.tiles.items(), strict=True):
    codes = np.asarray(task.method.rule.encode(tiles, task.trained["masks"][path]))
    picture = ax.pcolormesh(codes / 2, cmap="viridis", vmin=0, vmax=1.5, edgecolors="white", linewidth=0.5)
    ax.set(xticks=[], yticks=[], aspect="equal", title=f"{path}: a line is a row tile, a square a column")
    ax.title.set_fontsize(8)
    ax.invert_yaxis()
figure.colorbar(picture, ax=axes, ticks=[0, 0.5, 1, 1.5], label="gain", shrink=0.8)
plt.show()

# %% [markdown]
# ## 5. The whole way: stored, loaded, served
#
# A chip and a bank store classes of one's own by name and numbers, no code. So whoever loads them has to have the
# classes, and the network's structure, which no registry knows (`network=`). Reads of this chip are noisy, so a server
# takes a key, and two of them answer a little differently.

# %%
with tempfile.TemporaryDirectory() as folder:
    bank = xbm.MaskBank.create(Path(folder) / "bank", chip)
    xbm.save_chip(chip, bank.folder / "chip")
    for name in ("xbm", "halves"):
        bank.put(name, learned[name])
    loaded = xbm.load_bank(bank.folder, network=chip.network)
    server = xbm.serve(loaded.chip, loaded, batch_size=32)
    for name in loaded.names:
        guess = server(x_test, task=name, key=key)
        print(f"{name:8} {np.mean(guess == pace_test):.1%}, served from a loaded bank")

# %% [markdown]
# ## And what else may be one's own
#
# Objectives, heads, granularities, converters' ranges, technologies (a `.toml` of named constants with their sources),
# outlets of a run's numbers: `docs/architecture.md`, section 3, has a table of where, and `tests/test_architecture.py`
# one of each to copy from. `docs/models.md` says which layers of a module go onto arrays and which stay digital.
