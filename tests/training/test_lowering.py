"""Every step is lowered for CUDA and for TPU, on a machine that has neither; what runs there is compiled there."""

import jax
import jax.numpy as jnp
import pytest

from cost import slow_but
from tasks import tiny
from training.test_step import HOW, pace
from xbm_jax.models import initial_trained
from xbm_jax.tasks.applied import applied
from xbm_jax.tasks.evaluation import _answered, _batch_features
from xbm_jax.training import train_step
from xbm_jax.training.step import init_state

IMAGES, LABELS = tiny.stripes().x_train[:16], tiny.stripes().y_train[:16]
CASES = [(kind, name) for kind in tiny.SPECS for name in tiny.METHODS]


@pytest.mark.parametrize(("kind", "name"), slow_but([("adc", "xbm"), ("noisy", "piggyback")], CASES))
def test_a_training_step_and_an_answer_are_lowered_for_accelerators(kind, name):
    chip, method, key = tiny.chip(kind), tiny.METHODS[name], jax.random.key(1)
    trained = initial_trained(chip, method, 4, key)
    state = init_state(HOW, trained, chip.stats)
    of_step = (method.learned, HOW, chip, state, IMAGES, LABELS, pace(method), key)
    *own, head = applied(chip, method, trained, chip.stats)
    of_features, of_answer = (*own, IMAGES, key), (method.head, head, jnp.ones((16, chip.num_features), jnp.float32))
    for step, given in ((train_step, of_step), (_batch_features, of_features), (_answered, of_answer)):
        exported = jax.export.export(step, platforms=("cuda", "tpu"))(*given)
        assert exported.platforms == ("cuda", "tpu")
        products = "stablehlo.convolution" if step is _batch_features else "stablehlo.dot_general"
        assert products in exported.mlir_module()
