"""A bank as one file, with its chip or without; read without this package, by other people's readers, and by ours."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tasks import tiny
from xbm_jax.banks import MaskBank, describe, load_bank, save_chip, task_names, unpack
from xbm_jax.errors import BankError, DataError, ModelError, OutputError
from xbm_jax.masks import methods
from xbm_jax.serving import serve
from xbm_jax.storage.packing import unpack as unpacked
from xbm_jax.tasks import compact, predict

IMAGES = tiny.stripes().x_test[:8]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "banks.md"


@pytest.fixture(scope="module")
def chip():
    return tiny.chip("ideal")


@pytest.fixture(scope="module")
def made(chip):
    return {
        "xbm": tiny.made_up_task(chip, methods.xbm()),
        "head": tiny.made_up_task(chip, methods.head_only(), num_classes=7, seed=1),
    }


@pytest.fixture
def bank(tmp_path, chip, made):
    bank = MaskBank.create(tmp_path / "bank", chip)
    for name, task in made.items():
        bank.put(name, task)
    return bank


def test_a_bank_goes_out_and_comes_in_bit_for_bit(bank, tmp_path, chip, made):
    file = tmp_path / "out" / "bank.safetensors"
    bank.export(file)
    assert task_names(file) == ["head", "xbm"] and describe(file)["tasks"]["xbm"]["classes"] == 4
    read = MaskBank.open(file, chip)
    other = MaskBank.create(tmp_path / "other", chip)
    assert other.import_(file) == ["head", "xbm"]
    for name, task in made.items():
        wanted = compact(chip, task)
        assert read.get(name) == other.get(name) == wanted and read.meta(name) == task.meta
    assert other.verify() == []
    np.testing.assert_array_equal(
        serve(chip, read, batch_size=8)(IMAGES, "xbm"), serve(chip, other, batch_size=8)(IMAGES, "xbm")
    )


def test_some_tasks_are_chosen_and_taken_names_refused(bank, tmp_path, chip, made):
    file = tmp_path / "bank.safetensors"
    bank.export(file, ["xbm"])
    assert task_names(file) == ["xbm"]
    with pytest.raises(BankError, match=r"names = \['xbm'\]: names that are free"):
        bank.import_(file)
    bank.put("xbm", made["head"])
    assert bank.import_(file, replace=True) == ["xbm"]
    assert bank.get("xbm") == compact(chip, made["xbm"]) and len(bank.history("xbm")) == 3
    for act in (bank.export, bank.import_):
        with pytest.raises(DataError, match=r"names = 'xbm': a list of names: \['xbm'\]"):
            act(file, "xbm")
        with pytest.raises(BankError, match=r"names = \['no'\]: some of "):
            act(file, ["no"])
    with pytest.raises(OutputError, match=r"ends in \.safetensors"):
        bank.export(tmp_path / "bank.npz")


def test_a_file_is_only_read_and_only_by_its_chip(bank, tmp_path, chip, made):
    file = tmp_path / "bank.safetensors"
    bank.export(file)
    read = MaskBank.open(file, chip)
    for act in (
        lambda: read.put("x", made["xbm"]),
        lambda: read.remove("xbm"),
        read.gc,
        read.verify,
        lambda: read.history("xbm"),
    ):
        with pytest.raises(BankError, match="a bank in a folder; one in a file is only read"):
            act()
    with pytest.raises(BankError, match="name = 'no': one of head, xbm"):
        read.get("no")
    other = tiny.chip("ideal", key=1)
    with pytest.raises(BankError, match=r"chip\.identity"):
        MaskBank.open(file, other)
    with pytest.raises(BankError, match=r"chip\.identity"):
        MaskBank.create(tmp_path / "other", other).import_(file)
    with pytest.raises(BankError, match="a file with its chip in it"):
        load_bank(file, tiny.network())


def test_a_file_with_its_chip_is_all_that_is_needed(bank, tmp_path, chip, made):
    file = tmp_path / "bank.safetensors"
    bank.export(file, chip=True)
    loaded = load_bank(file, tiny.network())
    tiny.assert_same_bits(loaded.chip, chip)
    assert loaded.get("xbm") == compact(chip, made["xbm"])
    np.testing.assert_array_equal(
        predict(loaded.chip, loaded.get("xbm"), IMAGES, batch_size=8),
        predict(chip, bank.get("xbm"), IMAGES, batch_size=8),
    )
    with pytest.raises(ModelError, match="the structure of 'tiny'"):
        load_bank(file)


def test_a_folder_is_loaded_with_the_chip_beside_its_tasks(bank, chip, made):
    with pytest.raises(BankError, match="a bank with its chip in"):
        load_bank(bank.folder, tiny.network())
    with pytest.raises(BankError, match=r"a folder with a bank\.json in it"):
        load_bank(bank.folder / "nothing")
    save_chip(chip, bank.folder / "chip")
    assert load_bank(str(bank.folder), tiny.network()).get("xbm") == compact(chip, made["xbm"])


def test_a_damaged_task_is_not_exported_nor_half_a_file_imported(bank, tmp_path, chip):
    file = tmp_path / "bank.safetensors"
    bank.export(file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    other = MaskBank.create(tmp_path / "other", chip)
    with pytest.raises(BankError, match=r"arrays = \['(masks|head_kernel)'\]"):
        other.import_(file)
    assert other.names == []
    data = next((bank.folder / "tasks" / "xbm").rglob("data/0"))
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(BankError, match="a readable checkpoint"):
        bank.export(tmp_path / "more.safetensors")
    assert not (tmp_path / "more.safetensors").exists()


def test_the_reader_of_the_page_reads_both_and_so_does_safetensors(bank, tmp_path, chip, made):
    (code,) = [
        c for c in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S) if "def read_task" in c
    ]
    assert len(code.strip().splitlines()) <= 32 and "xbm" not in code.replace("_xbm", "")
    space: dict = {}
    exec(code, space)
    file = tmp_path / "bank.safetensors"
    bank.export(file, chip=True)
    tensors = load_file(file)
    for where in (bank.folder, file):
        for name, task in made.items():
            arrays, metadata = space["read_task"](where, name)
            assert metadata["meta"] == task.meta and metadata["classes"] == task.num_classes
            tiny.assert_same_bits(
                {f"task/{name}/{n}": a for n, a in arrays.items()},
                {k: a for k, a in tensors.items() if k.startswith(f"task/{name}/")},
            )
            stored = compact(chip, task)
            tiny.assert_same_bits(arrays["head_kernel"], stored.trained["head"]["kernel"])
            codes = [np.ravel(stored.trained["masks"][path]) for path in sorted(stored.trained["masks"])]
            bits = np.concatenate([unpacked(np.packbits(c), 1, c.size) for c in codes]) if codes else []
            assert np.array_equal(np.unpackbits(arrays["masks"])[: len(bits)], bits)  # tiny layers fill whole bytes
        damaged = shutil.copytree(bank.folder, tmp_path / "damaged", dirs_exist_ok=True)
        data = next((damaged / "tasks" / "xbm").rglob("data/0"))
        data.write_bytes(b"\0" + data.read_bytes()[1:])
        with pytest.raises(AssertionError):
            space["read_task"](damaged, "xbm")


def test_a_file_is_unpacked_into_a_new_bank_with_its_chip(tmp_path, monkeypatch):
    from xbm_jax.banks import published

    chip = tiny.chip("ideal")
    bank = MaskBank.create(tmp_path / "bank", chip)
    bank.put("t", tiny.made_up_task(chip, methods.xbm()))
    bank.export(tmp_path / "f.safetensors", chip=True)
    bank.export(tmp_path / "bare.safetensors")
    monkeypatch.setattr(published, "chip_in", lambda shelf, _, given=published.chip_in: given(shelf, tiny.network()))
    monkeypatch.setattr(
        published, "load_chip", lambda folder, _=None, given=published.load_chip: given(folder, tiny.network())
    )
    assert unpack(tmp_path / "f.safetensors", tmp_path / "new") == ["t"]
    assert load_bank(tmp_path / "new").get("t") == bank.get("t")
    with pytest.raises(BankError, match="free in this bank"):
        unpack(tmp_path / "bare.safetensors", tmp_path / "new")
    unpack(tmp_path / "bare.safetensors", tmp_path / "new", replace=True)
    with pytest.raises(BankError, match="a file with its chip in it"):
        unpack(tmp_path / "bare.safetensors", tmp_path / "other")
    assert not (tmp_path / "other").exists()
