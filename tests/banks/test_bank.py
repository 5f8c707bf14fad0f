"""The mask bank: what goes in comes out, bit for bit, and only for the chip that it belongs to."""

import dataclasses
import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xbm_jax
from tasks import tiny
from xbm_jax.banks import MaskBank, describe, save_chip, task_names
from xbm_jax.crossbar import FunctionDevice
from xbm_jax.errors import BankError, OutputError
from xbm_jax.hardware import task_bits, task_cells_written
from xbm_jax.masks import Binary, Filter, Identity, methods
from xbm_jax.models import program
from xbm_jax.serving import serve
from xbm_jax.storage import store
from xbm_jax.storage.packing import packed_bytes
from xbm_jax.tasks import compact, predict, source_task, stored

IMAGES = tiny.stripes().x_test[:16]
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def chip():
    return tiny.chip("ideal")


@pytest.fixture
def bank(tmp_path, chip):
    return MaskBank.create(tmp_path / "bank", chip)


@pytest.fixture(scope="module")
def task(chip):
    return tiny.made_up_task(chip, methods.xbm())


EVERY = tiny.METHODS | {
    "xma": methods.xma(bits=4, top=1),
    "xma2": methods.xma2(share=0.5, gain_bits=5),
    "piggyback_ternary": methods.piggyback_ternary(),
    "ksm_soft": methods.ksm_soft(bits=11),
    "lora": methods.lora(rank=3),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_task_comes_back_bit_for_bit(bank, chip, name):
    task = tiny.made_up_task(chip, EVERY[name], num_classes=7)
    if name == "xma2":  # made-up values choose no array
        task.trained["masks"]["conv2"]["arrays"] = jnp.array([[1.0], [-1.0], [1.0]])
    bank.put(name, task)
    assert MaskBank.open(bank.folder, chip).get(name) == compact(chip, task)
    bank.put(name, task, compact=False)
    got = MaskBank.open(bank.folder, chip).get(name)
    wanted = stored(chip, task)
    tiny.assert_same_bits((got.trained, got.state), (wanted.trained, wanted.state))
    assert got.method == task.method
    assert got.meta == task.meta
    assert all(jnp.issubdtype(codes.dtype, jnp.unsignedinteger) for codes in jax.tree.leaves(got.trained["masks"]))
    logits = predict(chip, task, IMAGES, batch_size=16)
    assert np.ptp(logits) > 0.1
    assert np.array_equal(predict(chip, got, IMAGES, batch_size=16), logits)


def test_masks_vary_and_take_one_bit_each_on_disk(bank, chip, task):
    bank.put("t", task)
    codes = np.concatenate([np.ravel(c) for c in bank.get("t").trained["masks"].values()])
    assert codes.size == 8 * (2 + 3 + 3)  # rows 24: ceil(27 / 24), ceil(72 / 24), ceil(72 / 24) tiles
    assert 0 < codes.mean() < 1
    description = next(bank.folder.rglob("_CHECKPOINT_METADATA")).read_text()
    wanted = sum(packed_bytes(1, 8 * tiles) for tiles in (2, 3, 3))
    assert f'\\"shape\\": [{wanted}], \\"dtype\\": \\"uint8\\"' in description


def test_other_compositions_round_trip(bank, chip):
    method = methods.masked("filters", Filter(), Binary(), Identity(), norms="affine")
    task = tiny.made_up_task(chip, method)
    bank.put("filters", task, compact=False)
    tiny.assert_same_bits(bank.get("filters").trained, stored(chip, task).trained)
    bank.put("source", source_task(chip), compact=False)
    tiny.assert_same_bits(bank.get("source").trained["head"], chip.head)
    bank.put("again", bank.get("filters"), compact=False)  # a stored task may be stored again
    tiny.assert_same_bits(bank.get("again").trained, bank.get("filters").trained)


PREDICT = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from tasks import tiny
from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.serving import serve
from xbm_jax.tasks import predict
chip = load_chip(sys.argv[2] + "/chip", tiny.network())
bank = MaskBank.open(sys.argv[2] + "/bank", chip)
images = tiny.stripes().x_test[:16]
np.savez(
    sys.argv[2] + "/after.npz",
    alone=predict(chip, bank.get("xbm"), images, batch_size=16),
    served=serve(chip, bank, ["norm_only-full", "xbm"], batch_size=16).logits(images, "xbm"),
)
"""


def test_a_new_process_predicts_what_the_old_one_did(tmp_path):
    chip = tiny.chip("adc")
    save_chip(chip, tmp_path / "chip")
    bank = MaskBank.create(tmp_path / "bank", chip)
    for name in ("xbm", "norm_only-full"):
        bank.put(name, tiny.made_up_task(chip, tiny.METHODS[name]))
    before = predict(chip, compact(chip, tiny.made_up_task(chip, tiny.METHODS["xbm"])), IMAGES, batch_size=16)
    tests = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-W", "error", "-c", PREDICT, str(tests), str(tmp_path)], check=True, timeout=200)
    with np.load(tmp_path / "after.npz") as after:
        assert np.array_equal(after["alone"], before)
        np.testing.assert_allclose(after["served"], before, rtol=0, atol=1e-5)


def test_put_replaces(bank, chip):
    for seed in (1, 2):
        bank.put("same", tiny.made_up_task(chip, methods.xbm(), seed=seed))
    assert bank.names == ["same"]
    wanted = compact(chip, tiny.made_up_task(chip, methods.xbm(), seed=2))
    tiny.assert_same_bits(bank.get("same").trained, wanted.trained)
    bank.put("same", tiny.made_up_task(chip, methods.head_only(), num_classes=3))
    assert bank.get("same").method == methods.head_only()
    assert bank.meta("same")["task"] == "made up 0"


def test_a_put_that_fails_keeps_the_older_task(bank, chip, task, monkeypatch):
    from orbax.checkpoint import v1 as ocp

    def fail(*_args, **_kwargs):
        raise OSError("no space left on device")

    bank.put("t", task)
    with monkeypatch.context() as patched:
        patched.setattr(ocp, "save", fail)
        for name in ("t", "new"):
            with pytest.raises(OutputError, match="no space"):
                bank.put(name, tiny.made_up_task(chip, methods.xbm(), seed=5))
    assert bank.names == task_names(bank.folder) == ["t"]
    assert [p.name for p in (bank.folder / "tasks").iterdir()] == ["t"]
    tiny.assert_same_bits(bank.get("t").trained, compact(chip, task).trained)


def test_names_are_sorted_and_removed(bank, task):
    for name in ("b", "A.1_x@y+z-w", "a"):
        bank.put(name, task)
    assert bank.names == sorted(["b", "A.1_x@y+z-w", "a"])
    bank.remove("b")
    assert bank.names == task_names(bank.folder) == ["A.1_x@y+z-w", "a"]
    for act in (bank.get, bank.remove):
        with pytest.raises(BankError, match=r"name = 'b': one of A.1_x@y\+z-w, a"):
            act("b")


def test_a_task_behind_a_link_is_removed_by_its_link(bank, task, tmp_path):
    bank.put("t", task)
    (bank.folder / "tasks" / "t").rename(tmp_path / "elsewhere")
    (bank.folder / "tasks" / "t").symlink_to(tmp_path / "elsewhere")
    assert bank.get("t").meta == task.meta
    bank.remove("t")
    assert bank.names == [] and (bank.folder / "tasks" / "t").is_symlink()
    bank.gc(removed=True)
    assert store.exists(tmp_path / "elsewhere")
    assert list((bank.folder / "tasks").iterdir()) == []


def test_a_missing_task_of_an_empty_bank(bank):
    with pytest.raises(BankError, match="the bank is empty"):
        bank.get("anything")
    with pytest.raises(BankError):
        bank.meta("anything")


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "a\\b", " a", "-a", ".hidden", "ä", "a b", "a\n"])
def test_bad_names_are_refused(bank, task, name):
    for act in (lambda: bank.put(name, task), *(partial(do, name) for do in (bank.get, bank.meta, bank.remove))):
        with pytest.raises(BankError, match=r"name = .*letters, digits"):
            act()
    assert bank.names == []


def test_nothing_beside_the_tasks_is_read_or_removed_by_a_path(bank, chip, task):
    other = MaskBank.create(bank.folder / "other", chip)
    other.put("u", task)
    for name in ("../other/tasks/u", str(other.folder / "tasks" / "u"), Path("u"), None, 3):
        for act in (bank.get, bank.meta, bank.remove):
            with pytest.raises(BankError, match=r"name = .*letters, digits"):
                act(name)
    assert other.names == ["u"]


@pytest.mark.parametrize(
    "meta", [{"a": np.float32(1.0)}, {"a": {1, 2}}, {("a",): 1}, {"loss": float("nan")}, {"a": [float("inf")]}]
)
def test_meta_that_json_cannot_hold_is_refused(bank, task, meta):
    with pytest.raises(BankError, match=r"task\.meta.*JSON-like"):
        bank.put("t", task.replace(meta=meta))
    assert bank.names == []


def test_describe_needs_no_chip(bank, chip, task):
    bank.put("one", task)
    bank.put("two", tiny.made_up_task(chip, methods.head_only(), num_classes=9, seed=3))
    found = describe(str(bank.folder))
    assert found["chip"]["network"] == "tiny"
    assert sorted(found["tasks"]) == ["one", "two"]
    assert found["tasks"]["one"]["method"]["name"] == "xbm"
    assert [found["tasks"][n]["classes"] for n in ("one", "two")] == [4, 9]
    assert found["tasks"]["two"]["meta"] == {"task": "made up 3", "accuracy": 0.5} == bank.meta("two")
    assert json.loads(json.dumps(found)) == found


def test_create_opens_what_is_there(bank, chip, task):
    bank.put("t", task)
    assert MaskBank.create(bank.folder, chip).names == ["t"]
    assert MaskBank.create(str(bank.folder), chip).get("t").meta == task.meta


def test_another_chip_cannot_open_the_bank(bank):
    for opening in (MaskBank.open, MaskBank.create):
        with pytest.raises(BankError, match=r"chip\.conv1\.spec\.adc\.bits = 8: None"):
            opening(bank.folder, tiny.chip("adc"))
    with pytest.raises(BankError, match=r"chip\.identity = "):
        MaskBank.open(bank.folder, tiny.chip("ideal", key=1))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, "a folder with a bank.json in it"),
        ("", "undamaged bank card"),
        ('{"format": 1, "chip": {"netw', "undamaged bank card"),
        ("[1]", "undamaged bank card"),
        ("{}", "undamaged bank card"),
        ('{"format": 1}', "undamaged bank card"),
        ('{"format": 1, "chip": {"network": "tiny"}}', "undamaged chip card"),
        ('{"format": 1, "chip": null}', "undamaged chip card"),
        (
            '{"format": 99, "chip": {}}',
            r"bank\.format = 99: 1 to 2, what this version, .* an unnamed version wrote this",
        ),
        ('{"format": 3, "version": "7.1", "chip": {}}', r"bank\.format = 3: .*; version 7\.1 wrote this"),
        (b"\xff\xfe\x00", "undamaged bank card"),
    ],
)
def test_a_damaged_bank_card_is_a_named_error(bank, chip, text, wanted):
    card = bank.folder / "bank.json"
    card.unlink()
    if text is not None:
        card.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BankError, match=wanted):
        MaskBank.open(bank.folder, chip)


def test_a_card_names_its_form_and_the_version_that_wrote_it(bank):
    card = json.loads((bank.folder / "bank.json").read_text())
    assert (card["format"], card["version"]) == (2, xbm_jax.__version__)


def test_a_task_of_a_newer_form_is_refused_and_the_others_are_described(bank, chip, task):
    bank.put("old", task)
    store.save(bank.folder / "tasks" / "new", {}, {"what": "nobody knows"}, form=5)
    wanted = rf"new/000001\.format = 5: 1 to 4, what .*version {xbm_jax.__version__} wrote this"
    for act in (bank.get, bank.meta):
        with pytest.raises(BankError, match=wanted):
            act("new")
    assert "format = 5" in describe(bank.folder)["tasks"]["new"]["error"]
    assert describe(bank.folder)["tasks"]["old"]["classes"] == 4


def damage(bank, name):
    next((bank.folder / "tasks" / name).rglob("_CHECKPOINT_METADATA")).write_text("xxxx")


def test_one_damaged_task_leaves_the_others(bank, task):
    for name in ("x", "y", "z"):
        bank.put(name, task)
    damage(bank, "y")
    assert bank.names == task_names(bank.folder) == ["x", "y", "z"]
    tasks = describe(bank.folder)["tasks"]
    assert list(tasks) == ["x", "y", "z"]
    assert tasks["x"]["method"] == tasks["z"]["method"] and tasks["x"]["meta"] == task.meta
    assert list(tasks["y"]) == ["error"]
    assert "y/000001" in tasks["y"]["error"] and "a readable checkpoint" in tasks["y"]["error"]
    with pytest.raises(BankError, match=r"y/000001"):
        bank.get("y")
    bank.put("y", task)
    assert bank.get("y").meta == task.meta
    damage(bank, "x")
    bank.remove("x")  # a damaged one too
    assert bank.names == ["y", "z"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("leaf", ["masks", "norms", "head", "state"])
def test_a_task_that_is_not_finite_is_refused_by_leaf(bank, chip, value, leaf):
    task = tiny.made_up_task(chip, tiny.METHODS["norm_only-full" if leaf == "state" else "xbm"])
    trained, state = jax.tree.map(np.array, (task.trained, task.state))
    values, field = {
        "masks": (trained["masks"], r"task\['trained'\]\['masks'\]\['conv2'\]"),
        "norms": (trained["norms"], r"task\['trained'\]\['norms'\]\['bn2'\]\['bias'\]"),
        "head": (trained, r"task\['trained'\]\['head'\]\['kernel'\]"),
        "state": (state, r"task\['state'\]\['bn1'\]\['var'\]"),
    }[leaf]
    keys = {"masks": ("conv2",), "norms": ("bn2", "bias"), "head": ("head", "kernel"), "state": ("bn1", "var")}[leaf]
    for key in keys:
        values = values[key]
    jax.tree.leaves(values)[0].reshape(-1)[0] = value
    bank.put("t", task)
    with pytest.raises(BankError, match=field + r".*1 of \d+ values not finite.*did its training diverge"):
        bank.put("t", task.replace(trained=trained, state=state))
    assert bank.get("t").meta == task.meta


def test_several_create_one_bank_and_put_into_it_at_once(tmp_path, chip):
    tasks = [tiny.made_up_task(chip, methods.xbm(), seed=who) for who in range(3)]
    errors = []

    def work(who):
        try:
            bank = MaskBank.create(tmp_path / "bank", chip)
            for i in range(2):
                bank.put(f"own{who}.{i}", tasks[who])
                bank.put("same", tasks[who])
                assert bank.get("same").meta in [task.meta for task in tasks]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert errors == []
    bank = MaskBank.open(tmp_path / "bank", chip)
    assert bank.names == sorted([*(f"own{who}.{i}" for who in range(3) for i in range(2)), "same"])
    for who in range(3):
        assert bank.get(f"own{who}.0").meta == tasks[who].meta
    left = {p.name for p in bank.folder.iterdir()} | {p.name for p in (bank.folder / "tasks" / "same").iterdir()}
    assert left == {"bank.json", "index", "tasks", ".xbm-lock", "000004", "000005", "000006"}


def test_a_bank_that_is_gone_takes_no_task(bank, task):
    (bank.folder / "bank.json").unlink()
    with pytest.raises(BankError, match=r"a folder with a bank\.json in it"):
        bank.put("t", task)
    assert list((bank.folder / "tasks").iterdir()) == []


def test_a_bank_beside_other_things_leaves_them(tmp_path, chip, task):
    (tmp_path / "tasks" / "t" / "notes").mkdir(parents=True)
    (tmp_path / "tasks" / "000001").mkdir()
    (tmp_path / "own.txt").write_text("precious")
    bank = MaskBank.create(tmp_path, chip)
    assert bank.names == []
    bank.put("t", task)
    bank.put("t", task)
    assert bank.names == ["t"]
    assert (tmp_path / "tasks" / "t" / "notes").is_dir() and (tmp_path / "tasks" / "000001").is_dir()
    assert (tmp_path / "own.txt").read_text() == "precious"


def test_a_changed_identity_is_noticed(bank, chip):
    card = bank.folder / "bank.json"
    data = json.loads(card.read_text())
    data["chip"]["identity"] = "0" + data["chip"]["identity"][1:] if data["chip"]["identity"][0] != "0" else "1"
    card.write_text(json.dumps(data))
    with pytest.raises(BankError, match="undamaged bank card"):
        MaskBank.open(bank.folder, chip)
    card.write_text(json.dumps({"format": 1, "chip": data["chip"]}))  # a card without a digest of itself
    with pytest.raises(BankError, match=r"chip\.identity"):
        MaskBank.open(bank.folder, chip)


def test_a_task_of_other_shapes_is_refused_and_replaces_nothing(bank, chip, task):
    bank.put("t", task)
    fewer = {**task.trained, "norms": {"bn1": task.trained["norms"]["bn1"]}}
    taller = tiny.made_up_task(program(tiny.weights(), tiny.SPECS["ideal"].replace(rows=48), KEY), methods.xbm())
    with pytest.raises(BankError, match=r"array\.size = 16: 48"):
        bank.put("t", task.replace(trained=fewer))
    with pytest.raises(BankError, match=r"task\.trained\['masks'\] = \(1, 8\): \(2, 8\), what this chip's layers need"):
        bank.put("t", taller)
    assert bank.get("t") == compact(chip, task)


def test_a_task_folder_of_another_chips_bank_is_refused(bank, chip, task):
    other = MaskBank.create(bank.folder.parent / "other", tiny.chip("ideal", key=1))
    other.put("t", task)
    (other.folder / "tasks" / "t").rename(bank.folder / "tasks" / "t")
    assert not (bank.folder / "index").exists()
    with pytest.raises(BankError, match=r"task\.chip = '\w{12}': \w{12}, the bank's chip"):
        bank.get("t")


def test_a_task_of_another_chip_is_refused_and_replaces_nothing(bank, chip, task):
    bank.put("t", task.replace(chip=tiny.mark(chip)))
    other = tiny.made_up_task(chip, methods.xbm(), seed=1).replace(chip=tiny.mark(tiny.chip("ideal", key=1)))
    with pytest.raises(BankError, match=r"task\.chip = "):
        bank.put("t", other)
    got = bank.get("t")
    assert got == compact(chip, task) and got.chip == tiny.mark(chip)
    bank.put("moved", other.replace(chip=None))
    assert bank.get("moved").chip == tiny.mark(chip)


def recalibrated(chip, input_scale=1.0, lsb=1.0):
    """The same cells, their inputs and converters measured on something else."""
    tiles = {}
    for path, layer in chip.tiles.items():
        adc = None if layer.adc is None else dataclasses.replace(layer.adc, lsb=lsb * layer.adc.lsb)
        tiles[path] = layer.replace(input_scale=input_scale * layer.input_scale, adc=adc)
    return chip.replace(tiles=tiles)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_scale": 1.1}, r"conv1 \(input scale [\d.]+, the bank's [\d.]+\), conv2 \(.*\), conv3 \(input"),
        ({"lsb": 0.9}, r"conv1 \(converter range [-\d.e+]+ to [-\d.e+]+, the bank's"),
    ],
)
def test_another_calibration_is_said_with_the_layers(tmp_path, changes, said):
    chip = tiny.chip("adc")
    bank = MaskBank.create(tmp_path, chip)
    task = tiny.made_up_task(chip, methods.xbm()).replace(chip=tiny.mark(chip))
    bank.put("t", task)
    other = recalibrated(chip, **changes)
    with pytest.warns(UserWarning, match=rf"calibrated otherwise than for this bank: {said}") as heard:
        again = MaskBank.open(tmp_path, other)
    assert heard[0].filename == __file__
    with pytest.warns(UserWarning, match=r"calibrated otherwise than for this bank"):
        serve(other, bank)
    with pytest.warns(UserWarning, match="the task was learned under another calibration than the bank's chip has"):
        again.put("t", task)
    assert again.get("t").chip == tiny.mark(chip) != tiny.mark(other)


def test_the_same_calibration_is_not_spoken_of(tmp_path):
    chip = tiny.chip("adc")
    bank = MaskBank.create(tmp_path, chip)
    bank.put("t", tiny.made_up_task(chip, methods.xbm()))
    for same in (chip.at(60.0), recalibrated(chip, 1 + 1e-5, 1 - 1e-5)):  # rounding of another machine
        serve(same, MaskBank.open(tmp_path, same))
    card = json.loads((tmp_path / "bank.json").read_text())
    del card["chip"]["measured"]  # as banks were written before
    (tmp_path / "bank.json").write_text(json.dumps({"format": 1, "chip": card["chip"]}))
    MaskBank.open(tmp_path, recalibrated(chip, 2.0))


@pytest.mark.parametrize("name", ["xbm", "piggyback", "lora", "head_only"])
def test_a_chip_without_crossbars_stores_its_tasks(tmp_path, name):
    chip = program(tiny.weights(), tiny.SPECS["ideal"], KEY, rules={"*": None})
    assert not chip.tiles
    task = tiny.made_up_task(chip, tiny.METHODS[name])
    bank = MaskBank.create(tmp_path, chip)
    bank.put("t", task, compact=False)
    got = MaskBank.open(tmp_path, chip).get("t")
    assert got == stored(chip, task)
    bits = task_bits(chip, got)
    assert (bits.mask_bits, bits.mask_share_of_weights, task_cells_written(chip, got)) == (0, 0.0, 0)
    wanted = predict(chip, task, IMAGES, batch_size=16)
    assert np.array_equal(predict(chip, got, IMAGES, batch_size=16), wanted)
    if name in ("xbm", "head_only"):
        served = serve(chip, bank, batch_size=16).logits(IMAGES, "t")
        np.testing.assert_allclose(served, wanted, rtol=0, atol=1e-5)


def test_a_chip_of_functions_is_said_to_be_nothing_to_store(tmp_path):
    spec = tiny.SPECS["ideal"].replace(device=FunctionDevice(program_sigma=lambda g, g_max: 0.01 * g_max + 0 * g))
    with pytest.warns(UserWarning, match=r"spec\.device\.program_sigma is nothing that a file can hold") as heard:
        chip = program(tiny.weights(), spec, KEY)
    assert heard[0].filename == __file__ and len(heard) == 1
    for write in (save_chip, lambda chip, folder: MaskBank.create(folder, chip)):
        with pytest.raises(
            BankError, match=r"^chip\.conv1\.spec\.device\.program_sigma = .*nothing else can be stored"
        ):
            write(chip, tmp_path / "new")
        assert not list(tmp_path.rglob("*.json"))
    assert tiny.mark(chip).same_chip(tiny.mark(chip.replace()))


def test_what_is_no_chip_or_name_is_named(tmp_path, bank, task):
    with pytest.raises(BankError, match="chip = 'Backbone': a Chip"):
        MaskBank.create(tmp_path / "new", tiny.weights())  # type: ignore[arg-type]
    with pytest.raises(BankError, match=r"(?s)name = Task.*letters, digits"):
        bank.put(task, "t")


def test_an_unwritable_place_is_named(tmp_path, chip, task):
    # A file stands where a folder should be: permissions would not stop a root user.
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "bank", tmp_path / ("long" * 99)):
        with pytest.raises(OutputError, match="a writable folder"):
            MaskBank.create(folder, chip)
        with pytest.raises(BankError, match=r"bank.* = "):
            MaskBank.open(folder, chip)
    (tmp_path / "odd" / "bank.json").mkdir(parents=True)
    with pytest.raises(BankError, match="an undamaged bank card"):
        MaskBank.create(tmp_path / "odd", chip)
    bank = MaskBank.create(tmp_path / "bank", chip)
    (bank.folder / "tasks" / "t").write_text("")
    with pytest.raises(OutputError, match="a writable folder"):
        bank.put("t", task)
