"""Piggyback and KSM against 24 training steps of their official layers (torch, float64; `oracles/README.md`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xbm_jax.crossbar import Conv, CrossbarSpec, Tiles, plan, program
from xbm_jax.masks import Kernel, Masked, Method, Sigmoid, Soft, methods
from xbm_jax.models.norm import batch_norm
from xbm_jax.training import How, Pace, Recipe
from xbm_jax.training.step import optimizer, paced

LR, EPSILON = 7e-4, 1e-5
LAYERS = ("0", "1", "2")
GEOMETRY = {"0": (1, 1), "1": (2, 1), "2": (1, 0)}  # stride, padding
RATES: dict[str, Any] = {"mask_lr": LR, "norm_lr": LR, "head_lr": LR}
METHODS = {
    "piggyback": Method("p", methods.piggyback().rule, "frozen", **RATES),
    "ternary": Method("t", methods.piggyback_ternary().rule, "frozen", **RATES),
    "ksm_binary": Method("k", methods.ksm_binary().rule, "full", **RATES),
    # The published code keeps grey values in floating point: the widest code.
    "ksm_soft": Method("s", Masked(Kernel(), Soft(width=32), Sigmoid()), "full", **RATES),
}


class Run:
    """The oracle's network with our masks, norms and optimizer; weights are the oracle's real ones."""

    def __init__(self, name: str, data: dict[str, np.ndarray]) -> None:
        self.name, self.method, self.data = name, METHODS[name], data
        self.kernels = {i: jnp.asarray(self.data[f"w{i}"]) for i in LAYERS}
        self.tiles = {i: self.programmed(kernel) for i, kernel in self.kernels.items()}
        norms = {i: {k: jnp.asarray(self.data[f"bn{i}_{k}"]) for k in ("scale", "bias")} for i in LAYERS}
        self.stats = {i: {k: jnp.asarray(self.data[f"bn{i}_{k}"]) for k in ("mean", "var")} for i in LAYERS}
        self.norms = norms
        rule = self.method.rule
        assert isinstance(rule, Masked)
        self.rule = rule
        head = {"kernel": jnp.asarray(self.data["head_kernel"]), "bias": jnp.asarray(self.data["head_bias"])}
        masks = {i: rule.init(tiles, jax.random.key(0)) for i, tiles in self.tiles.items()}
        self.trained = {"masks": masks, "norms": norms if self.method.norms == "full" else {}, "head": head}

    @staticmethod
    def programmed(kernel: jax.Array) -> Tiles:
        return program(kernel, plan(kernel, CrossbarSpec(), Conv()), jax.random.key(0))

    def logits(self, trained: dict[str, Any], stats: Any, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        followed = {}
        for i in LAYERS:
            mask = self.rule.granularity.spread(
                self.rule.values(self.tiles[i], trained["masks"][i]), self.tiles[i].plan
            )
            stride, pad = GEOMETRY[i]
            dims = ("NHWC", "HWIO", "NHWC")
            window = (stride, stride), ((pad, pad), (pad, pad))
            x = jax.lax.conv_general_dilated(x, self.kernels[i] * mask, *window, dimension_numbers=dims)
            affine = trained["norms"].get(i, self.norms[i])
            use_batch = train and self.method.norms == "full"
            x, followed[i] = batch_norm(x, affine, stats[i], EPSILON, use_batch=use_batch)
            x = jax.nn.relu(x)
        return jnp.mean(x, (1, 2)) @ trained["head"]["kernel"] + trained["head"]["bias"], followed

    def train(self) -> tuple[list[float], Any]:
        tx, recipe = optimizer(How()), Recipe()
        rates = recipe.rates(self.method, 24)
        pace = Pace(rates, dict.fromkeys(rates, 1.0), 1.0, 0)
        trained, stats, opt = self.trained, self.stats, tx.init(self.trained)
        losses, first = [], None

        def loss(trained: Any, stats: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Any]:
            logits, followed = self.logits(trained, stats, x, True)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y)), followed

        @jax.jit
        def step(trained: Any, stats: Any, opt: Any, x: jax.Array, y: jax.Array) -> tuple:
            (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(trained, stats, x, y)
            updates, opt = tx.update(grads, opt, trained)
            return optax.apply_updates(trained, paced(updates, pace)), stats, opt, value, grads

        for x, y in zip(self.data["x"], self.data["y"], strict=True):
            trained, stats, opt, value, grads = step(trained, stats, opt, jnp.asarray(x, jnp.float64), jnp.asarray(y))
            losses.append(float(value))
            first = grads["masks"] if first is None else first
        self.trained, self.stats = trained, stats
        return losses, first

    def expected(self, key: str) -> np.ndarray:
        return self.data[f"{self.name}_{key}"]


@pytest.mark.parametrize("name", METHODS)
def test_24_steps_of_the_official_layers(name: str, oracle: Callable[[str], dict[str, np.ndarray]]) -> None:
    """Losses, first gradients, real masks, every decision, norms, head and evaluation logits, to 1e-9."""
    with jax.enable_x64(True):
        run = Run(name, oracle("mask_methods"))
        losses, first = run.train()
        np.testing.assert_allclose(losses, run.expected("loss"), rtol=0, atol=1e-9)
        for i in LAYERS:
            np.testing.assert_allclose(first[i], run.expected(f"grad{i}_step0"), rtol=1e-9, atol=1e-9)
            ours, theirs = run.trained["masks"][i], run.expected(f"m{i}")
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
            codes = run.rule.alphabet.encode
            np.testing.assert_array_equal(codes(ours) > 0, codes(jnp.asarray(theirs)) > 0)
            assert 0 < np.mean(theirs <= 5e-3) < 1  # some are off, some on
        for group, names in (("norms", ("scale", "bias")), ("stats", ("mean", "var"))):
            if run.method.norms == "full":
                ours = run.trained["norms"] if group == "norms" else run.stats
                for i in LAYERS:
                    for k in names:
                        np.testing.assert_allclose(ours[i][k], run.expected(f"bn{i}_{k}"), rtol=0, atol=1e-9)
        for k in ("kernel", "bias"):
            np.testing.assert_allclose(run.trained["head"][k], run.expected(f"head_{k}"), rtol=0, atol=1e-9)
        x_eval = jnp.asarray(run.data["x_eval"], jnp.float64)
        logits, _ = run.logits(run.trained, run.stats, x_eval, False)
        np.testing.assert_allclose(logits, run.expected("eval_logits"), rtol=0, atol=1e-9)
