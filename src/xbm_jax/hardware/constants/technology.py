"""A technology: what one event on a chip costs, as named numbers with their sources.

No number is guessed: what has no source is absent, and what it would count is not counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from xbm_jax.errors import SpecError
from xbm_jax.hardware.constants import files
from xbm_jax.hardware.constants.names import CONSTANTS, Constant, is_whole, near

__all__ = ["CONSTANTS", "Constant", "Technology", "load_technology", "stack", "technologies"]

WHAT_IF = "set by with_constants"
"""Source of a number that no source states."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Technology:
    """What one event costs, and which model computes a conversion.

    Attributes:
        constants: numbers by name, SI units, the leaves; :data:`CONSTANTS` says what each counts. One without a source
            is absent.
        name: ``"isaac-32nm"``.
        converter: model of a conversion: ``"constant"``, ``"neurosim_sar"``, ``"survey"`` or ``"pulses"``.
        write_unit: what is written at once: ``"cell"``, ``"row"`` or ``"array"``.
        sources: (constant, source) for each constant.
        about: what the technology is.
    """

    constants: dict[str, jax.Array | float]
    name: str = field(metadata={"static": True})
    converter: str = field(metadata={"static": True})
    write_unit: str = field(metadata={"static": True})
    sources: tuple[tuple[str, str], ...] = field(metadata={"static": True})
    about: str = field(default="", metadata={"static": True})

    def __contains__(self, name: str) -> bool:
        return name in self.constants

    def get(self, name: str, default: float | None = None) -> Any:
        """The constant, or ``default`` where the technology does not state it.

        Raises:
            SpecError: no technology can state it, a slip of the name.
        """
        _check_known(name, None)
        return self.constants.get(name, default)

    def replace(self, **changes: Any) -> Technology:
        """The same with other fields."""
        return dataclasses.replace(self, **changes)

    def with_constants(self, **values: Any) -> Technology:
        """The same with other numbers, or more: for what-if questions and sweeps under ``vmap``.

        Args:
            values: numbers, or arrays of them; traced ones are not checked against their range.

        Raises:
            SpecError: no such constant, or a number out of its range.
        """
        for name, value in values.items():
            _check_value(name, value)
        sources = dict(self.sources) | dict.fromkeys(values, WHAT_IF)
        return self.replace(constants=self.constants | values, sources=tuple(sources.items()))


def technologies() -> tuple[str, ...]:
    """Names of the technologies that come with the package."""
    return files.shipped()


def load_technology(name_or_path: str | Path) -> Technology:
    """A technology that comes with the package, by name, or one of a file of one's own.

    Args:
        name_or_path: one of :func:`technologies`, or the path of a ``.toml`` file.

    Raises:
        SpecError: no such name or file, or a field that is wrong, with its file and line.
    """
    found = files.read(files.find(name_or_path))
    sources = tuple(found.sources.items())
    return Technology(dict(found.values), found.name, found.converter, found.write_unit, sources, found.about)


def stack(technologies: Sequence[Technology]) -> Technology:
    """Several technologies as one whose leaves have a new first axis, to be mapped over.

    The name is the names joined by ``" | "``, and so is a source where they differ.

    Raises:
        SpecError: none given, or they differ in constants, converter or write unit.
    """
    if not technologies:
        raise SpecError("technologies", technologies, "at least one technology")
    first = technologies[0]
    for other in technologies[1:]:
        _check_alike(first, other)
    constants = {name: jnp.stack([jnp.asarray(t.constants[name]) for t in technologies]) for name in first.constants}
    by_name = [dict(t.sources) for t in technologies]
    sources = tuple((name, _joined(found.get(name, "") for found in by_name)) for name, _ in first.sources)
    name, about = " | ".join(t.name for t in technologies), _joined(t.about for t in technologies)
    return first.replace(constants=constants, name=name, sources=sources, about=about)


def _joined(texts: Any) -> str:
    return " | ".join(dict.fromkeys(texts))


def _check_alike(first: Technology, other: Technology) -> None:
    for what in ("converter", "write_unit"):
        if getattr(first, what) != getattr(other, what):
            allowed = f"the same as of {first.name!r}, {getattr(first, what)!r}: stacked technologies run one program"
            raise SpecError(f"{other.name}.{what}", getattr(other, what), allowed)
    unlike = sorted(set(first.constants) ^ set(other.constants))
    if unlike:
        allowed = f"the same constants as {first.name!r}; only one of the two has {', '.join(map(repr, unlike))}"
        raise SpecError(f"{other.name}.constants", sorted(other.constants), allowed)


def _check_known(name: str, value: Any) -> None:
    if name not in CONSTANTS:
        alike = near(name) or list(CONSTANTS)
        hint = f"no such constant; a name ends with its unit, as in {', '.join(map(repr, alike))}"
        raise SpecError(name, value, hint)


def _check_value(name: str, value: Any) -> None:
    """Raise unless all of ``value`` lies in the constant's range; a traced value has none yet."""
    _check_known(name, value)
    if isinstance(value, Tracer):
        return
    known, array = CONSTANTS[name], np.asarray(value)
    kind = "integers" if is_whole(name) else "numbers"
    real = array.dtype.kind in "iuf" or jnp.issubdtype(array.dtype, jnp.floating)
    good = real and bool(np.all((array >= known.low) & (array <= known.high)))
    if not good or (is_whole(name) and not np.all(array == np.round(array))):
        raise SpecError(name, value, f"{kind} from {known.low:g} to {known.high:g}")
