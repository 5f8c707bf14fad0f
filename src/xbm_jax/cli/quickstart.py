"""The main job: a real network onto a chip once, three real tasks learned as column masks, stored and served."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from xbm_jax import report
from xbm_jax.banks import MaskBank, chip_card, load_chip, save_chip
from xbm_jax.cli.compiled import passed_on
from xbm_jax.cli.console import Output, say, writable
from xbm_jax.cli.reopen import packed, probe_batch, probe_index
from xbm_jax.cli.resume import carried_on
from xbm_jax.cli.settle import placement
from xbm_jax.crossbar import spec_by_name
from xbm_jax.crossbar.primitives.platforms import here
from xbm_jax.data import Dataset, load, stratified_sample
from xbm_jax.errors import DataError, OutputError
from xbm_jax.hardware import arrays_used
from xbm_jax.masks import Method, methods
from xbm_jax.models import Backbone, Chip, check_inputs, load_backbone, program
from xbm_jax.report.context import plain
from xbm_jax.report.web.found import Confusion, Found
from xbm_jax.report.web.gather import PAGE, found_in, write_page
from xbm_jax.storage import codec, store
from xbm_jax.storage.files import replace_json
from xbm_jax.storage.lock import locked
from xbm_jax.streams import Command, stream
from xbm_jax.tasks import Inspection, Task, compact, inspect, predict, source_task
from xbm_jax.training import Recipe, adapt, for_chip

__all__ = ["METHODS", "SPEC", "TASKS", "TRAIN", "quickstart"]

SPEC = spec_by_name("verified")

TRAIN = Recipe(epochs=3, batch_size=32)

TRAIN_IMAGES = 800
"""Training and validation images of a task, at most: most of the wait is their steps."""

TASKS = ("fashion_mnist", "quickdraw", "omniglot")

METHODS: tuple[Method, ...] = (methods.head_only(), methods.norm_only(), methods.xbm())

REWRITING: tuple[Method, ...] = (methods.piggyback(), methods.finetune())

_WRITTEN = ("results.json", "accuracy_against_bits.png", "REPORT.md", PAGE)

_INSPECTED = 64
"""Images that the chip is inspected on, for the page."""

REOPEN = ("-m", "xbm_jax.cli.reopen")
"""What Python runs to open the saved chip and bank again."""


@dataclass(frozen=True)
class _Job:
    """One quickstart: where it writes, what it draws, where it prints."""

    out: Path
    seed: int
    methods: tuple[Method, ...]
    console: Console

    @property
    def config(self) -> dict[str, Any]:
        """What has to be the same for a run to be carried on."""
        return {
            "seed": self.seed,
            "spec": codec.encode(SPEC),
            "train": plain(TRAIN),
            "images": TRAIN_IMAGES,
            "tasks": list(TASKS),
        }


@here()
def quickstart(out: Path, *, seed: int = 0, full: bool = False, source_data: Path | None = None) -> None:
    """Run all of it; see ``xbm quickstart --help``. A run that was cut short carries on, within a task too."""
    job = _Job(out, seed, METHODS + REWRITING * full, Output())
    _check_place(job)
    backbone = load_backbone("cifar-resnet20")
    source = None if source_data is None else _source(source_data, backbone)
    chip = _programmed(job, backbone)
    if source is not None:
        check_inputs(chip, source.x_test)
    _claim(job, chip)
    data = {name: for_chip(chip, _at_most(load(name))) for name in TASKS}
    facts = [_effect_of_chip(job, backbone, chip, data, source)]
    bank = MaskBank.create(out / "bank", chip)
    rows = [_row(job, chip, bank, name, method, data[name]) for name in TASKS for method in job.methods]
    served, seen = _reopened_and_inspected(job, chip, bank, data)
    facts.append(served)
    _write(job, chip, rows, facts)
    _write_page(job, seen, facts)
    _say_next(job)


def _at_most(data: Dataset) -> Dataset:
    """The data, or a stratified subset of its training images where there are more than the quickstart takes."""
    small = len(data.y_train) <= TRAIN_IMAGES
    return data if small else data.subset(TRAIN_IMAGES, len(data.y_test), seed=0)


def _check_place(job: _Job) -> None:
    """See that all of the job can be written, in a folder that is new or whose run is the one to carry on."""
    for file in ("config.json", *_WRITTEN):
        writable("--out", job.out, file)
    for folder in ("chip", "bank/tasks"):
        writable("--out", job.out / folder)
    _check_config(job)


def _check_config(job: _Job) -> None:
    """See that the folder is new, or that the run in it is the one to carry on."""
    path = job.out / "config.json"
    if path.exists():
        found = _read_config(path)
        differing = [name for name, value in job.config.items() if found.get(name) != value]
        if differing:
            raise OutputError("--out", str(job.out), f"a new folder: the run in it has another {', '.join(differing)}")


def _claim(job: _Job, chip: Chip) -> None:
    """Make the folder ours, with the chip in it, or see that it is; one process at a time."""
    _check_chip(job, chip)
    store.checked_directory(job.out)
    with locked(job.out):
        _check_config(job)
        _check_chip(job, chip)
        replace_json(job.out / "config.json", job.config)
        if not store.exists(job.out / "chip"):
            save_chip(chip, job.out / "chip")


def _check_chip(job: _Job, chip: Chip) -> None:
    """See that the chip in the folder, and that of its bank, are ``chip``, where there are any yet."""
    folder = job.out / "chip"
    if store.exists(folder) and chip_card(load_chip(folder)) != chip_card(chip):
        raise OutputError("--out", str(job.out), "a new folder: the chip in it is another one")
    if (job.out / "bank" / "bank.json").exists():
        MaskBank.open(job.out / "bank", chip)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        allowed = "a new folder, or one that a quickstart wrote; its config.json is not a quickstart's"
        raise OutputError("--out", str(path.parent), allowed) from error


def _source(path: Path, backbone: Backbone) -> Dataset:
    """Images of the task that the backbone was pretrained on."""
    source, classes = load(f"npz:{path}"), backbone.network.shapes[f"{backbone.network.head}/bias"][0]
    if source.num_classes > classes:
        allowed = f"labels 0..{classes - 1}, the classes of {backbone.network.name}"
        raise DataError("--source-data", f"{source.num_classes} classes", allowed)
    return source


def _programmed(job: _Job, backbone: Backbone) -> Chip:
    """Program the chip, and say what it is."""
    chip = program(backbone, SPEC, jax.random.key(job.seed))
    say(job.console, placement(chip))
    say(
        job.console,
        f"Wrote {backbone.network.name} ({backbone.num_parameters:,} parameters) once onto {arrays_used(chip)} arrays "
        f"of {SPEC.rows} x {SPEC.cols} cells: {SPEC.cell.bits} bit, on/off {SPEC.cell.on_off:g}, written and verified "
        f"to 1 % of g_max; converters: {SPEC.adc.bits} bit.",
    )
    return chip


def _effect_of_chip(
    job: _Job, backbone: Backbone, chip: Chip, data: dict[str, Dataset], source: Dataset | None
) -> tuple[str, str]:
    """What the crossbar did to the network that was written onto it."""
    own = source_task(chip)

    def float_and_chip(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batches = [images[i : i + 100] for i in range(0, len(images), 100)]
        exact = np.concatenate([np.asarray(backbone.logits(b)) for b in batches])
        return np.argmax(exact, -1), np.argmax(predict(chip, own, images), -1)

    if source is None:
        chosen = {name: stratified_sample(d.y_test, min(100, len(d.y_test)), 0) for name, d in data.items()}
        images = np.concatenate([d.x_test[chosen[name]] for name, d in data.items()])
        exact, analog = float_and_chip(images)
        text = (
            f"On {len(images)} of the tasks' images the chip predicts the class that the float network does in "
            f"{np.mean(exact == analog):.1%} of cases (give --source-data for accuracy on CIFAR-10)."
        )
    else:
        exact, analog = float_and_chip(source.x_test)
        labels = source.y_test
        text = (
            f"Source task, {len(labels)} test images: float {np.mean(exact == labels):.2%}, "
            f"chip {np.mean(analog == labels):.2%}; same class in {np.mean(exact == analog):.1%}."
        )
    say(job.console, text)
    return "What the chip did to the network", text


def _row(job: _Job, chip: Chip, bank: MaskBank, name: str, method: Method, data: Dataset) -> report.Row:
    """Learn a task by a method and put it into the bank, or take what is there."""
    entry = f"{name}.{method.name}"
    if entry not in bank.names:
        with carried_on(bank.folder, entry, f"another --out than {job.out}") as save:
            bank.put(entry, _learn(job, chip, name, method, data, save))
    task = bank.get(entry)
    row = report.row_of(chip, task, name=name, seed=job.seed, inputs=data.x_test[:1])
    stored_bits = f"{row.mask_bits:,} mask + {row.norm_bits:,} norm + {row.head_bits:,} head bits"
    say(job.console, f"{name:14} {method.name:10} {row.accuracy:6.1%}  {stored_bits}  {row.seconds:.0f} s")
    return row


def _learn(job: _Job, chip: Chip, name: str, method: Method, data: Dataset, save: Path) -> Task:
    key = stream(jax.random.key(job.seed), Command.QUICKSTART, TASKS.index(name))
    with report.TrainingProgress(job.console) as progress:
        bar = progress.task(f"{name} {method.name}")
        task = adapt(chip, _few_tests(data), method=method, key=key, config=TRAIN, report=bar.report, save=save)
    task = compact(chip, task)  # what is measured is what is stored
    classes = np.argmax(predict(chip, task, data.x_test), -1)
    confused = Confusion.of(name, data.class_names, data.y_test, classes)
    measured = {
        "accuracy": float(np.mean(classes == data.y_test)),
        "images": {**task.meta["images"], "test": len(classes)},
        "probe": classes[probe_index(data)].tolist(),
        "confusion": confused.counts.tolist(),
    }
    return task.replace(meta={**task.meta, **measured})


def _reopened_and_inspected(
    job: _Job, chip: Chip, bank: MaskBank, data: dict[str, Dataset]
) -> tuple[tuple[str, str], Inspection]:
    """Both at once: the new process takes about as long as the inspection, on a core each."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        reopened = pool.submit(_reopened, job, bank, data)
        seen = _inspected(chip, data[TASKS[0]])
        served = reopened.result()
    say(job.console, served[1])
    return served, seen


