"""The shape of the package, read from its source: who imports whom and what, and how long a module may be."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
PACKAGE = "xbm_jax"

# A part (folder or module under the package) may import only from parts named before it; so may a room, a part within
# one. A part is named after its rooms: its own modules stand on them. `xbm_jax` is the package's own `__init__`, which
# gathers the public face; only the command line stands above it.
ORDER = (
    *("errors", "streams", "pixels", "archives", "promotion", "examples", "paths", "either", "layout"),
    *("crossbar.validate", "crossbar.primitives", "crossbar.devices", "crossbar.writing", "crossbar.reading"),
    *("crossbar", "masks"),
    *("models.zoo", "models.weights", "models.modules", "models"),
    *("storage", "data", "tasks", "banks", "serving", "training", "hardware.constants", "hardware"),
    *("report.names", "report.web", "report"),
    *(PACKAGE, "cli", "__main__"),
)
MAX_CHAIN = 8
"""Modules of one room that may stand on each other in a row."""
MAX_LINES = 350
HEAVY = ("tensorflow_datasets", "array_record", "grain", "orbax", "tensorstore", "matplotlib", "tensorflow")
HEAVY += ("tensorboardX", "wandb", "tokenizers")
# A developer's folder, a temporary one, or the reference data that no user has.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|tmp|work)/|[A-Z]:\\\\?Users|\.\./shared")


class Import(NamedTuple):
    """One imported name: ``a.b.c`` for ``import a.b.c`` and for ``from a.b import c`` alike."""

    name: str
    line: int
    lazy: bool  # inside a function


# ---------------------------------------------------------------------------------------------------------------------
# Reading the source


def read_modules(root: Path) -> dict[str, str]:
    """Source text by dotted module name of every ``.py`` file of the package under ``root``."""
    paths = root.glob(f"{PACKAGE}/**/*.py")
    return {_dotted(path.relative_to(root)): path.read_text(encoding="utf-8") for path in paths}


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(module: str, source: str, *, is_package: bool) -> Iterator[Import]:
    """Every import in a module: relative ones resolved, ``import_module("...")`` and those inside functions too."""
    yield from _walk(ast.parse(source), (module if is_package else module.rpartition(".")[0]).split("."), lazy=False)


def _walk(node: ast.AST, here: list[str], lazy: bool) -> Iterator[Import]:
    match node:
        case ast.Import(names=names):
            yield from (Import(alias.name, node.lineno, lazy) for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            base = here[: len(here) - level + 1] if level else []
            prefix = ".".join([*base, *([module] if module else [])])
            yield from (Import(f"{prefix}.{alias.name}", node.lineno, lazy) for alias in names)
        case (
            ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_])
            | ast.Call(func=ast.Name(id="import_module" | "__import__"), args=[ast.Constant(value=str(name)), *_])
        ):
            yield Import(name, node.lineno, lazy)
    inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, here, inside)


def all_imports(modules: Mapping[str, str]) -> Iterator[tuple[str, Import]]:
    """``(importing module, import)`` over the whole package."""
    for module, source in modules.items():
        is_package = any(name.startswith(f"{module}.") for name in modules)
        yield from ((module, found) for found in imports(module, source, is_package=is_package))


def own_imports(modules: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """``(importing module, imported module, line)`` inside the package; a name in a module counts as its module."""
    for module, found in all_imports(modules):
        if found.name.split(".")[0] == PACKAGE:
            target = found.name
            while target not in modules and "." in target:
                target = target.rpartition(".")[0]
            yield module, target, found.line


def part(module: str) -> str:
    """The part or room that a module belongs to: ``xbm_jax.crossbar.reading.sums`` is of ``crossbar.reading``."""
    names = module.split(".")[1:]
    inner = [".".join(names[:count]) for count in range(len(names), 0, -1)]
    return next((name for name in inner if name in ORDER), names[0] if names else module)


# ---------------------------------------------------------------------------------------------------------------------
# The rules: each gives the list of what breaks it


def unknown_parts(modules: Mapping[str, str]) -> list[str]:
    """Parts that have no place in the order."""
    return sorted({part(module) for module in modules} - set(ORDER))


def upward_imports(modules: Mapping[str, str]) -> list[str]:
    """Imports against the order of the parts (``__init__`` of the package may import all)."""
    rank = {name: index for index, name in enumerate(ORDER)}
    return [
        f"{module}:{line} imports {target}"
        for module, target, line in own_imports(modules)
        if part(module) in rank and part(module) != PACKAGE
        if part(target) not in rank or rank[part(target)] > rank[part(module)]
    ]


def cycle(modules: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a ring, or an empty list."""
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, target, _ in own_imports(modules):
        graph[module].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def long_chains(modules: Mapping[str, str]) -> list[str]:
    """Modules that head a chain of imports within their room of more than MAX_CHAIN."""
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, target, _ in own_imports(modules):
        if part(module) == part(target):
            graph[module].add(target)
    if cycle(modules):
        return []
    lengths: dict[str, int] = {}
    for module in TopologicalSorter(graph).static_order():
        lengths[module] = 1 + max((lengths[target] for target in graph[module]), default=0)
    return [f"{module} stands on a chain of {length}" for module, length in lengths.items() if length > MAX_CHAIN]


