"""What the ``xbm`` command takes: a dataclass per command, from which tyro makes options and help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from xbm_jax.cli.bank_options import Bank
from xbm_jax.cli.paths import UserPath, made_by, typed_path
from xbm_jax.crossbar import SPECS
from xbm_jax.errors import DataError
from xbm_jax.masks.methods import METHODS

__all__ = [
    "Adapt",
    "Command",
    "Completion",
    "Cost",
    "Doctor",
    "Inspect",
    "Predict",
    "Quickstart",
    "Report",
    "Watch",
    "check_seed",
]

LARGEST_SEED = 2**32 - 1
"""JAX keeps the low 32 bits of a seed: a larger one would be another's."""


def check_seed(command: Any) -> None:
    """Refuse a seed that would draw what another one draws, or nothing.

    Raises:
        DataError: below zero or beyond :data:`LARGEST_SEED`.
    """
    seed = getattr(command, "seed", 0)
    if not 0 <= seed <= LARGEST_SEED:
        raise DataError("--seed", seed, f"a whole number from 0 to {LARGEST_SEED:,}")


def _weights(given: list[str]) -> str:
    """A path, likewise, or an address on the hub."""
    return given[0] if given[0].startswith("hf://") else str(typed_path(given))


_Weights = Annotated[str, made_by(_weights, str)]
"""What may be on the hub too."""
_Chip = Annotated[str, tyro.conf.arg(help=f"a named chip, but for what is said below: {', '.join(SPECS)}.")]
_Method = Annotated[str, tyro.conf.arg(help=f"one of {', '.join(METHODS)}.")]


@dataclass(frozen=True)
class Quickstart:
    """Write a pretrained network onto a chip once, learn three tasks on it, store and serve them.

    Args:
        out: folder for the chip, the bank, results.json, the figure and REPORT.md.
        seed: every random draw follows from it; 0 to 4294967295.
        full: also Piggyback and fine-tuning, which rewrite cells.
        source_data: CIFAR-10 as .npz (x_train, y_train, x_test, y_test; uint8 NHWC), for accuracy on it.
    """

    out: UserPath = Path("runs/quickstart")
    seed: int = 0
    full: bool = False
    source_data: UserPath | None = None


@dataclass(frozen=True)
class Adapt:
    """Learn a task of your own and put it into a bank.

    Args:
        task: fashion_mnist, quickdraw, omniglot, npz:FILE, folder:DIR, tfds:NAME or tsv:FILE.
        bank: folder of the bank; its chip lies beside it in <bank>/chip and is programmed on first use.
        name: the task's name in the bank; by default the data's.
        replace: store the task in place of one of that name, which is refused otherwise.
        method: one of METHODS.
        norms: norm policy: frozen, affine or full.
        model: backbone.
        weights: .npz, .safetensors, PyTorch state dict or hf://owner/repository/file; by default those that ship.
        preprocess: what the weights were trained with, if not what the model says: a name (deit, dino, imagenet, half,
            caffe), a preprocessor_config.json or hf://owner/repository.
        chip: one of SPECS.
        spec_file: .toml with changes to the chip ([spec]) and layers of their own kind ([[layers]]); docs/models.md.
        rows: word lines of an array; both named chips have 64.
        active_rows: word lines that are read at once, a divisor of rows; by default all of them.
        adc_bits: converter resolution; both have 8.
        cell_bits: bits of a cell; both have 7.
        on_off: ratio of the highest to the lowest conductance; both have 100.
        programming_sigma: a Gaussian programming error in units of the highest conductance, in place of the chip's.
        image_size: resize images to this many pixels; by default they stay as they are.
        tokenizer: of sentences (tsv:): a tokenizer.json or hf://owner/repository.
        max_length: the most tokens of a sentence; by default 512.
        epochs: passes over the training images.
        batch_size: images per step.
        compact: store two numbers a channel in 16 bits and a head of 8 bits a weight; else all of it, to learn on.
        seed: every random draw follows from it; 0 to 4294967295.
        restart: begin anew where a run of this name was cut short; otherwise the same command carries on.
        log: keep a log in <bank>/logs: lines of JSON, TensorBoard's events, or W&B's run.
        profile: folder for a trace of steps 2 to 7, for TensorBoard's profiler or Perfetto.
        stream: leave images on disk and read them when they are needed: sets larger than memory; folder: and tfds:.
        devices: one, or all of them, which share every batch.
        distributed: this is one of several processes that run this command; SLURM, TPU pods, Kubernetes and MPI say
            which. The first one prints and writes.
        coordinator: HOST:PORT of the first of them, where nothing says so.
        processes: how many there are, likewise.
        process: which one this is, from 0, likewise.
    """

    task: str
    bank: UserPath
    name: str | None = None
    replace: bool = False
    method: _Method = "xbm"
    norms: Literal["frozen", "affine", "full"] | None = None
    model: str = "cifar-resnet20"
    weights: _Weights | None = None
    preprocess: _Weights | None = None
    chip: _Chip = "verified"
    spec_file: UserPath | None = None
    rows: int | None = None
    active_rows: int | None = None
    adc_bits: int | None = None
    cell_bits: int | None = None
    on_off: float | None = None
    programming_sigma: float | None = None
    image_size: int | None = None
    tokenizer: _Weights | None = None
    max_length: int | None = None
    epochs: int = 10
    batch_size: int = 32
    compact: bool = True
    seed: int = 0
    restart: bool = False
    log: Literal["jsonl", "tensorboard", "wandb"] | None = None
    profile: UserPath | None = None
    stream: bool = False
    devices: Literal["one", "all"] = "one"
    distributed: bool = False
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None


