"""The published setting: recipes as published, published means as printed, sets at their sizes, resuming."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import imagenet_to_sketch as published

import xbm_jax as xbm
from tasks import tiny
from xbm_jax import report
from xbm_jax.data import Augment
from xbm_jax.masks import methods

CONFIG = published.Config(weights="none.npz", tasks=("flowers",), methods=("xbm", "piggyback"))


def test_every_method_has_a_recipe_and_published_ones_theirs() -> None:
    assert set(published.RECIPES) == set(methods.METHODS)
    piggyback, schedule = published.RECIPES["piggyback"]
    assert (piggyback.norms, piggyback.mask_lr, piggyback.head_lr, schedule) == ("frozen", 1e-4, 1e-4, "step")
    ksm, schedule = published.RECIPES["ksm_soft"]
    assert (ksm.norms, ksm.mask_lr, ksm.norm_lr, ksm.head_lr, schedule) == ("full", 2e-4, 2e-4, 2e-4, "cosine")
    finetune, _ = published.RECIPES["finetune"]
    assert (finetune.optimizer, finetune.mask_lr, finetune.norms) == ("sgd", 1e-3, "full")
    assert (CONFIG.epochs, CONFIG.batch_size, CONFIG.pixels) == (30, 32, 224)


@pytest.mark.parametrize(
    ("name", "mean"), [("fine-tuning", 85.52), ("Piggyback (released masks)", 83.70), ("CPG", 86.10)]
)
def test_published_rows_have_their_printed_means(name: str, mean: float) -> None:
    assert np.mean(published.PUBLISHED[name]) == pytest.approx(mean, abs=0.006)


@pytest.mark.parametrize(
    ("name", "size", "augment"), [("cars_cropped", 224, Augment()), ("sketch", 256, Augment(size=224))]
)
def test_sets_are_read_at_the_recipes_size(monkeypatch: Any, name: str, size: int, augment: Augment) -> None:
    asked: list[tuple] = []

    def load(source: str, **options: Any) -> xbm.Dataset:
        asked.append((source, options["image_size"]))
        return tiny.stripes()

    monkeypatch.setattr(xbm, "load", load)
    assert published.load(CONFIG, name)[1] == augment
    assert asked == [(f"tfds:{name}", size)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"tasks": ("birds",)}, "--tasks = 'birds': some of cubs_cropped"), ({"methods": ("ksm",)}, "--methods = 'ksm'")],
)
def test_unknown_names_are_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(xbm.DataError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_rows_that_are_there_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[tuple[str, str]] = []

    def learn(config: Any, chip: Any, data: Any, name: str, method: str, augment: Any) -> report.Row:
        learned.append((name, method))
        assert data.x_train.shape[-1] == data.x_test.shape[-1] == 3  # as the backbone takes them
        return report.Row(name, method, 0.9, 0.9, 10, 1, 1, 0, 64, 1.0, 1.0, 0)

    monkeypatch.setattr(published, "learn", learn)
    colour = tiny.stripes()
    grey = dataclasses.replace(colour, x_train=colour.x_train[..., :1], x_test=colour.x_test[..., :1])
    monkeypatch.setattr(published, "load", lambda _, name: (grey if name == "sketch" else colour, Augment()))
    monkeypatch.setattr(xbm, "load_backbone", lambda *_: tiny.weights())
    config = dataclasses.replace(CONFIG, out=tmp_path)
    published.main(config)
    published.main(dataclasses.replace(config, tasks=("flowers", "sketch"), methods=("xbm",)))
    assert learned == [("flowers", "xbm"), ("flowers", "piggyback"), ("sketch", "xbm")]
    text = (tmp_path / "table.md").read_text()
    assert "| xbm | - | - | 90.0 | - | 90.0 | 90.0 |" in text and "fine-tuning, published" in text
    assert json.loads((tmp_path / "results.json").read_text())["context"]["config"]["pixels"] == 224
    with pytest.raises(xbm.OutputError, match="its rows have other epochs"):
        published.main(dataclasses.replace(config, epochs=2))
