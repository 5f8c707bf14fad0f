"""What becomes of generations: history, restoring, removing, checking, and a writer that dies at any step."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks import tiny
from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.banks.shelf import FolderShelf
from xbm_jax.errors import BankError, XbmError
from xbm_jax.masks import methods
from xbm_jax.storage import store
from xbm_jax.storage.generations import generations
from xbm_jax.tasks import compact

STORED = Path(__file__).parent / "stored"


@pytest.fixture(scope="module")
def chip():
    return tiny.chip("ideal")


@pytest.fixture(scope="module")
def tasks(chip):
    return [tiny.made_up_task(chip, methods.xbm(), seed=seed) for seed in range(5)]


@pytest.fixture
def bank(tmp_path, chip):
    return MaskBank.create(tmp_path / "bank", chip)


def who(bank, name="t"):
    return bank.meta(name)["task"]


def test_the_last_k_are_kept_and_one_is_brought_back(bank, chip, tasks):
    for task in tasks[:4]:
        bank.put("t", task)
    assert [(g.number, g.current) for g in bank.history("t")] == [(4, True), (3, False), (2, False)]
    assert {(g.method, g.accuracy, g.removed, g.error) for g in bank.history("t")} == {("xbm", 0.5, False, None)}
    assert bank.restore("t") == 5
    assert bank.get("t") == compact(chip, tasks[2]) and who(bank) == "made up 2"
    assert bank.restore("t", 4) == 6
    assert bank.get("t") == compact(chip, tasks[3])
    assert generations(bank.folder / "tasks" / "t") == [4, 5, 6]
    assert bank.verify() == []


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_how_many_is_the_banks_to_say(tmp_path, chip, tasks, keep):
    bank = MaskBank.create(tmp_path, chip, keep=keep)
    for task in tasks:
        bank.put("t", task)
        bank.get("t")
    assert len(bank.history("t")) == keep == MaskBank.open(tmp_path, chip).card.keep
    MaskBank.create(tmp_path, chip, keep=4)
    assert bank.card.keep == 4 and MaskBank.create(tmp_path, chip).card.keep == 4
    assert bank.gc().generations == max(0, keep - 4)
    with pytest.raises(BankError, match="keep = 0: at least 1"):
        MaskBank.create(tmp_path / "other", chip, keep=0)


def test_a_removed_task_is_gone_until_it_is_restored_or_for_good(bank, chip, tasks):
    bank.put("t", tasks[0])
    bank.put("u", tasks[1])
    bank.remove("t")
    assert bank.names == ["u"]
    for act in (bank.get, bank.meta, bank.remove):
        with pytest.raises(BankError, match="name = 't': one of u"):
            act("t")
    assert [(g.removed, g.current) for g in bank.history("t")] == [(True, True), (False, False)]
    bank.restore("t")
    assert bank.get("t") == compact(chip, tasks[0])
    bank.remove("t")
    assert bank.gc().purged == () and len(bank.history("t")) == 3
    assert bank.gc(removed=True).purged == ("t",)
    assert bank.names == ["u"] and not (bank.folder / "tasks" / "t").exists()
    with pytest.raises(BankError, match="one of u"):
        bank.history("t")


def test_a_task_is_renamed(bank, chip, tasks):
    bank.put("old", tasks[0])
    bank.put("taken", tasks[1])
    bank.rename("old", "new")
    assert bank.names == ["new", "taken"] and bank.get("new") == compact(chip, tasks[0])
    for old, new, said in (
        ("new", "taken", "free"),
        ("old", "x", "one of new"),
        ("new", "a/b", "letters"),
        (3, "x", "letters"),
    ):
        with pytest.raises(BankError, match=said):
            bank.rename(old, new)
    bank.restore("old")
    assert bank.names == ["new", "old", "taken"] and bank.verify() == []


def test_what_cannot_be_restored_is_named(bank, tasks):
    bank.put("t", tasks[0])
    with pytest.raises(BankError, match="an undamaged older generation of 't'"):
        bank.restore("t")
    with pytest.raises(BankError, match="generation = 7: an undamaged one of 't': 1"):
        bank.restore("t", 7)
    with pytest.raises(BankError, match="one of t"):
        bank.restore("u")


# ---------------------------------------------------------------------------------------------------------------------
# The index


def entry_of(bank, name):
    return bank.folder / "index" / f"{name}.json"


def test_a_task_that_was_swapped_or_rolled_back_is_noticed(bank, tasks):
    bank.put("t", tasks[0])
    before = shutil.copytree(bank.folder / "tasks" / "t", bank.folder.parent / "before")
    bank.put("t", tasks[1])
    bank.put("u", tasks[2])
    place = bank.folder / "tasks"
    shutil.rmtree(place / "t")
    shutil.copytree(before, place / "t")
    with pytest.raises(BankError, match=r"missing or rolled back.*generation 2, of which the index knows; there are 1"):
        bank.get("t")
    assert any(damage.name == "t" and damage.generation == 2 for damage in bank.verify())
    (place / "t" / "000001").rename(place / "t" / "000002")
    with pytest.raises(BankError, match="another generation was put in place of 2"):
        bank.get("t")
    shutil.rmtree(place / "t")
    shutil.copytree(place / "u", place / "t")
    entry_of(bank, "t").unlink()
    with pytest.raises(BankError, match="the record of another task"):
        bank.get("t")
    entry_of(bank, "u").rename(entry_of(bank, "t"))
    with pytest.raises(BankError, match="this is that of 'u'"):
        bank.get("t")
    assert {damage.name for damage in bank.verify()} == {"t"}


def test_a_missing_index_loses_nothing_and_a_damaged_one_is_named(bank, chip, tasks):
    bank.put("t", tasks[0])
    bank.put("t", tasks[1])
    bank.put("u", tasks[2])
    bank.remove("u")
    shutil.rmtree(bank.folder / "index")
    assert bank.names == ["t"] and bank.get("t") == compact(chip, tasks[1])
    assert bank.verify() == []
    bank.put("t", tasks[2])
    good = entry_of(bank, "t").read_text()
    for text in ("", "[]", "{", good.replace('"generation": 3', '"generation": 2'), "[" * 99_999):
        entry_of(bank, "t").write_text(text)
        with pytest.raises(BankError, match=r"an undamaged entry of the index|entry = 'damaged'"):
            bank.get("t")
        assert bank.names == ["t"] and bank.verify() != []
    bank.restore("t", 2)
    assert bank.get("t") == compact(chip, tasks[1]) and bank.verify() == []


def test_reading_one_task_looks_at_no_other(bank, tasks, monkeypatch):
    for name in ("t", "u", "v"):
        bank.put(name, tasks[0])
    seen = []
    monkeypatch.setattr(FolderShelf, "place", lambda self, name: seen.append(name) or self.folder / "tasks" / name)
    bank.get("t")
    bank.meta("t")
    bank.put("t", tasks[1])
    assert set(seen) == {"t"}


# ---------------------------------------------------------------------------------------------------------------------
# A writer that dies


class Dying:
    """From the n-th change of the file system on, every one below a folder fails, as if the process were gone."""

    folder, left = "", -1
    events = frozenset({"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"})

    @classmethod
    def heard(cls, event, args):
        if not cls.folder or (event not in cls.events and event != "open") or not str(args[0]).startswith(cls.folder):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & 0o103):  # for writing
            return
        if ".xbm-lock" in str(args[0]):
            return
        cls.left -= 1
        if cls.left < 0:
            raise OSError(5, "the process is gone")


sys.addaudithook(lambda event, args: Dying.heard(event, args))


def died_after(folder, count, act):
    """Whether ``act`` got to its end before it died."""
    Dying.folder, Dying.left = str(folder), count
    try:
        act()
    except (XbmError, OSError):
        pass
    finally:
        gone, Dying.folder = Dying.left < 0, ""
    return not gone


ACTS = {
    "put": lambda bank, tasks: bank.put("t", tasks[1]),
    "put of a new one": lambda bank, tasks: bank.put("new", tasks[1]),
    "remove": lambda bank, _: bank.remove("t"),
    "restore": lambda bank, _: bank.restore("t", 1),
    "rename": lambda bank, _: bank.rename("t", "new"),
}


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("what", ACTS)
@pytest.mark.parametrize("step", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_writer_that_dies_at_any_step_leaves_the_old_or_the_new(tmp_path, chip, tasks, what, keep, step):
    """At every step if slow, else at every third one."""
    start = MaskBank.create(tmp_path / "start", chip, keep=3)
    for task in tasks[2:4]:
        start.put("t", task)
    start = MaskBank.create(tmp_path / "start", chip, keep=keep)
    old, count = {"t": start.get("t")}, 0
    while True:
        bank = MaskBank(Path(shutil.copytree(start.folder, tmp_path / "bank")), chip)
        whole = died_after(bank.folder, count, lambda bank=bank: ACTS[what](bank, tasks))
        found = {name: bank.get(name) for name in bank.names}
        wanted = [old, after(what, old, tasks, chip)] + [old | {"new": old["t"]}] * (what == "rename")
        assert found in wanted and (not whole or found == wanted[1]), count
        assert bank.verify() == []
        bank.gc()
        assert not list(bank.folder.rglob(".xbm-writing")) and not list(bank.folder.rglob("*.part"))
        bank.put("t", tasks[4])
        assert bank.get("t") == compact(chip, tasks[4])
        shutil.rmtree(bank.folder)
        if whole:
            break
        count += 7 if step else 1
    assert count > 10


def after(what, old, tasks, chip):
    new = compact(chip, tasks[1])
    return {
        "put": {"t": new},
        "put of a new one": old | {"new": new},
        "remove": {},
        "restore": {"t": compact(chip, tasks[2])},
        "rename": {"new": old["t"]},
    }[what]


PUT_FOR_EVER = """
import sys
sys.path.insert(0, sys.argv[1])
from tasks import tiny
from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.masks import methods
chip = tiny.chip("ideal")
bank = MaskBank.open(sys.argv[2], chip)
made = [tiny.made_up_task(chip, methods.xbm(), seed=seed) for seed in range(2)]
print("ready", flush=True)
while True:
    for task in made:
        bank.put("t", task)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_replaces_loses_nothing(bank, chip, tasks):
    bank.put("t", tasks[0])
    rng = np.random.default_rng(0)
    for _ in range(4):
        command = [sys.executable, "-c", PUT_FOR_EVER, str(Path(__file__).parents[1]), str(bank.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.2, 1.5))
            process.kill()
        assert bank.get("t") in [compact(chip, task) for task in tasks[:2]] and bank.verify() == []
        bank.gc()
        assert not list(bank.folder.rglob(".xbm-writing"))


