"""A task of sentences in ``.tsv`` files: one example a line, ``label<TAB>sentence``."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xbm_jax.data.dataset import Dataset
from xbm_jax.data.decode import check_on_bad
from xbm_jax.data.split import split_test
from xbm_jax.data.tokens import Tokenizer, bucket
from xbm_jax.errors import DataError, warn

__all__ = ["load_tsv"]

_FORM = "label<TAB>sentence on every line"
_SHOWN = 3
_TEST_FRACTION = 0.2


class _Example(NamedTuple):
    label: str
    sentence: str
    where: str


def load_tsv(
    path: Path, tokenizer: Tokenizer, *, seed: int = 0, encoding: str = "utf-8", on_bad: str = "raise"
) -> Dataset:
    """A task of arrays ``{"ids", "mask"}``, see :mod:`xbm_jax.data.tokens`; both splits are padded to one length.

    Labels are whole numbers, which then stand in their order, or names, in that of the alphabet. Empty lines at the
    end do not count.

    Args:
        path: ``NAME.train.tsv`` or ``NAME``, where ``NAME.train.tsv`` and ``NAME.test.tsv`` lie side by side; any other
            file is split 80/20, stratified, by the seed.
        encoding: of the file; a byte order mark is left out.
        on_bad: "raise" or "skip" for lines without a tab, a label or a sentence.

    Raises:
        DataError: no such file, an unknown encoding or another than the file's, bad lines (counted, the first ones
            named), names among numbers, fewer than two labels, or test labels that training lacks.
    """
    check_on_bad(on_bad)
    train_file, test_file = _files(path)
    train = _examples(train_file, encoding, on_bad)
    test = [] if test_file is None else _examples(test_file, encoding, on_bad)
    names, labels = _numbered(path, [*train, *test])
    tokens = tokenizer.tokens([example.sentence for example in (*train, *test)])
    x = tokenizer.padded(tokens, bucket(max(map(len, tokens))))
    if test:
        rows = np.arange(len(train)), np.arange(len(train), len(labels))
    else:
        rows = split_test(labels, _TEST_FRACTION, seed)
    (x_train, y_train), (x_test, y_test) = (({k: a[i] for k, a in x.items()}, labels[i]) for i in rows)
    name, how = train_file.name.partition(".")[0], {"kind": "arrays", "tokenizer": tokenizer.mark}
    return Dataset(name, x_train, y_train, x_test, y_test, names, **how)


def _files(path: Path) -> tuple[Path, Path | None]:
    """The training file and, if there is one, that of the test split."""
    stem = path.with_name(path.name.removesuffix(".train.tsv"))
    train, test = (stem.with_name(f"{stem.name}.{split}.tsv") for split in ("train", "test"))
    if train.is_file() and test.is_file() and path in (train, stem):
        return train, test
    if not path.is_file():
        raise DataError(f"tsv:{path}", "no such file", f"a file with {_FORM}, or {train.name} and {test.name}")
    return path, None


def _examples(path: Path, encoding: str, on_bad: str) -> list[_Example]:
    """The lines of a file that are whole."""
    text = _text(path, encoding).rstrip()
    lines = text.split("\n") if text else []  # of Unicode's other line ends some stand within sentences
    found, bad = [], []
    for number, line in enumerate(lines, start=1):
        label, _, sentence = (part.strip() for part in line.partition("\t"))
        if label and sentence:
            found.append(_Example(label, sentence, f"{path.name}, line {number}"))
        else:
            bad.append(f"{path.name}, line {number}: {_fault(line)}")
    said = "; ".join(bad[:_SHOWN]) + (f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")
    if bad and on_bad == "raise":
        raise DataError(f"tsv:{path}", said, f"{_FORM}; on_bad='skip' leaves others out")
    if bad:
        warn(f"{len(bad)} of {len(lines)} lines left out: {said}")
    if not found:
        raise DataError(f"tsv:{path}", "no examples", _FORM)
    return found


def _fault(line: str) -> str:
    if not line.strip():
        return "empty"
    if "\t" not in line:
        return f"no tab in {line[:40]!r}"
    return "no sentence" if line.split("\t")[0].strip() else "no label"


def _text(path: Path, encoding: str) -> str:
    try:
        name = codecs.lookup(encoding).name
    except LookupError as error:
        raise DataError("encoding", encoding, "one that Python knows, such as utf-8 or latin-1") from error
    try:
        return path.read_bytes().decode("utf-8-sig" if name == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        value = f"byte {error.start} is none of {encoding} ({error.reason})"
        raise DataError(f"tsv:{path}", value, "a file in that encoding; name another one by encoding=") from error


def _numbered(path: Path, examples: list[_Example]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes, in order, and each example's number."""
    odd = next((e for e in examples if _is_fraction(e.label) and not _is_number(e.label)), None)
    if odd is not None:
        raise DataError(f"tsv:{path}", f"label {odd.label!r} ({odd.where})", "whole numbers, or names")
    numbers = [example for example in examples if _is_number(example.label)]
    names = [example for example in examples if not _is_number(example.label)]
    if numbers and names:
        odd = min(numbers, names, key=len)[0]
        allowed = "whole numbers on all lines, or names on all; a line of headings is none of them"
        raise DataError(f"tsv:{path}", f"label {odd.label!r} ({odd.where})", allowed)
    classes = sorted({example.label for example in examples}, key=int if numbers else str)
    place = {name: i for i, name in enumerate(classes)}
    return tuple(classes), np.array([place[example.label] for example in examples], np.int64)


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()


def _is_fraction(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
