"""What experiments carry on from, within a training too."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import jax
import pytest
from experiments import resume

import xbm_jax as xbm
from tasks import tiny

RECIPE = xbm.Recipe(epochs=2, batch_size=16)


class Stop(Exception):
    """What a test ends a training with."""


def stop_after_an_epoch(row: dict) -> None:
    if row["step"] == 18:
        raise Stop


def learned(out: Path, **changes) -> xbm.Task:
    options = {"method": tiny.METHODS["xbm"], "key": jax.random.key(3), "config": RECIPE} | changes
    return resume.adapt(out, tiny.chip("ideal"), tiny.stripes(), **options)


def test_a_training_carries_on_and_is_forgotten_with_its_record(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        learned(tmp_path, report=stop_after_an_epoch)
    (folder,) = (tmp_path / ".runs").iterdir()
    learned(tmp_path, config=dataclasses.replace(RECIPE, epochs=1))  # another one, in a folder of its own
    steps: list[int] = []
    task = learned(tmp_path, report=lambda row: steps.append(row["step"]))
    assert steps == list(range(18, 35)) and len(list((tmp_path / ".runs").iterdir())) == 2
    assert learned(tmp_path, report=stop_after_an_epoch) == task  # it is done
    resume.write_records(tmp_path / "results.json", {"config": {}}, [{"row": 1}], "rows")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"] and not folder.exists()
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == [{"row": 1}]
    tiny.assert_same_bits(learned(tmp_path), task)
    resume.forget_learned()


def test_trainings_in_one_step_carry_on_too(tmp_path: Path) -> None:
    chips, data = [tiny.chip("ideal")] * 2, [tiny.stripes()] * 2
    options = {"method": tiny.METHODS["xbm"], "keys": list(jax.random.split(jax.random.key(0))), "config": RECIPE}
    first = resume.adapt_together(tmp_path, chips, data, **options)
    assert resume.adapt_together(tmp_path, chips, data, **options) == first
    assert [task.meta for task in first] == [t.meta for t in resume.adapt_together(tmp_path, chips, data, **options)]
    resume.forget_learned()
    assert list(tmp_path.iterdir()) == []


def test_a_command_leaves_with_a_stated_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^here: --out = 'x': a new folder$"), resume.command("here"):
        raise xbm.OutputError("--out", "x", "a new folder")
    with pytest.raises(SystemExit) as left, resume.command("here"):
        signal.raise_signal(signal.SIGTERM)
    assert left.value.code == 143 and capsys.readouterr().err == "here: stopped by SIGTERM\n"
