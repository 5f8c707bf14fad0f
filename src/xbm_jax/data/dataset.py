"""One task as its training and test examples, checked once so that nothing downstream has to."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np

from xbm_jax.crossbar.validate import check_choice
from xbm_jax.data.split import stratified_sample
from xbm_jax.data.streamed import Streamed
from xbm_jax.errors import DataError
from xbm_jax.examples import check_alike, check_arrays, check_targets, chosen, count
from xbm_jax.pixels import IMAGES, check_uint8, warn_if_binary

__all__ = ["Dataset", "check_images", "check_label_range", "check_labels", "class_text"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test examples of one task: images and labels, or (``kind="arrays"``) any arrays.

    Images: ``x_*`` uint8 ``[n, H, W, C]`` with C = 1 or 3 and the same H, W, C in both splits; ``y_*`` int64 ``[n]``
    with values ``0..num_classes - 1`` (any integer dtype is accepted and widened). Every class occurs in the training
    split; the test split may lack some. ``licence`` is an SPDX expression where one is known.

    ``class_names``: at least two, text or UTF-8 bytes, kept in Unicode's composed form (NFC), so that two names which
    look alike are one. ``groups``: perhaps an integer per training image, equal for those that must not be divided
    between training and validation (frames of one track, pictures of one object).

    Arrays: ``x_*`` is a pytree of arrays with a leading axis of examples, of one structure, shapes and dtypes in both
    splits; ``y_*`` one array with that axis. With ``class_names`` targets are labels as above, without any they are
    what the task's objective takes.

    ``tokenizer``: what made token ids of sentences (:attr:`xbm_jax.data.Tokenizer.mark`); a task's ``meta`` keeps it.

    Images may stay on disk (``load(..., stream=True)``): ``x_*`` is then a :class:`~xbm_jax.data.Streamed`.

    A split without a pixel above 1 is warned of: binary images that were not brought to 0 and 255 are black on black.

    Raises:
      DataError: names the array, what it holds and what is allowed.
    """

    name: str
    x_train: Any
    y_train: np.ndarray
    x_test: Any
    y_test: np.ndarray
    class_names: tuple[str, ...] = ()
    licence: str = "unknown"
    attribution: str = "unknown"
    groups: np.ndarray | None = None
    kind: Literal["images", "arrays"] = "images"
    tokenizer: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        names = tuple(map(class_text, self.class_names))
        object.__setattr__(self, "class_names", names)
        check_choice("Dataset.kind", self.kind, ("images", "arrays"))
        if self.kind == "images" or names:
            _check_class_names(names)
        for split in ("train", "test"):
            x, y = getattr(self, f"x_{split}"), getattr(self, f"y_{split}")
            x = self._images(split, x) if self.kind == "images" else check_arrays(f"x_{split}", x)
            y = self._labels(split, y, count(x)) if names else check_targets(f"y_{split}", y, f"x_{split}", count(x))
            object.__setattr__(self, f"x_{split}", x)
            object.__setattr__(self, f"y_{split}", y)
        check_alike(self.x_train, self.x_test)
        if names:
            _check_every_class("y_train", self.y_train, names)
        if self.groups is not None:
            object.__setattr__(self, "groups", _check_groups(self.groups, len(self.y_train)))

    def _images(self, split: str, x: np.ndarray) -> np.ndarray:
        x = check_images(f"x_{split}", x)
        if not isinstance(x, Streamed):
            warn_if_binary(f"{self.name}: x_{split}", x)
        return x

    def _labels(self, split: str, y: np.ndarray, examples: int) -> np.ndarray:
        y = check_labels(f"y_{split}", y, f"x_{split}", examples)
        check_label_range(f"y_{split}", y, len(self.class_names))
        return y

    def __repr__(self) -> str:
        """What there is, without its numbers: ``Dataset(fashion_mnist: 2400 to learn from, ...)``."""
        of = jax.tree.map(lambda x: list(x.shape[1:]), self.x_train)
        targets = f"{self.num_classes} classes" if self.class_names else f"targets {list(self.y_train.shape[1:])}"
        return f"Dataset({self.name}: {len(self.y_train)} to learn from, {len(self.y_test)} to test, {of}, {targets})"

    @property
    def strata(self) -> np.ndarray:
        """What splits keep the shares of, int [n]: the training labels, or one number for all where there are none."""
        return self.y_train if self.class_names else np.zeros(len(self.y_train), np.int64)

    @property
    def num_classes(self) -> int:
        """Number of classes, those that the test split lacks included."""
        return len(self.class_names)

    def subset(self, train: int, test: int, seed: int = 0) -> Dataset:
        """A seeded sub-sample of ``train`` + ``test`` images that keeps the shares of the classes.

        Every class keeps at least one training image. Raises DataError if a split has fewer images than asked for.
        """
        for field, size, available in (("train", train, len(self.y_train)), ("test", test, len(self.y_test))):
            if not 1 <= size <= available:
                raise DataError(f"subset.{field}", size, f"1..{available}, the images that {self.name} has")
        of_test = self.y_test if self.class_names else np.zeros(len(self.y_test), np.int64)
        rows = stratified_sample(self.strata, train, seed)
        test_rows = stratified_sample(of_test, test, seed, keep_every_class=False, number=1)
        return replace(
            self,
            x_train=chosen(self.x_train, rows),
            y_train=self.y_train[rows],
            groups=None if self.groups is None else self.groups[rows],
            x_test=chosen(self.x_test, test_rows),
            y_test=self.y_test[test_rows],
        )

    def take_classes(self, names: Sequence[str]) -> Dataset:
        """The images of the named classes alone, labelled ``0..len(names) - 1`` in the order given."""
        names, place = tuple(map(class_text, names)), {name: i for i, name in enumerate(self.class_names)}
        unknown = [name for name in names if name not in place]
        if unknown:
            raise DataError("class_names", unknown, f"classes of {self.name}: {', '.join(self.class_names)}")
        new_label = np.full(self.num_classes, -1, np.int64)
        new_label[[place[name] for name in names]] = np.arange(len(names))
        y_train, y_test = new_label[self.y_train], new_label[self.y_test]
        keep, keep_test = y_train >= 0, y_test >= 0
        return replace(
            self,
            x_train=chosen(self.x_train, keep),
            y_train=y_train[keep],
            x_test=chosen(self.x_test, keep_test),
            y_test=y_test[keep_test],
            class_names=names,
            groups=None if self.groups is None else self.groups[keep],
        )