def hidden_modules(modules: Mapping[str, str]) -> list[str]:
    """Modules whose package offers something else by their name, so that no attribute leads to them."""
    hidden = []
    for package, source in modules.items():
        taken = {found.name.rpartition(".")[2] for found in imports(package, source, is_package=True)}
        names = [name for name in taken if f"{package}.{name}" in modules]
        from_elsewhere = {found.name for found in imports(package, source, is_package=True)}
        hidden += [f"{package}.{name}" for name in names if f"{package}.{name}" not in from_elsewhere]
    return sorted(hidden)


def misplaced_libraries(modules: Mapping[str, str]) -> list[str]:
    """Imports of a library where it may not be: see the cases below."""
    return [
        f"{module}:{found.line} imports {found.name}"
        for module, found in all_imports(modules)
        if not _library_allowed(module, found)
    ]


def _library_allowed(module: str, found: Import) -> bool:
    match found.name.split("."):
        case ["orbax", *_]:  # its verbs still get renamed: one module to mend
            return module == f"{PACKAGE}.storage.store" and found.lazy
        case ["tensorflow_datasets" | "grain" | "array_record" | "tensorflow", *_]:
            return part(module) == "data" and found.lazy
        case ["tokenizers", *_]:
            return module == f"{PACKAGE}.data.tokens" and found.lazy
        case ["matplotlib", *_]:
            return part(module) == "report" and found.lazy
        case ["flax", "nnx" | "linen", *_]:  # physics and masks know arrays only
            return part(module).split(".")[0] not in ("errors", "crossbar", "masks")
    return True


def long_modules(modules: Mapping[str, str]) -> list[str]:
    """Modules over the limit of lines."""
    lengths = {module: len(source.splitlines()) for module, source in modules.items()}
    return [f"{module} has {length} lines" for module, length in lengths.items() if length > MAX_LINES]


