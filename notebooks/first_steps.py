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
# # First steps: one chip, two tasks, no cell rewritten
#
# A ReRAM crossbar multiplies in place: the weights are conductances, the inputs are voltages, and the current of
# a column is their dot product. Reading is cheap. *Writing* is slow, costs energy and wears the cells out.
#
# So a pretrained network is written onto the chip **once**. A new task learns one bit for each column of each
# array: is this column's partial sum counted, or not? Those bits live outside the arrays. To change the task is
# to change the bits.
#
# This notebook goes that way once: **program → look → adapt → store → serve**. All numbers below are computed as
# it runs, in about a minute on two CPU cores.

# %%
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import xbm_jax as xbm

plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 72})

# %% [markdown]
# ## 1. Program the chip, once
#
# The backbone is a ResNet-20 that was trained on CIFAR-10; its weights come with the package. The *spec* says
# what it is written onto: arrays of 64 × 64 cells; 8-bit weights, each as the difference of a pair of 7-bit
# cells; an 8-bit converter (ADC) on every column. Writing is not exact: each cell misses its target by a random
# error of 1 % of the highest conductance.

# %%
spec = xbm.CrossbarSpec(
    rows=64,
    cols=64,
    weight_bits=8,
    cell=xbm.Cell(bits=7, on_off=100, g_max_siemens=1e-4),
    adc=xbm.Adc(bits=8),
    device=xbm.Gaussian(sigma=0.01),
)
backbone = xbm.load_backbone("cifar-resnet20")
chip = xbm.program(backbone, spec, key=jax.random.key(0))

weights = sum(np.prod(tiles.plan.kernel_shape) for tiles in chip.tiles.values())
print(f"{len(chip.tiles)} convolutions, {weights:,} weights, on {xbm.hardware.arrays_used(chip)} arrays")

# %% [markdown]
# ### What a layer looks like on the chip
#
# A 3 × 3 convolution from 32 to 32 channels is a matrix of 3 · 3 · 32 = 288 rows and 32 columns. An array has 64
# rows, so the matrix is cut into five **row tiles**, and the last one is half empty. A column of weights takes
# two bit lines side by side: one holds the positive weights, one the negative.

# %%
layer = "layer2_1/conv1"
tiles = chip.tiles[layer]
plan = tiles.plan
matrix = f"{plan.rows} x {plan.columns} matrix"
print(f"kernel {plan.kernel_shape} -> {matrix}, {plan.row_tiles} row tiles of {spec.rows} rows")

# [pair, slice, kh, kw, in, out] -> rows in the order (in, kh, kw), and each column's pair on neighbouring bit lines
microsiemens = 1e6 * tiles.conductance[:, 0].transpose(3, 1, 2, 4, 0).reshape(plan.rows, 2 * plan.columns)
arrays = np.full((plan.row_tiles, spec.rows, spec.cols), np.nan)
arrays.reshape(-1, spec.cols)[: plan.rows] = microsiemens


def draw_arrays(arrays, title, label):
    figure, axes = plt.subplots(1, len(arrays), figsize=(11, 2.6), sharey=True, layout="constrained")
    for t, (ax, array) in enumerate(zip(axes, arrays, strict=True)):
        ax.set_facecolor("#eeeeee")
        picture = ax.imshow(array, cmap="viridis", vmin=0, vmax=1e6 * spec.cell.g_max_siemens, interpolation="nearest")
        ax.set(title=f"array {t}", xlabel="bit line", xticks=[0, 31, 63], yticks=[0, 31, 63])
    axes[0].set_ylabel("word line")
    figure.colorbar(picture, ax=axes, label=label, shrink=0.85)
    figure.suptitle(title)
    plt.show()


draw_arrays(arrays, f"The cells of {layer} (grey: not used)", "conductance, µS")

# %% [markdown]
# Most cells are dark: a trained weight is mostly small, and of each pair one cell is always meant to be at the
# lowest level. The band of nine dark rows in array 0 is one input channel (nine rows, a 3 × 3 kernel) that the
# layer hardly uses.

