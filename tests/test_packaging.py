"""What the package declares: each dependency is used, each optional one is an extra, and the page's files are in it."""

from __future__ import annotations

import re
import tomllib

import pytest
from tools.try_wheel import lowest, options

from test_structure import ROOT, SRC, all_imports, read_modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {
    "orbax-checkpoint": "orbax",
    "tensorflow-datasets": "tensorflow_datasets",
    "array-record": "array_record",
    "pillow": "PIL",
    "huggingface-hub": "huggingface_hub",
    "tensorboardx": "tensorboardX",
}
OF_OTHERS = {
    "importlib-resources": "tensorflow-datasets imports it and does not declare it",
    "array-record": "tensorflow-datasets reads the bundled sets by it",
    "tensorflow": "TFDS reads TFRecord sets by it; an extra",
}


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0]


def imported() -> set[str]:
    return {found.name.split(".")[0] for _, found in all_imports(read_modules(SRC))} | {
        name for source in read_modules(SRC).values() for name in re.findall(r'_library\("(\w+)"', source)
    }


def test_every_dependency_is_imported_or_says_for_whom_it_is():
    extras = PROJECT["optional-dependencies"]
    users = [r for extra, own in extras.items() if extra not in ("test", "notebooks", "docs") for r in own]
    declared = {name_of(requirement) for requirement in (*PROJECT["dependencies"], *users)}
    known = imported()
    unused = {name for name in declared - set(OF_OTHERS) if MODULES.get(name, name) not in known}
    assert unused == set()


def test_everything_imported_is_declared():
    import sys

    extras = [r for own in PROJECT["optional-dependencies"].values() for r in own]
    declared = {MODULES.get(name, name) for name in map(name_of, (*PROJECT["dependencies"], *extras))}
    known = declared | set(sys.stdlib_module_names) | {"xbm_jax"}
    assert imported() - known == set()


def test_lowest_versions_pin_what_is_declared():
    pins = lowest(PROJECT["dependencies"])
    assert len(pins) == len(PROJECT["dependencies"])
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", pin) for pin in pins)
    assert lowest(["jax[cuda12]>=0.10.2"]) == ["jax==0.10.2"]


def test_the_pages_files_are_in_the_package():
    assert {"page.css", "page.js"} <= {path.name for path in (SRC / "xbm_jax" / "report" / "web").iterdir()}


@pytest.mark.parametrize(
    ("args", "kinds", "quickstart"), [([], [], []), (["newest"], ["newest"], []), (["--", "--full"], [], ["--full"])]
)
def test_the_wheel_is_tried_with_both_ends_of_what_is_allowed_or_the_one_that_is_named(args, kinds, quickstart):
    given, passed_on = options(args)
    assert given.kinds == kinds and passed_on == quickstart


def test_every_place_that_names_the_version_names_the_same():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d[\d.]*)\]", changes, flags=re.MULTILINE)
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert released[0] == PROJECT["version"]
