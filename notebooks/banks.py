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
# # Bank and server: how are tasks kept, passed on, and answered?
#
# A chip is written once; tasks come and go. Here two of them are put into a bank, replaced, damaged and mended; the
# bank is published as one file, loaded from it as a stranger would, and served, with both tasks in one batch.
#
# Small, so that it takes a minute or two on two CPU cores: two tasks of 600 images and two epochs on the ResNet-20
# that comes with the package. Everything goes into a temporary folder; «published» means a file in another folder, so
# that nothing here needs a network.

# %%
import json
import shutil
import struct
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import xbm_jax as xbm

plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 72})
temporary = tempfile.TemporaryDirectory()
here = Path(temporary.name)

# %%
chip = xbm.program(xbm.load_backbone("cifar-resnet20"), xbm.spec_by_name("verified"), jax.random.key(0))
data = {
    "fashion": xbm.for_chip(chip, xbm.load("fashion_mnist").subset(train=600, test=250)),
    "drawings": xbm.for_chip(chip, xbm.load("quickdraw").subset(train=600, test=200)),
}
recipe = xbm.Recipe(epochs=2, batch_size=32)
learned = {
    name: xbm.adapt(chip, images, method=xbm.methods.xbm(), key=jax.random.key(1), config=recipe)
    for name, images in data.items()
}
for name, task in learned.items():
    print(f"{name:9} {task.meta['accuracy']:.1%} of {len(data[name].y_test)} test images")

# %% [markdown]
# ## 1. Put
#
# A bank belongs to one chip: a mask says which of *these* columns to trust. The chip goes beside the bank, so that the
# folder is whole.

# %%
bank = xbm.MaskBank.create(here / "bank", chip)
xbm.save_chip(chip, bank.folder / "chip")
for name, task in learned.items():
    bank.put(name, task)

bits = xbm.hardware.task_bits(chip, learned["fashion"])
on_disk = sum(path.stat().st_size for path in (bank.folder / "tasks" / "fashion").rglob("*") if path.is_file())
print("in the bank:", ", ".join(bank.names))
print(f"a task is {bits.total / 8:,.0f} bytes; in files, with what says what it is, {on_disk:,}")

# %%
kept = {
    "mask": bits.mask_bits / 8,
    "norms": bits.norm_bits / 8,
    "head": bits.head_bits / 8,
    "all, in files": on_disk,
    "weights of a fine-tuned copy, float32": 4 * bits.backbone_parameters,
}
figure, axes = plt.subplots(figsize=(7.4, 2.3), layout="constrained")
axes.scatter(list(kept.values()), list(kept), c=["#0072B2"] * 3 + ["#56B4E9", "#999999"], s=60, zorder=2)
axes.grid(axis="x", color="#dddddd", lw=0.6)
for line, size in enumerate(kept.values()):
    axes.text(1.25 * size, line, f"{size:,.0f}", va="center", fontsize=8)
axes.set(xscale="log", xlabel="bytes", title="what one task takes", xlim=(200, 5e6))
axes.invert_yaxis()
plt.show()

# %% [markdown]
# A small task has more description than content: method, classes, what was measured, versions, and the chip that it
# belongs to. With a larger network that no longer shows (`docs/banks.md`, section 2).
#
# ## 2. Replace, look back, restore
#
# Nothing is overwritten. A task that is put again is a new *generation*, and the last three stay.

# %%
longer = xbm.Recipe(epochs=3, batch_size=32)
again = xbm.adapt(chip, data["fashion"], method=xbm.methods.xbm(), key=jax.random.key(2), config=longer)
bank.put("fashion", again)
for generation in bank.history("fashion"):
    print(generation.number, f"{generation.accuracy:.1%}", "<- current" if generation.current else "")

# %% [markdown]
# ## 3. Verify
#
# Every array, description and entry of the index has its SHA-256. We turn one bit of a stored mask, as a bad disk
# would.

# %%
assert bank.verify() == []
(current,) = (g.number for g in bank.history("fashion") if g.current)
stored = bank.folder / "tasks" / "fashion" / f"{current:06d}" / "state" / "data" / "0"
content = bytearray(stored.read_bytes())
content[10] ^= 1
stored.write_bytes(content)

damage = bank.verify()
for found in damage:
    print(f"damaged: {found.name}, generation {found.generation}")
try:
    bank.get("fashion")
except xbm.BankError as error:
    print(str(error).replace(str(here), "..."))

# %% [markdown]
# What is damaged is refused, never guessed. The generation before is whole, and becomes the current one again; the
# broken one stays where it is until later generations push it out.

