"""Every read of a run draws noise of its own: training steps, features, validation of every epoch, test, probe."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tasks import tiny
from xbm_jax import streams
from xbm_jax.streams import stream
from xbm_jax.tasks import evaluation
from xbm_jax.training import TrainConfig, adapt, adapt_together, loop, phases, result


@pytest.fixture
def keys(monkeypatch):
    """The keys that a run hands out, by the function that gets them and in order."""
    seen = {}

    def watch(module, name, place):
        function = getattr(module, name)

        def watched(*args, **kwargs):
            key = args[place]
            seen.setdefault(name, []).extend(map(tuple, np.atleast_2d(jax.random.key_data(key)).tolist()))
            return function(*args, **kwargs)

        watched.lower = getattr(function, "lower", None)  # what is lowered only draws nothing
        monkeypatch.setattr(module, name, watched)

    watch(loop, "train_step", 7)
    watch(loop, "train_steps", 7)
    watch(evaluation, "_batch_features", 4)
    watch(result, "adc_clip_rates", 3)
    watch(phases, "_batch_gradients", 8)
    return seen


def learned(name, key=1, **changes):
    config = TrainConfig(epochs=2, batch_size=90, eval_batch_size=80, **changes)
    return adapt(tiny.chip("noisy"), tiny.stripes(), method=tiny.METHODS[name], key=jax.random.key(key), config=config)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("head_only", {"_batch_features": 6, "adc_clip_rates": 1}),
        ("xma2", {"train_step": 6, "_batch_gradients": 3, "_batch_features": 4, "adc_clip_rates": 1}),
    ],
)
def test_no_two_reads_share_their_noise(keys, name, counts):
    learned(name)
    assert {function: len(found) for function, found in keys.items()} == counts
    everything = [key for found in keys.values() for key in found]
    assert len(set(everything)) == len(everything)


def test_tasks_learned_together_draw_what_each_draws_alone(keys):
    data, config = tiny.stripes(), TrainConfig(epochs=1, batch_size=90)
    both = [jax.random.key(1), jax.random.key(2)]
    adapt_together(tiny.chip("noisy"), [data, data], keys=both, method=tiny.METHODS["norm_only-affine"], config=config)
    wanted = [stream(key, streams.Run.STEP, step) for step in range(3) for key in both]
    assert keys["train_steps"] == [tuple(jax.random.key_data(key).tolist()) for key in wanted]
    drawn = keys["_batch_features"]
    assert len(set(drawn)) == len(drawn) == 2 * (1 + 2)  # 48 images, and 160 in batches
