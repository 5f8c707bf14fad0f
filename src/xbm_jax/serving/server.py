"""Serving a bank: one compiled function answers a batch in which every image may belong to another task."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from xbm_jax.banks import MaskBank, chip_card
from xbm_jax.banks.bank import card_of
from xbm_jax.errors import BankError, DataError, warn
from xbm_jax.examples import count, take
from xbm_jax.models import Chip, check_inputs
from xbm_jax.promotion import numpy_promotion
from xbm_jax.serving.programs import answered, pieces
from xbm_jax.serving.shelf import Shelf
from xbm_jax.serving.values import Common, Values, agreed, unpacked, vector_in
from xbm_jax.streams import stream
from xbm_jax.tasks.evaluation import filled
from xbm_jax.tasks.task import Task, check_fits, checked_call

__all__ = ["Server", "serve"]

CAPACITY = 128
"""Tasks of the bank that are held in memory, unless it is said otherwise."""


class Server:
    """Tasks of one chip, ready to answer: ``server(images, task=...)`` gives class indices. Made by :func:`serve`.

    Threads may ask while others add, replace and remove tasks: a call answers with the tasks as they were when it
    began. What is compiled depends on none of these, but for the widest head and gates of lines that were ever served.
    """

    def __init__(self, chip: Chip, bank: MaskBank, *, capacity: int, batch_size: int, outputs: int) -> None:
        self.chip, self.bank, self.batch_size = chip, bank, batch_size
        self._shelf, self._outputs = Shelf(self._from_bank, capacity), outputs
        self._agreeing = threading.Lock()
        self._common: Common | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The served tasks, in the order in which they were added."""
        return self._shelf.names

    @property
    def resident(self) -> tuple[str, ...]:
        """Those that are in memory, the least recently used first."""
        return tuple(self._shelf.held)

    @property
    def capacity(self) -> int:
        """How many tasks are kept in memory."""
        return self._shelf.capacity

    def add(self, name: str, task: Task | None = None, *, read: bool = True) -> None:
        """Serve another task: one that is given, or the bank's of that name, read now or when it is asked for.

        A task that is given stays in memory; one of the bank's makes room for others and is read again.

        Raises:
            DataError: a name that is served already, or more tasks given than there is room for.
            BankError: a task of another chip, or none of that name. MethodError: one that cannot be served with these.
        """
        self._shelf.add(name, self._ready(name, task) if read or task is not None else None)

    def replace(self, name: str, task: Task | None = None) -> None:
        """Let a served name stand for another task, by default what the bank has of that name now.

        Raises:
            XbmError: as :meth:`add`. DataError: a name that is not served.
        """
        self._shelf.replace(name, self._ready(name, task))

    def remove(self, name: str) -> None:
        """Serve a task no longer; calls that began with it end with it."""
        self._shelf.remove(name)

    def __call__(self, images: Any, task: str | Sequence[str], key: jax.Array | None = None) -> np.ndarray:
        """Class index of each image under its task, int [n]."""
        return np.argmax(self.logits(images, task, key), axis=-1)

    @numpy_promotion
    def logits(self, images: Any, task: str | Sequence[str], key: jax.Array | None = None) -> np.ndarray:
        """Logits [n, widest head of these tasks] of uint8 NHWC images; minus infinity beyond a task's own classes.

        Args:
            task: one name for all images, or a name per image.
            key: draws read noise, for every image its own; needed where the chip's reads are noisy. Equal keys draw
                equal noise: give each call another.

        Raises:
            DataError: tasks that are not served, or images that the chip cannot read. SpecError: what is no key, or
            none for noisy reads. BankError: a task that the bank no longer has.
        """
        key = checked_call(self.chip, None, images, self.batch_size, key)
        images = check_inputs(self.chip, images)
        names = _name_of_each(task, count(images))
        tasks = self._shelf.get([task] if isinstance(task, str) else names)
        places = {name: place for place, name in enumerate(tasks)}
        index = np.array([places[name] for name in names], np.int32)
        classes = np.array([values.classes for values in tasks.values()], int)
        widest = classes.max(initial=0)
        found = self._answers(images, index, list(tasks.values()), key)[..., :widest]
        own = classes[index].reshape(-1, *[1] * (found.ndim - 1))
        return np.where(np.arange(widest) < own, found, np.float32(-np.inf))

    def _answers(self, inputs: Any, index: np.ndarray, tasks: list[Values], key: jax.Array | None) -> np.ndarray:
        """Outputs [n, width of all heads], in batches of few sizes."""
        common = self._common
        if common is None or not tasks:
            return np.zeros((0, 0), np.float32)
        vectors = [vector_in(common, values) for values in tasks]
        parts = []
        for start, size in pieces(len(index), self.batch_size):
            own = index[start : start + size]
            batch = filled(take(inputs, slice(start, start + size)), size)
            batch_key = None if key is None else stream(key, start)
            parts.append(np.asarray(answered(common, self.chip, vectors, own, batch, batch_key))[: len(own)])
        return np.concatenate(parts) if parts else np.zeros((0, common.layout.outputs), np.float32)

    def _ready(self, name: str, task: Task | None) -> Values:
        if task is None:
            return self._from_bank(name)
        check_fits(self.chip, task)
        return self._agreed(name, task, given=True)

    def _from_bank(self, name: str) -> Values:
        return self._agreed(name, self.bank.get(name), given=False)

    @numpy_promotion
    def _agreed(self, name: str, task: Task, *, given: bool) -> Values:
        """A task's values, once what is common to all has room for them; it grows and never shrinks."""
        values = unpacked(self.chip, name, task, given=given)
        with self._agreeing:
            self._common = agreed(self.chip, name, task.method, values, self._common, self._outputs)
        return values


