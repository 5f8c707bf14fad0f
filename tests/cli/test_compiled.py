"""The cache of compiled programs: where it is, when it is not, and how large it may become."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from xbm_jax.cli import compiled
from xbm_jax.cli.compiled import keep_compiled, passed_on, without_flag

SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No cache of the tests' own; afterwards JAX is set as it was."""
    kept = {name: jax.config.values[name] for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    for name in ("JAX_COMPILATION_CACHE_DIR", compiled.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    yield
    for name, value in kept.items():
        jax.config.update(name, value)


def test_the_users_cache_folder_is_taken(tmp_path: Path) -> None:
    folder = keep_compiled()
    assert folder is not None and folder.parent == tmp_path / "caches" / "xbm_jax" / "compiled"
    assert jax.config.values["jax_compilation_cache_dir"] == str(folder) and folder.is_dir()


def test_the_variable_names_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled.VARIABLE, str(tmp_path / "mine"))
    folder = keep_compiled()
    assert folder is not None and folder.parent == tmp_path / "mine"


def test_a_new_process_keeps_programs_where_this_one_does() -> None:
    assert "JAX_COMPILATION_CACHE_DIR" not in passed_on()
    folder = keep_compiled()
    assert passed_on()["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert float(passed_on()["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) < 1


@pytest.mark.parametrize("case", ["flag", "off", "OFF", "theirs", "theirs by setting", "no folder"])
def test_nothing_is_set_where_it_is_not_wanted_or_not_possible(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = None
    if case.lower() == "off":
        monkeypatch.setenv(compiled.VARIABLE, case)
    elif case == "theirs":
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "theirs"))
    elif case == "theirs by setting":
        wanted = str(tmp_path / "theirs")
        jax.config.update("jax_compilation_cache_dir", wanted)
    elif case == "no folder":
        (tmp_path / "caches").write_text("a file where the folder would be\n")
    assert keep_compiled(case != "flag") is None
    assert jax.config.values["jax_compilation_cache_dir"] == wanted


def test_the_flag_may_stand_anywhere_but_behind_two_dashes() -> None:
    assert without_flag(["predict", "--no-compile-cache", "x.png"]) == (["predict", "x.png"], False)
    assert without_flag(["predict", "x.png"]) == (["predict", "x.png"], True)
    assert without_flag(["predict", "--", "--no-compile-cache"]) == (["predict", "--", "--no-compile-cache"], True)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / str(i)).write_bytes(bytes(100))
        os.utime(tmp_path / str(i), (1000 + (i * 5) % 8, 1000))
    compiled._prune(tmp_path, 800)
    assert len(list(tmp_path.iterdir())) == 8
    compiled._prune(tmp_path, 799)
    kept = sorted((i * 5) % 8 for i in range(8) if (tmp_path / str(i)).exists())
    assert kept == [3, 4, 5, 6, 7]  # 500 bytes are no more than three quarters