def check_images(field: str, images: np.ndarray) -> np.ndarray:
    """Return ``images`` as an array if it is uint8 ``[n, H, W, 1 or 3]`` and not empty; else raise DataError."""
    if isinstance(images, Streamed):  # of that form wherever it comes from
        return images  # type: ignore[return-value]  # it is indexed as an array is
    images = np.asarray(images)
    check_uint8(field, images)
    if images.ndim != 4:
        hint = "; grey images need a channel axis, x[..., None]" if images.ndim == 3 else ""
        raise DataError(f"{field}.shape", images.shape, IMAGES + hint)
    if images.shape[-1] not in (1, 3):
        hint = "; channels come last, use x.transpose(0, 2, 3, 1)" if images.shape[1] in (1, 3) else ""
        raise DataError(f"{field} channels", images.shape[-1], IMAGES + hint)
    if images.size == 0:
        raise DataError(f"{field}.shape", images.shape, "at least one image, of at least one pixel")
    return images


def check_labels(field: str, labels: np.ndarray, images_field: str, num_images: int) -> np.ndarray:
    """Return ``labels`` as int64 ``[num_images]`` if they are integers of that shape; else raise DataError."""
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        allowed = f"integer class numbers, 0..num_classes - 1{_LABEL_HINTS.get(labels.dtype.kind, '')}"
        raise DataError(f"{field}.dtype", str(labels.dtype), allowed)
    if labels.ndim != 1:
        hint = "; use labels[:, 0]" if labels.ndim == 2 and labels.shape[1] == 1 else ", not one-hot"
        raise DataError(f"{field}.shape", labels.shape, f"one class number per image, [n]{hint}")
    if len(labels) != num_images:
        raise DataError(f"len({field})", len(labels), f"{num_images}, the number of images in {images_field}")
    if labels.dtype == np.uint64 and labels.size and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(field, int(labels.max()), "0..num_classes - 1")  # beyond int64 it would turn negative
    return labels.astype(np.int64, copy=False)


_LABEL_HINTS = {
    **dict.fromkeys("USO", "; names, labels = np.unique(labels, return_inverse=True) numbers them"),
    **dict.fromkeys("fb", "; labels.astype(int) if they are whole numbers"),
}


def class_text(name: Any) -> str:
    """A class name as text: bytes are UTF-8, and what looks alike is written alike (NFC)."""
    if isinstance(name, bytes):
        try:
            name = name.decode()
        except UnicodeDecodeError as error:
            raise DataError("class_names", name, "text, or bytes in UTF-8") from error
    return unicodedata.normalize("NFC", str(name))


def _check_groups(groups: np.ndarray, num_images: int) -> np.ndarray:
    groups = np.asarray(groups)
    if groups.shape != (num_images,) or not np.issubdtype(groups.dtype, np.integer):
        allowed = f"one integer per training image, [{num_images}]"
        raise DataError("groups", f"{groups.dtype}{list(groups.shape)}", allowed)
    return groups.astype(np.int64, copy=False)


def _check_class_names(names: tuple[str, ...]) -> None:
    if len(names) < 2:
        raise DataError("class_names", names, "at least two classes: there is nothing to tell apart")
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise DataError("class_names", repeated, "every name once")


def check_label_range(field: str, labels: np.ndarray, num_classes: int) -> None:
    """Raise DataError unless all labels lie in ``0..num_classes - 1``; names those that do not."""
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        values, counts = np.unique(outside, return_counts=True)
        found = ", ".join(f"{v} ({c} times)" for v, c in zip(values, counts, strict=True))
        hint = "; these start at 1: use labels - 1" if labels.min() == 1 and labels.max() == num_classes else ""
        raise DataError(field, found, f"0..{num_classes - 1}, as there are {num_classes} classes{hint}")


def _check_every_class(field: str, labels: np.ndarray, names: tuple[str, ...]) -> None:
    counts = np.bincount(labels, minlength=len(names))
    missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if missing:
        raise DataError(field, missing, "at least one training image of every class; these have none")
