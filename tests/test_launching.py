"""What launches a training elsewhere, as far as this machine can tell."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from experiments.launch.sweep import Sweep, jobs

import xbm_jax as xbm
from xbm_jax.cli import _parsed
from xbm_jax.cli.options import Adapt

LAUNCH = Path(__file__).parents[1] / "experiments" / "launch"
SCRIPTS = ("slurm.sh", "tpu_pod.sh")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_bash(name):
    subprocess.run(["bash", "-n", str(LAUNCH / name)], check=True)
    assert "set -euo pipefail" in (LAUNCH / name).read_text()


def found(pattern: str, text: str) -> str:
    """The first match, or its group."""
    match = re.search(pattern, text, re.DOTALL)
    assert match is not None
    return match[match.re.groups]


def commands() -> dict[str, list[str]]:
    """The ``xbm adapt`` of each file, as a shell or Kubernetes would call it."""
    slurm, tpu, sky = ((LAUNCH / name).read_text() for name in ("slurm.sh", "tpu_pod.sh", "skypilot.yaml"))
    asked = ["--task", "npz:task.npz", "--bank", "bank"]
    sky = found(r"xbm adapt .*", sky.replace("\\\n", ""))
    sky = sky.replace('"$coordinator:8476"', "node:8476").replace('"$SKYPILOT_NUM_NODES"', "2")
    kubernetes = found(r"command: \[([^\]]*)\]", (LAUNCH / "jobset.yaml").read_text())
    return {
        "slurm": [*found(r"srun \S+ (xbm adapt [^\"]*)", slurm).split(), *asked],
        "tpu": [*found(r"(xbm adapt --distributed)", tpu).split(), *asked],
        "sky": shlex.split(sky.replace('"$SKYPILOT_NODE_RANK"', "1")),
        "kubernetes": [part.strip().strip('"') for part in kubernetes.split(",")],
        "sweep": jobs(Sweep("npz:task.npz", Path("out")))[0].command(),
    }


@pytest.mark.parametrize("name", ["slurm", "tpu", "sky", "kubernetes", "sweep"])
def test_commands_are_ones_that_xbm_takes(name):
    options = _parsed(commands()[name][1:])
    assert isinstance(options, Adapt) and options.task.startswith("npz:")
    assert options.distributed == (name != "sweep")
    others = ("node:8476", 2, 1) if name == "sky" else (None, None, None)
    assert (options.coordinator, options.processes, options.process) == others


@pytest.mark.parametrize("name", ["jobset.yaml", "skypilot.yaml"])
def test_manifests_are_yaml(name):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    documents = list(yaml.safe_load_all((LAUNCH / name).read_text()))
    assert all(documents)
    if name == "jobset.yaml":
        assert [d["kind"] for d in documents] == ["ServiceAccount", "Role", "RoleBinding", "JobSet"]


def test_a_sweep_is_a_job_a_method_and_seed():
    each = jobs(Sweep("fashion_mnist", Path("out"), methods=("xbm", "ksm"), seeds=(0, 5)))
    assert [(job.method, job.seed) for job in each] == [("xbm", 0), ("xbm", 5), ("ksm", 0), ("ksm", 5)]
    assert len({job.bank for job in each}) == 4
    assert each[1].command()[:2] == ["xbm", "adapt"] and "5" in each[1].command()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_slurm_script_runs_two_processes(tmp_path):
    """SLURM is stood in for by a ``srun`` that starts the command twice, with the variables of two tasks."""
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = np.clip(rng.normal(100 + 60 * labels[:, None, None, None], 30, (64, 32, 32, 3)), 0, 255).astype(np.uint8)
    np.savez(tmp_path / "task.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    srun = tmp_path / "srun"
    srun.write_text(
        f"""#!/usr/bin/env bash
shift 3 # --kill-on-bad-exit=1 xbm adapt
export SLURM_JOB_ID=$$ SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_LOCALID=0
SLURM_PROCID=1 {sys.executable} -m xbm_jax adapt "$@" > {tmp_path}/second.log 2>&1 &
SLURM_PROCID=0 {sys.executable} -m xbm_jax adapt "$@" && wait $!
"""
    )
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    given = ["--task", f"npz:{tmp_path}/task.npz", "--bank", f"{tmp_path}/bank", "--epochs", "1", "--batch-size", "16"]
    source = {"PYTHONPATH": str(Path(xbm.__file__).parents[1]), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", str(LAUNCH / "slurm.sh"), *given], env=os.environ | source, capture_output=True, text=True, timeout=800
    )
    second = (tmp_path / "second.log").read_text()
    assert ran.returncode == 0, ran.stderr[-3000:] + second[-3000:]
    assert "Stored in" in ran.stdout and "Stored in" not in second
    assert json.loads((tmp_path / "bank" / "bank.json").read_text())
    assert xbm.MaskBank.open(tmp_path / "bank", xbm.load_chip(tmp_path / "bank" / "chip")).names == ["task"]
    assert not (tmp_path / "bank" / ".runs").exists()
