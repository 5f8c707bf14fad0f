"""A task as a pytree, and its predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.errors import DataError, SpecError
from xbm_jax.masks import methods
from xbm_jax.tasks import Task, predict, source_task, stored

IMAGES = tiny.stripes().x_test


@pytest.fixture(scope="module")
def chip():
    return tiny.chip("ideal")


@pytest.fixture(scope="module")
def task(chip):
    return tiny.made_up_task(chip, methods.xbm())


def test_a_task_is_a_pytree_of_what_it_owns(task):
    leaves = jax.tree.leaves(task)
    assert len(leaves) == len(jax.tree.leaves((task.trained, task.state)))
    stacked = jax.tree.map(lambda *a: jnp.stack(a), task, task)
    assert isinstance(stacked, Task) and stacked.method == task.method
    assert stacked.meta == {}  # what was measured belongs to one task, not to a stack
    assert stacked.trained["head"]["bias"].shape == (2, 4) and stacked.num_classes == 4
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(task)[0]]
    assert ".trained['masks']['conv1']" in paths


def test_storing_twice_changes_nothing(chip, task):
    once = stored(chip, task)
    tiny.assert_same_bits(stored(chip, once), once)
    assert once.meta == task.meta


def test_prediction_does_not_depend_on_the_batch_size(chip, task):
    wanted = predict(chip, task, IMAGES[:40])
    assert wanted.shape == (40, 4) and wanted.dtype == np.float32
    np.testing.assert_allclose(predict(chip, task, IMAGES[:40], batch_size=16), wanted, rtol=0, atol=1e-5)


def test_the_source_task_is_the_backbone_as_the_chip_runs_it(chip):
    logits = predict(chip, source_task(chip), IMAGES[:40])
    wanted = tiny.weights().logits(IMAGES[:40])
    assert logits.shape == (40, 5)
    np.testing.assert_allclose(logits, wanted, atol=0.05)  # 8-bit weights and inputs
    assert np.corrcoef(logits.ravel(), np.ravel(wanted))[0, 1] > 0.999


def test_no_image_gives_no_logits(chip, task):
    assert predict(chip, task, IMAGES[:0]).shape == (0, 4)


def test_read_noise_comes_from_the_key():
    chip = tiny.chip("noisy")
    task = tiny.made_up_task(chip, methods.xbm())
    with pytest.raises(SpecError, match="key = None: a PRNG key"):
        predict(chip, task, IMAGES[:16])
    first, again, other = (predict(chip, task, IMAGES[:16], key=jax.random.key(k)) for k in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        (np.zeros((2, 12, 12, 1), np.uint8), r"images\.shape = \(2, 12, 12, 1\): \[n, height, width, 3\]"),
        (np.zeros((2, 3, 12, 12), np.uint8), r"images\.shape"),
        (np.zeros((12, 12, 3), np.uint8), r"images\.shape"),
        (np.full((1, 12, 12, 3), np.nan, np.float32), "NaN or infinity"),
        (np.full((1, 12, 12, 3), np.inf), "NaN or infinity"),
        *(
            (np.ones((1, 12, 12, 3), dtype), rf"images\.dtype = '{dtype}': uint8 images in 0\.\.255")
            for dtype in ("float32", "float64", "uint16", "int8", "int64", "bool")
        ),
    ],
)
def test_bad_images_are_named(chip, task, images, wanted):
    with pytest.raises(DataError, match=wanted):
        predict(chip, task, images)


def test_binary_images_are_warned_of(chip, task):
    with pytest.warns(UserWarning, match="images has no value above 1 of 255"):
        predict(chip, task, np.zeros((2, 12, 12, 3), np.uint8) + np.eye(12, dtype=np.uint8)[..., None])


def test_prediction_cannot_be_traced(chip, task):
    with pytest.raises(DataError, match=r"traced by JAX.*models\.forward"):
        jax.jit(lambda images: predict(chip, task, images))(IMAGES[:2])
