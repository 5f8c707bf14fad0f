"""One toy of each kind that docs/architecture.md says where to add: each goes the whole way, without the package."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import xbm_jax as xbm
from xbm_jax.crossbar import Adc, CrossbarSpec, Device, at_time, plan, program, read
from xbm_jax.crossbar.validate import keep_number
from xbm_jax.data import Dataset
from xbm_jax.errors import SpecError
from xbm_jax.masks import Binary, Estimator, Granularity, Head, Identity, Masked, Method, methods
from xbm_jax.models import Chip, Network, Preprocess, backbone, digital_weights, network_from_module
from xbm_jax.models.modules import layers
from xbm_jax.tasks import Objective
from xbm_jax.training import Recipe, Run, advance, begin
from xbm_jax.training.clock import Clock

KEY = jax.random.key(1)
SIGNALS, WIDTH = 12, 16
SPEC = CrossbarSpec(rows=8, adc=Adc(bits=None))

# ---------------------------------------------------------------------------------------------------------------------
# A backbone: any NNX module, of images or of other inputs


class Sensor(nnx.Module):
    """Twelve real signals to two classes: not a network of images."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(SIGNALS, WIDTH, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.second = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.second(nnx.relu(self.norm(self.first(x))))))


class Camera(nnx.Module):
    """Grey images of eight pixels to three classes."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.inner = nnx.Linear(4, 6, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(x)))
        return self.head(nnx.relu(self.inner(x.mean((1, 2)))))


@cache
def sensor() -> Network:
    example = jax.ShapeDtypeStruct((SIGNALS,), jnp.float32)
    return network_from_module(lambda: Sensor(rngs=nnx.Rngs(0)), name="sensor", head="head", inputs=example)


@cache
def camera() -> Network:
    grey = Preprocess(mean=(0.5,), std=(0.25,))
    made = {"name": "camera", "head": "head", "preprocess": grey, "image_size": 8}
    return network_from_module(lambda: Camera(rngs=nnx.Rngs(0)), **made)


def weights(network: Network) -> xbm.Backbone:
    """Random weights, as a file would hold them."""
    rng = np.random.default_rng(0)
    arrays = {path: rng.uniform(0.2, 1.0, shape) for path, shape in network.shapes.items()}
    arrays |= {p: rng.normal(size=a.shape) / math.sqrt(a[..., 0].size) for p, a in arrays.items() if "kernel" in p}
    return backbone(network, arrays)


def chip_of(network: Network, spec: CrossbarSpec = SPEC) -> Chip:
    return xbm.calibrate(xbm.program(weights(network), spec, jax.random.key(0)), examples(network, 64))


def examples(network: Network, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if network.inputs is None:
        return rng.integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)
    return rng.normal(size=(count, SIGNALS)).astype(np.float32)


@cache
def sensor_chip() -> Chip:
    return chip_of(sensor())


def signals(numbers: bool = False) -> Dataset:
    """Which way a signal points, or how far and unevenly."""
    splits: list[np.ndarray] = []
    for seed, count in enumerate((240, 64)):
        x = examples(sensor(), count, seed)
        y = x[:, :4].sum(1)
        splits += [x, np.exp(y / 2).astype(np.float32) if numbers else (y > 0).astype(int)]
    return Dataset("signals", *splits, class_names=() if numbers else ("down", "up"), kind="arrays")


@pytest.mark.parametrize("network", [sensor, camera], ids=["arrays", "images"])
def test_a_backbone_of_ones_own_answers_on_a_chip_as_it_does_in_floats(network: Callable[[], Network]) -> None:
    chip, inputs = chip_of(network()), examples(network(), 16, seed=3)
    wanted = np.asarray(weights(network()).logits(inputs))
    got = xbm.predict(chip, xbm.source_task(chip), inputs)
    # Two layers of 8-bit weights and inputs: each of their errors is under one part in 127.
    np.testing.assert_allclose(got, wanted, atol=0.03 * np.abs(wanted).max())
    assert np.abs(got - wanted).max() > 0  # the chip was asked


# ---------------------------------------------------------------------------------------------------------------------
# A device


@dataclass(frozen=True)
class Fading(Device):
    """Cells take a share of what is asked, and keep ``(1 + t / tau)**-nu`` of it."""

    taken: float = 0.9
    nu: float = 0.1
    tau_seconds: float = 10.0

    def __post_init__(self) -> None:
        keep_number(self, "taken", low=0.0, high=1.0)

    def program(self, target: jax.Array, g_max: float, key: jax.Array) -> jax.Array:
        return self.taken * target

    def drift(
        self, g: jax.Array, target: jax.Array, g_max: float, t_seconds: jax.Array | float, key: jax.Array
    ) -> jax.Array:
        return g * (1 + t_seconds / self.tau_seconds) ** -self.nu


def test_a_device_of_ones_own_is_written_read_and_aged() -> None:
    rng = np.random.default_rng(0)
    kernel, x = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((20, 5), (3, 20)))

    def answer(device: Device, t_seconds: float = 0.0) -> np.ndarray:
        spec = dataclasses.replace(SPEC, device=device)
        tiles = program(kernel, plan(kernel, spec, signed_inputs=True), KEY, input_scale=0.02)
        return np.asarray(read(at_time(tiles, t_seconds) if t_seconds else tiles, x))

    ideal = answer(xbm.Ideal())
    np.testing.assert_allclose(answer(Fading()), 0.9 * ideal, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer(Fading(), 90.0), 0.9 * 10**-0.1 * ideal, rtol=1e-5, atol=1e-6)
    with pytest.raises(SpecError, match=r"Fading\.taken = 1\.5"):
        Fading(1.5)


def test_a_device_of_ones_own_is_stored_with_its_chip(tmp_path) -> None:
    chip = chip_of(sensor(), dataclasses.replace(SPEC, device=Fading(0.8)))
    xbm.save_chip(chip, tmp_path / "chip")
    loaded = xbm.load_chip(tmp_path / "chip", sensor())
    assert loaded.tiles["first"].plan.spec.device == Fading(0.8)
    task, inputs = xbm.source_task(chip), examples(sensor(), 8)
    now = xbm.predict(chip, task, inputs)
    np.testing.assert_array_equal(xbm.predict(loaded, task, inputs), now)
    later = xbm.predict(chip.at(1e4), task, inputs)
    np.testing.assert_array_equal(xbm.predict(loaded.at(1e4), task, inputs), later)
    assert np.abs(later - now).max() > 0.01


# ---------------------------------------------------------------------------------------------------------------------
# A method: a granularity and an estimator of its own; a rule that has a phase


@dataclass(frozen=True)
class Halves(Granularity):
    """One value per row tile and half of its columns, [T, 2]."""

    on_columns = True

    def shape(self, plan: xbm.crossbar.Plan) -> tuple[int, ...]:
        return plan.row_tiles, 2

    def spread(self, values: jax.Array, plan: xbm.crossbar.Plan) -> jax.Array:
        return jnp.repeat(values, plan.columns // 2, axis=1)


@dataclass(frozen=True)
class Window(Estimator):
    """A gradient of one within ``width`` of the threshold, none beyond."""

    width: float = 1.0

    def carrier(self, logits: jax.Array, threshold: float, progress: jax.Array | float) -> jax.Array:
        return jnp.clip(logits, threshold - self.width, threshold + self.width)


def test_a_method_of_ones_own_is_learned_stored_counted_and_served(tmp_path) -> None:
    chip, data = sensor_chip(), signals()
    method = methods.masked("halves", Halves(), Binary(), Window(), norms="affine", mask_lr=5e-3)
    task = xbm.adapt(chip, data, method=method, key=KEY, config=Recipe(epochs=1, batch_size=16))
    assert {path: values.shape for path, values in task.trained["masks"].items()} == {"first": (2, 2), "second": (2, 2)}
    assert any(np.any(np.asarray(values) < 5e-3) for values in task.trained["masks"].values())  # a half was dropped
    assert xbm.hardware.task_bits(chip, task).mask_bits == 8
    bank = xbm.MaskBank.create(tmp_path / "bank", chip)
    bank.put("signals", task, compact=False)
    assert bank.get("signals").method == method
    logits = xbm.predict(chip, task, data.x_test)
    np.testing.assert_array_equal(xbm.predict(chip, bank.get("signals"), data.x_test), logits)
    served = xbm.serve(chip, bank).logits(data.x_test, "signals")
    np.testing.assert_allclose(served, logits, rtol=1e-4, atol=1e-5)


def test_an_estimator_of_ones_own_gives_the_gradient_of_the_decision() -> None:
    tiles, logits = sensor_chip().tiles["first"], jnp.asarray([[0.5, -0.1], [0.0, 2.0]])
    rule = Masked(Halves(), Binary(), Window(0.2))
    gradient = jax.grad(lambda m: rule.apply(tiles, m)[1].sum())(logits)  # type: ignore[union-attr]
    assert gradient.tolist() == [[0.0, 8.0], [8.0, 0.0]]  # eight columns share a value


@dataclass(frozen=True)
class Hardening(Masked):
    """Real gains until a share of the training is done; then they are what was decided, and stay."""

    at: float = 0.5

    def check(self, recipe: Mapping[str, int]) -> str | None:
        return "at least two" if recipe["epochs"] < 2 else None

    @property
    def until(self) -> float:
        return self.at

    def turns(self, step: int, steps: int, epochs: int) -> bool:
        return step == math.ceil(self.at * steps * epochs)

    def turned(self, plans: Any, values: Mapping[str, Any], gradients: Any) -> dict[str, Any]:
        return {path: self.alphabet.decode(self.alphabet.encode(own)) for path, own in values.items()}


def test_a_rule_of_ones_own_has_a_phase_at_half_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    own = Hardening.turned
    monkeypatch.setattr(Hardening, "turned", lambda *given: (events.append("turned"), own(*given))[1])
    rule = Hardening(Halves(), Binary(), Identity(soft_until=0.5), start=0.1)
    method, recipe = Method("hardening", rule, norms="affine"), Recipe(epochs=3, batch_size=32)
    loop = import_module("xbm_jax.training.loop")
    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *given: (events.append("step"), step(*given))[1])
    run = Run(sensor_chip(), signals(), method, recipe, KEY)
    run.check()
    states = [begin(run)]
    for _ in range(3):
        states += advance([run], states[-1:], Clock())
    assert events == ["step"] * 9 + ["turned"] + ["step"] * 9  # three epochs of six steps
    start, soft, hard, end = (jax.tree.leaves(state.train.trained["masks"]) for state in states)
    for before, real, decided, after in zip(start, soft, hard, end, strict=True):
        assert not np.array_equal(real, before) and not np.isin(np.asarray(real), (0.0, 1.0)).any()
        assert np.isin(np.asarray(decided), (0.0, 1.0)).all()
        np.testing.assert_array_equal(after, decided)
    head = [np.asarray(state.train.trained["head"]["kernel"]) for state in states]
    assert not np.array_equal(head[2], head[3])  # what is not the rule's goes on
    with pytest.raises(SpecError, match="at least two by 'hardening'"):
        xbm.adapt(sensor_chip(), signals(), method=method, key=KEY, config=Recipe(epochs=1))


# ---------------------------------------------------------------------------------------------------------------------
# An objective and a head


@dataclass(frozen=True)
class Quantile(Objective):
    """The number below which a share of the targets lie: ``max(q e, (q - 1) e)`` of ``e = target - output``."""

    metric: ClassVar[str] = "minus_pinball"
    share: float = 0.8

    def outputs(self, data: Dataset) -> int:
        return 1

    def loss(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        error = targets - outputs[:, 0]
        return jnp.maximum(self.share * error, (self.share - 1) * error)

    def score(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        return -self.loss(outputs, targets, count)

    def predict(self, outputs: jax.Array) -> jax.Array:
        return outputs[:, 0]


@dataclass(frozen=True)
class TwoLayers(Head):
    """``relu(x @ inner) @ kernel + bias``"""

    hidden: int = 8

    def init(self, features: int, outputs: int, key: jax.Array) -> dict[str, jax.Array]:
        inner = jax.random.normal(key, (features, self.hidden)) * features**-0.5
        return {"inner": inner, "kernel": jnp.zeros((self.hidden, outputs)), "bias": jnp.zeros(outputs)}

    def apply(self, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ params["inner"]) @ params["kernel"] + params["bias"]

    def features(self, params: dict[str, jax.Array]) -> int:
        return params["inner"].shape[-2]

    def outputs(self, params: dict[str, jax.Array]) -> int:
        return params["bias"].shape[-1]

    def padded(self, params: dict[str, jax.Array], outputs: int) -> dict[str, jax.Array]:
        more = outputs - self.outputs(params)
        kernel, bias = jnp.pad(params["kernel"], ((0, 0), (0, more))), jnp.pad(params["bias"], (0, more))
        return {"inner": params["inner"], "kernel": kernel, "bias": bias}

    def cut(self, params: dict[str, jax.Array], outputs: int) -> dict[str, jax.Array]:
        own = {name: params[name][..., :outputs] for name in ("kernel", "bias")}
        return {"inner": params["inner"], **own}


def test_an_objective_and_a_head_of_ones_own_are_learned_stored_and_served(tmp_path) -> None:
    chip, data = sensor_chip(), signals(numbers=True)
    method = Method("quantile", norms="frozen", head=TwoLayers())
    recipe = Recipe(epochs=40, batch_size=16, objective=Quantile())
    task = xbm.adapt(chip, data, method=method, key=KEY, config=recipe)
    found = xbm.predict(chip, task, data.x_test)
    below = np.mean(data.y_test < found[:, 0])
    assert 0.7 < below < 0.9, below  # 64 of a share of 0.8: two standard errors are 0.1
    error = data.y_test - found[:, 0]
    assert task.meta["minus_pinball"] == pytest.approx(-np.mean(np.maximum(0.8 * error, -0.2 * error)), rel=1e-4)
    best_constant = data.y_test - np.quantile(data.y_test, 0.8)
    assert task.meta["minus_pinball"] > -np.mean(np.maximum(0.8 * best_constant, -0.2 * best_constant))
    bank = xbm.MaskBank.create(tmp_path / "bank", chip)
    bank.put("quantile", task)
    got = bank.get("quantile")
    assert got.method.head == TwoLayers() and got.trained["head"].keys() == {"inner", "kernel", "bias"}
    np.testing.assert_array_equal(xbm.predict(chip, got, data.x_test), found)
    served = xbm.serve(chip, bank).logits(
        data.x_test, "quantile"
    )  # a server's call is the largest output: see the page
    np.testing.assert_allclose(served, found, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# A kind of layer


class Affine(nnx.Module):
    """``x @ kernel + bias``, computed by a class that the package does not know."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.kernel + self.bias