@dataclass(frozen=True)
class Inspect:
    """What each layer of a saved chip does to images: noise, clipping, codes used, what is simulated and why.

    Args:
        chip: folder of the chip, such as <bank>/chip.
        task: whose test images: fashion_mnist, quickdraw, omniglot, npz:FILE, folder:DIR, tfds:NAME or tsv:FILE.
        images: how many of them, at most.
        image_size: resize images to this many pixels; by default they stay as they are.
        tokenizer: of sentences (tsv:): a tokenizer.json or hf://owner/repository.
        max_length: the most tokens of a sentence; by default 512.
        out: folder for inspection.json and inspection.png; by default nothing is written.
        seed: draws read noise; 0 to 4294967295.
    """

    chip: Annotated[UserPath, tyro.conf.Positional]
    task: str
    images: int = 256
    image_size: int | None = None
    tokenizer: _Weights | None = None
    max_length: int | None = None
    out: UserPath | None = None
    seed: int = 0


@dataclass(frozen=True)
class Predict:
    """What a task of a bank says of images or sentences: a class for each and how likely it is, as CSV or JSON.

    Images are turned upright, resized to what the task was learned on, and grey ones made RGB. What cannot be read is
    named and left out; the exit code is then 1.

    Args:
        inputs: image files, folders of them, or patterns in quotes; of a text task sentences in quotes, .txt files (one
            a line), .tsv files (label<TAB>sentence, the label does not count), or - for lines of standard input.
        bank: folder of the bank.
        task: name of the task in the bank.
        chip: folder of the chip; by default <bank>/chip.
        tokenizer: of sentences: a tokenizer.json or hf://owner/repository, the one that the task was learned with.
        top: so many classes for each image, the likeliest first.
        probabilities: also the probability of every class.
        format: of what is printed or written; by default CSV, or JSON into an --out that ends in .json.
        out: a file to write to; by default standard output.
        sheet: a PNG file: a contact sheet of the images, each with its class.
        image_size: pixels a side; by default those of the images that the task was learned on.
        seed: draws read noise; 0 to 4294967295.
    """

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    bank: UserPath
    task: str
    chip: UserPath | None = None
    tokenizer: _Weights | None = None
    top: int = 1
    probabilities: bool = False
    format: Literal["csv", "json"] | None = None
    out: UserPath | None = None
    sheet: UserPath | None = None
    image_size: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Cost:
    """What a saved chip and the tasks of a bank cost: energy, time, area, writes; by named technologies.

    Args:
        chip: folder of the chip, such as <bank>/chip.
        bank: folder of the bank whose tasks are counted; by default the source task alone.
        task: some of the bank's tasks; by default all of them.
        tech: technologies that come with the package, or paths of .toml files of your own.
        images: whose images show how inputs drive the arrays: fashion_mnist, npz:FILE, folder:DIR, ...; by default
            every input counts as one at full scale.
        image_size: pixels of the images; by default those that the network was trained on, or the images' own.
        tokenizer: of sentences (--images tsv:FILE): a tokenizer.json or hf://owner/repository.
        max_length: the most tokens of a sentence; by default 512.
        copies: how often every layer is on the chip.
        batch: examples one behind the other.
        schedule: when methods that rewrite cells write them.
        backward: what computes the backward pass's products.
        off_lines: whether lines that are off conduct, at virtual ground, or are cut.
        explain: a layer: print each term of its energy with formula, numbers and sources, and nothing else.
        out: folder for cost.json, cost.csv and figures; by default nothing is written.
        seed: draws read noise; 0 to 4294967295.
    """

    chip: Annotated[UserPath, tyro.conf.Positional]
    bank: UserPath | None = None
    task: tuple[str, ...] = ()
    tech: tuple[str, ...] = ("isaac-32nm", "neurosim-22nm", "survey-22nm")
    images: str | None = None
    image_size: int | None = None
    tokenizer: _Weights | None = None
    max_length: int | None = None
    copies: int = 1
    batch: int = 1
    schedule: Literal["end", "epoch", "step"] = "end"
    backward: Literal["digital", "arrays"] = "digital"
    off_lines: Literal["conduct", "cut"] = "conduct"
    explain: str | None = None
    out: UserPath | None = None
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """A page to look at, one HTML file without server or network: table, fronts, learning curves, masks, chip health.

    Args:
        place: a results file (.json), the folder of a quickstart, of a bank or of a saved run, or an exported bank.
        out: the page; by default report.html in the folder, or beside the file.
        chip: folder of the chip, where it does not lie beside the bank.
        data: whose test images go through the chip, for its health and what its tasks answer: fashion_mnist,
            npz:FILE, folder:DIR, ...; by default the files alone are read.
        images: how many of them, at most.
        image_size: resize images to this many pixels; by default they stay as they are.
        seed: draws read noise; 0 to 4294967295.
    """

    place: Annotated[UserPath, tyro.conf.Positional]
    out: UserPath | None = None
    chip: UserPath | None = None
    data: str | None = None
    images: int = 128
    image_size: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Watch:
    """A training while it goes on: losses, scores, rates, speed and time left; Ctrl-C leaves it alone.

    Args:
        place: folder of a saved run, or of the bank or quickstart that a task is being learned for.
        once: print what there is and leave; as it is where the output is no terminal.
        seconds: between two looks.
    """

    place: Annotated[UserPath, tyro.conf.Positional]
    once: bool = False
    seconds: float = 1.0


@dataclass(frozen=True)
class Doctor:
    """Versions, devices, folders, what is not installed and how to get it, and a read against its closed form."""


@dataclass(frozen=True)
class Completion:
    """A script that completes commands and options in a shell: `eval "$(xbm completion bash)"`.

    Args:
        shell: whose.
    """

    shell: Annotated[Literal["bash", "zsh", "tcsh"], tyro.conf.Positional]


Command = (
    Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
    | Annotated[Adapt, tyro.conf.subcommand("adapt")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Cost, tyro.conf.subcommand("cost")]
    | Annotated[Bank, tyro.conf.subcommand("bank")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Watch, tyro.conf.subcommand("watch")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Completion, tyro.conf.subcommand("completion")]
)