# %%
bank.restore("fashion")
task = bank.get("fashion")
assert task == xbm.tasks.compact(chip, learned["fashion"])  # bit for bit what was put first
print(f"restored: {task.meta['accuracy']:.1%}; tasks that can be read:", ", ".join(bank.names))

# %% [markdown]
# ## 4. Publish
#
# A bank goes on a journey as **one file**, in a form that others read too (safetensors); with `chip=True` whoever has
# the file needs nothing else. `xbm.banks.publish(bank, "owner/name")` puts the same file on the Hugging Face hub, and
# `xbm.load_bank("hf://owner/name")` gets it from there. Here it goes into a folder.

# %%
bank.export(here / "journey.safetensors", chip=True)
(here / "published").mkdir()
file = Path(shutil.copy(here / "journey.safetensors", here / "published" / "bank.safetensors"))
print(f"{file.name}: {file.stat().st_size:,} bytes, most of them the chip's cells")

# No package is needed to look inside, and nothing in it is run:
with file.open("rb") as stream:
    (length,) = struct.unpack("<Q", stream.read(8))
    header = json.loads(stream.read(length))
for name, place in header.items():
    if name.startswith("task/fashion"):
        print(f"   {name:27} {place['dtype']:4} {place['shape']}")

# %% [markdown]
# ## 5. Load, as a stranger does
#
# From here on nothing of the above is used but the file's place and images to ask about.

# %%
published = xbm.load_bank(file)
print(f"{published.chip.network.name}, tasks: {', '.join(published.names)}")
for name in published.names:
    meta = published.meta(name)
    print(f"   {name}: {len(meta['class_names'])} classes, {meta['accuracy']:.1%} when it was learned")

# %% [markdown]
# And a chip that is not this one is refused: same weights, same kind, other cells.

# %%
another = xbm.program(xbm.load_backbone("cifar-resnet20"), xbm.spec_by_name("verified"), jax.random.key(99))
try:
    xbm.MaskBank.open(file, another)
except xbm.BankError as error:
    print(str(error).replace(str(here), "..."))

# %% [markdown]
# ## 6. Serve, and mix
#
# A mask acts behind the converters. So a batch may hold images of different tasks: the cells are read once for all,
# each image brings gains, norms and head of its own.

# %%
server = xbm.serve(published.chip, published, batch_size=32)
chosen = np.random.default_rng(0).permutation(200)[:100]
mixed = [(name, i) for i in chosen for name in published.names]
images = np.stack([data[name].x_test[i] for name, i in mixed])
labels = np.array([data[name].y_test[i] for name, i in mixed])
tasks = [name for name, _ in mixed]

together = server(images, task=tasks)
for name in published.names:
    own = np.array(tasks) == name
    alone = server(images[own], task=name)
    print(
        f"{name:9} {np.mean(together[own] == labels[own]):.1%} right in mixed batches, "
        f"{np.mean(alone == labels[own]):.1%} alone; the same answer for {np.mean(alone == together[own]):.1%}"
    )

# %%
figure, axes = plt.subplots(2, 8, figsize=(11, 3.4), layout="constrained")
for ax, image, name, guess, label in zip(axes.T.ravel(), images, tasks, together, labels, strict=False):
    classes = published.meta(name)["class_names"]
    wrong = f"\n(it is: {classes[label]})" if guess != label else ""
    ax.imshow(image)
    ax.axis("off")
    ax.set_title(classes[guess] + wrong, fontsize=8, color="#b03000" if wrong else "#333333")
figure.suptitle(f"one batch of two tasks: upper row {tasks[0]}, lower row {tasks[1]}", fontsize=9)
plt.show()

# %% [markdown]
# Tasks come and go while the server runs, and none of it compiles anything: what differs between tasks are numbers.

# %%
server.add("fashion again", again)
print(f"served: {', '.join(server.names)}; in memory: {len(server.resident)}")
answers = server(data["fashion"].x_test, task="fashion again")
print(f"{np.mean(answers == data['fashion'].y_test):.1%} right by the new one")
server.remove("fashion again")

# %% [markdown]
# ## Where to go from here
#
# - The same on the command line: `xbm bank list`, `show`, `verify`, `history`, `restore`, `export`, `push`, and
#   `xbm predict --bank BANK --task fashion photos/*.png`.
# - `docs/banks.md` has the format byte by byte, and a reader of thirty lines that needs NumPy alone.
# - `docs/serving.md`: what can be served together, and what it costs.
