"""``xbm doctor``, ``xbm --version`` and ``xbm completion``."""

from __future__ import annotations

import subprocess

import jax
import pytest

import xbm_jax
from cli import small
from xbm_jax.cli import doctor
from xbm_jax.crossbar import read


def test_it_says_what_is_here_and_how_to_get_the_rest(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "extras", lambda: {"hub": ["huggingface-hub"], "text": ["no-such-package"]})
    monkeypatch.setitem(doctor._NAMES, "huggingface-hub", "json")
    assert small.run("doctor") == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["xbm_jax"] == xbm_jax.__version__ and "cpu" in lines["devices"]
    assert lines["self-test"].startswith("a read of 24 x 5 weights")


def test_it_says_where_compiled_programs_are_kept(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "self_test", lambda: "")
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        for folder, said in ((str(tmp_path), f"kept in {tmp_path}"), (None, "not kept (XBM_COMPILE_CACHE")):
            jax.config.update("jax_compilation_cache_dir", folder)
            assert small.run("doctor") == 0
            assert said in capsys.readouterr().out
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_extras_are_those_declared_and_named_with_their_command(capsys, monkeypatch):
    requires = [
        "jax>=0.10",
        "tensorflow>=2.21; extra == 'tf'",
        "ruff>=0.17; extra == 'test'",
        "jax[cuda12]>=0.10; extra == 'cuda'",
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: requires)
    assert doctor.extras() == {"tf": ["tensorflow"], "cuda": ["jax"]}
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    assert small.run("doctor") == 0
    assert "not installed: pip install 'xbm_jax[tf]'" in capsys.readouterr().out


def test_a_wrong_read_fails_the_self_test(capsys, monkeypatch):
    monkeypatch.setattr("xbm_jax.crossbar.read", lambda tiles, x: 1.001 * read(tiles, x))
    assert small.run("doctor") == 1
    assert "xbm: self-test: a read is not what its closed form says" in capsys.readouterr().err


def test_version(capsys):
    assert small.run("--version") == 0
    assert capsys.readouterr().out == f"xbm_jax {xbm_jax.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_that_knows_the_commands(shell, capsys):
    assert small.run("completion", shell) == 0
    script = capsys.readouterr().out
    assert {"quickstart", "report", "watch", "doctor"} <= set(script.replace("'", " ").replace("(", " ").split())
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