def serve(
    chip: Chip,
    bank: MaskBank,
    names: Sequence[str] | None = None,
    *,
    capacity: int = CAPACITY,
    batch_size: int = 64,
    outputs: int = 1,
) -> Server:
    """Load tasks from a bank for serving together; ``None`` takes all that can be read, and warns of the others.

    Args:
        capacity: so many tasks are held in memory; others are read from the bank when they are asked for, in the place
            of the least recently used. The first so many are read now.
        batch_size: images of the largest compiled call; fewer are padded to an eighth of it, or an eighth of that.
        outputs: classes of the widest task that is to come. A wider one than all before compiles anew.

    Raises:
        BankError: a chip that is not the bank's, a named task that is not there or cannot be read, or none of all can.
        MethodError: a task that rewrites cells: the chip would have to be reprogrammed within the batch; one that
            computes beside the arrays; heads of different kinds; or column gains other than 0 and 1 beside a task by
            line, where a pair has one converter: they act behind it, gains of lines before.
        DataError: no task, names that are no list, or a capacity, a batch size or a number of outputs below 1.
    """
    if not isinstance(bank, MaskBank):
        raise DataError("bank", bank, "a MaskBank: xbm.MaskBank.open(folder, chip)")
    if isinstance(names, str):
        raise DataError("names", names, f"a list of names: [{names!r}]")
    for field, value in {"capacity": capacity, "outputs": outputs}.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise DataError(field, value, "at least 1, a whole number")
    checked_call(chip, None, None, batch_size, None)
    if chip is not bank.chip:
        card_of(bank.folder).check(chip_card(chip))
    there = bank.names
    chosen = there if names is None else list(dict.fromkeys(names))
    missing = [name for name in chosen if name not in there]
    if missing:
        raise BankError("name", missing[0], "one of " + (", ".join(there) or "none: the bank is empty"))
    server = Server(chip, bank, capacity=int(capacity), batch_size=int(batch_size), outputs=int(outputs))
    _stock(server, chosen, skip=names is None)
    if not server.names:
        raise DataError("names", tuple(chosen), "at least one task of the bank: " + ", ".join(there))
    return server


def _stock(server: Server, names: Sequence[str], *, skip: bool) -> None:
    """Serve tasks of the bank, reading as many as there is room for; damaged ones are named in a warning if skipped."""
    errors: dict[str, BankError] = {}
    for name in names:
        try:
            server.add(name, read=len(server.names) < server.capacity)
        except BankError as error:
            if not skip:
                raise
            errors[name] = error
    for name, error in errors.items():
        if not server.names:
            folder = str(server.bank.folder)
            raise BankError("bank", folder, f"a bank with a task that can be read ({error})") from error
        warn(f"task {name!r} cannot be read and is not served: {error}")


def _name_of_each(task: str | Sequence[str], images: int) -> list[str]:
    names = [task] * images if isinstance(task, str) else list(task)
    if len(names) != images:
        raise DataError("task", f"{len(names)} names", f"one name, or {images}: one per image")
    return names
