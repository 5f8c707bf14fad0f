"""Splits and batches are functions of the seed and lose nobody."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbm_jax.data import epoch_batches, eval_batches, split_test, split_validation, stratified_sample
from xbm_jax.errors import DataError

class_counts = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def labels_of(counts, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


@given(counts=class_counts, fraction=st.floats(0.05, 0.95), seed=st.integers(0, 2**32))
def test_split_is_a_partition_that_keeps_every_class(counts, fraction, seed):
    labels = labels_of(counts)
    wanted = min(round(fraction * len(labels)), len(labels) - len(counts))
    if wanted < 1:
        with pytest.raises(DataError, match="fraction"):
            split_validation(labels, fraction, seed)
        return
    train, val = split_validation(labels, fraction, seed)
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(len(labels)))
    assert len(val) == wanted
    assert (np.bincount(labels[train], minlength=len(counts)) >= 1).all()


@given(count=st.integers(2, 60), classes=st.integers(1, 6), fraction=st.floats(0.1, 0.5), seed=st.integers(0, 999))
def test_split_takes_the_same_share_of_equal_classes(count, classes, fraction, seed):
    labels = labels_of([count] * classes)
    if round(fraction * len(labels)) < 1:
        return
    _, val = split_validation(labels, fraction, seed)
    taken = np.bincount(labels[val], minlength=classes)
    assert taken.max() - taken.min() <= 1


def test_split_leaves_the_only_image_of_a_class_to_training():
    labels = labels_of([1, 40, 1])
    train, val = split_validation(labels, 0.95, 0)
    assert np.bincount(labels[train]).tolist() == [1, 1, 1]
    assert len(val) == 39


def test_split_depends_on_the_seed_alone():
    labels = labels_of([30, 30])
    first, again, other = (split_validation(labels, 0.2, seed)[1].tolist() for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_split_fraction_out_of_range(fraction):
    with pytest.raises(DataError, match="between 0 and 1"):
        split_validation(np.array([0, 0, 1, 1]), fraction, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Groups


@given(
    counts=st.lists(st.integers(4, 40), min_size=1, max_size=5),
    size=st.integers(1, 9),
    crossing=st.booleans(),
    fraction=st.floats(0.1, 0.6),
    seed=st.integers(0, 99),
)
def test_no_group_is_on_both_sides(counts, size, crossing, fraction, seed):
    """Groups within the classes or across them; every class keeps a training image; shares are met within a group."""
    labels = labels_of(counts)
    order = np.arange(len(labels)) if crossing else np.argsort(labels, kind="stable")
    groups = np.empty(len(labels), int)
    groups[order] = np.arange(len(labels)) // size
    if not crossing:
        groups = groups * len(counts) + labels
    try:
        train, val = split_validation(labels, fraction, seed, groups)
    except DataError:  # no group is small enough
        assert size > 1 or round(fraction * len(labels)) < 1
        return
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(len(labels)))
    assert not set(groups[train]) & set(groups[val])
    assert (np.bincount(labels[train], minlength=len(counts)) >= 1).all()
    if not crossing:  # a class gets at most half a group too much
        share = fraction * np.array(counts)
        assert (np.bincount(labels[val], minlength=len(counts)) < share + 1 + size / 2).all()


@given(counts=class_counts, fraction=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_groups_of_one_image_are_split_as_evenly_as_images(counts, fraction, seed):
    labels = labels_of(counts)
    if min(round(fraction * len(labels)), len(labels) - len(counts)) < 1:
        return
    alone = split_validation(labels, fraction, seed, np.random.default_rng(0).permutation(len(labels)))[1]
    free = split_validation(labels, fraction, seed)[1]
    assert np.array_equal(np.bincount(labels[alone]), np.bincount(labels[free]))


def test_a_class_that_is_one_group_stays_in_training():
    labels, groups = np.repeat([0, 1], 20), np.r_[np.zeros(20, int), np.arange(1, 21) // 2]
    train, val = split_validation(labels, 0.2, 0, groups)
    assert np.bincount(labels[val], minlength=2).tolist() == [0, 4] and len(train) == 36


def test_groups_that_no_part_can_take_are_named():
    labels = np.repeat([0, 1], 20)
    with pytest.raises(DataError, match="40 images in 2 groups"):
        split_validation(labels, 0.2, 0, labels)
    with pytest.raises(DataError, match=r"groups.shape = \(39,\): one group per image"):
        split_validation(labels, 0.2, 0, np.arange(39))


def test_test_and_validation_are_drawn_apart():
    """With one stream, the images left after a test split would be split at the same places again."""
    labels = labels_of([40, 40])
    assert split_test(labels, 0.2, 0)[1].tolist() != split_validation(labels, 0.2, 0)[1].tolist()
    drawn = {tuple(stratified_sample(labels, 30, 0, number=number).tolist()) for number in range(3)}
    assert len(drawn) == 3


def test_a_split_is_pinned():
    """By NumPy alone: purpose 2 of the seed, a permutation of each class."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(7, spawn_key=(2,))))
    labels = labels_of([30, 10])
    wanted = [rng.permutation(np.flatnonzero(labels == label))[:count] for label, count in ((0, 6), (1, 2))]
    assert split_validation(labels, 0.2, 7)[1].tolist() == sorted(np.concatenate(wanted).tolist())


