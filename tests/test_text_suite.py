"""The comparison on text: its grid, its rates, resuming, and one job from sentences to a row at toy size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import text_probe, text_suite
from experiments.suite.parts import Job
from scipy.special import log_softmax

import xbm_jax as xbm
from models.tiny_text import VOCABULARY, text_backbone
from xbm_jax.data import Tokenizer, sources


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> text_suite.Config:
    """Two toy tasks: does a sentence begin with an a?"""
    for name in ("trec6", "cr"):
        for split, count in (("train", 60), ("test", 20)):
            lines = [f"{i % 2}\t{'ab'[i % 2]} {'cdefg'[i % 5]} {'hijk'[i % 4]}" for i in range(count)]
            (tmp_path / f"{name}.{split}.tsv").write_text("\n".join(lines))
    tokenizer = Tokenizer(lambda texts: [[1, *(ord(c) % VOCABULARY for c in text.split()), 2] for text in texts])
    monkeypatch.setattr(sources, "load_tokenizer", lambda _: tokenizer)
    monkeypatch.setattr(text_suite, "backbone_of", lambda _: text_backbone())
    places = {"data": tmp_path, "weights": "w.safetensors", "tokenizer": "t.json", "out": tmp_path / "out"}
    return text_suite.Config(**places, epochs=2, sentences=48, tokens=16)


def test_the_grid_has_a_float_probe_and_every_method_on_the_chip(config: text_suite.Config) -> None:
    jobs = list(config.jobs())
    assert len(jobs) == 6 * (8 + 1)
    assert {job.method for job in jobs if job.chip == "float"} == {"head_only"}
    assert {job.method for job in jobs if job.chip == "verified"} == set(text_suite.METHODS)


def test_rates_are_those_of_the_comparison(config: text_suite.Config) -> None:
    assert text_suite.tuned(config, "head_only") == xbm.methods.head_only()
    made = {name: text_suite.tuned(config, name) for name in text_suite.METHODS[1:]}
    assert {method.norm_lr for method in made.values()} == {config.norm_rate}
    assert made["piggyback"].mask_lr == pytest.approx(0.2 * xbm.methods.piggyback().mask_lr)
    assert made["xbm"].mask_lr == xbm.methods.xbm().mask_lr  # follows from the number of steps
    assert made["finetune"].mask_lr == text_suite.FINETUNE_RATE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ("imdb",)}, "--tasks = 'imdb': some of trec6"),
        ({"methods": ("ksm",)}, "--methods = 'ksm': some of head_only"),
        ({"chips": ("worn",)}, "--chips = 'worn': some of verified"),
        ({"data": Path("nowhere")}, "--data"),
    ],
)
def test_unknown_names_are_told(changes: dict[str, Any], message: str, config: text_suite.Config) -> None:
    with pytest.raises(xbm.DataError, match=message):
        dataclasses.replace(config, **changes)


def test_the_probe_is_at_the_losses_minimum() -> None:
    """The slope is zero there, by differences; weights are drawn to zero, the bias is not."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    weights, bias = text_probe.fitted(x, y, 3, 2.0)

    def loss(w: np.ndarray, b: np.ndarray) -> float:
        return float(-2.0 * log_softmax(x @ w.T + b, axis=1)[np.arange(40), y].sum() + (w**2).sum() / 2)

    for index in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[index] = 1e-4
        assert abs(loss(weights + step, bias) - loss(weights - step, bias)) / 2e-4 < 1e-2
        assert abs(loss(weights, bias + step[0]) - loss(weights, bias - step[0])) / 2e-4 < 1e-2
    assert np.abs(text_probe.fitted(x, y, 3, 1e-3)[0]).max() < np.abs(weights).max() / 10


def row(config: Any, job: Job) -> dict[str, Any]:
    counts = dict.fromkeys(("mask_bits", "norm_bits", "head_bits", "weight_bits_stored", "cells_written"), 0)
    rest = {"images": 48, "epochs": 2, "norm_policy": "full", "test_images": 8, "hits": "/w==", "accuracy": 1.0}
    return {"job": job.name, **dataclasses.asdict(job), **counts, **rest}


def test_jobs_that_are_there_are_kept(config: text_suite.Config) -> None:
    learned: list[str] = []

    def do(config: Any, job: Job) -> dict[str, Any]:
        learned.append(job.name)
        return row(config, job)

    part = dataclasses.replace(config, tasks=("trec6",), methods=("norm_only", "xbm"), chips=("verified",))
    text_suite.main(part, do)
    text_suite.main(dataclasses.replace(part, tasks=("trec6", "cr")), do)
    assert [name.split()[1:4] for name in learned] == [
        [task, "verified", method] for task in ("trec6", "cr") for method in ("norm_only", "xbm")
    ]
    assert len(json.loads((config.out / "text_suite.json").read_text())["rows"]) == 4
    assert "| xbm |" in (config.out / "text_suite.md").read_text()
    with pytest.raises(xbm.OutputError, match="other sentences"):
        text_suite.main(dataclasses.replace(part, sentences=40), do)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*zero but for outliers")
def test_jobs_go_from_sentences_to_rows(config: text_suite.Config) -> None:
    part = dataclasses.replace(config, tasks=("trec6",), methods=("head_only", "xbm", "xbm_lines"), batch_size=16)
    text_suite.main(part)
    rows = {(r["chip"], r["method"]): r for r in json.loads((config.out / "text_suite.json").read_text())["rows"]}
    assert set(rows) == {
        ("float", "head_only"),
        ("verified", "head_only"),
        ("verified", "xbm"),
        ("verified", "xbm_lines"),
    }
    bits = [rows["verified", name]["mask_bits"] for name in ("head_only", "xbm", "xbm_lines")]
    assert bits == [0, 4 * 16 + 24 + 16, 2 * (4 * 16 + 24 + 16)]
    assert {r["images"] for r in rows.values()} == {48} and {r["test_images"] for r in rows.values()} == {20}
