"""One image-classification task as four arrays, checked once so that nothing downstream has to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xbm_jax.data.split import stratified_sample
from xbm_jax.errors import DataError

__all__ = ["Dataset", "check_images", "check_label_range", "check_labels"]

_IMAGES = "uint8 images in 0..255 of shape [n, height, width, channels] with 1 or 3 channels"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images of one task.

    Shapes: ``x_*`` uint8 ``[n, H, W, C]`` with C = 1 or 3 and the same H, W, C in both splits; ``y_*`` int64 ``[n]``
    with values ``0..num_classes - 1`` (any integer dtype is accepted and widened). Every class occurs in the training
    split; the test split may lack some. ``licence`` is an SPDX expression where one is known.

    Raises:
      DataError: names the array, what it holds and what is allowed.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    licence: str = "unknown"
    attribution: str = "unknown"

    def __post_init__(self) -> None:
        names = tuple(str(name) for name in self.class_names)
        _check_class_names(names)
        for split in ("train", "test"):
            x = check_images(f"x_{split}", getattr(self, f"x_{split}"))
            y = check_labels(f"y_{split}", getattr(self, f"y_{split}"), f"x_{split}", len(x))
            check_label_range(f"y_{split}", y, len(names))
            object.__setattr__(self, f"x_{split}", x)
            object.__setattr__(self, f"y_{split}", y)
        object.__setattr__(self, "class_names", names)
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            allowed = f"the shape of the training images, {self.x_train.shape[1:]}"
            raise DataError("x_test.shape[1:]", self.x_test.shape[1:], allowed)
        _check_every_class("y_train", self.y_train, names)

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
        rows = stratified_sample(self.y_train, train, seed)
        test_rows = stratified_sample(self.y_test, test, seed, keep_every_class=False)
        return replace(
            self,
            x_train=self.x_train[rows],
            y_train=self.y_train[rows],
            x_test=self.x_test[test_rows],
            y_test=self.y_test[test_rows],
        )

    def take_classes(self, names: Sequence[str]) -> Dataset:
        """The images of the named classes alone, labelled ``0..len(names) - 1`` in the order given."""
        unknown = [name for name in names if name not in self.class_names]
        if unknown:
            raise DataError("class_names", unknown, f"classes of {self.name}: {', '.join(self.class_names)}")
        new_label = np.full(self.num_classes, -1, np.int64)
        new_label[[self.class_names.index(name) for name in names]] = np.arange(len(names))
        y_train, y_test = new_label[self.y_train], new_label[self.y_test]
        keep, keep_test = y_train >= 0, y_test >= 0
        return replace(
            self,
            x_train=self.x_train[keep],
            y_train=y_train[keep],
            x_test=self.x_test[keep_test],
            y_test=y_test[keep_test],
            class_names=tuple(names),
        )


def check_images(field: str, images: np.ndarray) -> np.ndarray:
    """Return ``images`` as an array if it is uint8 ``[n, H, W, 1 or 3]`` and not empty; else raise DataError."""
    images = np.asarray(images)
    if np.issubdtype(images.dtype, np.inexact):
        _refuse_real(field, images)
    if images.dtype != np.uint8:
        raise DataError(f"{field}.dtype", str(images.dtype), _IMAGES)
    if images.ndim != 4:
        hint = "; grey images need a channel axis, x[..., None]" if images.ndim == 3 else ""
        raise DataError(f"{field}.shape", images.shape, _IMAGES + hint)
    if images.shape[-1] not in (1, 3):
        hint = "; channels come last, use x.transpose(0, 2, 3, 1)" if images.shape[1] in (1, 3) else ""
        raise DataError(f"{field} channels", images.shape[-1], _IMAGES + hint)
    if images.size == 0:
        raise DataError(f"{field}.shape", images.shape, "at least one image, of at least one pixel")
    return images


def check_labels(field: str, labels: np.ndarray, images_field: str, num_images: int) -> np.ndarray:
    """Return ``labels`` as int64 ``[num_images]`` if they are integers of that shape; else raise DataError."""
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{field}.dtype", str(labels.dtype), "integer class numbers, 0..num_classes - 1")
    if labels.ndim != 1:
        raise DataError(f"{field}.shape", labels.shape, "one class number per image, [n], not one-hot")
    if len(labels) != num_images:
        raise DataError(f"len({field})", len(labels), f"{num_images}, the number of images in {images_field}")
    return labels.astype(np.int64, copy=False)


def _refuse_real(field: str, images: np.ndarray) -> None:
    broken = ~np.isfinite(images)
    if broken.any():
        count = int(broken.reshape(len(images), -1).any(axis=1).sum()) if images.ndim else 1
        value = f"{images.dtype} with NaN or infinity in {count} of {len(images) if images.ndim else 1} images"
        raise DataError(field, value, f"{_IMAGES}; repair the source of these values first")
    hint = "for pixels in 0..1 use np.round(x * 255).astype(np.uint8)"
    allowed = f"{_IMAGES}; real-valued pixels are not rescaled by guess, {hint}"
    raise DataError(f"{field}.dtype", str(images.dtype), allowed)


def _check_class_names(names: tuple[str, ...]) -> None:
    if not names:
        raise DataError("class_names", names, "at least one class")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError("class_names", repeated, "every name once")


def check_label_range(field: str, labels: np.ndarray, num_classes: int) -> None:
    """Raise DataError unless all labels lie in ``0..num_classes - 1``; names those that do not."""
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        values, counts = np.unique(outside, return_counts=True)
        found = ", ".join(f"{v} ({c} times)" for v, c in zip(values, counts, strict=True))
        raise DataError(field, found, f"0..{num_classes - 1}, as there are {num_classes} classes")


def _check_every_class(field: str, labels: np.ndarray, names: tuple[str, ...]) -> None:
    counts = np.bincount(labels, minlength=len(names))
    missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if missing:
        raise DataError(field, missing, "at least one training image of every class; these have none")
