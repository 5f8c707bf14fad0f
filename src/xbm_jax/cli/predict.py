"""``xbm predict``: what a bank's task answers to image files."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.cli.console import complain, writable
from xbm_jax.cli.options import Predict
from xbm_jax.data.decode import decoded
from xbm_jax.data.folder import image_files
from xbm_jax.errors import BankError, DataError, ModelError
from xbm_jax.models import Chip
from xbm_jax.report.sheet import draw_sheet
from xbm_jax.serving.programs import pieces
from xbm_jax.storage.files import replace_file
from xbm_jax.streams import Command, stream
from xbm_jax.tasks import Task, predict

__all__ = ["predict_command"]

_AT_ONCE = 64
_ON_SHEET = 100
"""Images that a contact sheet shows; of more than these the first."""


@dataclass(frozen=True)
class _Answer:
    """What a task says of an image: names of all its classes, and the probability of each."""

    image: str
    classes: list[str]
    probabilities: np.ndarray

    def ranked(self, top: int) -> list[tuple[str, float]]:
        """The likeliest classes and their probabilities."""
        order = np.argsort(-self.probabilities, kind="stable")[:top]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]


def predict_command(options: Predict) -> int:
    """Print what a task says of images; 1 where some could not be read, which standard error names, else 0."""
    if options.top < 1:
        raise DataError("--top", options.top, "at least 1")
    for option, path in (("--out", options.out), ("--sheet", options.sheet)):
        if path is not None:
            writable(option, path.parent, path.name)
    files = _files(options.images)
    chip = load_chip(options.chip or options.bank / "chip")
    bank = MaskBank.open(options.bank, chip)
    try:
        task = bank.get(options.task)
    except BankError as error:
        raise BankError(f"--task ({error.field})", error.value, error.allowed) from error
    size = _image_size(options, chip, task)
    answers: list[_Answer] = []
    thumbnails: list[np.ndarray] = []
    bad = 0
    for start in range(0, len(files), _AT_ONCE):
        names, images, failed = _read(files[start : start + _AT_ONCE], size, chip)
        bad += len(failed)
        for text in failed:
            complain(text)
        thumbnails += images[: max(0, _ON_SHEET - len(thumbnails))] if options.sheet is not None else []
        answers += _answers(chip, task, names, images, options.seed, len(answers))
    if not answers:
        raise DataError("images", f"{bad} files, none of which can be read", "image files, folders of them, patterns")
    _write(options, answers)
    if options.sheet is not None:
        draw_sheet(thumbnails, [_caption(answer) for answer in answers[: len(thumbnails)]], options.sheet)
    return int(bad > 0)


def _files(given: Sequence[str]) -> list[Path]:
    """The files that were named, those in folders that were named, and those that patterns match, each once."""
    return list(dict.fromkeys(file for text in given for file in image_files(text)))


def _image_size(options: Predict, chip: Chip, task: Task) -> int:
    """Pixels a side: as the task's images had them, else as the network's."""
    if chip.network.preprocess is None:
        raise ModelError("chip.network", chip.network.name, "a network that takes images; others: xbm.predict")
    shape = task.meta.get("image_shape", [])[:2]
    size = options.image_size or (shape[0] if len(set(shape)) == 1 else None) or chip.network.image_size
    if not isinstance(size, int) or not 1 <= size <= 4096:
        raise DataError("--image-size", size, "a whole number of pixels, 1..4096")
    return size


def _read(files: Sequence[Path], size: int, chip: Chip) -> tuple[list[str], list[np.ndarray], list[str]]:
    """Names and pixels of the images that can be read, and what is amiss with the others."""
    assert chip.network.preprocess is not None  # checked
    names, images, failed = [], [], []
    for file, image in zip(files, decoded(files, size, len(chip.network.preprocess.mean)), strict=True):
        if isinstance(image, str):
            failed.append(f"{file} cannot be read and is left out: {image}")
        else:
            names.append(str(file))
            images.append(image)
    return names, images, failed


def _answers(
    chip: Chip, task: Task, names: Sequence[str], images: Sequence[np.ndarray], seed: int, first: int
) -> Iterator[_Answer]:
    """Answers to a few images, in batches of the sizes of a server."""
    classes: list[str] = task.meta.get("class_names") or [str(i) for i in range(task.outputs)]
    for start, size in pieces(len(images), _AT_ONCE):
        own = names[start : start + size]
        key = stream(jax.random.key(seed), Command.PREDICT, first + start) if _is_noisy(chip) else None
        logits = predict(chip, task, np.stack(images[start : start + size]), batch_size=size, key=key)
        for name, row in zip(own, _softmax(logits), strict=True):
            yield _Answer(name, classes, row)


def _is_noisy(chip: Chip) -> bool:
    """Whether reads need a key; making one takes a cold process as long as answering an image."""
    return any(t.read_variance is not None or t.plan.spec.adc.noise_lsb > 0 for t in chip.tiles.values())


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _write(options: Predict, answers: Sequence[_Answer]) -> None:
    as_json = options.format == "json" or (options.format is None and str(options.out).lower().endswith(".json"))
    text = (_as_json if as_json else _as_csv)(options, answers)
    if options.out is None:
        sys.stdout.write(text)
    else:
        replace_file(options.out, text)


def _as_csv(options: Predict, answers: Sequence[_Answer]) -> str:
    """A line for each image, or for each rank of each image where more than one is asked for."""
    buffer, ranked = io.StringIO(), options.top > 1
    writer = csv.writer(buffer, lineterminator="\n")
    header = ["image", *(["rank"] if ranked else []), "class", "probability"]
    writer.writerow(header + [f"p({name})" for name in answers[0].classes if options.probabilities])
    for answer in answers:
        every = [f"{value:.6g}" for value in answer.probabilities] if options.probabilities else []
        for rank, (name, probability) in enumerate(answer.ranked(options.top), start=1):
            row = [answer.image, *([rank] if ranked else []), name, f"{probability:.6g}"]
            writer.writerow(row + every)
    return buffer.getvalue()


def _as_json(options: Predict, answers: Sequence[_Answer]) -> str:
    def of(answer: _Answer) -> dict[str, Any]:
        ranked = [{"class": name, "probability": round(value, 6)} for name, value in answer.ranked(options.top)]
        found: dict[str, Any] = {"image": answer.image, **ranked[0]}
        if options.top > 1:
            found["top"] = ranked
        if options.probabilities:
            every = zip(answer.classes, answer.probabilities, strict=True)
            found["probabilities"] = {name: round(float(value), 6) for name, value in every}
        return found

    return json.dumps([of(answer) for answer in answers], indent=1, ensure_ascii=False) + "\n"


def _caption(answer: _Answer) -> str:
    ((name, probability),) = answer.ranked(1)
    return f"{name} {probability:.0%}"
