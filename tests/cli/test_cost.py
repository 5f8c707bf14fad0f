"""``xbm cost`` on a saved chip and a bank: tables, files, one layer explained, wrong inputs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import jax
import pytest
from PIL import Image

from cli import small
from tasks import tiny
from xbm_jax.banks import MaskBank, save_chip
from xbm_jax.hardware import cost, load_technology, workload
from xbm_jax.masks import methods
from xbm_jax.models import initial_trained
from xbm_jax.tasks import Task, chip_mark

TECHNOLOGIES = ("isaac-32nm", "survey-22nm")


def learned(method: Any, accuracy: float) -> Task:
    chip = tiny.chip("adc")
    meta = {"accuracy": accuracy, "epochs": 2, "batch_size": 8, "images": {"train": 32, "validation": 8, "test": 20}}
    trained = initial_trained(chip, method, 2, jax.random.key(1))
    if method.name == "xbm":
        trained["masks"] = {path: m.at[0, ::2].set(-1.0) for path, m in trained["masks"].items()}
    return Task(trained, chip.stats, method, meta, chip_mark(chip))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chip and a bank of two tasks."""
    root, chip = tmp_path_factory.mktemp("cost"), tiny.chip("adc")
    save_chip(chip, root / "chip")
    bank = MaskBank.create(root / "bank", chip)
    bank.put("halves.xbm", learned(methods.xbm(), 0.8))
    bank.put("halves.piggyback", learned(methods.piggyback(), 0.9))
    small.write_npz(root / "halves.npz")
    return root


@pytest.fixture(autouse=True)
def with_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small.register(monkeypatch)


def test_tables_files_and_pictures_hold_the_same_costs(saved: Path, capsys: Any, tmp_path: Path) -> None:
    out = tmp_path / "costs"
    given = ("--bank", saved / "bank", "--image-size", "16", "--tech", *TECHNOLOGIES, "--out", out)
    assert small.run("cost", saved / "chip", *given) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    rows = json.loads((out / "cost.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["technology"], row["task"]) for row in rows] == [
        (name, task) for name in TECHNOLOGIES for task in ("halves.piggyback", "halves.xbm")
    ]
    chip = tiny.chip("adc")
    load = workload(chip, jax.ShapeDtypeStruct((1, 16, 16, 3), "uint8"))
    for row in rows:
        task = MaskBank.open(saved / "bank", chip).get(row["task"])
        wanted = cost(chip, task, load_technology(row["technology"]), load)
        assert row["inference_joules"] == pytest.approx(float(wanted.inference_joules), rel=1e-5, abs=0)
        assert sum(sum(part) for part in row["by_layer"]["energy_joules"].values()) < row["inference_joules"] * 1.001
    by_csv = list(csv.DictReader((out / "cost.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(line["inference_joules"]) for line in by_csv] == pytest.approx(
        [row["inference_joules"] for row in rows], rel=1e-5, abs=0
    )
    assert by_csv[0]["bus_joules"] and not by_csv[-1]["bus_joules"]  # what is not counted is empty, not zero
    for name in TECHNOLOGIES:
        assert f"{name}: one example; arrays" in shown.out
    assert "not counted by survey-22nm: DAC, sample and hold" in shown.out
    assert "every input at full scale (an upper bound)" in shown.out
    for picture in ("energy", "accuracy_energy", "floor_plan", "assumptions"):
        with Image.open(out / f"{picture}.png") as image:
            image.load()
            assert image.width > 600
    sources = json.loads((out / "cost.json").read_text(encoding="utf-8"))["sources"]
    assert all(sources["isaac-32nm"].values())


def test_a_layer_is_explained_term_by_term(saved: Path, capsys: Any) -> None:
    given = ("--images", f"npz:{saved / 'halves.npz'}", "--tech", "isaac-32nm", "--explain", tiny.LAYERS[0])
    assert small.run("cost", saved / "chip", *given) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{tiny.LAYERS[0]}, source task, isaac-32nm: one example, ")
    assert "adc_joules = 1.5625e-12   ISAAC (Shafiee, ISCA 2016), table 1" in shown
    assert "shifts: " in shown and "DAC: 0 J" in shown  # 8-bit inputs in one pass, one-bit drivers


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--tech", "isaac"), "technology = 'isaac': one of 'isaac-32nm', "),
        (("--bank", "BANK", "--task", "halves"), "--task = 'halves': some of halves.piggyback, halves.xbm"),
        (("--explain", "stem"), "layer = 'stem': one of "),
        (("--copies", "0"), "copies = 0: an integer from 1"),
        (("--batch", "0"), "batch = 0: an integer from 1"),
    ],
)
def test_wrong_inputs_are_one_line(saved: Path, capsys: Any, given: tuple[str, ...], said: str) -> None:
    given = tuple(str(saved / "bank") if word == "BANK" else word for word in given)
    assert small.run("cost", saved / "chip", "--image-size", "16", *given) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.err.count("\n") == 1 and shown.out == ""


def test_a_file_of_ones_own_is_checked_before_anything_is_done(saved: Path, capsys: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('name = "mine"\nconverter = "constant"\nwrite_unit = "row"\n[adc_bits]\nvalue = 8\nsource = ""\n')
    assert small.run("cost", saved / "chip", "--tech", mine, "--out", tmp_path / "out") == 2
    assert "mine.toml:6: adc_bits.source = ''" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