def machine_paths(modules: Mapping[str, str]) -> list[str]:
    """Lines that name a folder of a developer's machine."""
    return [
        f"{module}:{number} {line.strip()}"
        for module, source in modules.items()
        for number, line in enumerate(source.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]


RULES = (
    *(unknown_parts, upward_imports, cycle, long_chains, hidden_modules, misplaced_libraries, long_modules),
    machine_paths,
)


# ---------------------------------------------------------------------------------------------------------------------
# The package keeps them, and each of them can be broken


@pytest.fixture(scope="module")
def modules() -> dict[str, str]:
    found = read_modules(SRC)
    assert found, f"no module under {SRC}"
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_keeps(rule, modules):
    assert rule(modules) == []


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (unknown_parts, "xbm_jax.utils", ""),
        (upward_imports, "xbm_jax.crossbar.reading.reads", "from xbm_jax.masks import methods"),
        (upward_imports, "xbm_jax.crossbar.reading.reads", "def f():\n    from ...storage.store import save"),
        (upward_imports, "xbm_jax.errors", "import xbm_jax.crossbar.writing.spec"),
        (upward_imports, "xbm_jax.report.page", "from xbm_jax import adapt"),
        (upward_imports, "xbm_jax.models.chip", "loop = importlib.import_module('xbm_jax.training.loop')"),
        (upward_imports, "xbm_jax.data.sources", "from xbm_jax.utils import helper"),
        (cycle, "xbm_jax.crossbar.writing.spec", "from xbm_jax.crossbar.reading import reads"),
        (cycle, "xbm_jax.crossbar.writing.spec", "from ..reading.reads import read"),
        (misplaced_libraries, "xbm_jax.banks.bank", "def f():\n    import orbax.checkpoint"),
        (misplaced_libraries, "xbm_jax.storage.store", "from orbax.checkpoint import v1"),
        (misplaced_libraries, "xbm_jax.training.loop", "def f():\n    import tensorflow_datasets as tfds"),
        (misplaced_libraries, "xbm_jax.data.sources", "import tensorflow_datasets as tfds"),
        (misplaced_libraries, "xbm_jax.data.sources", "import tensorflow as tf"),
        (misplaced_libraries, "xbm_jax.data.tsv", "def f():\n    from tokenizers import Tokenizer"),
        (misplaced_libraries, "xbm_jax.report.figure", "import matplotlib.pyplot as plt"),
        (misplaced_libraries, "xbm_jax.crossbar.writing.spec", "from flax import nnx"),
        (long_modules, "xbm_jax.crossbar.writing.spec", "x = 1\n" * (MAX_LINES + 1)),
        (machine_paths, "xbm_jax.data.sources", "FOLDER = '/home/me/data'"),
        (machine_paths, "xbm_jax.data.sources", "FOLDER = '../shared/data'"),
    ],
)
def test_rule_finds(rule, module, source):
    tree = {
        "xbm_jax": "",
        "xbm_jax.crossbar": "",
        "xbm_jax.crossbar.writing.spec": "",
        "xbm_jax.crossbar.reading.reads": "from xbm_jax.crossbar.writing.spec import CrossbarSpec",
    }
    assert rule(tree) == []
    assert rule(tree | {module: source}) != []


def test_a_long_chain_and_a_hidden_module_are_found():
    chain = {f"xbm_jax.tasks.m{i}": f"from xbm_jax.tasks import m{i + 1}" for i in range(MAX_CHAIN)}
    tree = {"xbm_jax": "", "xbm_jax.tasks": "", f"xbm_jax.tasks.m{MAX_CHAIN}": ""} | chain
    assert long_chains(tree) == [f"xbm_jax.tasks.m0 stands on a chain of {MAX_CHAIN + 1}"]
    tree = {"xbm_jax": "", "xbm_jax.tasks": "from xbm_jax.tasks.plan import plan", "xbm_jax.tasks.plan": ""}
    assert hidden_modules(tree) == ["xbm_jax.tasks.plan"]
    assert hidden_modules(tree | {"xbm_jax.tasks": "from xbm_jax.tasks import plan"}) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("xbm_jax", "from xbm_jax.training import adapt"),
        ("xbm_jax.cli", "import xbm_jax as xbm"),
        ("xbm_jax.storage.store", "def save():\n    from orbax.checkpoint import v1 as ocp"),
        ("xbm_jax.data.sources", "def read():\n    import tensorflow_datasets as tfds"),
        ("xbm_jax.crossbar.writing.spec", "from flax import struct\nURL = 'https://example.org/home/page'"),
    ],
)
def test_rules_allow(module, source):
    tree = {"xbm_jax": "", "xbm_jax.training": "", "xbm_jax.training.loop": "", module: source}
    assert [rule(tree) for rule in RULES] == [[]] * len(RULES)


# ---------------------------------------------------------------------------------------------------------------------
# What is in the package beside code, and what an import brings in


def test_package_is_marked_as_typed():
    assert (SRC / PACKAGE / "py.typed").is_file()


def test_every_bundled_work_carries_its_licence_and_is_named_in_notice():
    assets = SRC / PACKAGE / "assets"
    works = [assets / "weights", *(assets / "datasets").glob("*")]
    works = [work for work in works if any(path.is_file() for path in work.rglob("*"))]
    if not works:
        pytest.skip("no assets in this tree")
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert [work.name for work in works if not any(work.glob("LICENSE*"))] == []
    assert [work.name for work in works if f"{work.relative_to(ROOT).as_posix()}/" not in notice] == []


def test_import_is_light():
    code = f"import sys, {PACKAGE}; print([name for name in {HEAVY!r} if name in sys.modules])"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
