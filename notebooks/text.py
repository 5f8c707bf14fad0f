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
# # From a sentence to an answer of a chip
#
# A sentence encoder, *all-MiniLM-L6-v2*, is a transformer of six blocks. All of its dense layers go onto ReRAM
# arrays, **once**; a task of ours, telling apart what visitors ask a museum, is then learned beside them: masks of
# columns, layer norms, a head. Nothing is rewritten.
#
# The weights do not ship with the package. They come from the Hugging Face hub (`pip install 'xbm_jax[hub,text]'`),
# or from files that `XBM_MINILM` and `XBM_MINILM_TOKENIZER` name. All sentences are in this notebook.

# %%
import os
import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import xbm_jax as xbm

plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 72})

HUB = "hf://sentence-transformers/all-MiniLM-L6-v2"
backbone = xbm.load_backbone("minilm-l6", os.environ.get("XBM_MINILM", HUB))
tokenizer = xbm.data.load_tokenizer(os.environ.get("XBM_MINILM_TOKENIZER", HUB), max_length=32)

# %% [markdown]
# ## 1. A sentence
#
# The tokenizer cuts it into pieces of words, each with its number, and fills up to one of a few lengths, so that
# whatever the sentences are only a few programs are compiled. The mask says which tokens are real.

# %%
tokens = tokenizer(["Where can I leave my umbrella?"])
print("ids ", tokens["ids"][0])
print("mask", tokens["mask"][0].astype(int))

# %% [markdown]
# Six sentences, in pairs that mean nearly the same. The float network gives each a vector of 384 numbers; what
# points the same way means the same.

# %%
pairs = [
    "Where can I leave my umbrella?",
    "Is there a place to put our coats?",
    "How much is it for two adults?",
    "What do the tickets cost?",
    "Who painted the large blue picture?",
    "Which artist made this landscape?",
]


def similarity(features):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit @ unit.T


as_float = similarity(np.asarray(backbone.logits(tokenizer(pairs))))

# %% [markdown]
# ## 2. What visitors ask
#
# Four kinds of questions, twelve of each; every fourth is kept for the test. That is a toy, written for this page:
# it shows how it goes, not how well it can go.

# %%
ASKED = {
    "when": """Are you open on Sundays?
        When does the museum close today?
        Until what time can we come in?
        Is the house shut at Easter?
        What are your hours in winter?
        Do you open before ten in the morning?
        How late does the last tour begin?
        Which day of the week are you closed?
        Can I still visit at six in the evening?
        When does the new season start?
        Are there longer evenings in summer?
        At what time does the café shut?""",
    "price": """What does a ticket cost?
        Is there a discount for students?
        Do children pay anything?
        How much is the audio guide?
        Can I pay with a card?
        Is admission free for teachers?
        What is the price for a family?
        Do you sell a yearly pass?
        Are groups of twenty cheaper?
        Does the tour cost extra?
        May I get my money back for an unused ticket?
        How much do pensioners pay?""",
    "way": """Which tram stops at the museum?
        Where can I park the car?
        How do I get there from the station?
        Is the entrance in the side street?
        Can a wheelchair get up to the second floor?
        How far is it from the harbour on foot?
        On which floor is the library?
        Where is the lift?
        Does the number nine bus come here?
        Is there a place for bicycles?
        Which way is it to the exit?
        Where do I find the cloakroom?""",
    "works": """Who painted the portrait in the hall?
        How old is the bronze horse?
        What is the large statue made of?
        Is the vase from China or Japan?
        Which king wore this crown?
        Did the artist sign the landscape?
        What do the figures on the carpet mean?
        From which century is the altar?
        Was the drawing restored?
        Is this the original or a copy?
        How was the glass coloured so blue?
        Who carved the wooden door?""",
}

kinds = tuple(ASKED)
sentences = [line.strip() for text in ASKED.values() for line in text.splitlines()]
labels = np.repeat(np.arange(len(kinds)), 12)
test = np.arange(len(sentences)) % 4 == 3
all_tokens = tokenizer(sentences)
asked = xbm.Dataset(
    "museum",
    {name: array[~test] for name, array in all_tokens.items()},
    labels[~test],
    {name: array[test] for name, array in all_tokens.items()},
    labels[test],
    kinds,
    kind="arrays",
    tokenizer=tokenizer.mark,
)
print(f"{len(asked.y_train)} questions to learn from, {len(asked.y_test)} for the test")

# %% [markdown]
# ## 3. Onto the chip, once
#
# Arrays of 64 rows, 8-bit weights on pairs of 7-bit cells, every cell 1 % off. Embeddings, attention's products of two
# activations and norms stay digital. Input scales are measured on sentences; padding does not count.
#
# Converters are ideal here, so that this page takes two minutes. With 8-bit ones, `xbm.spec_by_name("verified")` as it
# is, all below stays as it reads; compiling a tile-by-tile read of 36 layers takes longer. `docs/text.md` says what
# they cost in accuracy.

# %%
spec = xbm.spec_by_name("verified").replace(adc=xbm.Adc(bits=None))
chip = xbm.program(backbone, spec, jax.random.key(0))
chip = xbm.calibrate(chip, asked.x_train, batch_size=12)

