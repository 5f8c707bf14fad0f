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
# # Methods side by side: what is better, and how would one know?
#
# Five methods learn the same task on the same chips, under the same rules: a head alone, norms, column masks (XBM),
# weight masks (Piggyback) and fine-tuning. They differ in what they keep, in what they write, in energy, and perhaps
# in accuracy. «Perhaps» is the subject here: a front of accuracy against bits is quickly drawn, and quickly misread.
#
# Small, so that it takes a minute or two on two CPU cores: a network of three convolutions, one task of 800 training
# images, four epochs, three seeds. What it says of *these* methods holds for this toy alone; how it is read holds
# everywhere. At the end stands a comparison that was made at length.

# %%
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from IPython.display import Markdown

import xbm_jax as xbm
from xbm_jax import hardware

plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 72})

# %% [markdown]
# ## 1. A backbone, and three chips of it
#
# The backbone learns, in floating point and in plain Flax, from which of eight alphabets a handwritten letter is
# (Omniglot). The task will be another one: what piece of clothing is this (Fashion-MNIST)?
#
# One thing in the module matters to those who train norms for a few steps, as all methods but the first do here: its
# batch norms follow with a momentum of 0.9. With Flax NNX's own default, 0.99, running statistics lag a hundred steps
# behind, and every such method would look worse than it is.