# %% [markdown]
# ### What the chip does to a layer's answer
#
# Three things stand between the exact product and what the chip answers: weights and inputs are rounded to 8
# bits, the cells miss their targets, and each converter rounds a *partial* sum before the tiles are added up. We
# send real images through the network, catch what arrives at our layer, and add the three one after another.

# %%
fashion = xbm.for_chip(chip, xbm.load("fashion_mnist").subset(train=600, test=250))
source = xbm.source_task(chip)  # the network as it was trained, run by the chip


@jax.jit
def layer_input(images):
    seen = {}

    def watch(path, tiles, x, gain, key):
        seen[path] = x
        return xbm.crossbar.read(tiles, x, gain, key)

    xbm.models.forward(chip, source.method, source.trained, chip.stats, images, layer_read=watch)
    return seen[layer]


def read_with(x, **changes):
    """The layer's answer where parts of the spec are as `changes` say; the same cells draw the same errors."""
    changed = xbm.crossbar.plan(kernel, spec.replace(**changes), plan.conv)
    key = jax.random.wrap_key_data(tiles.key_data)
    written = xbm.crossbar.program(kernel, changed, key, input_scale=tiles.input_scale)
    return xbm.crossbar.read(written.replace(adc=tiles.adc), x)


kernel = backbone.arrays[f"{layer}/kernel"]
x = layer_input(fashion.x_test[:32])
exact = jax.lax.conv_general_dilated(
    x, kernel, plan.conv.strides, plan.conv.padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
)
steps = {
    "8-bit weights and inputs": read_with(x, device=xbm.Ideal(), adc=xbm.Adc(bits=None)),
    "+ programming error": read_with(x, adc=xbm.Adc(bits=None)),
    "+ 8-bit converters": read_with(x),
}
assert np.array_equal(steps["+ 8-bit converters"], xbm.crossbar.read(tiles, x))  # this is what the chip itself answers

