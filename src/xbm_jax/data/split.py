"""Who is trained on, who is validated on, and in which order: all of it a function of the seed.

Random numbers come from ``Philox(SeedSequence([seed, ...]))``, which is the same on every platform.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xbm_jax.errors import DataError

__all__ = ["epoch_batches", "eval_batches", "generator", "split_validation", "stratified_sample"]


def split_validation(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stratified, seeded split of ``0..n-1`` into (train_idx, val_idx), both int64 and ascending.

    ``round(fraction * n)`` images go to validation, shared out over the classes in proportion (largest remainder), but
    every class keeps at least one training image.

    Raises:
      DataError: fraction outside (0, 1), or too few images for any validation image.
    """
    if not 0.0 < fraction < 1.0:
        raise DataError("fraction", fraction, "a share strictly between 0 and 1")
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    wanted = min(round(fraction * len(labels)), int((counts - 1).sum()))
    if wanted < 1:
        allowed = "enough images for one validation image, while every class keeps one for training"
        raise DataError("fraction", f"{fraction} of {len(labels)} images in {len(classes)} classes", allowed)
    quota = _quota(counts, wanted, low=np.zeros_like(counts), high=counts - 1)
    val = _draw(labels, classes, quota, seed)
    train = np.setdiff1d(np.arange(len(labels)), val, assume_unique=True)
    return train.astype(np.int64), val


def stratified_sample(labels: np.ndarray, size: int, seed: int, *, keep_every_class: bool = True) -> np.ndarray:
    """``size`` ascending int64 indices into ``labels`` that keep the shares of the classes (largest remainder).

    Raises:
      DataError: size beyond the images, or below the number of classes while every class must be kept.
    """
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    least = len(classes) if keep_every_class else 1
    if not least <= size <= len(labels):
        raise DataError("size", size, f"{least}..{len(labels)} (images; each of {len(classes)} classes is kept)")
    low = np.full_like(counts, int(keep_every_class))
    return _draw(labels, classes, _quota(counts, size, low=low, high=counts), seed)


def epoch_batches(n: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Indices of one epoch, int64 ``[steps, batch_size]``: a seeded permutation of ``0..n-1``, the remainder dropped.

    Raises:
      DataError: fewer images than one batch.
    """
    _check_batch_size(batch_size)
    if n < batch_size:
        raise DataError("batch_size", batch_size, f"at most the number of training images, {n}")
    steps = n // batch_size
    order = generator(seed, epoch).permutation(n)[: steps * batch_size]
    return order.astype(np.int64).reshape(steps, batch_size)


def eval_batches(n: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (indices int64 ``[batch_size]``, number valid) that cover ``0..n-1`` in order.

    The last batch is filled up with the last index, so that a compiled function sees one shape; count its first
    ``number valid`` rows alone.
    """
    _check_batch_size(batch_size)
    for start in range(0, n, batch_size):
        indices = np.arange(start, start + batch_size, dtype=np.int64)
        yield np.minimum(indices, n - 1), min(batch_size, n - start)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise DataError("batch_size", batch_size, "at least 1")


def generator(*seeds: int) -> np.random.Generator:
    """Random numbers that follow from whole numbers, the same on every platform."""
    if min(seeds) < 0:
        raise DataError("seed", seeds, "whole numbers from 0")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))


def _quota(counts: np.ndarray, total: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whole numbers near ``total * counts / sum(counts)``, within ``low..high``, that add up to ``total``.

    Starts from the rounded-down shares and moves the class that is furthest off, one image at a time; ties go to the
    first class. ``sum(low) <= total <= sum(high)`` is the caller's duty.
    """
    share = total * counts / counts.sum()
    quota = np.clip(np.floor(share).astype(np.int64), low, high)
    while quota.sum() < total:
        quota[np.argmax(np.where(quota < high, share - quota, -np.inf))] += 1
    while quota.sum() > total:
        quota[np.argmax(np.where(quota > low, quota - share, -np.inf))] -= 1
    return quota


def _draw(labels: np.ndarray, classes: np.ndarray, quota: np.ndarray, seed: int) -> np.ndarray:
    rng = generator(seed)
    rows = [rng.permutation(np.flatnonzero(labels == c))[:q] for c, q in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(rows)).astype(np.int64)
