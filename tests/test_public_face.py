"""The public face: ``import xbm_jax as xbm`` gives what it should, all of it documented, and reads like the idea."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

import xbm_jax as xbm

NO_PART_OF_IT = {
    "__main__",
    "cli",
    "promotion",
    "streams",
    "pixels",
    "archives",
    "storage",
    "examples",
    "paths",
    "either",
    "layout",
}


def modules() -> Iterator[ModuleType]:
    """The package and every module under it."""
    yield xbm
    for found in pkgutil.walk_packages(xbm.__path__, f"{xbm.__name__}."):
        yield importlib.import_module(found.name)


def public(module: ModuleType) -> dict[str, Any]:
    """The names that a module offers, by ``__all__``."""
    return {name: getattr(module, name) for name in getattr(module, "__all__", ())}


def summary(thing: Any) -> str:
    """First line of its docstring; the signature that a dataclass gets by itself is none."""
    line = (inspect.getdoc(thing) or "").split("\n", 1)[0]
    return "" if inspect.isclass(thing) and line.startswith(f"{thing.__name__}(") else line


def test_all_is_sorted_and_complete():
    assert list(xbm.__all__) == sorted(xbm.__all__)
    assert len(set(xbm.__all__)) == len(xbm.__all__)
    names = {name for name, thing in vars(xbm).items() if name[0] != "_" and not inspect.ismodule(thing)}
    parts = {found.name for found in pkgutil.iter_modules(xbm.__path__)} - NO_PART_OF_IT
    assert names | parts | {"methods"} == set(xbm.__all__)


def test_every_name_offered_is_there_and_documented():
    """In the package and in each of its modules; constants carry theirs in the source."""
    bare = []
    for module in modules():
        assert summary(module), module.__name__
        for name, thing in public(module).items():
            if (inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)) and not summary(thing):
                bare.append(f"{module.__name__}.{name}")
    assert bare == []


def test_every_summary_of_a_function_is_a_sentence():
    functions = {}
    for module in modules():
        for name, thing in public(module).items():
            members = vars(thing) if inspect.isclass(thing) and thing.__module__.startswith("xbm_jax") else {}
            own = {f"{name}.{k}": getattr(v, "__func__", v) for k, v in members.items() if k[0] != "_"}
            functions |= {f"{module.__name__}.{k}": f for k, f in {name: thing, **own}.items() if inspect.isroutine(f)}
    assert len(functions) > 50
    summaries = {name: summary(function) for name, function in functions.items()}
    assert [name for name, line in summaries.items() if line and not line.endswith(".")] == []


def test_example_of_the_package_names_what_there_is():
    assert xbm.__doc__ is not None
    used = re.findall(r"\bxbm\.(\w+(?:\.\w+)*)", xbm.__doc__)
    assert {"program", "adapt", "methods.xbm", "MaskBank.create", "serve"} <= set(used)
    for path in used:
        thing: Any = xbm
        for name in path.split("."):
            thing = getattr(thing, name)
        assert path.split(".")[0] in xbm.__all__


def test_version_is_the_installed_one():
    from importlib import metadata

    assert xbm.__version__ == metadata.version("xbm_jax")


@pytest.mark.slow
def test_reads_like_the_idea(tmp_path):
    """Program once, learn tasks, put them into a bank, serve them mixed: real backbone and images, few of them."""
    spec = xbm.CrossbarSpec(
        rows=64, weight_bits=8, cell=xbm.Cell(bits=7), adc=xbm.Adc(bits=8), device=xbm.Gaussian(sigma=0.01)
    )
    chip = xbm.program(xbm.load_backbone("cifar-resnet20"), spec, key=jax.random.key(0))  # once
    bank = xbm.MaskBank.create(tmp_path / "bank", chip)
    clothes = xbm.load("fashion_mnist", image_size=16)
    tasks = {}
    for i, name in enumerate(("upper", "lower")):
        few = clothes.take_classes(clothes.class_names[2 * i : 2 * i + 2]).subset(train=40, test=20)
        data = xbm.for_chip(chip, few)
        config = xbm.TrainConfig(epochs=1, batch_size=16)
        task = xbm.adapt(chip, data, method=xbm.methods.xbm(), key=jax.random.key(1), config=config)
        bank.put(name, task)
        tasks[name] = (bank.get(name), data.x_test)  # as it is kept: in fewer bits, so that a near tie may turn
    predict = xbm.serve(chip, bank)
    images = np.concatenate([x for _, x in tasks.values()])
    names = [name for name, (_, x) in tasks.items() for _ in x]
    mixed = predict(images, task=names)
    alone = [np.argmax(xbm.predict(chip, t, x, key=jax.random.key(0)), -1) for t, x in tasks.values()]
    assert mixed.tolist() == np.concatenate(alone).tolist()
    bits = xbm.hardware.task_bits(chip, task)
    assert (bits.mask_bits, xbm.hardware.task_cells_written(chip, task)) == (4400, 0)
