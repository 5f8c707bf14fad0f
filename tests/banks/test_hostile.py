"""Banks that somebody made up: a named error before memory is taken, or what they say is true."""

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from tasks import tiny
from xbm_jax.banks import MaskBank, load_bank
from xbm_jax.banks.shelf import FILE_FORM
from xbm_jax.errors import BankError, XbmError
from xbm_jax.masks import methods
from xbm_jax.storage import store
from xbm_jax.storage.record import Record, envelope
from xbm_jax.storage.tensor_file import write_tensor_file


@pytest.fixture(scope="module")
def chip():
    return tiny.chip("ideal")


@pytest.fixture(scope="module")
def made(tmp_path_factory, chip):
    """A bank of two tasks, and the same as a file with its chip."""
    folder = tmp_path_factory.mktemp("made")
    bank = MaskBank.create(folder / "bank", chip)
    bank.put("t", tiny.made_up_task(chip, methods.xbm()))
    bank.put("u", tiny.made_up_task(chip, methods.xma(bits=4, top=1)))
    bank.export(folder / "bank.safetensors", chip=True)
    return bank


@pytest.fixture
def bank(made, tmp_path, chip):
    return MaskBank(Path(shutil.copytree(made.folder, tmp_path / "bank")), chip)


def rewritten(bank, **changes):
    """The bank with its task's record changed and sealed again, as somebody would who knows the format."""
    record = bank.shelf.read("t")
    arrays = {**record.arrays, **changes.pop("arrays", {})}
    metadata = {**record.metadata, **changes}
    shutil.rmtree(bank.folder / "index")
    shutil.rmtree(bank.folder / "tasks" / "t")
    store.save(bank.folder / "tasks" / "t", {n: a for n, a in arrays.items() if a is not None}, metadata, form=4)


def deep(levels):
    found = 0
    for _ in range(levels):
        found = [found]
    return found


def method(**changes):
    return lambda bank: bank.shelf.read("t").metadata["method"] | changes


