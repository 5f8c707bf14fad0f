from __future__ import annotations

import getpass
import json
import os
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jax
import numpy as np
import pytest

from xbm_jax.report import context as context_module
from xbm_jax.report import run_context


@dataclass(frozen=True)
class Rule:
    on_off: float = float("inf")
    shape: tuple[int, ...] = (3, 3)


def test_context_says_what_ran_where():
    context = run_context({"epochs": 3}, seed=5)
    assert context["config"] == {"epochs": 3}
    assert context["seed"] == 5
    assert context["device"] == {"platform": "cpu", "kind": jax.devices()[0].device_kind, "count": len(jax.devices())}
    assert context["cpus"] >= 1
    assert context["os"] == platform.platform()
    packages = ["python", "xbm_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"]
    assert list(context["versions"]) == packages
    assert context["versions"]["jax"] == jax.__version__
    assert context["versions"]["numpy"] == np.__version__
    date = datetime.fromisoformat(context["date"])
    assert date.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - date) < timedelta(minutes=1)


def test_config_becomes_plain_json():
    config = {
        "rule": Rule(),
        "path": Path("runs") / "one",
        "rate": np.float32(0.5),
        "sizes": np.arange(2),
        "flags": {"b", "a"},
        "optimizer": json.dumps,
        3: None,
        "dtype": np.dtype("int8"),
    }
    plain = run_context(config, 0)["config"]
    assert plain == {
        "rule": {"type": "Rule", "on_off": "inf", "shape": [3, 3]},
        "path": "runs/one",
        "rate": 0.5,
        "sizes": [0, 1],
        "flags": ["a", "b"],
        "optimizer": "dumps",
        "3": None,
        "dtype": "int8",
    }
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/opt/somebody/bin/xbm", "quickstart", "--seed", "3"], "xbm quickstart --seed 3"),
        (["/opt/ipykernel_launcher.py", "-f", "/opt/somebody/kernel.json"], "ipykernel_launcher.py"),
        ([], ""),
    ],
)
def test_command_is_what_was_typed(monkeypatch, argv, command):
    monkeypatch.setattr(sys, "argv", argv)
    assert run_context({}, 0)["command"] == command


def test_context_names_neither_user_nor_folder(monkeypatch):
    monkeypatch.setattr(sys, "argv", [os.path.join(os.getcwd(), "xbm")])
    monkeypatch.setenv("USER", "somebody-here")
    monkeypatch.setenv("LOGNAME", "somebody-here")
    assert getpass.getuser() == "somebody-here"
    text = json.dumps(run_context({}, 0))
    for private in ("somebody-here", os.getcwd(), str(Path.home()) + os.sep, sys.prefix):
        assert private not in text


def test_package_that_is_not_there_is_said_so(monkeypatch):
    monkeypatch.setattr(context_module, "_PACKAGES", ("no-such-package-as-this",))
    assert run_context({}, 0)["versions"]["no-such-package-as-this"] == "not installed"
