"""The training step: what it moves, what it never touches, and that it compiles once for everybody."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.crossbar import Adc, CrossbarSpec, Gaussian
from xbm_jax.models import initial_trained, program
from xbm_jax.tasks import Task, predict
from xbm_jax.training import How, Pace, init_state, loss_and_stats, step, train_step

IMAGES, LABELS = tiny.stripes().x_train[:16], tiny.stripes().y_train[:16]
KEY = jax.random.key(7)
XBM = tiny.METHODS["xbm"]
HOW = How()


def pace(method, rate=1.0, outputs=4):
    rates = {"masks": method.mask_lr, "norms": method.norm_lr, "head": method.head_lr}
    return Pace(jax.tree.map(np.float32, rates), dict.fromkeys(rates, np.float32(rate)), np.float32(1), outputs)


def state_of(chip, method, num_classes=4, seed=0, how=HOW):
    trained = initial_trained(chip, method, num_classes, jax.random.key(seed))
    return init_state(how, trained, jax.tree.map(jnp.array, chip.stats))


def one_step(chip, method, state, rate=1.0, how=HOW):
    return train_step(method.learned, how, chip, state, IMAGES, LABELS, pace(method, rate), KEY)


@pytest.mark.parametrize("name", tiny.METHODS)
def test_gradients_and_moments_exist_for_what_is_trained_alone(name):
    chip, method = tiny.chip("ideal"), tiny.METHODS[name]
    state = state_of(chip, method)
    trained_shapes = sorted(a.shape for a in jax.tree.leaves(state.trained))
    # Adam keeps two moments for each trained array and one step count for each group of learning rates; that is all.
    moments = [a for a in jax.tree.leaves(state.opt) if a.ndim]
    counts = [a for a in jax.tree.leaves(state.opt) if not a.ndim]
    assert sorted(a.shape for a in moments) == sorted(trained_shapes * 2)
    assert len(counts) == 3
    grads = jax.eval_shape(
        jax.grad(partial(loss_and_stats, method=method, how=HOW, outputs=4), has_aux=True),
        state.trained,
        chip=chip,
        stats=state.stats,
        inputs=IMAGES,
        targets=LABELS,
        key=KEY,
    )[0]
    assert jax.tree.structure(grads) == jax.tree.structure(state.trained)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, state.trained)
    assert set(state.trained) == {"masks", "norms", "head"}
    assert set(state.trained["masks"]) == (set() if method.rule is None else set(chip.tiles))
    assert set(state.trained["norms"]) == (set() if method.norms == "frozen" else set(chip.norms))


def test_a_step_changes_no_bit_of_the_chip_and_every_part_of_the_task():
    chip, method = tiny.chip("adc"), XBM
    before = tiny.leaves(chip)
    state = state_of(chip, method)
    start = tiny.leaves(state.trained)
    state, seen = one_step(chip, method, state)
    tiny.assert_same_bits(chip, before)
    moved = {name: not np.array_equal(array, start[name]) for name, array in tiny.leaves(state.trained).items()}
    assert all(moved.values()), moved
    assert set(seen) == {"loss", "score"} and np.isfinite(float(seen["loss"]))


gradients = jax.jit(jax.grad(loss_and_stats, has_aux=True), static_argnums=(1, 2))


def test_sgd_with_momentum_in_closed_form():
    """``v <- 0.9 v + g``, ``p <- p - lr v``: two steps of the head, whose gradients are taken apart."""
    chip, method, how = tiny.chip("ideal"), tiny.METHODS["norm_only-affine"], How(optimizer="sgd")
    state, velocity, kept = state_of(chip, method, how=how), 0.0, []
    for _ in range(2):
        args = (method, how, chip, state.stats, IMAGES, LABELS, 4, KEY)
        grads, _ = gradients(state.trained, *args)
        velocity = 0.9 * velocity + np.asarray(grads["head"]["kernel"])
        before = np.asarray(state.trained["head"]["kernel"])
        state, _ = one_step(chip, method, state, how=how)
        kept.append((before - method.head_lr * velocity, np.asarray(state.trained["head"]["kernel"])))
    for wanted, got in kept:
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["head_only", "norm_only-affine", "norm_only-full"])
def test_norm_policies(name):
    chip, method = tiny.chip("ideal"), tiny.METHODS[name]
    state = state_of(chip, method)
    for _ in range(2):
        state, _ = one_step(chip, method, state)
    if method.norms == "full":
        for path, stats in state.stats.items():
            assert not np.array_equal(stats["mean"], chip.stats[path]["mean"])
            assert not np.array_equal(stats["var"], chip.stats[path]["var"])
    else:
        tiny.assert_same_bits(state.stats, chip.stats)
    if method.norms == "frozen":
        assert state.trained["norms"] == {}
    else:
        for path, norm in state.trained["norms"].items():
            assert not np.array_equal(norm["scale"], chip.norms[path]["scale"])
            assert not np.array_equal(norm["bias"], chip.norms[path]["bias"])


def test_the_rate_scales_the_update():
    chip, method = tiny.chip("ideal"), XBM
    start = state_of(chip, method).trained
    after = {rate: one_step(chip, method, state_of(chip, method), rate)[0].trained for rate in (0.0, 0.5, 1.0)}
    tiny.assert_same_bits(after[0.0], start)
    for group, rate in (("masks", 3e-3), ("norms", 2e-3), ("head", 1e-2)):
        for name, begun in tiny.leaves(start[group]).items():
            full, half = (tiny.leaves(after[r][group])[name] - begun for r in (1.0, 0.5))
            np.testing.assert_allclose(half, full / 2, atol=2e-7)
            assert np.abs(full).max() == pytest.approx(rate, rel=1e-2)  # Adam's first step is the learning rate


def test_one_compilation_serves_all_steps_tasks_and_rates(monkeypatch):
    traces = []
    forward = step.forward

    def counted(*args, **kwargs):
        traces.append(kwargs)
        return forward(*args, **kwargs)

    monkeypatch.setattr(step, "forward", counted)
    chip, other = tiny.chip("ideal"), tiny.chip("ideal", key=1)
    images, labels = tiny.stripes().x_train[:11], tiny.stripes().y_train[:11]  # a shape that no other test has
    for seed, on in ((0, chip), (1, chip), (2, other)):
        state = state_of(on, XBM, seed=seed)
        for i in range(3):
            method = dataclasses.replace(XBM, name=f"task {seed}", mask_lr=1e-3 * (1 + seed))
            paced = pace(method, 1 / (i + 1), outputs=2 + seed)
            key = jax.random.fold_in(KEY, i)
            state, _ = train_step(method.learned, How(), on, state, images, labels, paced, key)
    assert len(traces) == 1


def stacked(trees):
    return jax.tree.map(lambda *a: jnp.stack(a), *trees)


def unstacked(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


def assert_close(got, wanted, atol):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


def logits_of(chip, state):
    return predict(chip, Task(state.trained, state.stats, XBM), IMAGES)


def test_vmap_over_tasks_equals_a_loop():
    chip, count = tiny.chip("ideal"), 3
    data = [(tiny.stripes().x_train[i::count][:16], tiny.stripes().y_train[i::count][:16]) for i in range(count)]
    images, labels = (np.stack(part) for part in zip(*data, strict=True))
    states = stacked([state_of(chip, XBM, seed=seed) for seed in range(count)])
    looped = [state_of(chip, XBM, seed=seed) for seed in range(count)]
    many = jax.jit(jax.vmap(lambda s, x, y: train_step(XBM.learned, HOW, chip, s, x, y, pace(XBM), KEY)))
    for _ in range(2):
        states, seen = many(states, images, labels)
        for i in range(count):
            looped[i], alone = train_step(XBM.learned, HOW, chip, looped[i], images[i], labels[i], pace(XBM), KEY)
            assert float(seen["loss"][i]) == pytest.approx(float(alone["loss"]), abs=1e-4)
    for i in range(count):
        assert_close(logits_of(chip, unstacked(states, i)), logits_of(chip, looped[i]), atol=1e-4)


def population():
    """How to make a chip of a key, calibrated by what comes with the weights; and eight keys."""
    spec = CrossbarSpec(rows=24, adc=Adc(bits=None), device=Gaussian(0.05))
    make = partial(program, tiny.measured_weights(), spec, rules={"conv[13]": None})
    return make, jax.random.split(jax.random.key(5), 8)


@pytest.fixture(scope="module")
def make_and_keys():
    return population()


@pytest.mark.slow
def test_a_population_is_its_chips_bit_for_bit_on_one_device_and_on_eight(make_and_keys):
    make, keys = make_and_keys
    chips = jax.jit(jax.vmap(make))(keys)
    for i in range(3):
        tiny.assert_same_bits(unstacked(chips, i), make(keys[i]))
    cells = chips.tiles["conv2"].conductance
    assert not np.array_equal(cells[0], cells[1])

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    assert mesh.size == 8
    spread = jax.device_put(keys, jax.sharding.NamedSharding(mesh, jax.P("data")))
    on_eight = jax.jit(jax.vmap(make))(spread)
    assert len(on_eight.tiles["conv2"].conductance.sharding.device_set) == 8
    tiny.assert_same_bits(on_eight, chips)


@pytest.mark.slow
def test_vmap_over_chips_equals_a_loop(make_and_keys):
    make, keys = make_and_keys
    singles = [make(key) for key in keys[:3]]
    assert all(chip.calibrated for chip in singles)
    states = stacked([state_of(chip, XBM) for chip in singles])
    many = jax.jit(jax.vmap(lambda c, s: train_step(XBM.learned, HOW, c, s, IMAGES, LABELS, pace(XBM), KEY)))
    looped = [state_of(chip, XBM) for chip in singles]
    for _ in range(2):
        states, _ = many(stacked(singles), states)
        looped = [one_step(chip, XBM, state)[0] for chip, state in zip(singles, looped, strict=True)]
    for i, chip in enumerate(singles):
        assert_close(logits_of(chip, unstacked(states, i)), logits_of(chip, looped[i]), atol=1e-4)
    assert np.abs(logits_of(singles[0], looped[0]) - logits_of(singles[1], looped[1])).max() > 1e-3


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_masks_may_have_an_epsilon_in_units_of_their_gradients(scale):
    """Adam's first update is ``-g / (|g| + eps)``, with g in units of the root mean square of all masks' gradients."""
    trained: Any = {"masks": {"a": jnp.zeros(3), "b": jnp.zeros(1)}, "norms": {"n": jnp.zeros(1)}, "head": {}}
    grads: Any = {"masks": {"a": jnp.array([2.0, -2e-5, 0.0]), "b": jnp.array([2.0])}, "norms": {"n": jnp.ones(1)}}
    grads["head"] = {}
    grads = jax.tree.map(lambda g: scale * g, grads)
    rms = np.sqrt((2 * 2.0**2 + 2e-5**2) / 4)
    for eps, unit in ((1e-2, rms), (None, 1 / scale)):
        adam = step.optimizer(How(mask_eps=eps))
        updates: Any = adam.update(grads, adam.init(trained), trained)[0]
        g = np.array([2.0, -2e-5, 0.0]) / unit
        np.testing.assert_allclose(updates["masks"]["a"], -g / (np.abs(g) + (eps or 1e-8)), rtol=1e-4)
        np.testing.assert_allclose(updates["norms"]["n"], -1.0, rtol=0.02)
    silent = jax.tree.map(jnp.zeros_like, grads)
    adam = step.optimizer(How(mask_eps=1e-2))
    still: Any = adam.update(silent, adam.init(trained), trained)[0]
    assert float(jnp.abs(still["masks"]["a"]).max()) == 0.0
