"""A task by line from training to serving, and what is seen of it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crossbar.cell_by_cell import CellByCell
from crossbar.literal import contract, input_codes, unfold
from tasks import tiny
from xbm_jax.banks import MaskBank
from xbm_jax.crossbar import Adc, Cell, Gaussian, nominal_weights
from xbm_jax.errors import MethodError
from xbm_jax.masks import Binary, Identity, Line, methods
from xbm_jax.models import Chip, initial_trained, program
from xbm_jax.serving import serve
from xbm_jax.tasks import Task, active_columns, adc_clip_rates, inspect, predict
from xbm_jax.training import TrainConfig, adapt

LINES = methods.masked("lines", Line(), Binary(), Identity(), mask_lr=1e-2)
IMAGES = tiny.stripes().x_test[:10]
LOW, HIGH = -200.0, 2000.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ideal", "adc"])
def test_a_task_by_line_is_learned_stored_and_served(tmp_path: Any, kind: str) -> None:
    chip = tiny.chip(kind)
    before = tiny.leaves(chip)
    task = adapt(chip, tiny.stripes(), method=LINES, key=jax.random.key(0), config=TrainConfig(epochs=2, batch_size=32))
    tiny.assert_same_bits(chip, before)
    shares = active_columns(chip, task)
    assert task.meta["active_columns"] == shares and min(shares.values()) < 1
    logits = task.trained["masks"]["conv2"]
    assert logits.shape == (3, 2, 8) and bool(jnp.any(logits[:, 0] != logits[:, 1]))
    bank = MaskBank.create(tmp_path, chip)
    bank.put("lines", task, compact=False)
    wanted = predict(chip, task, IMAGES)
    assert np.array_equal(predict(chip, bank.get("lines"), IMAGES), wanted)
    served = serve(chip, bank, batch_size=10).logits(IMAGES, "lines")
    # A code that float32 rounds the other way moves a logit by a step.
    np.testing.assert_allclose(served, wanted, rtol=0, atol=1e-5 if kind == "ideal" else 2e-2)
    assert np.array_equal(predict(chip.with_lines(), task, IMAGES), wanted)


def masked(subtract: Any) -> tuple[Chip, Task]:
    """A chip of two slices, two cycles and narrow converters, and a task that leaves out some lines."""
    spec = tiny.SPECS["ideal"].replace(
        adc=Adc(8, (LOW, HIGH)), cell=Cell(4, 50.0), dac_bits=4, device=Gaussian(0.03), subtract=subtract
    )
    chip = program(tiny.measured_weights(), spec, jax.random.key(0))
    task = tiny.made_up_task(chip, LINES)
    mask = np.ones((2, 2, 8), np.float32)
    mask[0, 0, :3] = mask[1, 1, 2:4] = mask[0, 1, 1] = -1
    return chip, task.replace(trained={**task.trained, "masks": {**task.trained["masks"], "conv1": jnp.asarray(mask)}})


@pytest.mark.parametrize("subtract", ["analog", "digital"])
def test_an_inspection_counts_lines_and_what_is_converted(subtract: str) -> None:
    chip, task = masked(subtract)
    tiles, gain = chip.tiles["conv1"], (np.asarray(task.trained["masks"]["conv1"]) > 0).astype(float)
    x = np.asarray(chip.network.prepared(jnp.asarray(IMAGES)), np.float64)
    scale = np.asarray(tiles.input_scale).item()
    literal = CellByCell(tiles, np.asarray(tiles.conductance))
    found = literal.by_line(input_codes(x, scale, 8, signed=True), gain)
    got = found.digital.sum(0) * np.asarray(tiles.weight_scale) * scale
    nominal = np.asarray(nominal_weights(tiles), np.float64)
    on_kernel = gain[literal.index]  # [kh, kw, c, 2, N]
    weights = nominal * np.where(nominal < 0, on_kernel[..., 1, :], on_kernel[..., 0, :])
    wanted = contract(unfold(x, weights.shape, tiles.plan.conv), weights)
    layer = inspect(chip, IMAGES, task, batch_size=4).layers[0]
    ratio = 10 * np.log10(np.sum(wanted**2) / np.sum((got - wanted) ** 2))
    assert layer.snr_db == pytest.approx(ratio, abs=0.05)
    assert layer.active_columns == active_columns(chip, task)["conv1"] == gain.mean()
    converted = gain.any(1) if subtract == "analog" else gain
    clipped = found.clipped * converted  # shares of each column's, or each line's, conversions
    assert 0.001 < layer.clip_rate < 0.5
    assert layer.clip_rate == pytest.approx(clipped.sum() / converted.sum(), rel=0.01)
    assert adc_clip_rates(chip, task, IMAGES)["conv1"] == pytest.approx(layer.clip_rate, abs=1e-6)
    at = np.unravel_index(np.argmax(clipped), clipped.shape)
    assert layer.worst_clip is not None and (layer.worst_clip.tile, layer.worst_clip.column) == (at[0], at[-1])


def test_a_lossless_layer_is_simulated_by_line_and_says_so() -> None:
    spec = tiny.SPECS["ideal"].replace(adc=Adc(16, "granular"), cell=Cell(4), dac_bits=4)
    chip = program(tiny.measured_weights(), spec, jax.random.key(0))
    assert all(layer.folded for layer in inspect(chip, IMAGES).layers)
    layers = inspect(chip, IMAGES, tiny.made_up_task(chip, LINES)).layers
    assert not any(layer.folded for layer in layers) and "one line" in layers[0].fold_reason


def test_a_chip_without_pairs_has_no_tasks_by_line() -> None:
    chip = program(tiny.measured_weights(), tiny.SPECS["ideal"].replace(encoding="offset"), jax.random.key(0))
    with pytest.raises(MethodError, match="no other encoding has a positive and a negative line"):
        initial_trained(chip, LINES, 4, jax.random.key(0))
