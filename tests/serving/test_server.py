"""One compiled function, many tasks in one batch."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.banks import MaskBank
from xbm_jax.errors import BankError, DataError, MethodError, SpecError
from xbm_jax.masks import Binary, Filter, Identity, Line, methods
from xbm_jax.serving import programs, serve
from xbm_jax.tasks import predict

TASKS = {
    "four": (methods.xbm(), 4),
    "two": (methods.xbm(norms="affine"), 2),
    "floor": (methods.head_only(), 3),
    "filters": (methods.masked("filters", Filter(), Binary(), Identity(), norms="frozen"), 3),
}
KINDS = ("ideal", "adc")


@pytest.fixture(scope="module")
def bank_of(tmp_path_factory):
    @cache
    def make(kind):
        chip = tiny.chip(kind)
        bank = MaskBank.create(tmp_path_factory.mktemp(kind), chip)
        for seed, (name, (method, classes)) in enumerate(TASKS.items()):
            bank.put(name, tiny.made_up_task(chip, method, classes, seed))
        return bank

    return make


@pytest.fixture(scope="module")
def server_of(bank_of):
    @cache
    def make(kind):
        return serve(tiny.chip(kind), bank_of(kind), list(TASKS), batch_size=16)

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_answers_each_image_under_its_own_task(bank_of, server_of, kind):
    images = tiny.stripes().x_test[:35]
    names = np.random.default_rng(0).choice(list(TASKS), len(images)).tolist()
    assert set(names) == set(TASKS)
    served = server_of(kind).logits(images, names)
    assert served.shape == (35, 4)
    guesses = server_of(kind)(images, names)
    for name, (_, classes) in TASKS.items():
        own = np.array([n == name for n in names])
        wanted = predict(tiny.chip(kind), bank_of(kind).get(name), images[own], batch_size=16)
        np.testing.assert_allclose(served[own, :classes], wanted, rtol=0, atol=1e-5)
        assert (served[own, classes:] == -np.inf).all()
        assert guesses[own].tolist() == wanted.argmax(-1).tolist()
        assert np.isfinite(served[own, :classes]).all()


def test_tasks_differ_on_the_same_image(server_of):
    image = tiny.stripes().x_test[:1]
    logits = [server_of("ideal").logits(image, name)[0, :2] for name in TASKS]
    assert len({tuple(row) for row in logits}) == len(TASKS)


def test_one_name_serves_all_images(server_of):
    images = tiny.stripes().x_test[:5]
    server = server_of("ideal")
    assert np.array_equal(server.logits(images, "two"), server.logits(images, ["two"] * 5))
    assert server(images, "two").max() <= 1  # never a class that the task does not have


def test_every_mixture_shares_two_compilations_whatever_comes_and_goes(bank_of, monkeypatch):
    traces = []
    forward = programs.forward

    def counted(*args, **kwargs):
        traces.append(kwargs.get("gain_at", "weights"))
        return forward(*args, **kwargs)

    monkeypatch.setattr(programs, "forward", counted)
    chip = tiny.chip("ideal")
    server = serve(chip, bank_of("ideal"), batch_size=5)
    images = tiny.stripes().x_test
    for count, names in ((6, "four"), (1, "two"), (17, [*TASKS] * 4 + ["two"]), (6, ["filters", "floor"] * 3)):
        assert server(images[:count], names).shape == (count,)
    server.add("fifth", tiny.made_up_task(chip, methods.xbm(), 16, 7))  # all heads are held this wide
    server.remove("two")
    server.replace("four", tiny.made_up_task(chip, methods.head_only(), 5, 8))
    server(images[:4], ["fifth", "four", "floor", "fifth"])
    assert sorted(traces) == ["columns", "weights"]  # mixed, and of one task
    server.add("wide", tiny.made_up_task(chip, methods.xbm(), 17, 9))
    server(images[:2], ["wide", "four"])
    assert sorted(traces) == ["columns", "columns", "weights"]


def test_names_and_order(bank_of):
    chip, bank = tiny.chip("ideal"), bank_of("ideal")
    assert serve(chip, bank).names == tuple(sorted(TASKS))
    server = serve(chip, bank, ["two", "floor"])
    assert server.names == server.resident == ("two", "floor")
    images = tiny.stripes().x_test[:2]
    assert server.logits(images, ["two", "floor"]).shape == (2, 3)  # as wide as the widest of those asked
    assert server.logits(images, "two").shape == (2, 2)


def test_no_image_gives_no_answer(server_of):
    assert server_of("ideal")(tiny.stripes().x_test[:0], "two").shape == (0,)


def test_unknown_tasks_and_wrong_counts_are_named(server_of):
    server, images = server_of("ideal"), tiny.stripes().x_test[:3]
    with pytest.raises(DataError, match=r"task = \['six'\]: served tasks: four, two, floor, filters"):
        server(images, "six")
    with pytest.raises(DataError, match=r"task = \['five', 'six'\]"):
        server(images, ["six", "two", "five"])
    with pytest.raises(DataError, match=r"2 names.*3: one per image"):
        server(images, ["two", "two"])


def test_bad_images_are_named(server_of):
    server = server_of("ideal")
    with pytest.raises(DataError, match=r"images\.shape = \(2, 12, 12, 1\): \[n, height, width, 3\]"):
        server(np.zeros((2, 12, 12, 1), np.uint8), "two")
    with pytest.raises(DataError, match=r"images\.shape"):
        server(np.zeros((12, 12, 3), np.uint8), "two")
    with pytest.raises(DataError, match="NaN"):
        server(np.full((1, 12, 12, 3), np.nan, np.float32), "two")


LINES = methods.masked("lines", Line(), Binary(), Identity())


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_by_line_and_by_column_are_served_together(tmp_path, kind):
    chip = tiny.chip(kind)
    bank = MaskBank.create(tmp_path, chip)
    for seed, (name, method) in enumerate(
        {"lines": LINES, "columns": methods.xbm(), "floor": methods.head_only()}.items()
    ):
        bank.put(name, tiny.made_up_task(chip, method, 3, seed))
    images = tiny.stripes().x_test[:9]
    server = serve(chip, bank, batch_size=9)
    served = server.logits(images, ["lines", "columns", "floor"] * 3)
    for i, name in enumerate(("lines", "columns", "floor")):
        wanted = predict(chip, bank.get(name), images[i::3], batch_size=16)
        # A code that float32 rounds the other way moves a logit by a step.
        np.testing.assert_allclose(served[i::3], wanted, rtol=0, atol=1e-5 if kind == "ideal" else 2e-2)
    assert bank.get("lines").trained["masks"]["conv2"].shape == (3, 2, 8)


def test_shifts_of_columns_are_not_served_beside_gates_before_the_converter(tmp_path):
    chip = tiny.chip("adc")
    bank = MaskBank.create(tmp_path, chip)
    bank.put("lines", tiny.made_up_task(chip, LINES))
    bank.put("shifts", tiny.made_up_task(chip, methods.xma(), seed=1))
    task = bank.get("shifts")
    halves = {path: jnp.full_like(codes, 2) for path, codes in task.trained["masks"].items()}
    bank.put("shifts", task.replace(trained={**task.trained, "masks": halves}))
    with pytest.raises(MethodError, match=r"tasks\['shifts'\]\.method = 'xma': gains of 0 and 1 in conv1"):
        serve(chip, bank)
    assert serve(chip, bank, ["shifts"]).names == ("shifts",)


@pytest.mark.parametrize("method", [methods.piggyback(), methods.finetune()])
def test_a_task_that_rewrites_cells_cannot_be_mixed(tmp_path, method):
    chip = tiny.chip("ideal")
    bank = MaskBank.create(tmp_path, chip)
    bank.put("fine", tiny.made_up_task(chip, methods.xbm()))
    bank.put("rewrites", tiny.made_up_task(chip, method))
    wanted = rf"tasks\['rewrites'\]\.method = '{method.name}': tasks that rewrite no cell"
    with pytest.raises(MethodError, match=wanted):
        serve(chip, bank)
    assert serve(chip, bank, ["fine"]).names == ("fine",)


def test_a_task_with_a_digital_part_cannot_be_mixed(tmp_path):
    chip = tiny.chip("ideal")
    bank = MaskBank.create(tmp_path, chip)
    bank.put("beside", tiny.made_up_task(chip, methods.lora()))
    with pytest.raises(MethodError, match=r"tasks\['beside'\]\.method = 'lora': tasks of column masks"):
        serve(chip, bank)


def test_all_tasks_are_served_but_a_damaged_one_which_is_named(tmp_path):
    chip = tiny.chip("ideal")
    bank = MaskBank.create(tmp_path, chip)
    for name in ("x", "y", "z"):
        bank.put(name, tiny.made_up_task(chip, methods.head_only()))

    def damage(name):
        next((tmp_path / "tasks" / name).rglob("_CHECKPOINT_METADATA")).write_text("xxxx")

    damage("y")
    with pytest.warns(UserWarning, match=r"task 'y' cannot be read and is not served: .*y/000001"):
        assert serve(chip, bank).names == ("x", "z")
    with pytest.raises(BankError, match=r"y/000001.*a readable checkpoint"):
        serve(chip, bank, ["x", "y"])
    damage("x")
    damage("z")
    with pytest.raises(BankError, match=r"a bank with a task that can be read \(.*x/000001"):
        serve(chip, bank)


def test_an_empty_bank_cannot_be_served(tmp_path):
    chip = tiny.chip("ideal")
    bank = MaskBank.create(tmp_path, chip)
    with pytest.raises(DataError, match="at least one task"):
        serve(chip, bank)


def test_another_chip_cannot_serve_the_bank(bank_of):
    with pytest.raises(BankError, match=r"chip\.identity = "):
        serve(tiny.chip("ideal", key=1), bank_of("ideal"))
    with pytest.raises(BankError, match=r"chip\.conv1\.spec\.adc\.bits = 8: None"):
        serve(tiny.chip("adc"), bank_of("ideal"))


def test_calls_that_are_nearly_right_are_named(bank_of, server_of):
    chip, bank = tiny.chip("ideal"), bank_of("ideal")
    with pytest.raises(DataError, match=r"names = 'two': a list of names: \['two'\]"):
        serve(chip, bank, "two")
    with pytest.raises(BankError, match="name = 'six': one of"):
        serve(chip, bank, ["two", "six"])
    with pytest.raises(DataError, match=r"bank = .*a MaskBank"):
        serve(chip, bank.folder)
    for size in (0, -1):
        with pytest.raises(DataError, match=rf"batch_size = {size}: at least 1"):
            serve(chip, bank, batch_size=size)
    with pytest.raises(SpecError, match="key = 7"):
        server_of("ideal")(tiny.stripes().x_test[:3], "two", key=7)


def test_images_of_a_batch_draw_noise_of_their_own(tmp_path):
    chip = tiny.chip("noisy")
    bank = MaskBank.create(tmp_path, chip)
    for name in ("a", "b"):
        bank.put(name, tiny.made_up_task(chip, methods.xbm()))  # equal tasks
    server = serve(chip, bank, batch_size=4)
    images = np.repeat(tiny.stripes().x_test[:1], 6, 0)
    for tasks in ("a", ["a", "b"] * 3):
        first, again, other = (server.logits(images, tasks, key=jax.random.key(k)) for k in (0, 0, 1))
        assert np.array_equal(first, again)
        assert len({row.tobytes() for row in np.concatenate([first, other])}) == 12