@given(counts=class_counts, data=st.data())
def test_sample_has_the_size_and_nobody_twice(counts, data):
    size = data.draw(st.integers(len(counts), sum(counts)))
    labels = labels_of(counts)
    rows = stratified_sample(labels, size, seed=1)
    assert len(rows) == size == len(set(rows.tolist()))
    assert (np.bincount(labels[rows], minlength=len(counts)) >= 1).all()


def test_rare_classes_are_kept_at_the_cost_of_the_largest():
    labels = labels_of([40, 1, 1, 1])
    assert np.bincount(labels[stratified_sample(labels, 5, seed=0)]).tolist() == [2, 1, 1, 1]


@given(counts=class_counts, data=st.data())
def test_sample_is_within_one_image_of_every_share(counts, data):
    size = data.draw(st.integers(1, sum(counts)))
    labels = labels_of(counts)
    rows = stratified_sample(labels, size, seed=1, keep_every_class=False)
    share = size * np.array(counts) / sum(counts)
    assert (np.abs(np.bincount(labels[rows], minlength=len(counts)) - share) < 1).all()


@given(n=st.integers(1, 200), batch_size=st.integers(1, 200), seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_epoch_batches_draw_without_repetition(n, batch_size, seed, epoch):
    if n < batch_size:
        with pytest.raises(DataError) as caught:
            epoch_batches(n, batch_size, seed, epoch)
        assert str(n) in str(caught.value) and str(batch_size) in str(caught.value)
        return
    batches = epoch_batches(n, batch_size, seed, epoch)
    assert batches.shape == (n // batch_size, batch_size)
    assert len(set(batches.ravel().tolist())) == batches.size
    assert batches.min() >= 0 and batches.max() < n
    assert np.array_equal(batches, epoch_batches(n, batch_size, seed, epoch))


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_batches(64, 8, seed, epoch).ravel().tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_epoch_order_is_pinned():
    # Runs that a user reports by seed must stay reproducible: purpose 4, epoch 1 of seed 0 may never change.
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence(0, spawn_key=(4, 1)))).permutation(7)
    assert epoch_batches(7, 3, seed=0, epoch=1).ravel().tolist() == order[:6].tolist()


@given(n=st.integers(0, 100), batch_size=st.integers(1, 40))
def test_eval_batches_cover_everything_once_in_order(n, batch_size):
    seen = []
    for indices, valid in eval_batches(n, batch_size):
        assert indices.shape == (batch_size,) and 1 <= valid <= batch_size
        assert (indices < n).all()
        seen += indices[:valid].tolist()
    assert seen == list(range(n))


def test_impossible_batches_and_seeds():
    with pytest.raises(DataError, match="batch_size"):
        epoch_batches(5, 0, 0, 0)
    with pytest.raises(DataError, match="batch_size"):
        list(eval_batches(5, 0))
    with pytest.raises(DataError, match="seed"):
        epoch_batches(5, 2, -1, 0)
    with pytest.raises(DataError, match="size"):
        stratified_sample(np.array([0, 1, 2]), 2, 0)
