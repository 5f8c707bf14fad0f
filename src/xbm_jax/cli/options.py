"""What the ``xbm`` command takes: a dataclass per command, from which tyro makes options and help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = ["Adapt", "Bank", "BankList", "BankShow", "Command", "Inspect", "Quickstart"]


@dataclass(frozen=True)
class Quickstart:
    """Write a pretrained network onto a chip once, learn three tasks on it, store and serve them.

    Args:
        out: folder for the chip, the bank, results.json, the figure and REPORT.md.
        seed: every random draw follows from it.
        full: also Piggyback and fine-tuning, which rewrite cells.
        source_data: CIFAR-10 as .npz (x_train, y_train, x_test, y_test; uint8 NHWC), for accuracy on it.
    """

    out: Path = Path("runs/quickstart")
    seed: int = 0
    full: bool = False
    source_data: Path | None = None


@dataclass(frozen=True)
class Adapt:
    """Learn a task of your own and put it into a bank.

    Args:
        task: fashion_mnist, quickdraw, omniglot, npz:FILE, folder:DIR or tfds:NAME.
        bank: folder of the bank; its chip lies beside it in <bank>/chip and is programmed on first use.
        name: the task's name in the bank; by default the data's.
        method: head_only, norm_only, xbm, piggyback or finetune.
        norms: norm policy: frozen, affine or full.
        model: backbone.
        weights: .npz, .safetensors, PyTorch state dict or hf://owner/repository/file; by default those that ship.
        rows: word lines of an array.
        adc_bits: converter resolution.
        cell_bits: bits of a cell.
        on_off: ratio of the highest to the lowest conductance.
        programming_sigma: programming error in units of the highest conductance.
        image_size: resize images to this many pixels; by default they stay as they are.
        epochs: passes over the training images.
        batch_size: images per step.
        seed: every random draw follows from it.
    """

    task: str
    bank: Path
    name: str | None = None
    method: str = "xbm"
    norms: Literal["frozen", "affine", "full"] | None = None
    model: str = "cifar-resnet20"
    weights: str | None = None
    rows: int = 64
    adc_bits: int = 8
    cell_bits: int = 7
    on_off: float = 100.0
    programming_sigma: float = 0.01
    image_size: int | None = None
    epochs: int = 10
    batch_size: int = 32
    seed: int = 0


@dataclass(frozen=True)
class Inspect:
    """What each layer of a saved chip does to images: noise, clipping, codes used, what is simulated and why.

    Args:
        chip: folder of the chip, such as <bank>/chip.
        task: whose test images: fashion_mnist, quickdraw, omniglot, npz:FILE, folder:DIR or tfds:NAME.
        images: how many of them, at most.
        image_size: resize images to this many pixels; by default they stay as they are.
        out: folder for inspection.json and inspection.png; by default nothing is written.
        seed: draws read noise.
    """

    chip: Annotated[Path, tyro.conf.Positional]
    task: str
    images: int = 256
    image_size: int | None = None
    out: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class BankList:
    """Tasks of a bank, a line each.

    Args:
        bank: folder of the bank.
    """

    bank: Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class BankShow:
    """The chip of a bank, and everything that was measured of its tasks.

    Args:
        bank: folder of the bank.
        task: one task; by default all of them.
    """

    bank: Annotated[Path, tyro.conf.Positional]
    task: str | None = None


@dataclass(frozen=True)
class Bank:
    """Look into a mask bank."""

    action: Annotated[BankList, tyro.conf.subcommand("list")] | Annotated[BankShow, tyro.conf.subcommand("show")]


Command = (
    Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
    | Annotated[Adapt, tyro.conf.subcommand("adapt")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Bank, tyro.conf.subcommand("bank")]
)
