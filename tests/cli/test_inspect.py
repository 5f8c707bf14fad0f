"""``xbm inspect`` on a saved chip and a user's own images."""

from __future__ import annotations

import json

import jax
import pytest
from PIL import Image

from cli import small
from tasks import tiny
from xbm_jax.banks import save_chip
from xbm_jax.tasks import inspect


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A saved chip of the small backbone, and a task's file."""
    root = tmp_path_factory.mktemp("inspect")
    save_chip(tiny.chip("adc"), root / "chip")
    small.write_npz(root / "halves.npz")
    return root


@pytest.fixture(autouse=True)
def with_tiny(monkeypatch):
    small.register(monkeypatch)


def test_table_json_and_picture_hold_the_same_inspection(inputs, capsys):
    out = inputs / "found"
    given = ("--task", f"npz:{inputs / 'halves.npz'}", "--images", "256", "--out", out)
    assert small.run("inspect", inputs / "chip", *given) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    found = json.loads((out / "inspection.json").read_text(encoding="utf-8"))
    assert found["images"] == 20  # all test images that there are
    assert [layer["path"] for layer in found["layers"]] == list(tiny.LAYERS)
    everything = inspect(tiny.chip("adc"), small.arrays()["x_test"], key=jax.random.key(0))
    for layer, wanted in zip(found["layers"], everything.layers, strict=True):
        assert layer["snr_db"] == pytest.approx(wanted.snr_db, abs=1e-3)
        assert layer["clip_rate"] == pytest.approx(wanted.clip_rate, abs=1e-6)
        (line,) = [line for line in shown.out.splitlines() if line.startswith(layer["path"])]
        assert line.split()[:3] == [layer["path"], "simulated", f"{layer['snr_db']:.1f}"]
    assert "tiny, 20 images; multiply-accumulates: 0.0% folded exactly, 100.0% simulated" in shown.out
    assert shown.out.splitlines()[-1] == f"Written to {out}: inspection.json and inspection.png."
    with Image.open(out / "inspection.png") as image:
        image.load()
        assert image.format == "PNG" and image.width >= 800
    assert sorted(path.name for path in out.iterdir()) == ["inspection.json", "inspection.png"]


def test_nothing_is_written_unasked_and_grey_images_will_do(inputs, capsys):
    task = small.write_npz(inputs / "grey.npz", **small.arrays(channels=1))
    before = sorted(inputs.rglob("*"))
    assert small.run("inspect", inputs / "chip", "--task", f"npz:{task}", "--images", "6") == 0
    assert "tiny, 6 images; " in capsys.readouterr().out
    assert sorted(inputs.rglob("*")) == before


def test_a_folder_that_fills_up_keeps_the_old_files(inputs, capsys, monkeypatch, tmp_path):
    (tmp_path / "inspection.json").write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xbm_jax.storage.files._write_through", full)
    given = ("--task", f"npz:{inputs / 'halves.npz'}", "--images", "6", "--out", tmp_path)
    assert small.run("inspect", inputs / "chip", *given) == 2
    assert "No space left" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("inspection.json", "old")]
