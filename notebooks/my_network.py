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
# # What do converters, rows, cells and noise do to *my* network?
#
# A data sheet says «8-bit converters, 128 rows, 2 % programming error». What that costs depends on the network that
# stands on it. So here is a network of our own, trained in plain Flax; we put it on chips that differ in one thing at
# a time, and count right answers. Replace the class `Mine` and its images by yours.
#
# Small, so that it takes a minute or two on two CPU cores: three convolutions, six epochs over 2,400 images of
# Fashion-MNIST, 500 test images, few chips for each design.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from IPython.display import Image

import xbm_jax as xbm

plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 72})

# %% [markdown]
# ## 1. A network, trained as ever
#
# Nothing here knows of crossbars.


# %%
class Mine(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 16, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), use_bias=False, rngs=rngs)
        self.conv3 = nnx.Conv(32, 64, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm1, self.norm2, self.norm3 = (nnx.BatchNorm(n, rngs=rngs) for n in (16, 32, 64))
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        x = nnx.relu(self.norm3(self.conv3(x)))
        return self.head(x.mean((1, 2)))


fashion = xbm.load("fashion_mnist").subset(train=2400, test=500)
scaled = xbm.models.Preprocess(mean=(0.286,), std=(0.353,))  # from uint8 to what the network takes

# %%
epochs, batch = 6, 32
per_epoch = len(fashion.y_train) // batch
model = Mine(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(optax.cosine_decay_schedule(1e-2, epochs * per_epoch)), wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer, images, labels):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(scaled(images)), labels).mean()

    optimizer.update(model, nnx.grad(loss)(model))


rng = np.random.default_rng(0)
for _ in range(epochs):
    for rows in rng.permutation(len(fashion.y_train))[: per_epoch * batch].reshape(per_epoch, batch):
        train_step(model, optimizer, fashion.x_train[rows], fashion.y_train[rows])

model.eval()
backbone = xbm.models.backbone_from_module(model, preprocess=scaled, image_size=28)
right = np.argmax(backbone.logits(fashion.x_test), -1) == fashion.y_test
in_float = float(np.mean(right))
half = 1.96 * float(np.std(right)) / len(right) ** 0.5
print(f"in floating point {in_float:.1%} of {len(right)} test images, give or take {half:.1%}")

# %% [markdown]
# «Give or take» is the 95 % interval of so few test images. All chips below answer the *same* images, so what one
# chip loses against another is known better than that; but a difference of a point is five images, and chance.
#
# ## 2. Look at one chip
#
# `program` writes the weights, `calibrate` measures on training images how far inputs and column currents reach, and
# `inspect` sends images through and says of each layer how far its answer is from the exact one.

# %%
spec = xbm.CrossbarSpec(
    rows=64,
    cols=64,
    weight_bits=8,
    cell=xbm.Cell(bits=7, on_off=100),
    adc=xbm.Adc(bits=8),
    device=xbm.Gaussian(sigma=0.05),  # every cell misses its target by 5 % of the highest conductance
)
some = xbm.data.calibration_images(fashion)
chip = xbm.calibrate(xbm.program(backbone, spec, jax.random.key(0)), some)
found = xbm.inspect(chip, fashion.x_test[:128])
print(found)

# %%
Image(xbm.report.draw_inspection(found), width=690)

# %% [markdown]
# 20 dB are an error of a tenth of the signal, 40 dB of a hundredth. The hollow dots are each layer's worst column.
# A converter's range covers 99.9 % of the sums that the calibration images brought, so about one in a thousand clips.
#
# ## 3. Turn one knob at a time
#
# `population_accuracy` makes a chip for each key, the draws of its cells being its own, and gives all accuracies. The
# first sweep has exact cells, so that converters and rows are seen alone; one chip is all there is of each then.


# %%
def accuracies(spec, chips=1, rules=None):
    keys = jax.random.split(jax.random.key(1), chips)
    images, labels = fashion.x_test, fashion.y_test
    made = xbm.population_accuracy(backbone, spec, keys, images, labels, calibration_images=some, rules=rules)
    return 100 * made.accuracies


exact = spec.replace(device=xbm.Ideal())
bits = (3, 4, 6)
by_bits = {rows: [accuracies(exact.replace(rows=rows, adc=xbm.Adc(bits=b)))[0] for b in bits] for rows in (32, 512)}
for rows, line in by_bits.items():
    print(f"{rows:3} rows:", ", ".join(f"{b} bits {share:.1f} %" for b, share in zip(bits, line, strict=True)))