# ---------------------------------------------------------------------------------------------------------------------
# Checking, and what earlier versions wrote


def test_every_byte_of_every_generation_is_checked(bank, tasks):
    for task in tasks[:2]:
        bank.put("t", task)
    for path in sorted(p for p in bank.folder.rglob("*") if p.is_file() and p.stat().st_size):
        whole = path.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            try:
                assert bank.verify() != [], (path, place)
            except BankError:
                assert path.name == "bank.json"
        path.write_bytes(whole)
    assert bank.verify() == []


def test_what_earlier_versions_wrote_is_brought_to_the_newest_form(tmp_path, chip):
    for example in ("offset", "curved"):
        folder = shutil.copytree(STORED / "format_1" / example, tmp_path / example)
        old_chip = load_chip(folder / "chip", tiny.network())
        bank = MaskBank.open(folder / "bank", old_chip)
        before = {name: bank.get(name) for name in bank.names}
        assert bank.verify() == [] and bank.card.form == 1
        assert bank.gc().migrated == tuple(sorted(before))
        assert bank.card.form == 2 and bank.gc().migrated == ()
        assert {name: bank.get(name) for name in bank.names} == before
        for name in before:
            described = store.read_description(bank.folder / "tasks" / name, form=4)
            assert (described.form, described.layout, described.metadata["name"]) == (4, 2, name)
        assert bank.verify() == []
        assert json.loads((bank.folder / "bank.json").read_text())["format"] == 2
