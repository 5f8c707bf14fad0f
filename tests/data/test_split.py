"""Splits and batches are functions of the seed and lose nobody."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbm_jax.data import epoch_batches, eval_batches, split_validation, stratified_sample
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
