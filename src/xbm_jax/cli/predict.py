"""``xbm predict``: what a bank's task answers to image files or sentences."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.banks.bank import card_of
from xbm_jax.cli.console import complain, writable
from xbm_jax.cli.options import Predict
from xbm_jax.cli.sentences import sentences_of
from xbm_jax.crossbar.primitives.platforms import here
from xbm_jax.data import Tokenizer, load_tokenizer
from xbm_jax.data.decode import decoded
from xbm_jax.data.folder import image_files
from xbm_jax.data.tokens import bucket
from xbm_jax.errors import BankError, DataError, ModelError
from xbm_jax.examples import take
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
    """What a task says of an input: names of all its classes, and the probability of each."""

    name: str
    classes: list[str]
    probabilities: np.ndarray

    def ranked(self, top: int) -> list[tuple[str, float]]:
        """The likeliest classes and their probabilities."""
        order = np.argsort(-self.probabilities, kind="stable")[:top]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]


class _Batch(NamedTuple):
    """Some inputs that could be read, and what is amiss with the others.

    Attributes:
        names: files, or the sentences themselves.
        inputs: what the network takes.
        pictures: of images, what a contact sheet shows.
    """

    names: Sequence[str]
    inputs: Any
    pictures: Sequence[np.ndarray] = ()
    failed: Sequence[str] = ()


@here()
def predict_command(options: Predict) -> int:
    """Print what a task says of its inputs; 1 where some could not be read, which standard error names, else 0."""
    if options.top < 1:
        raise DataError("--top", options.top, "at least 1")
    for option, path in (("--out", options.out), ("--sheet", options.sheet)):
        if path is not None:
            writable(option, path.parent, path.name)
    if options.chip is None:
        card_of(options.bank)  # is there a bank at all? else the chip within it would be what is missing
    chip = load_chip(options.chip or options.bank / "chip")
    bank = MaskBank.open(options.bank, chip)
    try:
        task = bank.get(options.task)
    except BankError as error:
        raise BankError(f"--task ({error.field})", error.value, error.allowed) from error
    answers: list[_Answer] = []
    thumbnails: list[np.ndarray] = []
    bad = 0
    for batch in (_images if chip.network.inputs is None else _sentences)(options, chip, task):
        bad += len(batch.failed)
        for text in batch.failed:
            complain(text)
        thumbnails += batch.pictures[: max(0, _ON_SHEET - len(thumbnails))] if options.sheet is not None else []
        answers += _answers(chip, task, batch, options.seed, len(answers))
    images = chip.network.inputs is None
    if not answers and images:
        raise DataError("images", f"{bad} files, none of which can be read", "image files, folders of them, patterns")
    if not answers:
        raise DataError("sentences", f"{bad}, all of them empty", "sentences, .txt or .tsv files of them, or -")
    _write(options, answers, "image" if images else "sentence")
    if options.sheet is not None:
        draw_sheet(thumbnails, [_caption(answer) for answer in answers[: len(thumbnails)]], options.sheet)
    return int(bad > 0)


def _images(options: Predict, chip: Chip, task: Task) -> Iterator[_Batch]:
    """The files that were named, those in folders that were named, and those that patterns match, each once."""
    if options.tokenizer is not None:
        raise DataError("--tokenizer", options.tokenizer, f"none: {chip.network.name} takes images")
    files = list(dict.fromkeys(file for text in options.inputs for file in image_files(text)))
    size = _image_size(options, chip, task)
    for start in range(0, len(files), _AT_ONCE):
        names, images, failed = _read(files[start : start + _AT_ONCE], size, chip)
        yield _Batch(names, np.stack(images) if images else None, images, failed)


def _sentences(options: Predict, chip: Chip, task: Task) -> Iterator[_Batch]:
    """The sentences that were given, by the tokenizer that the task was learned with."""
    spec = chip.network.inputs
    if spec is None or spec.structure != jax.tree.structure({"ids": 0, "mask": 0}):
        raise ModelError("chip.network", chip.network.name, "a network of images or sentences; others: xbm.predict")
    for option, given in (("--sheet", options.sheet), ("--image-size", options.image_size)):
        if given is not None:
            raise DataError(option, str(given), f"none: {chip.network.name} takes sentences")
    tokenizer = _tokenizer(options, task.meta.get("tokenizer"))
    sentences, failed = sentences_of(options.inputs)
    ids = tokenizer.tokens(sentences) if sentences else []
    for start in range(0, max(len(sentences), 1), _AT_ONCE):
        own = ids[start : start + _AT_ONCE]
        inputs = tokenizer.padded(own, bucket(max(map(len, own)))) if own else None
        yield _Batch(sentences[start : start + _AT_ONCE], inputs, failed=failed if start == 0 else ())


def _tokenizer(options: Predict, mark: Any) -> Tokenizer:
    """The tokenizer that was named, if it is the task's."""
    known = mark or {}
    if options.tokenizer is None:
        named = f": {known['name']} ({str(known.get('digest'))[:12]})" if known.get("name") else ""
        raise DataError("--tokenizer", None, f"the tokenizer that the task was learned with{named}")
    made = load_tokenizer(options.tokenizer, known.get("max_length") or 512)
    made.check(mark)
    return made