# %% [markdown]
# Few bits cost a lot, and rows surprise: tall arrays lose *less*. Their sums are larger, and so are their converters'
# steps, but there are fewer sums, and each is rounded once. (What height costs is wires, and mask bits: a mask has one
# bit for each column of a row tile.)
#
# Now the cells. One cell may hold all seven bits of a weight's magnitude, or four cells two bits each; each cell
# misses its target by the same share of its range.

# %%
chips = 4
sigmas = (0.02, 0.05, 0.1)
by_sigma = [accuracies(spec.replace(device=xbm.Gaussian(sigma=s)), chips) for s in sigmas]
sliced = accuracies(spec.replace(cell=xbm.Cell(bits=2, on_off=100)), chips)
for s, found_of_chips in zip(sigmas, by_sigma, strict=True):
    print(f"7-bit cells, error {s:.0%}: {found_of_chips.mean():.1f} ± {found_of_chips.std(ddof=1):.1f} %")
print(f"2-bit cells, error 5%: {sliced.mean():.1f} ± {sliced.std(ddof=1):.1f} %, at four times the conversions")

# %%
blue, orange, green = "#0072B2", "#D55E00", "#009E73"
figure, (left, right_) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for axes in (left, right_):
    axes.axhspan(100 * (in_float - half), 100 * (in_float + half), color="#eeeeee", lw=0)
    axes.axhline(100 * in_float, color="#333333", lw=0.8)
for (rows, line), colour in zip(by_bits.items(), (blue, orange), strict=True):
    left.plot(bits, line, "o-", color=colour, label=f"{rows} rows")
left.set(xlabel="converter bits", ylabel="test accuracy, %", xticks=bits, title="converters and rows, exact cells")
left.legend(frameon=False)
for s, found_of_chips in zip(sigmas, by_sigma, strict=True):
    right_.plot([100 * s] * chips, found_of_chips, "o", ms=5, color=blue, alpha=0.6, label="7-bit cells" * (s == 0.02))
right_.plot([5.4] * chips, sliced, "^", ms=5, color=green, alpha=0.7, label="2-bit cells")
right_.set(xlabel="programming error, % of the highest conductance", title="cells, 8-bit converters, 64 rows")
right_.legend(frameon=False)
figure.suptitle("grey: the network in floating point and the interval of its test images", fontsize=9)
plt.show()

# %% [markdown]
# ## 4. Which layer is it?
#
# A signal-to-noise ratio says how wrong a layer is, not what that does to the answer. So put one layer alone on
# arrays, all others staying digital (`rules` name layers; `None` is «not on the chip»), and count again.

# %%
paths = list(chip.tiles)
alone = {path: accuracies(spec, chips, rules={other: None for other in paths if other != path}) for path in paths}
decibels = {layer.path: layer.snr_db for layer in found.layers}
print("layer   signal-to-noise   lost alone, points (± between chips)")
for path, found_of_chips in alone.items():
    lost = 100 * in_float - found_of_chips
    print(f"{path:8}{decibels[path]:12.1f} dB {lost.mean():14.1f} ± {lost.std(ddof=1):.1f}")
print(f"all together: {100 * in_float - by_sigma[1].mean():.1f} points")

# %% [markdown]
# The two lists need not agree. Here the layer of the lowest ratio loses nothing to speak of by itself, while another,
# which looks better, seems to lose points: what a layer's error does depends on what stands behind it. «Seems», as
# chips differ among themselves by as much: four of them are few, so take more where a decision hangs on it.
#
# ## What to do with it
#
# - **Converters**: take the fewest bits at which the curve is flat *for your network*, on images that it knows.
# - **Cells**: ask what an error is a share of, the whole range or the value; `xbm.Gaussian(sigma, relative_to="g")` is
#   the second kind, and `xbm.crossbar.PUBLISHED` has measured devices by name.
# - **A layer that costs most** may get a spec of its own, or stay digital: `program(..., rules={"conv2": None})`.
# - `xbm inspect CHIP` prints and draws the same for a stored chip; `docs/crossbar.md` has such sweeps of ResNet-20 on
#   CIFAR-10, knob by knob.
