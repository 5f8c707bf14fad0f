"""The tasks that a server holds: by name, at most so many of the bank's, the least recently used of which goes first.

A lock guards the bookkeeping alone: what is handed out never changes, and what takes long (reading a task from the
bank, unpacking it) is done outside of it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from xbm_jax.errors import DataError
from xbm_jax.serving.values import Values

__all__ = ["Shelf"]


class Shelf:
    """Tasks by name. ``load(name)`` gets one from the bank.

    Those that were handed over are in no bank: they stay until they are removed.
    """

    def __init__(self, load: Callable[[str], Values], capacity: int) -> None:
        self._load, self.capacity = load, capacity
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._versions: dict[str, object] = {}  # a mark of its own for each task that a name has stood for
        self._held: OrderedDict[str, Values] = OrderedDict()  # the least recently used first

    @property
    def names(self) -> tuple[str, ...]:
        """The served tasks, in the order in which they were added."""
        with self._lock:
            return tuple(self._versions)

    @property
    def held(self) -> dict[str, Values]:
        """Those that are in memory, the least recently used first."""
        with self._lock:
            return dict(self._held)

    def add(self, name: str, values: Values | None) -> None:
        """Serve another task; without values the bank's, which is read when it is asked for."""
        with self._lock:
            if name in self._versions:
                raise DataError("name", name, "a name that is not served yet; replace() takes a served one's place")
            self._put(name, values)

    def replace(self, name: str, values: Values | None) -> None:
        """Have a served name stand for another task from the next call on."""
        with self._lock:
            self._check_served([name])
            self._put(name, values)

    def remove(self, name: str) -> None:
        """Serve a task no longer."""
        with self._lock:
            self._check_served([name])
            del self._versions[name]
            self._held.pop(name, None)

    def get(self, names: Iterable[str]) -> dict[str, Values]:
        """The tasks of these names, at one moment as far as they are in memory; others are loaded.

        Raises:
            DataError: names that are not served; BankError: a task that the bank does not have any more.
        """
        wanted = list(dict.fromkeys(names))
        with self._lock:
            self._check_served(wanted)
            found = {name: self._touched(name) for name in wanted if name in self._held}
        return {name: found[name] if name in found else self._loaded(name) for name in wanted}

    def _loaded(self, name: str) -> Values:
        """A task that is not in memory, from the bank; of several threads that want it one reads it."""
        with self._loading:
            while True:
                with self._lock:
                    self._check_served([name])
                    if name in self._held:
                        return self._touched(name)
                    version = self._versions[name]
                values = self._load(name)
                with self._lock:
                    if self._versions.get(name) is version:  # else the name stands for another task by now
                        self._keep(name, values)
                        return values

    def _put(self, name: str, values: Values | None) -> None:
        given = sum(held.given for other, held in self._held.items() if other != name)
        if values is not None and values.given and given >= self.capacity:
            raise DataError("capacity", self.capacity, f"at least {given + 1}: so many tasks are in no bank")
        self._versions[name] = object()
        self._held.pop(name, None)
        if values is not None:
            self._keep(name, values)

    def _keep(self, name: str, values: Values) -> None:
        self._held[name] = values
        self._held.move_to_end(name)
        others = [other for other, held in self._held.items() if not held.given]
        for other in others[: max(0, len(self._held) - self.capacity)]:
            del self._held[other]

    def _touched(self, name: str) -> Values:
        self._held.move_to_end(name)
        return self._held[name]

    def _check_served(self, names: list[str]) -> None:
        unknown = sorted(set(names) - set(self._versions))
        if unknown:
            raise DataError("task", unknown, "served tasks: " + (", ".join(self._versions) or "none"))
