"""A task as a pytree, its predictions, and the chip that it knows."""

import copy
import pickle
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.crossbar import Gaussian
from xbm_jax.errors import BankError, DataError, SpecError
from xbm_jax.hardware import task_bits, task_cells_written
from xbm_jax.masks import methods
from xbm_jax.models import program
from xbm_jax.tasks import (
    Task,
    active_columns,
    adc_clip_rates,
    chip_mark,
    inspect,
    predict,
    source_task,
    stored,
    with_measured_norms,
)

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


@pytest.mark.parametrize("name", tiny.METHODS)
def test_a_task_equals_its_copies_and_no_other(chip, name):
    task = tiny.made_up_task(chip, tiny.METHODS[name]).replace(chip=tiny.mark(chip))
    for got in (pickle.loads(pickle.dumps(task)), copy.deepcopy(task)):
        assert got == task and got.meta == task.meta and got.chip == task.chip
    bias = task.trained["head"]["bias"]
    others = [
        task.replace(trained={**task.trained, "head": {**task.trained["head"], "bias": bias.at[0].add(1e-6)}}),
        task.replace(method=methods.xbm(norms="frozen")),
        task.replace(state={**task.state, "more": {"mean": bias}}),
    ]
    assert all(other != task for other in others) and task != "task"


READERS = {
    "predict": partial(predict, images=IMAGES[:4]),
    "with_measured_norms": partial(with_measured_norms, images=IMAGES, batch_size=16),
    "inspect": lambda chip, task: inspect(chip, IMAGES[:4], task),
    "active_columns": active_columns,
    "adc_clip_rates": partial(adc_clip_rates, images=IMAGES[:4]),
    "stored": stored,
    "task_bits": task_bits,
    "task_cells_written": task_cells_written,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_task_of_another_chip_is_refused(chip, task, reader):
    own, spec = task.replace(chip=tiny.mark(chip)), tiny.SPECS["ideal"]
    # The same levels and keys, hence the same identity, on other devices and on taller arrays.
    specs = (spec.replace(device=Gaussian(0.2)), spec.replace(rows=48))
    designs = [program(tiny.weights(), other, jax.random.key(0)) for other in specs]
    assert all(tiny.mark(other).identity == tiny.mark(chip).identity for other in designs)
    for other in (tiny.chip("ideal", key=1), tiny.chip("ideal", seed=1), *designs):
        with pytest.raises(BankError, match=r"^task\.chip = '.*': .*, this chip; task\.replace\(chip=None\)"):
            READERS[reader](other, own)


def test_a_task_stays_one_of_its_chip_however_aged_and_calibrated(chip, task):
    own = task.replace(chip=tiny.mark(chip))
    measured = {path: tiles.replace(input_scale=1.5 * tiles.input_scale) for path, tiles in chip.tiles.items()}
    for same in (chip, chip.at(3600.0), chip.replace(tiles=measured)):
        assert predict(same, own, IMAGES[:4]).shape == (4, 4)
    other = tiny.chip("ideal", key=1)
    assert np.array_equal(predict(other, own.replace(chip=None), IMAGES[:4]), predict(other, task, IMAGES[:4]))
    assert source_task(chip).chip == own.chip
    assert jax.tree.map(lambda a: a, own).chip is None


def test_a_chip_keeps_its_mark_and_gives_it_to_no_other(chip):
    chip = chip.replace()
    before = jax.tree.structure(chip), len(jax.tree.leaves(chip))
    mark = chip_mark(chip)
    assert mark is not None and chip_mark(chip) is mark
    assert (jax.tree.structure(chip), len(jax.tree.leaves(chip))) == before
    louder = chip.replace(digital={"bias": jnp.ones(3)})
    assert chip_mark(louder) != mark and chip_mark(jax.tree.map(lambda a: a, chip)) == mark
    found = []
    jax.jit(lambda chip: found.append(chip_mark(chip)) or chip.head)(chip)
    assert found == [None]


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8", None, True])
def test_a_batch_size_that_is_none_is_named(chip, task, batch_size):
    for reader in (predict, with_measured_norms):
        with pytest.raises(DataError, match=r"batch_size = .*: at least 1, a whole number"):
            reader(chip, task, IMAGES, batch_size=batch_size)


def test_calls_that_are_nearly_right_are_named(chip, task):
    wrong: list[Any] = [0, jax.random.split(jax.random.key(0))]
    for key in wrong:
        with pytest.raises(SpecError, match=r"(?s)^key = .*jax\.random\.key\(seed\)"):
            predict(chip, task, IMAGES[:4], key=key)
    with pytest.raises(DataError, match="task = 'str': a Task"):
        predict(chip, "task", IMAGES[:4])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="chip = 'Task': a Chip"):
        predict(task, chip, IMAGES[:4])  # type: ignore[arg-type]
    masks = {"conv1": task.trained["masks"]["conv1"]}
    with pytest.raises(BankError, match=r"task\.trained\['masks'\] = \['conv1'\]: the chip's layers"):
        predict(chip, task.replace(trained={**task.trained, "masks": masks}), IMAGES[:4])
    head = {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}
    with pytest.raises(BankError, match=r"task\.trained\['head'\] = '3 features': 8"):
        predict(chip, task.replace(trained={**task.trained, "head": head}), IMAGES[:4])


def test_a_traced_call_is_named(chip, task):
    for traced in (
        lambda: jax.jit(lambda x: predict(chip, task, x))(IMAGES[:4]),
        lambda: jax.jit(lambda chip: predict(chip, task, IMAGES[:4]))(chip),
        lambda: jax.grad(lambda task: predict(chip, task, IMAGES[:4]).sum())(task),
    ):
        with pytest.raises(DataError, match=r"images, chip or task = 'traced': .*forward"):
            traced()


def test_binary_images_are_warned_of(chip, task):
    with pytest.warns(UserWarning, match="images has no value above 1 of 255"):
        predict(chip, task, np.zeros((2, 12, 12, 3), np.uint8) + np.eye(12, dtype=np.uint8)[..., None])
