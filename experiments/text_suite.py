"""Every method on a transformer's crossbars: MiniLM-L6, six text tasks, the same sentences, epochs and chips for all.

The rules are those of `experiments/suite`: the epoch is chosen on 15 % of the training sentences, test labels are read
once. `head_only` on the chip `float` (nothing on arrays) is the probe of the plain network.

Command:   python -m experiments.text_suite --data FOLDER --weights minilm_l6_f16.safetensors
           --tokenizer minilm_l6_tokenizer.json
           FOLDER holds NAME.train.tsv and NAME.test.tsv. --weights and --tokenizer may be
           hf://sentence-transformers/all-MiniLM-L6-v2. --tasks, --methods, --chips and --seeds choose a part;
           --sentences, --tokens and --epochs are the same for every method. Rates are the methods' own times
           --mask-rate, and --norm-rate and --head-rate: choose them by `val_accuracy` of the rows, never by the test
           accuracy.
Hardware:  two CPU cores; a GPU or TPU is used where JAX has one.
Time:      four minutes a training on one core: 1,000 sentences of 24 tokens, 4 epochs.
Writes:    <out>/text_suite.json after every job, and text_suite.md. Run again it carries on from the jobs that are
           there; other settings need another --out.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import tyro
from experiments.resume import command, read_records, write_records
from experiments.suite.chips import CHIPS, ChipKind, chip_of
from experiments.suite.pages import suite_table
from experiments.suite.parts import Job, learn, row_of
from rich.console import Console

import xbm_jax as xbm
from xbm_jax import report
from xbm_jax.examples import take
from xbm_jax.masks import Method, methods
from xbm_jax.storage.files import replace_file

BACKBONE = "minilm-l6"
TASKS = ("trec6", "subj", "cr", "mpqa", "sst2", "mr")
"""sst2 is built on the sentences of mr: learn them apart, never one to be tested by the other."""
METHODS = ("head_only", "norm_only", "xbm", "xbm_lines", "xma", "lora", "piggyback", "finetune")
FLOAT = "float"
"""No chip: every layer stays digital. The head alone is learned there."""
_VERIFIED = CHIPS["verified"].spec
KINDS = {
    "verified": CHIPS["verified"],
    "ideal": CHIPS["ideal"],
    "two_pass": ChipKind(_VERIFIED.replace(negative_inputs="two_pass")),
}
TOKENS = {"trec6": 24, "mpqa": 16}
"""Of a sentence, where fewer than 48 cut three training sentences in a hundred at most."""
CALIBRATED_ON = 64
"""Sentences: their tokens are values enough, and a column sum of each is held at once."""
MASK_RATES = {"lora": 1.0}
"""Factors on the methods' mask rates, 0.2 for others: of 0.2 and 1 the better one by the validation sentences of TREC-6
(600 sentences, 4 epochs, seed 0, norms and head at 1e-3). LoRA 56 and 83 %, XBM 90 and 90 %, Piggyback 83 and 23 %.
Norms and head of all methods likewise, at 1e-3 and 1e-2: norms alone 49 and 87 %, XBM 90 and 93 %, LoRA 83 and 91 %."""
FINETUNE_RATE = 5e-5
"""Of all weights of a transformer (Devlin 2019 searches 2e-5 to 5e-5); at the method's own 1e-3 it is gone."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        data: folder with NAME.train.tsv and NAME.test.tsv.
        weights: the backbone's.
        tokenizer: its tokenizer.json.
        out: folder for rows and table.
        tasks: of the grid, by name. methods, chips: likewise.
        seeds: each is a chip, an order of sentences and a training of its own.
        sentences: of a task, validation sentences among them: the first ones of its file.
        tokens: of a sentence; more are cut. None: as its task's sentences are long, 48 at most.
        test_sentences: the first ones that are tested on.
        epochs: passes over the sentences. batch_size: sentences a step.
        mask_rate: factor on the methods' mask rates, but for those that follow from the number of steps. None: by
            MASK_RATES.
        norm_rate: of norms, for all methods. head_rate: of the head, likewise.
    """

    data: Path
    weights: str
    tokenizer: str
    out: Path = Path("experiments/results")
    tasks: tuple[str, ...] = TASKS
    methods: tuple[str, ...] = METHODS
    chips: tuple[str, ...] = ("verified", FLOAT)
    seeds: tuple[int, ...] = (0,)
    sentences: int = 2500
    tokens: int | None = None
    test_sentences: int = 2000
    epochs: int = 8
    batch_size: int = 32
    mask_rate: float | None = None
    norm_rate: float = 1e-2
    head_rate: float = 1e-2

    def __post_init__(self) -> None:
        if not self.data.is_dir():
            raise xbm.DataError("--data", str(self.data), "a folder with the tasks' .tsv files")
        for name, allowed in (("tasks", TASKS), ("methods", METHODS), ("chips", (*KINDS, FLOAT))):
            unknown = sorted(set(getattr(self, name)) - set(allowed))
            if unknown:
                raise xbm.DataError(f"--{name}", ", ".join(unknown), "some of " + ", ".join(allowed))

    def tokens_of(self, task: str) -> int:
        """The most of a sentence of a task."""
        return TOKENS.get(task, 48) if self.tokens is None else self.tokens

    @property
    def training(self) -> xbm.Recipe:
        """Settings of the training loop."""
        return xbm.Recipe(epochs=self.epochs, batch_size=self.batch_size, eval_batch_size=self.batch_size)

    @property
    def kept(self) -> dict[str, Any]:
        """What has to be the same for finished jobs to count."""
        found = {name: getattr(self, name) for name in ("sentences", "test_sentences")}
        found["weights"] = Path(self.weights).name  # wherever they lie
        found["tokens"] = {task: self.tokens_of(task) for task in TASKS}
        recipes = {name: repr(tuned(self, name)) for name in METHODS}
        return found | {"training": self.training, "chips": KINDS, "methods": recipes}

    def jobs(self) -> Iterator[Job]:
        """The chosen part of the grid."""
        for seed, task, chip, method in itertools.product(self.seeds, self.tasks, self.chips, self.methods):
            if chip != FLOAT or method == "head_only":
                yield Job("text_suite", BACKBONE, task, chip, method, seed)


def tuned(config: Config, name: str) -> Method:
    """A method with the comparison's rates; a head alone learns at its own."""
    method = methods.by_name(name)
    if name == "head_only":
        return method
    factor = MASK_RATES.get(name, 0.2) if config.mask_rate is None else config.mask_rate
    rate = FINETUNE_RATE if name == "finetune" else factor * method.mask_lr
    rate = method.mask_lr if method.mask_lr_steps else rate
    return dataclasses.replace(method, mask_lr=rate, norm_lr=config.norm_rate, head_lr=config.head_rate)