def _few_tests(data: Dataset) -> Dataset:
    """The data with the probe for test examples: all of them are measured once, of the task as it is stored."""
    index = probe_index(data)
    return dataclasses.replace(data, x_test=data.x_test[index], y_test=data.y_test[index])


def _reopened(job: _Job, bank: MaskBank, data: dict[str, Dataset]) -> tuple[str, str]:
    """Open chip and bank in a new process and compare a mixed batch with the predictions before saving."""
    served = {f"{name}.xbm": data[name] for name in TASKS}
    images, names, index = probe_batch(served)
    answers = _asked_in_new_process(job.out, packed(images, names))
    before = [bank.meta(name)["probe"][i] for name, i in zip(names, index, strict=True)]
    same = sum(a == b for a, b in zip(answers["classes"], before, strict=True))
    verdict = "every prediction is the one before saving" if same == len(before) else "NOT all are those before saving"
    text = (
        f"A new process opened the chip and the bank and served {len(before)} images of {len(served)} tasks mixed in "
        f"batches by one compiled function ({answers['compilations']} compilation): {same} of {len(before)} "
        f"predictions as before saving; {verdict}. No cell was written."
    )
    return "Stored and served", text


def _asked_in_new_process(out: Path, batch: bytes) -> dict[str, Any]:
    command = [sys.executable, *REOPEN, str(out)]
    done = subprocess.run(command, input=batch, env=passed_on(), capture_output=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise OutputError("--out", str(out), f"a chip and a bank that open again in a new process ({last[-300:]})")
    return json.loads(done.stdout.splitlines()[-1])


def _write(job: _Job, chip: Chip, rows: list[report.Row], facts: list[tuple[str, str]]) -> None:
    """The table, results.json, the figure and REPORT.md."""
    config = job.config | {"out": str(job.out), "methods": [codec.encode(m) for m in job.methods]}
    context = report.run_context(config, job.seed)
    report.print_table(rows, job.console)
    results, figure, page, _ = (job.out / name for name in _WRITTEN)
    report.write_results(results, rows, context)
    report.accuracy_against_bits(rows, figure)
    settings = (
        f"{TRAIN.epochs} epochs of batches of {TRAIN.batch_size}, Adam, cosine schedule; a stratified "
        f"{TRAIN.validation_fraction:.0%} of the training images chooses the best epoch; test images are used once. "
        "All methods see the same images, epochs and learning rates of norms and head (1e-2); norm_only is the "
        "control of every method that trains norms."
    )
    facts = [*facts, ("How the tasks were learned", settings)]
    report.write_report(page, rows, context, facts, [figure])
    say(job.console, f"Wrote {results}, {figure.name} and {page.name}.")


def _inspected(chip: Chip, data: Dataset) -> Inspection:
    """What the chip does to some images of a task."""
    return inspect(chip, data.x_test[stratified_sample(data.y_test, min(_INSPECTED, len(data.y_test)), 0)])


def _write_page(job: _Job, seen: Inspection, facts: list[tuple[str, str]]) -> None:
    """The page to look at: what is on disk now, and what the chip does to images."""
    found = found_in(job.out).with_(Found("", health=seen, facts=facts))
    size = write_page(job.out / PAGE, found)
    say(job.console, f"Wrote {job.out / PAGE} ({size:,} bytes): open it in a browser.")


def _say_next(job: _Job) -> None:
    say(job.console, "Next, try:")
    out, seed = shlex.quote(str(job.out)), f" --seed {job.seed}" if job.seed else ""
    say(job.console, f"  xbm bank list {out}/bank")
    say(job.console, "  xbm adapt --task folder:MY_IMAGES --image-size 32 --bank runs/mine")
    say(job.console, f"  xbm quickstart --full --out {out}{seed}")
