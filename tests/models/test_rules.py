"""Layers chosen by path, kind, shape or a function; a rule that decides for nothing is an error."""

from __future__ import annotations

from typing import Any

import jax
import pytest

from models.tiny import CONVS, IDEAL, tiny_backbone
from xbm_jax.errors import ModelError
from xbm_jax.models import Layer, Where, digital_weights, program

SMALL = IDEAL.replace(rows=12)


@pytest.mark.parametrize(
    ("rule", "matched"),
    [
        ("blocks/*", CONVS[:2]),
        (Where("blocks/*"), CONVS[:2]),
        (Where(kind="Conv"), CONVS),
        (Where(shape=(3, 3, 3, None)), ["stem"]),
        (Where(shape=(None, None, 8, 8)), CONVS[:2]),
        (Where("*/0/*", "Conv", (3, 3, 8, 8)), CONVS[:1]),
        (lambda layer: layer.shape[-2] > 3 and layer.path < "blocks/1", CONVS[:1]),
    ],
)
def test_what_a_rule_matches(rule: Any, matched: list[str]) -> None:
    chip = program(tiny_backbone(), IDEAL, jax.random.key(0), rules={rule: SMALL})
    assert [path for path, tiles in chip.tiles.items() if tiles.plan.spec == SMALL] == matched
    chip = program(tiny_backbone(), IDEAL, jax.random.key(0), rules={rule: None})
    assert set(digital_weights(chip)) == {f"{path}/kernel" for path in matched}


def test_the_first_match_wins() -> None:
    rules = {Where("stem"): None, Where(kind="Conv"): SMALL}
    chip = program(tiny_backbone(), IDEAL, jax.random.key(0), rules=rules)
    assert {path: tiles.plan.spec for path, tiles in chip.tiles.items()} == dict.fromkeys(CONVS[:2], SMALL)


def test_a_function_sees_path_kind_and_shape() -> None:
    seen: list[Layer] = []
    program(tiny_backbone(), IDEAL, jax.random.key(0), rules={lambda layer: seen.append(layer) or True: SMALL})
    assert seen[-1] == ("stem", "Conv", (3, 3, 3, 8))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"stam": None}, "rules = 'stam': a pattern that matches one of: blocks/0/conv, blocks/1/conv, stem"),
        ({Where("stam"): None}, r"a pattern that matches one of: .*stem \(Conv \[3, 3, 3, 8\]\)"),
        ({"head": None}, "rules = 'head'"),
        ({Where(kind="Linear"): None}, r"rules = Where\(.*kind='Linear'"),
        ({Where(shape=(3, 3, 3)): None}, "a pattern that matches one of"),
        ({lambda layer: False: None}, "a pattern that matches one of"),
        ({3: None}, "rules = 3"),
        ({"*": SMALL, "stem": None}, r"rules = 'stem': a rule that decides for a layer; .*: stem by '\*'"),
        ({"blocks/0/*": None, "blocks/1/*": None, Where("blocks/*"): SMALL}, "blocks/1/conv by 'blocks/1/"),
        ({"stem": 64}, r"rules\['stem'\] = 64: a CrossbarSpec, or None"),
        (["stem"], "a mapping from path patterns"),
    ],
)
def test_rules_that_decide_nothing(rules: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        program(tiny_backbone(), IDEAL, jax.random.key(0), rules=rules)
