"""One device or eight (virtual) ones: the same draws bit for bit, the same gradients to rounding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks import tiny
from training.test_step import HOW, pace
from xbm_jax.models import forward, initial_trained
from xbm_jax.training import init_state, loss_and_stats, train_step

P = jax.P
METHOD = tiny.METHODS["xbm"]
IMAGES, LABELS = tiny.stripes().x_train[:16], tiny.stripes().y_train[:16]
KEY = jax.random.key(11)


@pytest.fixture(scope="module")
def mesh():
    assert jax.device_count() == 8
    return jax.sharding.Mesh(np.array(jax.devices()), ("data",))


def placed(mesh, tree, spec):
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, spec))


def test_gradients_of_a_sharded_batch_are_those_of_one_device(mesh):
    chip = tiny.chip("ideal")
    trained = initial_trained(chip, METHOD, 4, jax.random.key(0))
    grad = jax.jit(
        jax.value_and_grad(partial(loss_and_stats, method=METHOD, how=HOW, chip=chip, outputs=4), has_aux=True)
    )

    def gradients(images, labels):
        (loss, (stats, _)), grads = grad(trained, stats=chip.stats, inputs=images, targets=labels, key=KEY)
        return loss, stats, grads

    images = placed(mesh, IMAGES, P("data"))
    assert len(images.sharding.device_set) == 8
    wanted = tiny.leaves(gradients(jnp.asarray(IMAGES), jnp.asarray(LABELS)))
    got = tiny.leaves(gradients(images, placed(mesh, LABELS, P("data"))))
    for name, array in wanted.items():
        np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-5 * max(np.abs(array).max(), 1.0), err_msg=name)


def test_training_on_eight_devices_is_training_on_one(mesh):
    chip = tiny.chip("ideal")
    everywhere = placed(mesh, chip, P())
    trained = initial_trained(chip, METHOD, 4, jax.random.key(0))
    one = init_state(HOW, trained, jax.tree.map(jnp.array, chip.stats))
    eight = placed(mesh, jax.tree.map(jnp.array, one), P())
    losses = []
    for i in range(3):
        key = jax.random.fold_in(KEY, i)
        one, seen = train_step(METHOD.learned, HOW, chip, one, IMAGES, LABELS, pace(METHOD), key)
        images, labels = (placed(mesh, part, P("data")) for part in (IMAGES, LABELS))
        there = placed(mesh, key, P())
        eight, seen_8 = train_step(METHOD.learned, HOW, everywhere, eight, images, labels, pace(METHOD), there)
        losses.append((float(seen["loss"]), float(seen_8["loss"])))
    np.testing.assert_allclose(*np.transpose(losses), rtol=1e-4)
    tiny.assert_same_bits(everywhere, chip)


def test_draws_do_not_depend_on_the_number_of_devices(mesh):
    chip = tiny.chip("noisy")
    everywhere = placed(mesh, chip, P())
    key, key_8 = KEY, placed(mesh, KEY, P())
    start = jax.jit(lambda c, k: initial_trained(c, METHOD, 4, k))
    tiny.assert_same_bits(start(everywhere, key_8), start(chip, key))

    drawn = jax.jit(lambda x, k: jax.random.normal(k, x.shape[:3]))
    images = placed(mesh, IMAGES, P("data"))
    noise = jax.jit(lambda x, k: drawn(x, k), out_shardings=jax.sharding.NamedSharding(mesh, P("data")))(images, key_8)
    assert len(noise.sharding.device_set) == 8
    tiny.assert_same_bits(noise, drawn(jnp.asarray(IMAGES), key))

    trained = start(chip, key)
    read = jax.jit(lambda c, t, x, k: forward(c, METHOD, t, c.stats, x, key=k)[0])
    alone = read(chip, trained, jnp.asarray(IMAGES), key)
    np.testing.assert_allclose(read(everywhere, trained, images, key_8), alone, rtol=0, atol=1e-4)
    assert np.abs(read(chip, trained, jnp.asarray(IMAGES), jax.random.key(12)) - alone).max() > 1e-2