on_arrays, digital = xbm.models.array_weights(chip), sum(xbm.models.digital_weights(chip).values())
print(f"{on_arrays:,} weights in {len(chip.tiles)} layers on {xbm.hardware.arrays_used(chip):,} arrays")
print(f"{digital:,} weights stay digital")

# %%
source = xbm.source_task(chip)
as_chip = similarity(xbm.predict(chip, source, tokenizer(pairs)))

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
for ax, matrix, title in zip(axes, (as_float, as_chip), ("float network", "chip"), strict=True):
    picture = ax.imshow(matrix, cmap="viridis", vmin=0, vmax=1)
    for i, row in enumerate(np.round(matrix, 2) + 0.0):  # no minus zero
        for j, value in enumerate(row):
            colour = "white" if value < 0.6 else "black"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    ax.set(title=title, xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
axes[0].set_yticks(range(len(pairs)), pairs)
figure.colorbar(picture, ax=axes, label="cosine", shrink=0.85)
plt.show()

apart = np.abs(as_float - as_chip).max()
print(f"largest difference of two cosines: {apart:.3f}")

# %% [markdown]
# Sentences of a pair are nearer to each other than to the rest, on the chip as in float.
#
# ## 4. Learn the questions without writing a cell
#
# **head_only** learns a classifier of the frozen vectors. **xbm** learns a bit for each column of each row tile too,
# and the layer norms' scales and biases.

# %%
before = jax.tree.map(np.array, chip)
recipes = {
    "head_only": (xbm.methods.head_only(), xbm.Recipe(epochs=30, batch_size=8)),
    "xbm": (xbm.methods.xbm(norms="affine"), xbm.Recipe(epochs=6, batch_size=8)),
}
learned = {
    name: xbm.adapt(chip, asked, method=method, key=jax.random.key(1), config=recipe)
    for name, (method, recipe) in recipes.items()
}
assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, jax.tree.map(np.array, chip))))

lines = ["| | right | mask bits | norm bits | head bits | cells written |", "|---|--:|--:|--:|--:|--:|"]
for name, task in learned.items():
    bits, right = xbm.hardware.task_bits(chip, task), task.meta["accuracy"] * len(asked.y_test)
    written = xbm.hardware.task_cells_written(chip, task)
    lines.append(
        f"| {name} | {right:.0f} of {len(asked.y_test)} | {bits.mask_bits:,} | {bits.norm_bits:,} "
        f"| {bits.head_bits:,} | {written:,} |"
    )
Markdown("\n".join(lines))

# %% [markdown]
# Three dozen questions are few for so many bits: here the head alone does at least as well.
# `experiments/text_suite.py` compares methods on thousands of sentences, by the same rules for all.
#
# ## 5. An answer
#
# Both go into a bank, which remembers the tokenizer (by a digest: another one is refused), and one program serves
# them, also in one batch.

# %%
folder = tempfile.TemporaryDirectory()
bank = xbm.MaskBank.create(folder.name, chip)
for name, task in learned.items():
    bank.put(name, task)
tokenizer.check(bank.meta("xbm")["tokenizer"])

new = [
    "Could my grandmother get a reduction?",
    "Is the museum open at night?",
    "Whose sword is this?",
    "Where are the toilets?",
]
server = xbm.serve(chip, bank, batch_size=8)
logits = server.logits(tokenizer([*new, *new]), [*["head_only"] * len(new), *["xbm"] * len(new)])[:, : len(kinds)]
likely = np.exp(logits - logits.max(1, keepdims=True))
likely = (likely / likely.sum(1, keepdims=True)).reshape(2, len(new), len(kinds))

figure, axes = plt.subplots(1, len(new), figsize=(11, 2.4), sharey=True, layout="constrained")
for ax, sentence, *rows in zip(axes, new, *likely, strict=True):
    for at, (row, name, colour) in enumerate(zip(rows, learned, ("#999999", "#0072B2"), strict=True)):
        ax.barh(np.arange(len(kinds)) + 0.2 - 0.4 * at, row, 0.4, color=colour, label=name)
    ax.set(title=sentence, xlim=(0, 1), yticks=range(len(kinds)), yticklabels=kinds, xlabel="probability")
    ax.title.set_fontsize(8)
axes[0].invert_yaxis()
axes[-1].legend(frameon=False, fontsize=8)
plt.show()

for sentence, row in zip(new, likely[1], strict=True):
    print(f"{kinds[row.argmax()]:6} {row.max():4.0%}  {sentence}")

# %% [markdown]
# ## Where to go from here
#
# - `xbm adapt --task tsv:mine.tsv --model minilm-l6 --weights hf://... --tokenizer hf://... --bank runs/mine`, then
#   `xbm predict --bank runs/mine --task mine --tokenizer hf://... "A sentence"`: the same from files.
# - `docs/text.md`: sentences longer than the model takes, other tokenizers, a network of tokens of your own.
# - `python -m experiments.text_suite`: eight methods on six published tasks.
