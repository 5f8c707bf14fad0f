"""``xbm predict``: image files in, classes out."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli import small
from tasks import tiny
from xbm_jax.banks import MaskBank, save_chip
from xbm_jax.data.images import resize
from xbm_jax.masks import methods
from xbm_jax.tasks import predict

CLASSES = ["east", "north, east", "north", "☃"]
SIZE = 10


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    small.register(monkeypatch)


@pytest.fixture(scope="module")
def root(tmp_path_factory: Any) -> Path:
    """A bank with its chip, and images: RGB, grey, turned by a camera, one damaged, one in a deeper folder."""
    root = tmp_path_factory.mktemp("predict")
    chip = tiny.chip("adc")
    save_chip(chip, root / "bank" / "chip")
    bank = MaskBank.create(root / "bank", chip)
    task = tiny.made_up_task(chip, methods.xbm(), len(CLASSES))
    bank.put("stripes", task.replace(meta={"class_names": CLASSES, "image_shape": [SIZE, SIZE, 1]}))
    bank.put("nameless", task.replace(meta={}))
    folder = root / "images"
    (folder / "deeper").mkdir(parents=True)
    for i, image in enumerate(tiny.stripes().x_test[:3]):
        Image.fromarray(image).save(folder / f"{i}.png")
    Image.fromarray(tiny.stripes().x_test[3][..., 0]).save(folder / "deeper" / "grey.png")
    turned = Image.Exif()
    turned[0x0112] = 3
    Image.fromarray(tiny.stripes().x_test[0][::-1, ::-1]).save(folder / "turned.png", exif=turned)
    (folder / "notes.txt").write_text("no image\n")
    (root / "broken.png").write_bytes((folder / "0.png").read_bytes()[:60])
    return root


def asked(root: Path, capsys: Any, *args: object, task: str = "stripes") -> tuple[int, list[dict[str, str]], str]:
    """Exit code, rows of CSV, standard error."""
    code = small.run("predict", *args, "--bank", root / "bank", "--task", task)
    seen = capsys.readouterr()
    return code, list(csv.DictReader(io.StringIO(seen.out))), seen.err


def probabilities(root: Path, images: np.ndarray, name: str = "stripes") -> np.ndarray:
    chip = tiny.chip("adc")
    logits = predict(chip, MaskBank.open(root / "bank", chip).get(name), images, batch_size=1).astype(np.float64)
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def test_files_get_the_class_and_probability_that_the_task_gives_them(root: Path, capsys: Any) -> None:
    code, rows, _ = asked(root, capsys, root / "images" / "0.png", root / "images" / "1.png")
    assert code == 0
    found = probabilities(root, resize(tiny.stripes().x_test[:2], SIZE))
    assert [row["image"] for row in rows] == [str(root / "images" / f"{i}.png") for i in (0, 1)]
    assert [row["class"] for row in rows] == [CLASSES[i] for i in found.argmax(-1)]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], found.max(-1), atol=1e-4)


def test_a_folder_is_all_images_in_it_upright_and_in_three_channels(root: Path, capsys: Any) -> None:
    code, rows, _ = asked(root, capsys, root / "images", "--probabilities")
    assert code == 0
    names = ["0.png", "1.png", "2.png", "deeper/grey.png", "turned.png"]
    assert [row["image"] for row in rows] == [str(root / "images" / name) for name in names]
    first, turned = ({k: v for k, v in rows[i].items() if k != "image"} for i in (0, 4))
    assert first == turned
    grey = np.repeat(resize(tiny.stripes().x_test[3:4, ..., :1], SIZE), 3, -1)
    every = [float(rows[3][f"p({name})"]) for name in CLASSES]
    np.testing.assert_allclose(every, probabilities(root, grey)[0], atol=1e-4)


def test_a_pattern_in_quotes_is_what_it_matches_once(root: Path, capsys: Any) -> None:
    code, rows, _ = asked(root, capsys, root / "images" / "[01].png", root / "images" / "0.png")
    assert code == 0 and [Path(row["image"]).name for row in rows] == ["0.png", "1.png"]


def test_the_likeliest_classes_in_order(root: Path, capsys: Any) -> None:
    _, rows, _ = asked(root, capsys, root / "images" / "0.png", "--top", 3)
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    order = np.argsort(-probabilities(root, resize(tiny.stripes().x_test[:1], SIZE))[0])
    assert [row["class"] for row in rows] == [CLASSES[i] for i in order[:3]]


def test_unreadable_images_are_named_and_left_out(root: Path, capsys: Any) -> None:
    code, rows, error = asked(root, capsys, root / "broken.png", root / "images" / "0.png", root / "missing.png")
    assert code == 1 and len(rows) == 1
    assert "broken.png cannot be read and is left out" in error and "missing.png cannot be read" in error
    assert error.count("\n") == 2


def test_json_a_file_and_a_contact_sheet(root: Path, capsys: Any, tmp_path: Path) -> None:
    out, sheet = tmp_path / "answers.json", tmp_path / "sheet.png"
    code, rows, _ = asked(root, capsys, root / "images", "--top", 2, "--out", out, "--sheet", sheet)
    assert code == 0 and rows == []
    answers = json.loads(out.read_text(encoding="utf-8"))
    assert len(answers) == 5 and answers[0]["top"][0] == {k: answers[0][k] for k in ("class", "probability")}
    with Image.open(sheet) as picture:
        shown = np.asarray(picture)
    assert shown.shape[0] > 2 * 112 and shown.shape[1] > 3 * 112 and (shown == 255).any() and (shown < 60).any()


def test_a_task_without_names_answers_in_numbers_at_the_networks_size(root: Path, capsys: Any) -> None:
    _, rows, _ = asked(root, capsys, root / "images" / "1.png", task="nameless")
    found = probabilities(root, tiny.stripes().x_test[1:2], "nameless")  # as large as the network's own images
    assert rows[0]["class"] == str(found.argmax())


BAD = {
    "task": (("images/0.png", "--task", "other"), r"--task .* one of nameless, stripes"),
    "bank": (("images/0.png", "--bank", "nowhere", "--chip", "bank/chip"), "bank = .*a folder with a bank.json in it"),
    "no bank": (("images/0.png", "--bank", "nowhere"), "bank = .*a folder with a bank.json in it"),
    "chip": (("images/0.png", "--chip", "nowhere"), "folder = .*a folder that was saved to"),
    "top": (("images/0.png", "--top", 0), "--top = 0: at least 1"),
    "size": (("images/0.png", "--image-size", 5000), r"--image-size = 5000: a whole number of pixels, 1\.\.4096"),
    "seed": (("images/0.png", "--seed", -1), "--seed = -1"),
    "nothing to read": (("broken.png", "missing.png"), "images = '2 files, none of which can be read'"),
    "out": (("images/0.png", "--out", "images"), "--out"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(root: Path, capsys: Any, case: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(root)
    args, message = BAD[case]
    given = [arg for pair in (("--bank", "bank"), ("--task", "stripes")) if pair[0] not in args for arg in pair]
    assert small.run("predict", *args, *given) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
