"""The script for accelerators: what it says, keeps and runs again; all of it at toy size on a CPU."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from experiments.gpu import driver, packages, worker
from experiments.gpu.__main__ import _arguments, main
from experiments.gpu.parts import PARTS

import gpu_table

ROOT = Path(__file__).resolve().parents[1]
TABLE = "gpu_table"


def asked(out: Path, **changes: Any) -> argparse.Namespace:
    given = vars(_arguments().parse_args([])) | {"out": out, "budget": 120.0, "again": False} | changes
    return argparse.Namespace(**given)


def parts_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "gpu.json").read_text())["parts"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker in this process, without its starting: for parts that neither crash nor hang."""

    class Worker:
        pid = 0

        def __init__(self, work: str) -> None:
            worker.main(work)

        def poll(self) -> int:
            return 0

        def wait(self, timeout: float = 0.0) -> int:
            del timeout
            return 0

    def started(parts: Any, asked: Any, end: float, output: Any, table: str) -> Any:
        del end, output
        work = {"table": table, "parts": [part.name for part in parts], "folder": str(asked.out / ".parts")}
        return Worker(json.dumps(work | {"out": str(asked.out), "data": None, "toy": False, "seconds": 100.0}))

    monkeypatch.setattr(driver, "_started", started)
    monkeypatch.setattr(gpu_table, "PARTS", [part for part in gpu_table.PARTS if part.name not in ("dies", "hangs")])


@pytest.mark.usefixtures("at_once")
def test_what_is_done_is_kept_and_what_failed_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert driver.drive(asked(tmp_path), TABLE) == 1
    first = parts_of(tmp_path)
    assert {name: part["status"] for name, part in first.items()} == {
        "machine": "done",
        "good": "done",
        "raises": "failed",
        "after": "done",
        "large": "no time",
        "elsewhere": "missing",
        "no file": "missing",
    }
    assert f"wrong in {tmp_path.name}" in first["raises"]["error"]
    assert first["elsewhere"]["missing"] == ["missing: no-such-package"]
    assert first["no file"]["missing"] == ["--data: a folder with none.npz"]
    assert first["good"]["found"] == {"runs": 1} and first["after"]["found"] == {"runs": 2}
    mended = [gpu_table.Part("raises", gpu_table.good, 20.0, 0.0) if p.name == "raises" else p for p in gpu_table.PARTS]
    monkeypatch.setattr(gpu_table, "PARTS", mended[:4])
    assert driver.drive(asked(tmp_path), TABLE) == 0
    again = parts_of(tmp_path)
    assert again["raises"]["found"] == {"runs": 3} and again["good"] == first["good"]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "toy"}, r"--out .*: a new folder, its results are of the toy size"),
        ({"context": {"device": {"kind": "other"}, "versions": {"jax": "0"}}}, r"--out .*: .* of other device"),
        ({"context": {"device": {"kind": "none"}, "versions": {"jax": "1"}}}, r"--out .*: .* of other versions"),
    ],
)
def test_results_of_two_machines_or_sizes_do_not_mix(tmp_path: Path, changes: Any, message: str) -> None:
    content = {"size": "full", "context": None, "parts": {}} | changes
    (tmp_path / "gpu.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=message):
        driver.drive(asked(tmp_path), TABLE)


@pytest.mark.slow
def test_a_part_that_crashes_or_hangs_loses_itself_alone(tmp_path: Path) -> None:
    assert driver.drive(asked(tmp_path), TABLE) == 1
    found = parts_of(tmp_path)
    assert [found[name]["status"] for name in ("raises", "dies", "hangs", "after")] == ["failed"] * 3 + ["done"]
    assert "the last words" in found["dies"]["error"] and found["dies"]["error"].endswith("the worker ended with 3")
    assert found["hangs"]["error"].endswith("past its limit")
    assert found["after"]["found"] == {"runs": 2}


def test_without_time_nothing_is_begun(tmp_path: Path) -> None:
    parts = [part.name for part in PARTS]
    assert driver.drive(asked(tmp_path, budget=-1.0)) == 1
    statuses = {part["status"] for part in parts_of(tmp_path).values()}
    assert statuses == {"no time", "missing"} and set(parts_of(tmp_path)) == set(parts)


def test_no_two_parts_share_a_name_and_files_are_few() -> None:
    assert len({part.key for part in PARTS}) == len(PARTS)
    assert PARTS[0].name == "machine" and sum(part.always for part in PARTS) == 1


def test_what_is_missing_is_said_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setattr(packages, "NEEDED", ("jax", "no-such-package"))
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert "gpu: missing: no-such-package\n" in capsys.readouterr().err
    assert not (tmp_path / "out" / "gpu.json").exists()


def test_packages_that_are_too_old_are_named(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\ndependencies = ["jax>=999.0", "numpy>=1.2", "no-such-package>=1"]\n')
    (line,) = packages.too_old(project)
    assert line.startswith("older than this package asks for: jax ") and line.endswith("< 999.0")


def test_a_bare_machine_lacks_the_command_line_and_what_it_stands_on() -> None:
    assert {"tyro", "docstring-parser", "typeguard"} <= set(packages.lacked())
    assert not {"jax", "numpy", "tensorflow-datasets", "pyarrow"} & set(packages.lacked())


def test_a_folder_without_wheels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"--wheels .*: no wheel in it"):
        main(["--wheels", str(tmp_path), "--out", str(tmp_path / "out")])


def test_the_part_of_most_worth_runs_as_a_toy(tmp_path: Path) -> None:
    """The very command: what feeds converters keeps its codes."""
    command = [sys.executable, "-m", "experiments.gpu", "--toy", "--out", str(tmp_path), "--only", "codes"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = parts_of(tmp_path)
    part = found["codes and draws, to the host's"]
    assert part["status"] == "done" and part["found"]["draws"]["differ"] == 0
    assert part["found"]["dense, real cells"]["moved"] <= 1e-4 and part["found"]["dense, real cells"]["conversions"] > 0


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_all_of_it_runs_as_a_toy(tmp_path: Path) -> None:
    """The very command, and once more: then nothing is left to do."""
    command = [sys.executable, "-m", "experiments.gpu", "--toy", "--out", str(tmp_path), "--budget", "2800"]
    first = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + (tmp_path / "log.txt").read_text()
    found = parts_of(tmp_path)
    assert set(found) == {part.name for part in PARTS if part.as_toy}
    assert found["tests"]["found"]["counts"]["passed"] > 0
    assert found["eight tasks in one step, to eight steps"]["found"]["ratio"] > 0
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert again.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]