def _image_size(options: Predict, chip: Chip, task: Task) -> int:
    """Pixels a side: as the task's images had them, else as the network's."""
    shape = (task.meta.get("image_shape") or [])[:2]
    size = options.image_size or (shape[0] if len(set(shape)) == 1 else None) or chip.network.image_size
    if not isinstance(size, int) or not 1 <= size <= 4096:
        raise DataError("--image-size", size, "a whole number of pixels, 1..4096")
    return size


def _read(files: Sequence[Path], size: int, chip: Chip) -> tuple[list[str], list[np.ndarray], list[str]]:
    """Names and pixels of the images that can be read, and what is amiss with the others."""
    assert chip.network.preprocess is not None  # it takes images
    names, images, failed = [], [], []
    for file, image in zip(files, decoded(files, size, len(chip.network.preprocess.mean)), strict=True):
        if isinstance(image, str):
            failed.append(f"{file} cannot be read and is left out: {image}")
        else:
            names.append(str(file))
            images.append(image)
    return names, images, failed


def _answers(chip: Chip, task: Task, batch: _Batch, seed: int, first: int) -> Iterator[_Answer]:
    """Answers to a few inputs, in batches of the sizes of a server."""
    classes: list[str] = task.meta.get("class_names") or [str(i) for i in range(task.outputs)]
    for start, size in pieces(len(batch.names), _AT_ONCE):
        own = slice(start, start + size)
        # Making a key takes a cold process as long as answering an image.
        key = stream(jax.random.key(seed), Command.PREDICT, first + start) if chip.noisy else None
        logits = predict(chip, task, take(batch.inputs, own), batch_size=size, key=key)
        for name, row in zip(batch.names[own], _softmax(logits), strict=True):
            yield _Answer(name, classes, row)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _write(options: Predict, answers: Sequence[_Answer], kind: str) -> None:
    as_json = options.format == "json" or (options.format is None and str(options.out).lower().endswith(".json"))
    text = (_as_json if as_json else _as_csv)(options, answers, kind)
    if options.out is None:
        sys.stdout.write(text)
    else:
        replace_file(options.out, text)


def _as_csv(options: Predict, answers: Sequence[_Answer], kind: str) -> str:
    """A line for each input, or for each rank of each where more than one is asked for."""
    buffer, ranked = io.StringIO(), options.top > 1
    writer = csv.writer(buffer, lineterminator="\n")
    header = [kind, *(["rank"] if ranked else []), "class", "probability"]
    writer.writerow(header + [f"p({name})" for name in answers[0].classes if options.probabilities])
    for answer in answers:
        every = [f"{value:.6g}" for value in answer.probabilities] if options.probabilities else []
        for rank, (name, probability) in enumerate(answer.ranked(options.top), start=1):
            row = [answer.name, *([rank] if ranked else []), name, f"{probability:.6g}"]
            writer.writerow(row + every)
    return buffer.getvalue()


def _as_json(options: Predict, answers: Sequence[_Answer], kind: str) -> str:
    def of(answer: _Answer) -> dict[str, Any]:
        ranked = [{"class": name, "probability": round(value, 6)} for name, value in answer.ranked(options.top)]
        found: dict[str, Any] = {kind: answer.name, **ranked[0]}
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
