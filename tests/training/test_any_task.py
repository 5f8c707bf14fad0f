"""Not only images and labels: other inputs, objectives and heads; many tasks by one program; runs that go on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import xbm_jax as xbm
from tasks import tiny
from xbm_jax.crossbar import Adc, CrossbarSpec
from xbm_jax.data import Dataset
from xbm_jax.errors import DataError, MethodError, ModelError, SpecError, TrainingError
from xbm_jax.masks import Head, Linear
from xbm_jax.models import backbone, calibrate, network_from_module, program
from xbm_jax.tasks import Classification, Objective, Regression, Task, evaluate, evaluation, forward, predict
from xbm_jax.training import Recipe, Run, adapt, adapt_together, advance, begin, loop, step
from xbm_jax.training.clock import Clock

KEY = jax.random.key(1)
WORDS, LENGTH, WIDTH = 11, 6, 12


class Reader(nnx.Module):
    """Token numbers and a mask to a label or number: embedded, pooled, two dense layers."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.inner = nnx.Linear(WIDTH, 16, rngs=rngs)
        self.head = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, tokens: jax.Array, there: jax.Array) -> jax.Array:
        x = self.embed(tokens) * there[..., None]
        return self.head(nnx.relu(self.inner(x.sum(1) / there.sum(1, keepdims=True))))


EXAMPLE = {"tokens": jax.ShapeDtypeStruct((LENGTH,), jnp.int32), "there": jax.ShapeDtypeStruct((LENGTH,), jnp.float32)}


@pytest.fixture(scope="module")
def reader() -> xbm.Chip:
    network = network_from_module(lambda: Reader(rngs=nnx.Rngs(0)), name="reader", head="head", inputs=EXAMPLE)
    rng = np.random.default_rng(0)
    arrays = {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in network.shapes.items()}
    chip = program(backbone(network, arrays), CrossbarSpec(rows=8, adc=Adc(None)), jax.random.key(0))
    return calibrate(chip, sentences(64)[0])


def sentences(count: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, WORDS, (count, LENGTH)).astype(np.int32)
    there = (np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (count, 1))).astype(np.float32)
    return {"tokens": tokens, "there": there}, (tokens * there).sum(1) / there.sum(1) / WORDS


def text(names: tuple[str, ...] = ()) -> Dataset:
    (x, y), (x_test, y_test) = sentences(300), sentences(64, seed=1)
    if names:
        y, y_test = (np.digitize(v, (0.35, 0.55)) for v in (y, y_test))
    return Dataset("text", x, y, x_test, y_test, names, kind="arrays")


def test_a_network_of_two_arrays_learns_classes_is_predicted_and_evaluated(reader: xbm.Chip) -> None:
    data, config = text(("low", "middle", "high")), Recipe(epochs=30, batch_size=16)
    task = adapt(reader, data, method=xbm.methods.finetune(), key=KEY, config=config)
    assert task.meta["accuracy"] > 0.65 > np.bincount(data.y_test).max() / 64
    guesses = predict(reader, task, data.x_test, batch_size=48, objective=Classification())
    assert np.mean(guesses == data.y_test) == pytest.approx(task.meta["accuracy"])
    assert evaluate(reader, task, data.x_test, data.y_test) == pytest.approx(task.meta["accuracy"])
    np.testing.assert_allclose(
        jax.jit(forward)(reader, task, data.x_test), predict(reader, task, data.x_test), rtol=1e-5, atol=1e-5
    )
    print(xbm.inspect(reader, data.x_test, task))


def test_numbers_are_learned_by_another_objective(reader: xbm.Chip) -> None:
    data, config = text(), Recipe(epochs=30, batch_size=16, objective=Regression())
    task = adapt(reader, data, method=xbm.methods.finetune(), key=KEY, config=config)
    assert task.outputs == 1 and "accuracy" not in task.meta
    wrong = float(np.mean((predict(reader, task, data.x_test)[:, 0] - data.y_test) ** 2))
    assert -task.meta["score"] == pytest.approx(wrong, rel=1e-4)
    assert wrong < 0.5 * np.var(data.y_test)
    found = evaluate(reader, task, data.x_test, data.y_test, objective=Regression())
    assert found == pytest.approx(-wrong, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": np.zeros((2, LENGTH), np.int64)}, r"inputs\['tokens'\] = 'int64\[2, 6\]': int32\['n', 6\]"),
        ({"there": np.zeros((2, 3), np.float32)}, r"inputs\['there'\] = 'float32\[2, 3\]'"),
        ({"there": np.full((2, LENGTH), np.nan, np.float32)}, r"inputs\['there'\] = 'NaN or infinity'"),
        ({"there": np.zeros((3, LENGTH), np.float32)}, r"inputs\['.*'\] = '. examples'"),
        ({"more": np.zeros(2)}, r"inputs = .*: .*the arrays that the network takes"),
    ],
)
def test_other_inputs_are_refused_by_name(reader: xbm.Chip, changes: dict[str, Any], message: str) -> None:
    good = {"tokens": np.zeros((2, LENGTH), np.int32), "there": np.ones((2, LENGTH), np.float32)}
    task = xbm.source_task(reader)
    assert predict(reader, task, good).shape == (2, 3)
    with pytest.raises(DataError, match=message):
        predict(reader, task, good | changes)


