"""What a bare machine has and lacks, the wheels that fill the gap, and where they are fetched beforehand.

Command:   make gpu-wheels WHEELS=folder [NAMES="tyro typeguard"] [ARGS="--python 3.12"]     on a machine with an index
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

__all__ = ["AT_HAND", "NEEDED", "TESTS", "absent", "install", "missing", "too_old"]

NEEDED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "numpy", "pillow", "safetensors")
NEEDED += ("matplotlib", "rich")
"""What every part stands on."""

TESTS = ("pytest", "hypothesis", "pytest-timeout", "pytest-xdist", "scipy")
"""What the tests stand on; without them the other parts run all the same."""

AT_HAND = (*NEEDED, *TESTS, "ml-dtypes", "etils", "absl-py", "typing-extensions")
"""Seen on a bare machine for JAX 0.11.2 and CUDA 13, with all that these depend on."""

_UNUSED = ("tensorflow-datasets",)
"""Dependencies of the package that no part here reads through."""

_PLATFORMS = [f"manylinux{name}_x86_64" for name in ("_2_28", "_2_27", "_2_17", "2014", "1")]


def missing(names: Iterable[str]) -> list[str]:
    """One line for every package of ``names`` that is not installed."""
    return [f"missing: {name}" for name in absent(names)]


def absent(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are not installed."""
    return [name for name in names if _version(name) is None]


def too_old(pyproject: Path = Path("pyproject.toml")) -> list[str]:
    """One line for every package at hand that is older than the floor in ``pyproject.toml``; it may do all the same."""
    lines = []
    for name, floor in _floors(pyproject):
        found = _version(name)
        if found is not None and _numbers(found) < _numbers(floor):
            lines.append(f"older than this package asks for: {name} {found} < {floor}")
    return lines


def install(wheels: Path, target: Path) -> None:
    """Put all wheels of a folder into ``target``, and nothing of the machine's own packages elsewhere.

    Raises:
        SystemExit: there is none, or pip refuses them.
    """
    files = sorted(wheels.glob("*.whl"))
    if not files:
        sys.exit(f"gpu: --wheels {wheels}: no wheel in it")
    options = ["--no-index", "--find-links", wheels, "--no-deps", "--no-compile", "--upgrade", "--target", target]
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *options, *files], check=False)
    if done.returncode:
        sys.exit(f"gpu: --wheels {wheels}: pip refuses them")


def lacked() -> list[str]:
    """What the package depends on beyond :data:`AT_HAND`, with all that those depend on; read where it is installed."""
    known = {_plain(name) for name in AT_HAND}
    found: list[str] = []
    waiting = [_plain(name) for name, _ in _floors(Path("pyproject.toml")) if name not in _UNUSED]
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        known.add(name)
        found.append(name)
        waiting += [_plain(_name(line)) for line in metadata.requires(name) or () if ";" not in line]
    return sorted(found)


def _floors(pyproject: Path) -> Iterator[tuple[str, str]]:
    """``(name, floor)`` of the package's own dependencies."""
    import tomllib

    declared = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    for line in declared:
        name, _, floor = line.partition(">=")
        yield name, floor


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return found[0]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def fetch(wheels: Path, names: Iterable[str], python: str) -> int:
    """Download wheels of ``names`` for Linux on x86-64; what pip answers."""
    kept = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    kept += [word for platform in _PLATFORMS for word in ("--platform", platform)]
    return subprocess.run([sys.executable, "-m", "pip", "download", *kept, "--dest", wheels, *names]).returncode


def main(argv: list[str] | None = None) -> int:
    """Fetch what a bare machine lacks, or the packages that are named."""
    parser = argparse.ArgumentParser("gpu-wheels", description=main.__doc__)
    parser.add_argument("--wheels", type=Path, required=True, help="folder that they are put into")
    parser.add_argument("--python", default="3.12", help="the other machine's")
    parser.add_argument("names", nargs="*", help="packages, as pip takes them; by default what a bare machine lacked")
    asked = parser.parse_args(argv)
    return fetch(asked.wheels, asked.names or lacked(), asked.python)


if __name__ == "__main__":
    sys.exit(main())
