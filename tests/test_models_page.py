"""Every block of docs/models.md runs, and is as short as it says; its table is what comes of trying."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from tools import flax_table

import xbm_jax as xbm
from xbm_jax.cli.spec_file import read_spec_file
from xbm_jax.models import Where

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- run: (\w+)(?:, at most (\d+) lines)? -->\n```python\n(.*?)```", re.DOTALL)
BLOCKS = {name: (int(limit or 99), code) for name, limit, code in BLOCK.findall(TEXT)}


def made_up(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes told apart by which features of eight tokens are large."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = rng.standard_normal((count, 8, 16)).astype(np.float32) * 0.5
    x += 2.0 * (np.arange(16) // 5 == y[:, None])[:, None]
    return x, y


def run(name: str, **given: Any) -> dict[str, Any]:
    (x, y), (x_test, y_test) = made_up(60, 0), made_up(30, 1)
    space: dict[str, Any] = {"jax": jax, "jnp": jnp, "np": np, "nn": nn, "nnx": nnx, "xbm": xbm} | given
    space |= {"dataclass": dataclasses.dataclass, "x": x, "y": y, "x_test": x_test, "y_test": y_test}
    space |= {"recipe": xbm.Recipe(epochs=10, batch_size=20), "__name__": __name__}
    exec(BLOCKS[name][1], space)
    return space


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_as_short_as_it_says(name: str) -> None:
    limit, code = BLOCKS[name]
    assert len([line for line in code.splitlines() if line.strip()]) <= limit


def test_there_are_all_blocks() -> None:
    assert set(BLOCKS) == {"nnx", "linen", "unstacked", "rules", "objective", "back", "layer", "device"}


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("nnx", {"attend/query", "attend/key", "attend/value", "attend/out"}),
        ("linen", {"Conv_0"}),
    ],
)
def test_a_module_of_ones_own_learns_in_fifteen_lines(name: str, layers: set[str], capsys: Any) -> None:
    space = run(name)
    assert set(space["chip"].tiles) == layers
    assert space["task"].meta["accuracy"] > 0.5  # a third by chance
    assert str(space["task"].meta["accuracy"]) in capsys.readouterr().out
    if name == "linen":
        back = run("back", chip=space["chip"], model=space["model"], task=space["task"])
        assert back["learned"]["params"]["Dense_0"]["kernel"].shape == (16, 3)  # as many as the task's classes
        np.testing.assert_allclose(back["answer"], space["model"].apply(space["variables"], back["x_test"]), atol=0.1)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, _: Any) -> tuple[jax.Array, None]:
        return x + nn.relu(nn.Dense(16)(x)), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stack = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return nn.Dense(4, name="head")(stack(name="blocks")(x, None)[0].mean(1))


def test_a_stack_is_a_loop_of_its_slices() -> None:
    scanned, (x, _) = Scanned(), made_up(6, 0)
    variables = scanned.init(jax.random.key(0), x)
    space = run("unstacked", Block=Block, scanned_variables=variables)
    assert set(space["chip"].tiles) == {f"block{i}/Dense_0" for i in range(3)}
    wanted: Any = scanned.apply(variables, x)
    np.testing.assert_allclose(space["Looped"]().apply(space["mine"]["variables"], x), wanted, atol=1e-5)


class Attends(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attend = nnx.MultiHeadAttention(2, 16, decode=False, rngs=rngs)
        self.head = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.attend(x).mean(1))


def test_rules_on_the_page() -> None:
    tiles = run("rules", Attends=Attends)["chip"].tiles
    assert {path: own.plan.spec.rows for path, own in tiles.items()} == {
        "attend/key": 32,
        "attend/out": 16,
        "attend/value": 32,
    }


def test_the_file_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)[0], encoding="utf-8")
    spec, rules = read_spec_file(tmp_path / "f.toml", xbm.spec_by_name("verified"))
    assert spec.rows == 128 and spec.cell.bits == 4 and isinstance(spec.device, xbm.crossbar.ReramWan)
    assert dict(rules) == {Where("stem"): None, Where("*", "Conv", (1, 1, None, None)): spec.replace(rows=32)}


def test_the_objective_on_the_page() -> None:
    objective = run("objective")["Absolute"]()
    x, y = made_up(60, 0)
    chip = xbm.program(Attends(nnx.Rngs(0)), xbm.CrossbarSpec(rows=16), jax.random.key(0), inputs=x[0])
    data = xbm.Dataset("numbers", x, y.astype(np.float32), x, y.astype(np.float32), kind="arrays")
    recipe = xbm.Recipe(epochs=20, batch_size=20, objective=objective)
    chip = xbm.calibrate(chip, x)
    task = xbm.adapt(chip, data, method=xbm.methods.head_only(), key=jax.random.key(1), config=recipe)
    assert xbm.evaluate(chip, task, x, data.y_test, objective=objective) > 0.6  # a third by chance


def test_the_layer_on_the_page() -> None:
    space = run("layer")
    kind = space["Normalised"]

    class Holds(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.own, self.head = kind(16, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.head(nnx.relu(self.own(x)).mean(1))

    module, x = Holds(nnx.Rngs(0)), space["x"]
    spec = xbm.CrossbarSpec(rows=16, adc=xbm.Adc(bits=None))
    chip = xbm.calibrate(xbm.program(module, spec, jax.random.key(0), inputs=x[0]), x)
    assert list(chip.tiles) == ["own"] and xbm.models.digital_weights(chip) == {}
    np.testing.assert_allclose(jnp.linalg.norm(xbm.models.held_weights(chip.tiles["own"]), axis=0), 1, atol=0.02)
    got, want = xbm.predict(chip, xbm.source_task(chip), x), module(jnp.asarray(x))
    np.testing.assert_allclose(got, want, atol=0.03 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(
    ("kind", "form", "message"),
    [
        (int, None, "kind = .*: a class of NNX modules"),
        (type("Linear", (nnx.Linear,), {}), None, "kind = 'Linear': a name that no kind has"),
    ],
)
def test_what_cannot_be_registered(kind: Any, form: Any, message: str) -> None:
    with pytest.raises(xbm.ModelError, match=message):
        xbm.models.register_layer(kind, form)


def test_the_device_on_the_page() -> None:
    space = run("device")
    x = space["x"]
    chip = xbm.calibrate(xbm.program(Attends(nnx.Rngs(0)), space["leaky"], jax.random.key(0), inputs=x[0]), x)
    half = xbm.models.held_weights(chip.at(1e6).tiles["attend/out"])
    np.testing.assert_allclose(half, xbm.models.held_weights(chip.tiles["attend/out"]) / 2, atol=0.01)
    assert chip.tiles["attend/out"].read_variance is not None


def test_the_table_is_what_comes_of_trying() -> None:
    """``python -m tools.flax_table`` writes it."""
    assert flax_table.page(TEXT) == TEXT
    fates = {fate for _, fate, _ in flax_table.fates()}
    assert fates == {"on arrays", "digital", "the task's", "refused"}
