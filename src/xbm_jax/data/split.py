"""Who is trained on, who is validated on, and in which order: all of it a function of the seed.

Every use has a stream of the seed of its own (:mod:`xbm_jax.streams`), the same on every platform.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np

from xbm_jax.errors import DataError
from xbm_jax.streams import Host, generator

__all__ = ["epoch_batches", "eval_batches", "split_test", "split_validation", "stratified_sample"]


def split_validation(
    labels: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Stratified, seeded split of ``0..n-1`` into (train_idx, val_idx), both int64 and ascending.

    ``round(fraction * n)`` images go to validation, shared out over the classes in proportion (largest remainder), but
    every class keeps at least one training image.

    With ``groups`` (int [n]: frames of one track, pictures of one object) no group is on both sides: near copies of
    training images would be recognised, not classified. Groups are visited in a random order; one goes to validation
    if that brings the classes' counts nearer to the shares above (in sum of absolute differences), and if every class
    of its keeps a training image. A class that is one group whole thus stays in training.

    Raises:
      DataError: fraction outside (0, 1), too few images (or groups) for any validation image, or other than one group
        per image.
    """
    return _split(labels, fraction, generator(seed, Host.VALIDATION_SPLIT), groups)


def split_test(
    labels: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`split_validation`, for sources without test images of their own: (train_idx, test_idx)."""
    return _split(labels, fraction, generator(seed, Host.TEST_SPLIT), groups)


def stratified_sample(
    labels: np.ndarray, size: int, seed: int, *, keep_every_class: bool = True, number: int = 0
) -> np.ndarray:
    """``size`` ascending int64 indices into ``labels`` that keep the shares of the classes (largest remainder).

    Args:
      number: tells several samples of one seed apart.

    Raises:
      DataError: size beyond the images, or below the number of classes while every class must be kept.
    """
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    least = len(classes) if keep_every_class else 1
    if not least <= size <= len(labels):
        raise DataError("size", size, f"{least}..{len(labels)} (images; each of {len(classes)} classes is kept)")
    low = np.full_like(counts, int(keep_every_class))
    return _draw(labels, _quota(counts, size, low=low, high=counts), generator(seed, Host.SAMPLE, number))


def epoch_batches(n: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Indices of one epoch, int64 ``[steps, batch_size]``: a seeded permutation of ``0..n-1``, the remainder dropped.

    Raises:
      DataError: fewer images than one batch.
    """
    _check_batch_size(batch_size)
    if n < batch_size:
        raise DataError("batch_size", batch_size, f"at most the number of training images, {n}")
    steps = n // batch_size
    order = generator(seed, Host.ORDER, epoch).permutation(n)[: steps * batch_size]
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


def _split(
    labels: np.ndarray, fraction: float, rng: np.random.Generator, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    if not 0.0 < fraction < 1.0:
        raise DataError("fraction", fraction, "a share strictly between 0 and 1")
    labels = np.asarray(labels)
    classes, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    wanted = min(round(fraction * len(labels)), int((counts - 1).sum()))
    if wanted < 1:
        allowed = "enough images for one of the second part, while every class keeps one for training"
        raise DataError("fraction", f"{fraction} of {len(labels)} images in {len(classes)} classes", allowed)
    quota = _quota(counts, wanted, low=np.zeros_like(counts), high=counts - 1)
    chosen = _draw(labels, quota, rng) if groups is None else _draw_groups(labels, quota, rng, np.asarray(groups))
    if groups is not None and not len(chosen):
        value = f"{fraction} of {len(labels)} images in {len(np.unique(groups))} groups"
        raise DataError("fraction", value, "a share that whole groups come near to: larger, or smaller groups")
    train = np.setdiff1d(np.arange(len(labels)), chosen, assume_unique=True)
    return train.astype(np.int64), chosen


def _quota(counts: np.ndarray, total: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whole numbers near ``total * counts / sum(counts)``, within ``low..high``, that add up to ``total``.

    Starts from the rounded-down shares and moves the class that is furthest off, one image at a time; ties go to the
    first class. ``sum(low) <= total <= sum(high)`` is the caller's duty.
    """
    share = total * counts / counts.sum()
    quota = np.clip(np.floor(share).astype(np.int64), low, high)
    step = 1 if quota.sum() < total else -1
    limit = high if step == 1 else low
    furthest = [(step * (quota[c] - share[c]), c) for c in np.flatnonzero(quota != limit)]
    heapq.heapify(furthest)
    for _ in range(abs(total - int(quota.sum()))):
        c = furthest[0][1]
        quota[c] += step
        if quota[c] == limit[c]:
            heapq.heappop(furthest)
        else:
            heapq.heapreplace(furthest, (step * (quota[c] - share[c]), c))
    return quota


def _draw(labels: np.ndarray, quota: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ascending indices of ``quota`` images of each class, the classes in ascending order."""
    rows = [rng.permutation(members)[:q] for members, q in zip(_members(labels), quota, strict=True)]
    return np.sort(np.concatenate(rows)).astype(np.int64)


def _draw_groups(labels: np.ndarray, quota: np.ndarray, rng: np.random.Generator, groups: np.ndarray) -> np.ndarray:
    """Ascending indices of whole groups that come near to ``quota`` images of each class ``0..len(quota) - 1``."""
    if groups.shape != labels.shape:
        raise DataError("groups.shape", groups.shape, f"one group per image, {labels.shape}")
    left, taken, members = np.bincount(labels), np.zeros_like(quota), _members(groups)
    chosen = [np.zeros(0, np.int64)]
    for i in rng.permutation(len(members)):
        own, count = np.unique(labels[members[i]], return_counts=True)
        missing = quota[own] - taken[own]
        if np.abs(missing - count).sum() < np.abs(missing).sum() and (count < left[own]).all():
            taken[own] += count
            left[own] -= count
            chosen.append(members[i])
    return np.sort(np.concatenate(chosen))


def _members(numbers: np.ndarray) -> list[np.ndarray]:
    """Ascending indices of each value of ``numbers``, the values in ascending order."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order])) + 1
    return np.split(order.astype(np.int64), starts)
