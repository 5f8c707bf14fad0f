"""What a transformer's chip leaves of its features: logistic regression on frozen ones, float network and chips alike.

    min over W, b:   C * sum_i -log softmax(W f_i + b)[y_i] + |W|^2 / 2

by L-BFGS on all training sentences, for several C, so that neither a split nor an epoch is chosen. Features are those
of the network as it is: nothing is learned on the chip.

Command:   python -m experiments.text_probe --data FOLDER --weights minilm_l6_f16.safetensors
           --tokenizer minilm_l6_tokenizer.json
           --tasks and --chips choose a part; files as for `experiments/text_suite.py`.
Hardware:  two CPU cores.
Time:      on one busy core one minute a task of the float network, five of a chip with converters.
Writes:    <out>/text_probe.json after every task and chip, and text_probe.md. Run again it carries on.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import tyro
from experiments import text_suite
from experiments.resume import command, read_records, write_records
from experiments.suite.pages import table
from scipy.optimize import minimize
from scipy.special import log_softmax

import xbm_jax as xbm
from xbm_jax import report
from xbm_jax.storage.files import replace_file

STRENGTHS = (1.0, 3.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Config(text_suite.Config):
    """Options: those of the suite that say which sentences, chips and seed; others have no effect."""

    tasks: tuple[str, ...] = ("trec6", "subj")
    chips: tuple[str, ...] = (text_suite.FLOAT, "ideal", "verified")
    sentences: int = 1500
    test_sentences: int = 500


def accuracies(features: tuple[np.ndarray, np.ndarray], data: xbm.Dataset) -> dict[str, float]:
    """Test accuracy by C, of features of training and test sentences."""
    train, test = (np.asarray(x, np.float64) for x in features)
    found = {}
    for strength in STRENGTHS:
        weights, bias = fitted(train, data.y_train, data.num_classes, strength)
        found[f"C = {strength:g}"] = float(np.mean(np.argmax(test @ weights.T + bias, -1) == data.y_test))
    return found


def fitted(x: np.ndarray, y: np.ndarray, classes: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights [classes, features] and bias [classes] of the regression above."""
    targets = np.eye(classes)[y]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        both = flat.reshape(classes, -1)
        weights, bias = both[:, :-1], both[:, -1]
        logs = log_softmax(x @ weights.T + bias, axis=1)
        error = strength * (np.exp(logs) - targets)
        slope = np.concatenate([error.T @ x + weights, error.sum(0)[:, None]], axis=1)
        return -strength * np.sum(logs * targets) + np.sum(weights**2) / 2, slope.ravel()

    start = np.zeros(classes * (x.shape[1] + 1))
    both = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x.reshape(classes, -1)
    return both[:, :-1], both[:, -1]


def features_of(config: Config, task: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The source network's features of a task's sentences: without a head of its own they are its answer."""
    data, spec = text_suite.data_of(config, task), text_suite.KINDS["verified"].spec
    rules = {"*": None} if kind == text_suite.FLOAT else None
    spec = spec if kind == text_suite.FLOAT else text_suite.KINDS[kind].spec
    chip = xbm.program(text_suite.backbone_of(config.weights), spec, jax.random.key(config.seeds[0]), rules=rules)
    if chip.tiles:
        sentences = xbm.data.calibration_images(data, text_suite.CALIBRATED_ON)
        chip = xbm.calibrate(chip, sentences, batch_size=16)
    source = xbm.source_task(chip)
    return xbm.predict(chip, source, data.x_train), xbm.predict(chip, source, data.x_test)


def main(config: Config) -> None:
    """Resume, measure what is missing, write."""
    kept = {name: config.kept[name] for name in ("sentences", "test_sentences", "tokens", "weights")}
    path, kept = config.out / "text_probe.json", kept | {"seeds": config.seeds}
    rows: list[dict[str, Any]] = read_records(path, kept, "rows")
    for task in config.tasks:
        for kind in config.chips:
            if not any((row["task"], row["chip"]) == (task, kind) for row in rows):
                found = accuracies(features_of(config, task, kind), text_suite.data_of(config, task))
                rows.append({"task": task, "chip": kind, "accuracy": found})
                write_records(path, report.run_context(kept, config.seeds[0]), rows, "rows")
                replace_file(config.out / "text_probe.md", page(rows))
                print(rows[-1])


def page(rows: list[dict[str, Any]]) -> str:
    """A task on a chip a line; accuracy by C."""
    lines = [[f"{row['task']}, {row['chip']}", *(f"{100 * a:.1f}" for a in row["accuracy"].values())] for row in rows]
    return table(["task, chip", *(f"C = {c:g}" for c in STRENGTHS)], lines)


if __name__ == "__main__":
    with command("text_probe"):
        main(tyro.cli(Config, description=__doc__))