@lru_cache(maxsize=2)
def data_of(config: Config, task: str) -> xbm.Dataset:
    """The first sentences of a task, each split's."""
    source = f"tsv:{config.data / task}"
    data = xbm.load(source, tokenizer=config.tokenizer, max_length=config.tokens_of(task), on_bad="skip")
    train, test = slice(config.sentences), slice(config.test_sentences)
    shorter = {"x_train": take(data.x_train, train), "y_train": data.y_train[train]}
    return dataclasses.replace(data, **shorter, x_test=take(data.x_test, test), y_test=data.y_test[test])


@lru_cache(maxsize=1)
def backbone_of(weights: str) -> xbm.Backbone:
    """The network, once."""
    return xbm.load_backbone(BACKBONE, weights)


@lru_cache(maxsize=2)
def chip_for(config: Config, task: str, kind: str, seed: int, lines: bool) -> xbm.Chip:
    """The chip of a task: the same for all its methods, but for ranges by line."""
    backbone = backbone_of(config.weights)
    if kind == FLOAT:
        return xbm.program(backbone, _VERIFIED, jax.random.key(seed), rules={"*": None})
    sentences = xbm.data.calibration_images(data_of(config, task), CALIBRATED_ON, seed)
    return chip_of(KINDS[kind], backbone, sentences, seed, lines=lines)


def run(config: Config, job: Job) -> dict[str, Any]:
    """Learn and measure one job."""
    data = data_of(config, job.task)
    chip = chip_for(config, job.task, job.chip, job.seed, job.method == "xbm_lines")
    began = time.perf_counter()
    task = learn(config, chip, data, tuned(config, job.method), job.seed)
    return row_of(config, job, chip, task, data, time.perf_counter() - began)


def main(config: Config, do: Callable[[Config, Job], dict[str, Any]] = run) -> None:
    """Resume, learn what is missing, write."""
    console, path = Console(), config.out / "text_suite.json"
    rows = read_records(path, config.kept, "rows")
    for job in config.jobs():
        if not any(row["job"] == job.name for row in rows):
            rows.append(do(config, job))
            write_records(path, report.run_context(config.kept, config.seeds[0]), rows, "rows")
            replace_file(config.out / "text_suite.md", suite_table(rows))
        row = next(row for row in rows if row["job"] == job.name)
        console.print(f"{row['job']:60} {row['accuracy']:6.1%}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    with command("text_suite"):
        main(tyro.cli(Config, description=__doc__))