# %%
colours = ["#0072B2", "#009E73", "#D55E00"]
spread = float(jnp.std(exact))
errors = {name: np.asarray(y - exact).ravel() / spread for name, y in steps.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.plot(np.ravel(exact), np.ravel(steps["+ 8-bit converters"]), ".", ms=2, mew=0, color=colours[2])
ends = [float(exact.min()), float(exact.max())]
left.plot(ends, ends, color="#333333", lw=0.8)
left.set(xlabel="exact", ylabel="chip", title="one layer's outputs")

reach = 10 * max(error.std() for error in errors.values())
bins = np.linspace(-reach, reach, 121)
for (name, error), colour in zip(errors.items(), colours, strict=True):
    right.hist(error, bins, density=True, histtype="step", lw=1.4, color=colour, label=name)
right.set(xlabel="error / spread of the outputs", ylabel="density", title="what each step adds", yscale="log")
right.legend(frameon=False, fontsize=8)
plt.show()

for name, error in errors.items():
    print(f"{name:26} error {error.std():6.2%} of the outputs' spread")
print(f"{float(xbm.crossbar.clip_rate(tiles, x)):.2%} of the conversions clip")

# %% [markdown]
# The dots that leave the line at its ends are *clipped*: a converter's range covers 99.9 % of the partial sums
# that the images brought with which it was measured, since a wider one would make all steps coarser for the sake
# of a few.
#
# One layer's errors pass through eighteen more. What is left of the network? As these images are not CIFAR's we
# cannot count right answers yet, but we can ask how often the chip chooses the class that the exact network does.

# %%
float_class = np.argmax(backbone.logits(fashion.x_test), -1)
chip_class = np.argmax(xbm.predict(chip, source, fashion.x_test), -1)
print(f"chip and exact network agree on {np.mean(float_class == chip_class):.1%} of {len(chip_class)} images")

# %% [markdown]
# ## 2. Learn a task without writing a cell
#
# The task is to tell clothes apart: Fashion-MNIST, of which a subset comes with the package. We take 600 images
# and two epochs, so this shows how it goes, not how well it can go.
#
# Two methods. **norm_only** learns a new classifier (the *head*) and the scales and biases of the batch norms,
# all of it digital. **xbm** learns the same *and* a mask, one bit for each column of each row tile. So
# `norm_only` is its control: what `xbm` has beyond it, the mask has done.

# %%
before = jax.tree.map(np.array, chip)
config = xbm.Recipe(epochs=2, batch_size=32)
learned = {
    method.name: xbm.adapt(chip, fashion, method=method, key=jax.random.key(1), config=config)
    for method in (xbm.methods.norm_only(), xbm.methods.xbm())
}
for name, task in learned.items():
    print(f"{name:10} {task.meta['accuracy']:.1%} of {len(fashion.y_test)} test images")

same = jax.tree.map(np.array_equal, before, jax.tree.map(np.array, chip))
assert all(jax.tree.leaves(same))
print("The chip is the one that it was, bit for bit.")

# %% [markdown]
# ### What a mask looks like
#
# Here is the whole mask of the task. A block is a layer, a line in it is a row tile, a square is a column. Blue
# columns are counted, white ones are not: their partial sums are not added, and their converters can rest.

# %%
task = learned["xbm"]
masks = {
    path: np.asarray(task.method.rule.encode(tiles, task.trained["masks"][path])) for path, tiles in chip.tiles.items()
}
stages = {width: [path for path in masks if masks[path].shape[1] == width] for width in (16, 32, 64)}

figure = plt.figure(figsize=(11, 6.2), layout="constrained")
for part, (width, paths) in zip(figure.subfigures(1, 3, width_ratios=[2, 3, 5]), stages.items(), strict=True):
    heights = [len(masks[path]) for path in paths]
    part.suptitle(f"{width} columns", fontsize=10)
    for ax, path in zip(part.subplots(len(paths), 1, height_ratios=heights), paths, strict=True):
        ax.pcolormesh(masks[path], cmap="Blues", vmin=0, vmax=1.25, edgecolors="#cccccc", linewidth=0.3)
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.invert_yaxis()
        ax.set_title(f"{path}: {masks[path].mean():.0%} on", fontsize=8, pad=2)
plt.show()

total = sum(mask.size for mask in masks.values())
kept = sum(int(mask.sum()) for mask in masks.values())
print(f"{total:,} bits, of which {kept:,} are on ({kept / total:.0%})")

# %% [markdown]
# And here are the five arrays from above once more, without the columns that this task leaves out. The cells
# still hold what they held; nobody listens to them.

# %%
listened = np.repeat(masks[layer], 2, axis=1)[:, None, :] == 1
draw_arrays(
    np.where(listened, arrays, np.nan),
    f"{layer} as the task hears it (grey: not used, or not listened to)",
    "conductance, µS",
)

# %% [markdown]
# ## 3. Store it
#
# A **mask bank** keeps many tasks for one chip in a folder: masks packed to bits, norms, heads. We learn a second
# task, drawings from *Quick, Draw!*, and put both in. (The bank of this notebook goes into a temporary folder;
# yours would be `"bank"`.)

# %%
drawings = xbm.for_chip(chip, xbm.load("quickdraw").subset(train=600, test=200))
drawn = xbm.adapt(chip, drawings, method=xbm.methods.xbm(), key=jax.random.key(2), config=config)
print(f"quickdraw, xbm: {drawn.meta['accuracy']:.1%} of {len(drawings.y_test)} test images")

folder = tempfile.TemporaryDirectory()
bank = xbm.MaskBank.create(Path(folder.name) / "bank", chip)
bank.put("fashion_mnist", learned["xbm"])
bank.put("quickdraw", drawn)
print("in the bank:", ", ".join(bank.names))

# %% [markdown]
# What comes out are the masks that were put in, bit for bit; norms come folded to two numbers a channel in 16 bits,
# the head in 8 bits a weight (`compact=False` keeps all of it, to learn on). And a bank knows its chip: masks say
# which of *these* columns to trust, so a chip with other cells is refused.

# %%
out = bank.get("fashion_mnist")
assert all(np.array_equal(out.trained["masks"][path], masks[path]) for path in masks)
assert out == xbm.tasks.compact(chip, task)

another = xbm.program(backbone, spec, key=jax.random.key(99))
try:
    xbm.MaskBank.open(bank.folder, another)
except xbm.BankError as error:
    print(error)

# %% [markdown]
# ## 4. Serve both at once
#
# A mask acts after the converters, so images of different tasks can share a batch: each brings its own gains,
# norms and head, and all see the same cells. One compiled function serves every task of the bank.

# %%
predict = xbm.serve(chip, bank, batch_size=32)
data = {"fashion_mnist": fashion, "quickdraw": drawings}
tasks = ["fashion_mnist", "quickdraw"] * 16
chosen = [(name, i // 2) for i, name in enumerate(tasks)]
batch = np.stack([data[name].x_test[10 * k] for name, k in chosen])
labels = np.array([data[name].y_test[10 * k] for name, k in chosen])

guess = predict(batch, task=tasks)
print(f"{np.mean(guess == labels):.0%} of {len(batch)} images of two tasks, one batch")

figure, axes = plt.subplots(2, 8, figsize=(11, 3.4), layout="constrained")
for ax, image, name, predicted, label in zip(axes.T.ravel(), batch, tasks, guess, labels, strict=False):
    ax.imshow(image)
    ax.axis("off")
    names = data[name].class_names
    wrong = predicted != label
    title = f"{names[predicted]}\n(it is: {names[label]})" if wrong else names[predicted]
    ax.set_title(title, fontsize=8, color="#b03000" if wrong else "#333333")
figure.suptitle("what the chip says; upper row fashion_mnist, lower row quickdraw", fontsize=9)
plt.show()

# %% [markdown]
# ## 5. What a task costs
#
# All that a task keeps, in bits. The last line was not trained here: Piggyback has one mask bit for every
# *weight*, and would rewrite the cells of each weight that it switches off.

# %%
lines = [
    "| task | method | accuracy | mask bits | norm bits | head bits | cells written |",
    "|---|---|--:|--:|--:|--:|--:|",
]
for name, task in [("fashion_mnist", learned["norm_only"]), ("fashion_mnist", learned["xbm"]), ("quickdraw", drawn)]:
    bits = xbm.hardware.task_bits(chip, task)
    written = xbm.hardware.task_cells_written(chip, task)
    lines.append(
        f"| {name} | {task.method.name} | {task.meta['accuracy']:.1%} "
        f"| {bits.mask_bits:,} | {bits.norm_bits:,} | {bits.head_bits:,} | {written:,} |"
    )
lines.append(f"| (any) | piggyback | not run | {bits.backbone_weights:,} | | | many |")
Markdown("\n".join(lines))

# %%
share = bits.mask_share_of_weights
print(f"one mask bit for {1 / share:.0f} weights: {share:.2%} of Piggyback's mask")

# %% [markdown]
# The mask is the smallest part of what the task keeps: two numbers a channel in 16 bits and a head of 8 bits a weight
# take more, and this table counts them, as a fair one must.
#
# ## Where to go from here
#
# - `xbm quickstart --full`: three tasks, all methods, with a report.
# - `xbm adapt --task folder:MY_IMAGES --image-size 32 --bank runs/mine`: a task of your own.
# - `experiments/rows_and_bits.py`: what happens when arrays have fewer or more rows, and so more or fewer bits.
# - Change something above: `sigma=0.05`, `xbm.Adc(bits=6)`, `rows=128` (then call `chip = xbm.calibrate(chip,
#   xbm.data.calibration_images(fashion))`, as the converters' ranges that come with the weights hold for 64 rows).