class Narrow(nnx.Module):
    """A layer that is made of layers which a chip knows."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.down, self.up = nnx.Linear(SIGNALS, 4, use_bias=False, rngs=rngs), nnx.Linear(4, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.up(self.down(x))


class Mixed(nnx.Module):
    """Both, and a head."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.narrow, self.affine = Narrow(rngs=rngs), Affine(WIDTH, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.affine(nnx.relu(self.narrow(x)))))


def mixed(name: str) -> Network:
    example = jax.ShapeDtypeStruct((SIGNALS,), jnp.float32)
    return network_from_module(lambda: Mixed(rngs=nnx.Rngs(0)), name=name, head="head", inputs=example)


def test_a_layer_of_known_layers_is_on_arrays_and_another_stays_digital() -> None:
    chip = chip_of(mixed("mixed"))
    assert sorted(chip.tiles) == ["narrow/down", "narrow/up"]
    assert digital_weights(chip) == {"affine/kernel": WIDTH * WIDTH}


def test_a_kind_of_layer_is_a_row_of_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a maintainer writes into models/modules/layers.py for a kind whose kernel is [in, out]."""
    monkeypatch.setitem(layers._KINDS, Affine, 2)
    chip, inputs = chip_of(mixed("mixed with a row")), examples(sensor(), 16, seed=3)
    assert sorted(chip.tiles) == ["affine", "narrow/down", "narrow/up"]
    assert digital_weights(chip) == {}
    wanted = np.asarray(weights(mixed("mixed with a row")).logits(inputs))
    # Three layers of 8-bit weights and inputs: each of their errors is under one part in 127.
    np.testing.assert_allclose(
        xbm.predict(chip, xbm.source_task(chip), inputs), wanted, atol=0.03 * np.abs(wanted).max()
    )


# ---------------------------------------------------------------------------------------------------------------------
# A cost


def dac_cycles(chip: Chip, inputs: Any) -> dict[str, int]:
    """Cycles in which a layer's DACs drive its word lines for one example, whatever the simulation folds."""
    plans = {path: tiles.plan for path, tiles in chip.tiles.items()}
    reads = xbm.models.reads_per_example(chip, inputs)
    return {path: reads[path] * own.spec.cycles * (2 if own.two_pass else 1) for path, own in plans.items()}


def test_a_cost_of_ones_own_is_counted_from_plans_and_reads() -> None:
    spec = CrossbarSpec(rows=8, adc=Adc(bits=None), dac_bits=2, negative_inputs="two_pass")
    chip = chip_of(camera(), spec)
    # 8-bit inputs in four cycles of two bits; images go below zero once preprocessed, and are read in two passes.
    assert chip.tiles["conv"].plan.signed_inputs and not chip.tiles["inner"].plan.signed_inputs
    assert dac_cycles(chip, examples(camera(), 4)) == {"conv": 4 * 4 * 4 * 2, "inner": 1 * 4}
