"""The blocks of docs/start/tour.md are one program that runs: with a small network, and as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbm_jax as xbm
from models.tiny import IMAGE, tiny_backbone

PAGE = Path(__file__).resolve().parents[1] / "docs" / "start" / "tour.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def small_fashion(name: str) -> xbm.Dataset:
    """Two classes, told apart by which half of an image is bright; sizes that the page's subset leaves whole."""
    assert name == "fashion_mnist"
    rng = np.random.default_rng(0)
    y = np.arange(800) % 2
    x = rng.integers(0, 128, (800, IMAGE, IMAGE, 1), np.uint8)
    x[:, : IMAGE // 2] += (y[:, None, None, None] * 100).astype(np.uint8)
    return xbm.Dataset(name, x[:600], y[:600], x[600:], y[600:], class_names=("dark", "bright"))


def run(blocks: list[str]) -> dict[str, Any]:
    space: dict[str, Any] = {}
    for block in blocks:
        exec(block, space)
    return space


def test_each_part_has_its_block_and_none_is_long() -> None:
    assert len(BLOCKS) == 10
    assert max(block.count("\n") for block in BLOCKS) <= 8
    for block in BLOCKS:
        compile(block, str(PAGE), "exec")


@pytest.mark.slow
def test_the_tour_with_a_small_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(xbm, "load_backbone", lambda name: tiny_backbone())
    monkeypatch.setattr(xbm, "load", small_fashion)
    space = run(BLOCKS)
    assert list(space["bank"].names) == ["fashion"]
    assert space["answer"].shape == (8, 2)
    assert space["report"].inference_joules > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tour_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(BLOCKS)["task"].meta["accuracy"] > 0.3  # a tenth by chance