LARGE = 2**40
HOSTILE = {
    "scales that are NaN": {"arrays": {"head_scale": np.full(4, np.nan, np.float16)}},
    "norms that are infinite": {"arrays": {"norms": np.full(48, np.inf, np.float32)}},
    "norms of another type": {"arrays": {"norms": np.zeros(48, np.float64)}},
    "masks of another type": {"arrays": {"masks": np.zeros(8, np.int64)}},
    "masks too long": {"arrays": {"masks": np.zeros(1000, np.uint8)}},
    "no masks": {"arrays": {"masks": None}},
    "no norms": {"arrays": {"norms": None}},
    "no head": {"arrays": {"head_kernel": None}},
    "a head of another width": {"arrays": {"head_kernel": np.zeros((3, 4), np.int8)}},
    "a head of numbers": {"arrays": {"head_kernel": np.int8(3)}},
    "no method": {"method": None},
    "a method of text": {"method": "xbm"},
    "a method that is a chip": {"method": {"class": "Adc", "bits": 8}},
    "an unknown class": {"method": {"class": "os.system", "name": "x"}},
    "a class of fields it lacks": {"method": method(power=3)},
    "a rule of text": {"method": method(rule="x")},
    "a rule of ranks": {"method": method(rule={"class": "LowRank", "rank": LARGE})},
    "a rule of lists": {"method": method(rule=[1, 2])},
    "a head of text": {"method": method(head="x")},
    "a deep method": {"method": deep(500)},
    "a deep class": {"method": method(name=deep(500))},
    "another task's name": {"name": "u"},
    "a name that climbs": {"name": "../../u"},
    "another chip": {"chip": {"identity": "0" * 64, "calibration": ""}},
    "a chip of lists": {"chip": [1]},
    "a chip of more": {"chip": {"identity": "x", "more": 1}},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_made_up_task_is_refused_by_name(bank, what):
    changes = {name: given(bank) if callable(given) else given for name, given in HOSTILE[what].items()}
    rewritten(bank, **changes)
    with pytest.raises(XbmError):
        bank.get("t")
    assert bank.get("u").meta  # the others are as they were
    other, file = MaskBank.create(bank.folder.parent / "other", bank.chip), bank.folder / "f.safetensors"
    if what not in ("another task's name", "a name that climbs"):
        bank.export(file, ["t"])
        with pytest.raises(XbmError):
            other.import_(file)
    assert other.names == []


def test_a_task_that_says_it_is_huge_takes_no_memory(bank):
    place = bank.folder / "tasks" / "t" / "000001" / "_CHECKPOINT_METADATA"
    shutil.rmtree(bank.folder / "index")
    for layout in (1, 2):
        whole = json.loads(place.read_text())
        described = json.loads(whole["custom_metadata"]["json"])
        described["arrays"]["masks"]["shape"] = [LARGE]
        described["layout"] = layout
        whole["custom_metadata"] = envelope(json.dumps(described))
        place.write_text(json.dumps(whole))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(BankError, match="a readable checkpoint"):
            bank.get("t")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # kB


@pytest.mark.parametrize(
    "card",
    [
        {"tasks": ["../t"]},
        {"tasks": ["/etc/passwd"]},
        {"tasks": ["t" * 300]},
        {"tasks": [3]},
        {"tasks": "t"},
        {"tasks": None},
        {"tasks": ["no"]},
        {"card": None},
        {"card": {"format": 2}},
        {"card": {"format": 7, "chip": {}}},
        {"card": deep(100)},
    ],
)
def test_a_file_whose_card_is_made_up_is_refused(bank, tmp_path, card):
    good = {"card": bank.card.to_json(), "tasks": ["t"]}
    text = Record({}, good | card, FILE_FORM).text()
    write_tensor_file(tmp_path / "f.safetensors", {"task/t": bank.shelf.read("t")}, {"bank": text})
    other = MaskBank.create(tmp_path / "other", bank.chip)
    with pytest.raises(BankError):
        other.import_(tmp_path / "f.safetensors")
    assert other.names == [] and not (tmp_path / "t").exists()


CHIP = {
    "a huge kernel": lambda r: r.metadata["layers"]["conv1"].update(kernel_shape=[LARGE, LARGE, 3, 8]),
    "a kernel of text": lambda r: r.metadata["layers"]["conv1"].update(kernel_shape="x"),
    "no layers": lambda r: r.metadata.pop("layers"),
    "other layers": lambda r: r.metadata["layers"].update(conv9=r.metadata["layers"]["conv1"]),
    "no spec": lambda r: r.metadata["layers"]["conv1"].pop("spec"),
    "another class as a spec": lambda r: r.metadata["layers"]["conv1"].update(spec={"class": "Adc", "bits": 8}),
    "a made-up device": lambda r: r.metadata["layers"]["conv1"]["spec"].update(device={"class": "Bomb"}),
    "a generator of keys": lambda r: r.metadata["layers"]["conv1"].update(key_impl="x"),
    "levels of another shape": lambda r: r.arrays.update({"tiles.conv1.levels": np.zeros((1, 2), np.uint8)}),
    "levels of another type": lambda r: r.arrays.update({"tiles.conv1.levels": np.zeros((2, 1, 3, 3, 3, 8))}),
    "scales that are NaN": lambda r: r.arrays.update({"tiles.conv1.weight_scale": np.full(1, np.nan, np.float32)}),
    "a head of another width": lambda r: r.arrays.update({"head.kernel": np.zeros((3, 5), np.float32)}),
    "no head": lambda r: r.arrays.pop("head.bias"),
    "norms of another width": lambda r: r.arrays.update({"norms.bn1.scale": np.zeros(9, np.float32)}),
}


@pytest.mark.parametrize("what", CHIP)
def test_a_made_up_chip_is_refused_by_name(made, tmp_path, what):
    from xbm_jax.banks.chip_store import chip_record

    record = chip_record(made.chip)
    record = Record(dict(record.arrays), json.loads(json.dumps(record.metadata)), record.form)
    CHIP[what](record)
    text = Record({}, {"card": made.card.to_json(), "tasks": []}, FILE_FORM).text()
    write_tensor_file(tmp_path / "f.safetensors", {"chip": record}, {"bank": text})
    with pytest.raises(XbmError):
        load_bank(tmp_path / "f.safetensors", tiny.network())


# ---------------------------------------------------------------------------------------------------------------------
# Random damage: a named error, or the very answer


def changed(rng, content):
    """A file with a flipped bit, a cut, bytes of another place, or nothing in it."""
    match rng.integers(5):
        case 0:
            return b""
        case 1:
            return content[: rng.integers(len(content))]
        case 2:
            start, other = rng.integers(len(content), size=2)
            return content[:start] + content[other : other + 8] + content[start + 8 :]
    place = rng.integers(len(content))
    return content[:place] + bytes([content[place] ^ (1 << int(rng.integers(8)))]) + content[place + 1 :]


def told(read, names):
    """What a reader gets of each task: the task, or "error"."""
    found = {}
    for name in names:
        try:
            found[name] = read(name)
        except XbmError:
            found[name] = "error"
    return found


@pytest.mark.parametrize("trials", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_a_damaged_folder_gives_an_error_or_the_very_task(made, bank, chip, trials):
    rng, wanted = np.random.default_rng(0), {name: made.get(name) for name in made.names}
    files = sorted(p for p in bank.folder.rglob("*") if p.is_file() and p.stat().st_size)
    seen = 0
    for _ in range(trials):
        path = files[rng.integers(len(files))]
        whole = path.read_bytes()
        path.write_bytes(changed(rng, whole))
        if path.read_bytes() != whole:
            try:
                found = told(MaskBank.open(bank.folder, chip).get, made.names)
            except XbmError:
                found = dict.fromkeys(wanted, "error")
            assert all(got in ("error", wanted[name]) for name, got in found.items()), path
            seen += "error" in found.values()
        path.write_bytes(whole)
    assert seen > trials / 3 and told(bank.get, made.names) == wanted


@pytest.mark.parametrize("trials", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_damaged_file_gives_an_error_or_the_very_task(made, tmp_path, chip, trials):
    rng, wanted = np.random.default_rng(1), {name: made.get(name) for name in made.names}
    whole, path = (made.folder.parent / "bank.safetensors").read_bytes(), tmp_path / "f.safetensors"
    header, errors = 8 + int.from_bytes(whole[:8], "little"), 0
    for trial in range(trials):
        damaged = changed(rng, whole) if trial % 2 else changed(rng, whole[:header]) + whole[header:]
        path.write_bytes(damaged)
        try:
            found = told(MaskBank.open(path, chip).get, made.names)
        except XbmError:
            found = dict.fromkeys(wanted, "error")
        errors += "error" in found.values()
        if damaged != whole:
            assert all(got in ("error", wanted[name]) for name, got in found.items()), trial
    assert errors > trials / 4
