"""A server whose tasks come and go: what stays in memory, what is evicted, and answers of threads meanwhile."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import jax
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.banks import MaskBank
from xbm_jax.errors import BankError, DataError, MethodError
from xbm_jax.masks import methods
from xbm_jax.serving import Server, serve
from xbm_jax.serving.programs import pieces
from xbm_jax.tasks import predict

NAMES = ("a", "b", "c", "d")
IMAGES = tiny.stripes().x_test[:8]


def task(seed: int, classes: int = 3) -> Any:
    return tiny.made_up_task(tiny.chip("adc"), methods.xbm(), classes, seed)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: Any) -> MaskBank:
    bank = MaskBank.create(tmp_path_factory.mktemp("bank"), tiny.chip("adc"))
    for seed, name in enumerate(NAMES):
        bank.put(name, task(seed))
    return bank


def server_of(bank: MaskBank, **options: Any) -> Server:
    return serve(bank.chip, bank, **{"batch_size": 8, **options})


def wanted(bank: MaskBank, name: str) -> np.ndarray:
    return predict(bank.chip, bank.get(name), IMAGES, batch_size=8)


# ---------------------------------------------------------------------------------------------------------------------
# What is in memory


def test_the_least_recently_used_task_makes_room_and_is_read_again(bank: MaskBank) -> None:
    server = server_of(bank, capacity=2)
    assert server.names == NAMES and server.resident == ("a", "b")
    server(IMAGES, "a")
    assert server.resident == ("b", "a")
    answers = server.logits(IMAGES, "d")
    assert server.resident == ("a", "d")
    np.testing.assert_allclose(answers, wanted(bank, "d"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(server.logits(IMAGES, "b"), wanted(bank, "b"), rtol=0, atol=1e-5)
    assert server.resident == ("d", "b")


def test_a_batch_of_more_tasks_than_there_is_room_for_is_answered(bank: MaskBank) -> None:
    server = server_of(bank, capacity=1)
    answers = server.logits(IMAGES, list(NAMES) * 2)
    for i, name in enumerate(NAMES):
        np.testing.assert_allclose(answers[i::4], wanted(bank, name)[i::4], rtol=0, atol=1e-5)
    assert server.resident == ("d",)


def test_a_task_that_was_given_stays(bank: MaskBank) -> None:
    server = server_of(bank, capacity=2)
    mine = task(9)
    server.add("mine", mine)
    for name in NAMES:
        server(IMAGES, name)
    assert server.resident == ("mine", "d")
    np.testing.assert_allclose(
        server.logits(IMAGES, "mine"), predict(bank.chip, mine, IMAGES, batch_size=8), rtol=0, atol=1e-5
    )
    server.add("another", task(10))
    with pytest.raises(DataError, match="capacity = 2: at least 3"):
        server.add("third", task(11))
    server(IMAGES, "a")  # read, answered and forgotten
    assert server.resident == ("mine", "another") or server.resident == ("another", "mine")
    server.remove("mine")
    server.add("third", task(11))


def test_a_name_stands_for_what_it_was_last_given(bank: MaskBank) -> None:
    server = server_of(bank)
    before = server.logits(IMAGES, "a")
    server.replace("a", task(20))
    assert not np.allclose(server.logits(IMAGES, "a"), before)
    server.replace("a")
    np.testing.assert_array_equal(server.logits(IMAGES, "a"), before)
    server.remove("a")
    with pytest.raises(DataError, match=r"task = \['a'\]: served tasks: b, c, d"):
        server(IMAGES, "a")
    server.add("a")
    np.testing.assert_array_equal(server.logits(IMAGES, "a"), before)


def live_bytes() -> int:
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())


def test_tasks_take_their_values_and_no_more(bank: MaskBank) -> None:
    server, given, chip = server_of(bank, capacity=100), task(30, classes=16), bank.chip
    server.add("more", given)
    before = live_bytes()
    for i in range(20):
        server.add(f"more{i}", given)
    taken = live_bytes() - before
    gains = sum(tiles.plan.row_tiles * tiles.plan.columns for tiles in chip.tiles.values())
    pairs = sum(array.size for pair in chip.norms.values() for array in pair.values())
    assert taken == 20 * 4 * (gains + pairs + (chip.num_features + 1) * 16)  # heads are held in steps of 16 outputs
    for i in range(20):
        server.remove(f"more{i}")
    assert live_bytes() <= before


# ---------------------------------------------------------------------------------------------------------------------
# Bits


def test_an_answer_depends_on_no_other_image_of_the_batch(bank: MaskBank) -> None:
    server = server_of(bank)
    alone = server.logits(IMAGES, "a")
    mixed = server.logits(IMAGES, ["a", "b", "c", "d"] * 2)
    other = server.logits(IMAGES, ["a", "d", "a", "a", "a", "c", "b", "b"])
    np.testing.assert_array_equal(mixed[[0, 4]], other[[0, 4]])
    np.testing.assert_allclose(mixed[[0, 4]], alone[[0, 4]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 31, 40, 63, 64, 65, 130])
@pytest.mark.parametrize("largest", [1, 5, 8, 64])
def test_batches_hold_all_examples_in_order_and_waste_less_than_half(count: int, largest: int) -> None:
    found = list(pieces(count, largest))
    starts, sizes = zip(*found, strict=True)
    assert starts == tuple(np.cumsum([0, *sizes[:-1]]))
    assert count <= sum(sizes) and count > sum(sizes[:-1])
    assert set(sizes) <= {largest, largest // 8, largest // 64}
    assert sum(sizes) - count < max(largest // 8, 1) or sum(sizes) <= 2 * count or largest < 8


# ---------------------------------------------------------------------------------------------------------------------
# Threads


def test_threads_get_the_answer_of_one_version_while_tasks_change(bank: MaskBank) -> None:
    """Two threads change tasks, eight ask: every answer is that of a version which the name has stood for."""
    server = server_of(bank, capacity=3)
    versions = [task(40 + i) for i in range(3)]
    fixed = {name: server.logits(IMAGES, name) for name in NAMES}
    changing = []
    server.add("changing", versions[0])
    for version in versions:
        server.replace("changing", version)
        changing.append(server.logits(IMAGES, "changing"))
    server.logits(IMAGES, ["changing", *NAMES[:3]] * 2)  # all is compiled
    wrong: list[str] = []
    asked, end = [0] * 8, time.monotonic() + 3.0

    def change(i: int) -> None:
        round_ = 0
        while time.monotonic() < end:
            round_ += 1
            server.replace("changing", versions[(round_ + i) % 3])
            server.add(f"passing{i}", versions[i])
            server.remove(f"passing{i}")

    def ask(i: int) -> None:
        rng = np.random.default_rng(i)
        while time.monotonic() < end:
            names = rng.choice(["changing", *NAMES], 8).tolist() if i % 2 else ["changing"] * 8
            found = server.logits(IMAGES, names)
            own = [j for j, name in enumerate(names) if name == "changing"]
            if own and not any(np.allclose(found[own], version[own], atol=1e-5) for version in changing):
                wrong.append(f"thread {i}: no version of the changing task, or several at once")
            for j, name in enumerate(names):
                if name in fixed and not np.allclose(found[j], fixed[name][j], atol=1e-5):
                    wrong.append(f"thread {i}: {name}")
            asked[i] += 1

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    threads += [threading.Thread(target=change, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert min(asked) > 0 and not wrong
    assert set(server.names) == {*NAMES, "changing"} and len(server.resident) <= 3


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "capacity 0": (lambda s, b: server_of(b, capacity=0), DataError, "capacity = 0: at least 1, a whole number"),
    "capacity true": (lambda s, b: server_of(b, capacity=True), DataError, "capacity = True: at least 1"),
    "outputs 0": (lambda s, b: server_of(b, outputs=0), DataError, "outputs = 0: at least 1"),
    "batch size": (lambda s, b: server_of(b, batch_size=1.5), DataError, "batch_size = 1.5: at least 1"),
    "names": (lambda s, b: serve(b.chip, b, ["a", "z"]), BankError, "name = 'z': one of a, b, c, d"),
    "served already": (lambda s, b: s.add("a"), DataError, r"name = 'a': a name that is not served yet"),
    "in no bank": (lambda s, b: s.add("z"), BankError, "name = 'z': one of a, b, c, d"),
    "not served": (lambda s, b: s.replace("z", task(1)), DataError, r"task = \['z'\]: served tasks: a, b, c, d"),
    "removed": (lambda s, b: s.remove("z"), DataError, r"task = \['z'\]: served tasks"),
    "no task": (lambda s, b: s.add("z", "a"), DataError, "task = 'str': a Task"),
    "dtype": (lambda s, b: s(IMAGES.astype(np.float32), "a"), DataError, "images"),
    "shape": (lambda s, b: s(IMAGES[..., :1], "a"), DataError, r"images\.shape = \(8, 12, 12, 1\)"),
    "rewrites": (
        lambda s, b: s.add("z", tiny.made_up_task(b.chip, methods.piggyback())),
        MethodError,
        r"tasks\['z'\]\.method = 'piggyback': tasks that rewrite no cell",
    ),
    "another chip": (
        lambda s, b: s.add("z", task(1).replace(chip=tiny.mark(tiny.chip("adc", key=1)))),
        BankError,
        r"task\.chip",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_served_is_named_and_changes_nothing(bank: MaskBank, case: str) -> None:
    call, error, message = BAD[case]
    server = server_of(bank)
    with pytest.raises(error, match=message):
        call(server, bank)
    assert server.names == server.resident == NAMES