def test_what_is_for_images_is_refused_beside_other_inputs(reader: xbm.Chip) -> None:
    with pytest.raises(ModelError, match="image_size = 8: None beside inputs"):
        network_from_module(lambda: Reader(rngs=nnx.Rngs(0)), name="reader", head="head", inputs=EXAMPLE, image_size=8)
    with pytest.raises(DataError, match="data = 'arrays for reader': images"):
        xbm.for_chip(reader, text())
    config = Recipe(epochs=1, augment=xbm.data.Augment())
    with pytest.raises(SpecError, match=r"config\.augment = .*: None: these data are no images"):
        adapt(reader, text(("a", "b", "c")), method=xbm.methods.norm_only(), key=KEY, config=config)
    with pytest.raises(DataError, match=r"data\.class_names = \(\): at least two classes, or another objective"):
        adapt(reader, text(), method=xbm.methods.norm_only(), key=KEY, config=Recipe(epochs=1))


# ---------------------------------------------------------------------------------------------------------------------
# Heads


@dataclasses.dataclass(frozen=True)
class Scaled(Linear):
    """A head of one's own: a linear one whose answer is halved."""

    def apply(self, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return 0.5 * super().apply(params, x)


def test_a_head_of_ones_own_is_learned_stored_and_served(tmp_path) -> None:
    chip, data = tiny.chip("ideal"), tiny.stripes()
    method = dataclasses.replace(tiny.METHODS["xbm"], head=Scaled())
    task = adapt(chip, data, method=method, key=KEY, config=Recipe(epochs=1, batch_size=64))
    logits = predict(chip, task, data.x_test[:8])
    plain = task.replace(method=dataclasses.replace(method, head=Linear()))
    np.testing.assert_allclose(logits, 0.5 * predict(chip, plain, data.x_test[:8]), rtol=1e-5, atol=1e-6)
    bank = xbm.MaskBank.create(tmp_path / "bank", chip)
    bank.put("scaled", task, compact=False)
    assert bank.get("scaled").method.head == Scaled()
    np.testing.assert_array_equal(predict(chip, bank.get("scaled"), data.x_test[:8]), logits)
    served = xbm.serve(chip, bank).logits(data.x_test[:8], "scaled")
    np.testing.assert_allclose(served, logits, rtol=1e-4, atol=1e-5)
    bank.put("plain", plain)
    with pytest.raises(MethodError, match="tasks with one kind of head"):
        xbm.serve(chip, bank)


def test_a_padded_head_is_the_head_cut_again() -> None:
    params = Linear().init(8, 3, KEY)
    padded = Linear().padded(params, 64)
    assert Linear().outputs(padded) == 64 and Linear().features(padded) == 8
    tiny.assert_same_bits(Linear().cut(padded, 3), params)
    assert not np.asarray(Linear().apply(padded, jnp.ones((2, 8))))[:, 3:].any()
    with pytest.raises(MethodError, match=r"Method\.head = None: a Head"):
        dataclasses.replace(tiny.METHODS["xbm"], head=None)
    with pytest.raises(TypeError, match="Head draws nothing"):
        Head().init(8, 3, KEY)


# ---------------------------------------------------------------------------------------------------------------------
# Nothing compiles twice


def stripes_of(classes: int) -> Dataset:
    """Stripes with further classes, of one image each in training."""
    data, extra = tiny.stripes(), classes - 4
    y = np.where(np.arange(len(data.y_train)) < extra, 4 + np.arange(len(data.y_train)), data.y_train)
    names = (*data.class_names, *(f"other {i}" for i in range(extra)))
    return dataclasses.replace(data, name=f"stripes {classes}", y_train=y, class_names=names)


def test_ten_tasks_of_one_rule_compile_one_step_and_one_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, rates, schedules, classes and chips differ; what retraced would be named."""
    traced: list[tuple[str, Any]] = []
    for module in (step, evaluation):
        honest = module.forward

        def counted(*args: Any, honest: Any = honest, name: str = module.__name__, **kwargs: Any) -> Any:
            traced.append((name, jax.tree.map(jnp.shape, args[2:5])))
            return honest(*args, **kwargs)

        monkeypatch.setattr(module, "forward", counted)
    base = tiny.METHODS["xbm"]
    for i in range(10):
        method = dataclasses.replace(base, name=f"method {i}", mask_lr=1e-3 * (i + 1))
        config = Recipe(epochs=1, batch_size=23, eval_batch_size=37, head_lr=1e-2 / (i + 1))
        adapt(tiny.chip("ideal", key=i % 2), stripes_of(4 + 6 * i), method=method, key=jax.random.key(i), config=config)
    names = [name for name, _ in traced]
    assert names.count(step.__name__) == 1, [shapes for name, shapes in traced if name == step.__name__]
    assert names.count(evaluation.__name__) == 1, [shapes for name, shapes in traced if name == evaluation.__name__]


@pytest.mark.slow
def test_tasks_of_different_classes_are_learned_together() -> None:
    data, config = [stripes_of(4), stripes_of(9)], Recipe(epochs=1, batch_size=64)
    keys, method = list(jax.random.split(KEY, 2)), tiny.METHODS["xbm"]
    both = adapt_together(tiny.chip("ideal"), data, method=method, keys=keys, config=config)
    assert [task.num_classes for task in both] == [4, 9]
    for task, one, key in zip(both, data, keys, strict=True):
        alone = adapt(tiny.chip("ideal"), one, method=method, key=key, config=config)
        assert task.meta["history"][0]["loss"] == pytest.approx(alone.meta["history"][0]["loss"], rel=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# A run is a pytree


def run_of(name: str = "xbm", **changes: Any) -> Run:
    config = Recipe(epochs=3, batch_size=64)
    return Run(tiny.chip("noisy"), tiny.stripes(), tiny.METHODS[name], config, KEY, **changes)


@pytest.mark.parametrize("name", ["xbm", "head_only"])
def test_a_run_that_is_taken_up_from_its_state_ends_with_the_same_bits(name: str) -> None:
    whole = begin(run_of(name))
    for _ in range(3):
        (whole,) = advance([run_of(name)], [whole], Clock())
    state = begin(run_of(name))
    (state,) = advance([run_of(name)], [state], Clock())
    leaves, structure = jax.tree.flatten(state)
    state = jax.tree.unflatten(structure, [np.asarray(leaf) for leaf in leaves])  # through a file, say
    for _ in range(2):
        (state,) = advance([run_of(name)], [state], Clock())
    tiny.assert_same_bits(state, whole)
    assert int(state.epoch) == 3 and int(state.step) == 3 * run_of(name).steps
    assert state.best_epoch == int(np.argmax(state.history[:, 1]))


def test_making_a_run_computes_nothing() -> None:
    run = Run(None, None, None, None, None)  # type: ignore[arg-type]  # nothing is looked at
    with pytest.raises(SpecError, match="chip = None"):
        run.check()


def test_a_run_that_diverges_keeps_its_last_good_state() -> None:
    run = run_of(report=None)
    (good,) = advance([run], [begin(run)], Clock())
    kept = jax.tree.map(np.array, good)
    broken = good.train.trained["head"]["bias"].at[0].set(math.nan)
    trained = {**good.train.trained, "head": {**good.train.trained["head"], "bias": broken}}
    bad = good.replace(train=good.train._replace(trained=trained))
    with pytest.raises(TrainingError, match=r"loss at step 5 of 12, epoch 2, of 'stripes' = nan") as caught:
        advance([run], [bad], Clock())
    assert caught.value.state is bad
    tiny.assert_same_bits(good, kept)  # no step has taken its buffers


def test_losses_stay_on_the_device_without_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    honest = loop.check_losses
    monkeypatch.setattr(loop, "check_losses", lambda *args: (seen.append(len(args[2])), honest(*args)))
    advance([run_of()], [begin(run_of())], Clock())
    assert seen == [4]
    seen.clear()
    run = run_of(report=lambda row: None)
    advance([run], [begin(run)], Clock())
    assert seen == [1, 1, 1, 1, 4]


def test_objectives_see_the_tasks_own_outputs_alone() -> None:
    outputs = jnp.asarray([[1.0, 2.0, 9.0], [3.0, 1.0, 9.0]])
    labels = jnp.asarray([1, 0])
    assert Classification().score(outputs, labels, 2).tolist() == [1.0, 1.0]
    wanted = [-math.log(math.exp(2) / (math.e + math.exp(2))), -math.log(math.exp(3) / (math.exp(3) + math.e))]
    np.testing.assert_allclose(Classification().loss(outputs, labels, 2), wanted, rtol=1e-6)
    targets = jnp.asarray([[0.0, 0.0], [3.0, 0.0]])
    assert Regression().loss(outputs, targets, 2).tolist() == [2.5, 0.5]
    assert Regression().predict(outputs) is outputs
    with pytest.raises(TypeError, match="Objective has no loss"):
        Objective().loss(outputs, labels, 2)


def test_evaluate_refuses_what_is_not_one_target_an_image() -> None:
    chip = tiny.chip("ideal")
    task: Task = tiny.made_up_task(chip, tiny.METHODS["xbm"])
    with pytest.raises(DataError, match=r"targets = '\[3\] for 4 images': one for each image"):
        evaluate(chip, task, tiny.stripes().x_test[:4], np.zeros(3, int))