# %%
class Small(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 16, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), use_bias=False, rngs=rngs)
        self.conv3 = nnx.Conv(32, 64, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm1, self.norm2, self.norm3 = (nnx.BatchNorm(n, momentum=0.9, rngs=rngs) for n in (16, 32, 64))
        self.head = nnx.Linear(64, 8, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        x = nnx.relu(self.norm3(self.conv3(x)))
        return self.head(x.mean((1, 2)))


letters = xbm.load("omniglot")
scaled = xbm.models.Preprocess(mean=(0.5,), std=(0.5,))
steps, batch = 450, 32
model = Small(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(optax.cosine_decay_schedule(1e-2, steps)), wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer, images, labels):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(scaled(images)), labels).mean()

    optimizer.update(model, nnx.grad(loss)(model))


rng = np.random.default_rng(0)
for _ in range(steps):
    rows = rng.choice(len(letters.y_train), batch, replace=False)
    train_step(model, optimizer, letters.x_train[rows], letters.y_train[rows])
model.eval()
backbone = xbm.models.backbone_from_module(model, preprocess=scaled, image_size=28)
print(f"letters: {np.mean(np.argmax(backbone.logits(letters.x_test), -1) == letters.y_test):.1%}, in floating point")

# %% [markdown]
# A *seed* is a chip (its cells have errors of their own), a choice of training images, and a training. All three are
# chance, so all three are drawn anew. Test images are the same for all: then methods can be compared image by image.

# %%
seeds = (0, 1, 2)
spec = xbm.spec_by_name("verified")
clothes = xbm.load("fashion_mnist")
test = len(clothes.y_test)


def chip_and_data(seed):
    some = xbm.data.calibration_images(letters)
    chip = xbm.calibrate(xbm.program(backbone, spec, jax.random.key(seed)), some)
    return chip, clothes.subset(train=800, test=test, seed=seed)


parts = [chip_and_data(seed) for seed in seeds]
recipe = xbm.Recipe(epochs=4, batch_size=32)
names = ("head_only", "norm_only", "xbm", "piggyback", "finetune")
learned = {
    name: [
        xbm.adapt(chip, data, method=xbm.methods.by_name(name), key=jax.random.key(seed), config=recipe)
        for seed, (chip, data) in zip(seeds, parts, strict=True)
    ]
    for name in names
}

# %% [markdown]
# ## 2. What each keeps, writes and costs
#
# Bits are *all* that a bank keeps for a task: mask or weights, norms and head. Written cells are those whose level the
# task changes. Energies are by isaac-32nm (every input at full scale, cells written once at the end; the notebook
# `cost` takes them apart).

# %%
chip, data = parts[0]
lines = [
    "| method | test accuracy, three seeds | mask bits | all bits | cells written | one answer, µJ | learning, mJ |",
    "|---|---|--:|--:|--:|--:|--:|",
]
bits, answer_uj = {}, {}
for name, tasks in learned.items():
    first, counted = tasks[0], hardware.task_bits(chip, tasks[0])
    costs = hardware.cost_summary(chip, first, data.x_test[:1])
    bits[name], answer_uj[name] = counted.total, 1e6 * costs.inference_joules
    shares = ", ".join(f"{100 * task.meta['accuracy']:.1f}" for task in tasks)
    written = hardware.task_cells_written(chip, first)
    lines.append(
        f"| {name} | {shares} % | {counted.mask_bits:,} | {counted.total:,} | {written:,} | {answer_uj[name]:.3f} "
        f"| {1e3 * costs.adaption_joules:.1f} |"
    )
Markdown("\n".join(lines))

# %% [markdown]
# ## 3. The front as one is tempted to draw it, and with what chance does
#
# Left: one seed, a dot for a method, the order plain to see. Right: the same methods with all three seeds (dots), and
# for their mean the interval that 1,000 test images leave open, 1.96 sqrt(p (1 - p) / 1000).

# %%
colours = dict(zip(names, ("#56B4E9", "#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True))
figure, (tempting, honest) = plt.subplots(1, 2, figsize=(9.4, 3.6), sharey=True, layout="constrained")
for name, tasks in learned.items():
    shares = np.array([task.meta["accuracy"] for task in tasks])
    p, colour = shares.mean(), colours[name]
    tempting.plot(bits[name], 100 * shares[0], "o", ms=8, color=colour, label=name)
    half = 196 * np.sqrt(p * (1 - p) / test)
    honest.errorbar(bits[name], 100 * p, half, fmt="_", ms=14, color=colour, capsize=4)
    honest.plot(bits[name] * np.array([0.93, 1, 1.07]), 100 * shares, "o", ms=4, color=colour)
for axes, title in ((tempting, "one seed"), (honest, "three seeds, and the interval of the test images")):
    axes.set(xscale="log", xlabel="all stored bits", title=title)
    axes.grid(axis="y", color="#dddddd", lw=0.6)
tempting.set_ylabel("test accuracy, %")
tempting.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## 4. Compare image by image
#
# Where two intervals overlap, nothing follows: they hold a part that is common to all methods, since an image that is
# hard is hard for all of them. What is asked is the **difference**: on each test image, is the one right and the other
# not? Its mean has two chances in it, that of the images and that of the trainings, and the second is known from three
# numbers only, for which Student's t (2 degrees of freedom) stands.

# %%
right = {
    name: np.array(
        [
            np.argmax(xbm.predict(chip, task, data.x_test), -1) == data.y_test
            for task, (chip, data) in zip(tasks, parts, strict=True)
        ]
    )
    for name, tasks in learned.items()
}


def difference(one, other):
    """Mean difference [points] of ``right[one]`` and ``right[other]`` [seeds, images], half its 95 % interval."""
    d = 100 * (right[one].astype(float) - right[other])
    of_seeds = 4.303 * d.mean(1).std(ddof=1) / len(seeds) ** 0.5
    of_images = 1.96 * d.mean(0).std(ddof=1) / d.shape[1] ** 0.5
    return d.mean(), np.hypot(of_seeds, of_images)


def verdict(mean, half):
    return "undecided" if abs(mean) <= half else "better" if mean > 0 else "worse"


questions = [
    ("norm_only", "head_only", "do norms help?"),
    ("xbm", "norm_only", "do column masks help?"),
    ("piggyback", "xbm", "do weight masks beat column masks?"),
    ("finetune", "xbm", "does rewriting all weights?"),
    ("finetune", "piggyback", "... and against weight masks?"),
]
figure, axes = plt.subplots(figsize=(8.4, 2.9), layout="constrained")
for line, (one, other, question) in enumerate(questions):
    mean, half = difference(one, other)
    said = verdict(mean, half)
    colour = "#999999" if said == "undecided" else "#333333"
    axes.errorbar(mean, line, xerr=half, fmt="o", color=colour, capsize=4)
    by_seed = 100 * (right[one].mean(1) - right[other].mean(1))
    axes.plot(by_seed, [line + 0.25] * len(seeds), "|", color=colours[one], ms=8)
    print(f"{one:10} - {other:10} {mean:+5.1f} ± {half:4.1f} points: {said:10} {question}")
axes.axvline(0, color="#333333", lw=0.8)
axes.set_yticks(range(len(questions)), [f"{one} - {other}" for one, other, _ in questions])
axes.invert_yaxis()
axes.set(xlabel="points; ticks below: each seed by itself", title="differences, image by image (grey: undecided)")
plt.show()

# %% [markdown]
# Look at `xbm - norm_only`: in the figure above their intervals overlap, and yet the mask is better, by little and in
# every training. And at `norm_only - head_only`: better in all three trainings, and yet undecided, as the three lie far
# apart.
#
# **«Undecided» is an answer.** It says: so few trainings cannot tell these two apart, whatever the means look like. It
# does not say that they are equal. The interval's half width is the smallest difference that this comparison could
# have seen; to see a smaller one takes more seeds, not more decimals. (The interval here is a little too wide, rather
# than too narrow; `experiments/intervals.py` has the exact one, and derives it.)
#
# **And «worse» is not «worse for ever».** An interval holds chance and nothing else. Fine-tuning loses to weight masks
# here, perhaps because 84 steps are few for its rate; at length (section 5) it does not.
#
# Other traps, which the package's loop avoids by itself, and a table of your own should too:
#
# - **The epoch is chosen on validation images**, test images are read once. To report the best test epoch is worth a
#   point or two, to whoever has the noisiest curve.
# - **Bits are all bits.** A mask of few bits beside a head and norms that nobody counted is no small task.
# - **Every method at rates that suit it.** With norms that learn too slowly the control looks 20 points worse than it
#   is, and every mask looks like a discovery (`docs/methods.md`, section 5).
# - **The control of XBM is `norm_only`**, which learns all that XBM learns but the mask.
#
# ## 5. A comparison at length
#
# ResNet-20, six tasks, eight epochs, up to three seeds, made by `experiments/suite`, with its verdicts. (Read from
# a clone of the project; left out where there is none.)

# %%
page = Path("../experiments/results/verified/small_suite.md")
Markdown(page.read_text() if page.exists() else "The tables stand in `experiments/results` of the project.")
