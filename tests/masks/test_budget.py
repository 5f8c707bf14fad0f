"""A price on columns: the penalty by hand, what it pushes and what it leaves alone."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.tiny import CONVERTED, tiny_chip
from xbm_jax.errors import MethodError, SpecError
from xbm_jax.hardware import column_prices, load_technology, workload
from xbm_jax.masks import Budget, methods
from xbm_jax.masks.budget import check_budget, priced
from xbm_jax.models import initial_trained
from xbm_jax.training import Recipe

PRICES = (("blocks/0/conv", 2.0), ("blocks/1/conv", 1.0), ("stem", 4.0))
ONE = jax.ShapeDtypeStruct((1, 12, 12, 3), np.uint8)


def values(method: Any) -> dict[str, jax.Array]:
    return initial_trained(tiny_chip(CONVERTED), method, 4, jax.random.key(0))["masks"]


def penalty(budget: Budget, masks: dict[str, jax.Array], progress: float = 0.4) -> jax.Array:
    rule = methods.xbm().rule
    assert rule is not None
    return priced(budget, rule, tiny_chip(CONVERTED).tiles, masks, jnp.asarray(progress))


def test_the_backbone_pays_the_weight() -> None:
    assert float(penalty(Budget(PRICES, 0.7), values(methods.xbm()))) == pytest.approx(0.7)


def test_share_by_hand() -> None:
    """Gains far off and far on: of the stem's two tiles the first is off in half of its eight channels."""
    masks = {path: jnp.full_like(m, 9.0) for path, m in values(methods.xbm()).items()}
    masks["stem"] = masks["stem"].at[0, :4].set(-9.0)
    whole = 4.0 * 16 + 2.0 * 24 + 1.0 * 24
    assert float(penalty(Budget(PRICES), masks)) == pytest.approx(1 - 4 * 4.0 / whole, rel=1e-5)
    assert float(penalty(Budget(PRICES, 3.0, bound=0.95), masks)) == 0
    assert float(penalty(Budget(PRICES, 3.0, bound=0.5), masks)) == pytest.approx(3 * (0.5 - 16 / whole), rel=1e-5)


def test_gradients_push_by_price_and_never_a_whole_channel() -> None:
    start = values(methods.xbm())
    masks = {path: m - 0.1 * jax.random.uniform(jax.random.key(1), m.shape) for path, m in start.items()}
    found = jax.grad(lambda m: penalty(Budget(PRICES), m))(masks)
    for path, gradient in found.items():
        largest = np.asarray(masks[path]) == np.asarray(masks[path]).max(0)
        assert (np.asarray(gradient)[~largest] > 0).all(), path  # descent pushes all but a channel's largest down
        assert (np.asarray(gradient)[largest] < 0).all(), path
    scaled = {path: gradient / dict(PRICES)[path] for path, gradient in found.items()}
    sizes = [float(np.abs(scaled[path]).mean()) for path in ("blocks/0/conv", "blocks/1/conv")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.2)


def test_channels_of_one_tile_have_no_price() -> None:
    chip = tiny_chip(CONVERTED.replace(rows=72))
    rule = methods.xbm().rule
    assert rule is not None
    masks = initial_trained(chip, methods.xbm(), 4, jax.random.key(0))["masks"]
    found = jax.grad(lambda m: priced(Budget(PRICES), rule, chip.tiles, m, jnp.asarray(0.4)))(masks)
    assert all((np.asarray(gradient) == 0).all() for gradient in found.values())


def test_lines_pay_half_each() -> None:
    rule = methods.xbm_lines().rule
    assert rule is not None
    masks = {path: jnp.full_like(m, 9.0) for path, m in values(methods.xbm_lines()).items()}
    masks["stem"] = masks["stem"].at[:, 1].set(-9.0)
    whole = 4.0 * 16 + 2.0 * 24 + 1.0 * 24
    found = priced(Budget(PRICES), rule, tiny_chip(CONVERTED).tiles, masks, jnp.asarray(0.4))
    assert float(found) == pytest.approx(1 - 4.0 * 16 / 2 / whole, rel=1e-5)


def test_prices_are_what_a_column_costs() -> None:
    """8-bit conversions of ISAAC, 1.5625 pJ, with what follows them; a layer read more often costs more a column."""
    chip = tiny_chip(CONVERTED)
    prices = dict(column_prices(load_technology("isaac-32nm"), workload(chip, ONE)))
    technology = load_technology("isaac-32nm")
    names = ("adc_joules", "sample_hold_joules", "shift_add_joules", "accumulate_joules")
    each = sum(float(technology.get(name)) for name in names)
    assert prices == pytest.approx(
        {"stem": 36 * each, "blocks/0/conv": 9 * each, "blocks/1/conv": 4 * each}, rel=1e-6, abs=0
    )


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"prices": (("a", -1.0),)}, "Budget.prices"),
        ({"prices": (("a", math.nan),)}, "Budget.prices"),
        ({"prices": (("a", 0.0),)}, "Budget.prices"),
        ({"prices": PRICES, "weight": -1.0}, "Budget.weight"),
        ({"prices": PRICES, "bound": 1.5}, "Budget.bound"),
    ],
)
def test_wrong_budgets_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises((SpecError, MethodError), match=field.replace(".", r"\.")):
        Budget(**options)


def test_budgets_need_column_gains_and_the_chips_layers() -> None:
    layers = tiny_chip(CONVERTED).tiles.keys()
    for method in (methods.norm_only(), methods.piggyback(), methods.lora()):
        with pytest.raises(MethodError, match=r"Recipe\.budget"):
            check_budget(Budget(PRICES), method.rule, layers)
    with pytest.raises(MethodError, match=r"Budget\.prices"):
        check_budget(Budget(PRICES[:2]), methods.xbm().rule, layers)
    check_budget(Budget(PRICES), methods.xma().rule, layers)
    with pytest.raises(SpecError, match=r"Recipe\.budget = 0\.5"):
        Recipe(budget=0.5)  # type: ignore[arg-type]
