"""Mask words against a loop over bit lines, and on paper; files back to the same gains, or refused."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tiny import IDEAL, tiny_chip
from xbm_jax.crossbar import Cell, Conv, CrossbarSpec, Plan, Tiles
from xbm_jax.errors import BankError, DataError, MethodError
from xbm_jax.hardware import MaskBuffer, mask_buffer, mask_files, read_mask_buffer, task_bits
from xbm_jax.hardware.mask_words import codes_of, hex_word, mask_words, word_bits
from xbm_jax.masks import Binary, Column, Filter, Granularity, Identity, Line, Method, Soft, Ternary, methods
from xbm_jax.models import Chip
from xbm_jax.tasks import Task, chip_mark, source_task
from xbm_jax.tasks.task import stored

SMALL = CrossbarSpec(rows=16, cols=10, active_rows=8, cell=Cell(4))
"""Two slices and a pair: four bit lines a column, two columns an array, two bit lines of none; two row tiles."""

FILTERS = methods.masked("filters", Filter(), Binary(), Identity())
TERNARY = methods.masked("ternary", Column(), Ternary(), Identity())
SOFT = methods.masked("soft", Column(), Soft(width=9), Identity())
OWN = [methods.xbm(), methods.xbm_levels(), methods.xbm_lines(), methods.xma(), FILTERS, TERNARY, SOFT]


def a_plan(shape: tuple[int, ...], spec: CrossbarSpec = SMALL, groups: int = 1) -> Plan:
    return Plan(shape, spec, Conv(groups=groups) if len(shape) == 4 else None, True, "shapes alone")


def bare_chip(plans: dict[str, Plan]) -> Chip:
    """A chip of layers of which nothing is known but where they lie and how their numbers are kept."""
    names = {field.name for field in dataclasses.fields(Tiles)} - {"plan", "key_impl", "weight_scale"}
    empty: dict[str, Any] = dict.fromkeys(names, jnp.zeros(()))
    tiles = {path: Tiles(weight_scale=jnp.ones(plan.columns), plan=plan, **empty) for path, plan in plans.items()}
    return tiny_chip().replace(tiles=tiles)


def a_task(chip: Chip, method: Method, seed: int = 0) -> Task:
    """Logits of both signs, none alike."""
    rng, rule = np.random.default_rng(seed), method.rule
    assert rule is not None

    def draw(kept: Any) -> jax.Array:
        return jnp.asarray(rng.normal(size=kept.shape), jnp.float32)

    masks = {path: jax.tree.map(draw, rule.stored(tiles.plan)) for path, tiles in chip.tiles.items()}
    return Task({**source_task(chip).trained, "masks": masks}, {}, method)


def tasks_gains(chip: Chip, task: Task) -> dict[str, Any]:
    rule = task.method.rule
    assert rule is not None
    return {p: rule.apply(tiles, task.trained["masks"][p])[1] for p, tiles in chip.tiles.items()}


def assert_same_bits(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for path in wanted:
        mine, theirs = np.asarray(found[path]), np.asarray(wanted[path])
        assert (mine.shape, mine.dtype, mine.tobytes()) == (theirs.shape, theirs.dtype, theirs.tobytes())


def literal_words(plan: Plan, codes: np.ndarray, planes: int) -> list[list[int]]:
    """Every word, bit line by bit line, in the order of a file's lines."""
    spec, per_group = plan.spec, plan.columns // plan.groups
    lines = spec.slices * (2 if spec.encoding == "differential" else 1)
    height = spec.active_rows or spec.rows
    tiles, fit = math.ceil(math.prod(plan.kernel_shape[:-1]) / height), spec.cols // lines
    words = []
    for first_tile in range(0, tiles, spec.rows // height):
        for group in range(plan.groups):
            for first in range(group * per_group, (group + 1) * per_group, fit):
                for tile in range(first_tile, first_tile + spec.rows // height):
                    for plane in range(planes):
                        word = []
                        for n in range(first, min(first + fit, (group + 1) * per_group)):
                            for line in range(lines):
                                held = np.zeros(codes.shape[1:], int) if tile >= tiles else codes[tile]
                                code = held[line % 2][n] if codes.ndim == 3 else held[n]
                                word.append(int(code) // 2**plane % 2)
                        words.append(word + [0] * (spec.cols - len(word)))
    return words


# ---------------------------------------------------------------------------------------------------------------------
# Words


PAPER = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0]], np.uint8)
PAPER_WORDS = ["00f", "0f0", "00f", "00f", "0ff", "000", "000", "000"]


def test_words_worked_out_on_paper() -> None:
    """24 rows are three tiles of 8, two in an array of 16; three columns of four bit lines, two on an array of 10."""
    words = mask_words(a_plan((24, 3)), PAPER, 1)
    assert words.shape == (2, 2, 2, 1, 10)
    assert words[0, 0, 1, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    texts = [hex_word(word) for word in words.reshape(-1, 10)]
    assert texts == PAPER_WORDS


def test_lines_and_planes_worked_out_on_paper() -> None:
    """The positive line is the even one of each pair, in both slices; a code of 6 = 110 has its zero first."""
    lines = np.array([[[1, 0], [0, 1]]], np.uint8)  # column 0 keeps its positive lines, column 1 its negative ones
    assert hex_word(mask_words(a_plan((8, 2)), lines, 1)[0, 0, 0, 0]) == "0a5"
    codes = np.array([[6, 1]], np.uint8)
    assert [hex_word(word) for word in mask_words(a_plan((8, 2)), codes, 3)[0, 0, 0]] == ["0f0", "00f", "00f"]


@st.composite
def plans_and_codes(draw: st.DrawFn) -> tuple[Plan, np.ndarray, int]:
    encoding = draw(st.sampled_from(["differential", "offset"]))
    cell = Cell(draw(st.sampled_from([2, 3, 4, 7])))
    rows, fraction = draw(st.sampled_from([8, 16, 24])), draw(st.sampled_from([1, 2, 3]))
    active = rows // fraction if rows % fraction == 0 and rows // fraction >= 8 else None
    spec = CrossbarSpec(rows=rows, cols=draw(st.integers(8, 21)), encoding=encoding, cell=cell, active_rows=active)  # type: ignore[arg-type]
    groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    dense = draw(st.booleans())
    shape = (draw(st.integers(1, 60)), per_group) if dense else (3, 3, draw(st.integers(1, 5)), groups * per_group)
    plan, planes = a_plan(shape, spec, groups), draw(st.sampled_from([1, 3, 9]))
    by_line = encoding == "differential" and draw(st.booleans())
    size = (plan.row_tiles, 2, plan.columns) if by_line else (plan.row_tiles, plan.columns)
    codes = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 2**planes, size)
    return plan, codes, planes


@given(plans_and_codes())
def test_words_are_those_of_a_loop_over_bit_lines_and_go_back(drawn: tuple[Plan, np.ndarray, int]) -> None:
    plan, codes, planes = drawn
    words = mask_words(plan, codes, planes)
    assert words.reshape(-1, plan.spec.cols).tolist() == literal_words(plan, codes, planes)
    back = np.stack([word_bits(hex_word(word), plan.spec.cols) for word in words.reshape(-1, plan.spec.cols)])
    found = codes_of(plan, back.reshape(words.shape), by_line=codes.ndim == 3)
    assert found.tolist() == codes.tolist()


@pytest.mark.parametrize("cols", [8, 9, 11, 12, 13, 64, 65])
def test_hex_words_are_numbers_with_bit_line_0_last(cols: int) -> None:
    bits = np.random.default_rng(cols).integers(0, 2, cols).astype(np.uint8)
    assert int(hex_word(bits), 16) == sum(int(bit) << line for line, bit in enumerate(bits))
    assert len(hex_word(bits)) == math.ceil(cols / 4)
    assert word_bits(hex_word(bits), cols).tolist() == bits.tolist()


@pytest.mark.parametrize("text", ["0ff", "f", "f_f", "FF", "0x", "40", " 1", ""])
def test_a_word_of_six_bits_is_two_digits_up_to_3f(text: str) -> None:
    with pytest.raises(BankError, match="2 hexadecimal digits of a word of 6 bits"):
        word_bits(text, 6)


# ---------------------------------------------------------------------------------------------------------------------
# Tasks there and back

LAYERS = {
    "stem": a_plan((3, 3, 2, 6)),
    "blocks/0/conv": a_plan((3, 3, 2, 6), groups=2),
    "blocks/0.conv": a_plan((20, 6), CrossbarSpec(rows=8, cols=9, cell=Cell(2))),
}
OFFSET = {"one": a_plan((3, 3, 2, 6), CrossbarSpec(rows=16, cols=9, encoding="offset", cell=Cell(4)), groups=3)}


@pytest.mark.parametrize("method", OWN, ids=lambda method: method.name)
def test_gains_come_back_bit_for_bit(method: Method, tmp_path: Path) -> None:
    chip = bare_chip(LAYERS)
    task = a_task(chip, method)
    buffer = mask_buffer(chip, task)
    buffer.write(tmp_path)
    assert mask_buffer(chip, stored(chip, task)).to_json() == buffer.to_json()
    gains = tasks_gains(chip, task)
    assert any(len(np.unique(gain)) > 1 for gain in gains.values())
    assert_same_bits(read_mask_buffer(tmp_path, chip), gains)


@pytest.mark.parametrize("method", [methods.xbm(), methods.xma(bits=5, top=3)], ids=lambda method: method.name)
def test_offset_encoding_has_one_line_a_slice(method: Method, tmp_path: Path) -> None:
    chip = bare_chip(OFFSET)
    buffer = mask_buffer(chip, a_task(chip, method))
    buffer.write(tmp_path)
    assert_same_bits(read_mask_buffer(tmp_path, chip), tasks_gains(chip, a_task(chip, method)))
    codes = np.asarray(stored(chip, a_task(chip, method)).trained["masks"]["one"])
    words = buffer.layers[0].words.reshape(-1, 9)
    assert words.tolist() == literal_words(OFFSET["one"], codes, buffer.layers[0].planes)


def test_a_programmed_chip(tmp_path: Path) -> None:
    """Three layers of 8 columns, 8 on an array of 16 bit lines: 27, 72 and 72 rows of 24 are 2 + 3 + 3 arrays."""
    chip = tiny_chip()
    task = a_task(chip, methods.xbm()).replace(chip=chip_mark(chip))
    buffer = mask_buffer(chip, task)
    buffer.write(tmp_path)
    assert_same_bits(read_mask_buffer(str(tmp_path), chip), tasks_gains(chip, task))
    assert buffer.bits == 8 * 16 == 2 * task_bits(chip, task).mask_bits  # both lines of a pair hold the bit
    assert [layer.path for layer in buffer.layers] == list(chip.tiles)
    assert [(layer.arrays, layer.tiles, layer.planes) for layer in buffer.layers] == [
        ((3, 1), 1, 1),
        ((3, 1), 1, 1),
        ((2, 1), 1, 1),
    ]


def test_files_say_what_they_are_and_readmemh_takes_them(tmp_path: Path) -> None:
    chip = bare_chip(LAYERS)
    buffer = mask_buffer(chip, a_task(chip, methods.xma()))
    buffer.write(tmp_path)
    card = json.loads((tmp_path / "buffer.json").read_text())
    assert card == buffer.to_json()
    files = {layer["path"]: layer["file"] for layer in card["layers"]}
    assert list(files.values()) == ["stem.memh", "blocks.0.conv.memh", "blocks.0.conv.2.memh"]
    assert {p.name for p in tmp_path.iterdir()} == {"buffer.json", *files.values()}
    for layer in buffer.layers:
        text = (tmp_path / files[layer.path]).read_text(encoding="ascii")
        assert text.startswith(f"// layer '{layer.path}'\n// width {layer.plan.spec.cols} bits")
        memory = [int(word, 16) for word in re.sub("//.*", "", text).split()]
        wanted = [sum(int(b) << i for i, b in enumerate(w)) for w in layer.words.reshape(-1, layer.plan.spec.cols)]
        assert memory == wanted


def test_a_second_task_takes_the_first_ones_place(tmp_path: Path) -> None:
    chip = bare_chip(LAYERS)
    for seed in (1, 2):
        task = a_task(chip, methods.xbm(), seed)
        mask_buffer(chip, task).write(tmp_path)
        assert_same_bits(read_mask_buffer(tmp_path, chip), tasks_gains(chip, task))


@dataclasses.dataclass(frozen=True)
class PairsOfChannels(Granularity):
    """A mask of one's own: a value for each half of the columns, on both or averaged with its neighbour."""

    averaged: bool = False
    on_columns = True

    def shape(self, plan: Plan) -> tuple[int, ...]:
        return plan.row_tiles, 2

    def spread(self, values: jax.Array, plan: Plan) -> jax.Array:
        if self.averaged:
            values = (values + values[:, ::-1]) / 2
        return jnp.repeat(values, plan.columns // 2, axis=1)


def test_a_granularity_of_ones_own(tmp_path: Path) -> None:
    chip = bare_chip({"one": a_plan((20, 6))})
    task = a_task(chip, methods.masked("halves", PairsOfChannels(), Binary(), Identity()), seed=3)
    mask_buffer(chip, task).write(tmp_path)
    assert_same_bits(read_mask_buffer(tmp_path, chip), tasks_gains(chip, task))
    with pytest.raises(MethodError, match=r"'PairsOfChannels': a method whose mask is of columns"):
        mask_buffer(
            chip, a_task(chip, methods.masked("mean", PairsOfChannels(averaged=True), Binary(), Identity()), seed=3)
        )


# ---------------------------------------------------------------------------------------------------------------------
# What is refused

NO_MASK = ["head_only", "norm_only", "xma2", "piggyback", "piggyback_ternary", "ksm_binary", "ksm_soft", "lora"]


@pytest.mark.parametrize("name", [*NO_MASK, "finetune"])
def test_methods_without_column_masks(name: str) -> None:
    chip, method = bare_chip(LAYERS), methods.by_name(name)
    trained = {**source_task(chip).trained, "masks": dict.fromkeys(chip.tiles)}
    with pytest.raises(MethodError, match=rf"task\.method = '{name}': a method whose mask .* xbm, xbm_levels, xbm_lin"):
        mask_buffer(chip, Task(trained, {}, method))


def test_lines_of_an_encoding_without_pairs() -> None:
    chip = bare_chip(OFFSET)
    task = a_task(bare_chip({"one": a_plan((18, 6))}), methods.masked("lines", Line(), Binary(), Identity()))
    with pytest.raises(MethodError, match=r"CrossbarSpec\.encoding = 'offset'"):
        mask_buffer(chip, task)


def test_tasks_that_do_not_fit() -> None:
    chip = tiny_chip()
    task = a_task(chip, methods.xbm())
    with pytest.raises(BankError, match=r"task\.chip"):
        mask_buffer(chip, task.replace(chip=chip_mark(tiny_chip(IDEAL, 1))))
    masks = {**task.trained["masks"], "stem": jnp.zeros((2, 9))}
    with pytest.raises(BankError, match=r"masks'\]\['stem'\]\.shape = \(2, 9\): \(2, 8\), what this chip's"):
        mask_buffer(chip, task.replace(trained={**task.trained, "masks": masks}))
    with pytest.raises(DataError, match="chip = 'str'"):
        read_mask_buffer("somewhere", "chip")  # type: ignore[arg-type]


def written(folder: Path, spec: CrossbarSpec = SMALL) -> Chip:
    """Two layers, with ``PAPER`` on the first where the spec is the small one."""
    chip = bare_chip({"stem": a_plan((24, 3), spec), "a/b": a_plan((3, 3, 2, 6), spec, groups=2)})
    task = a_task(chip, methods.xbm())
    if spec == SMALL:
        task.trained["masks"]["stem"] = jnp.asarray(PAPER)
    mask_buffer(chip, task).write(folder)
    return chip


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text(encoding="utf-8")))


def line(number: int, change: Callable[[str], str]) -> Callable[[str], str]:
    """Change one line of a text, the first is 1."""

    def changed(text: str) -> str:
        lines = text.splitlines(keepends=True)
        lines[number - 1] = change(lines[number - 1])
        return "".join(lines)

    return changed


FIRST = 6  # the line of the first of stem's eight words


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit("stem.memh", line(FIRST + 3, lambda w: "000\n")), r"stem\.memh:9 = '000': the word that was written"),
        (edit("stem.memh", line(FIRST, lambda w: f"{w}{w}")), r"stem\.memh:7 = '00f': the word that was written"),
        (edit("stem.memh", line(FIRST + 7, lambda w: f"{w}{w}")), r"stem\.memh:14 = '000': the end: .* 8 words"),
        (edit("stem.memh", line(FIRST + 7, lambda w: "")), r"stem\.memh:13 = 'the end after 7 words': 8 words"),
        (edit("stem.memh", lambda text: text[:-3]), r"stem\.memh:13 = '0': 3 hexadecimal digits of a word of 10 bits"),
        (edit("stem.memh", line(FIRST, lambda w: "0" + w)), r"stem\.memh:6 = '0...': 3 hexadecimal digits"),
        (edit("stem.memh", line(FIRST, lambda w: "xyz\n")), r"stem\.memh:6 = 'xyz': 3 hexadecimal digits"),
        (edit("stem.memh", line(FIRST, lambda w: "7ff\n")), r"stem\.memh:6 = '7ff': 3 hexadecimal digits"),
        (edit("stem.memh", line(2, lambda w: w[2:])), r"stem\.memh:2 = 'width"),
        (lambda folder: (folder / "a.b.memh").write_bytes(b"\xff\xfe"), r"a\.b\.memh:1 = '��': 3 hex"),
        (lambda folder: (folder / "a.b.memh").unlink(), r"file = .*a\.b\.memh': a readable file of 16 words"),
        (lambda folder: (folder / "buffer.json").unlink(), r"folder = .*: a folder with a buffer\.json in it"),
        (edit("buffer.json", line(3, lambda w: "]\n")), r"buffer\.json:3 = .*: undamaged JSON"),
        (edit("buffer.json", lambda text: "[]"), r"buffer\.json = .*: an undamaged card"),
        (
            edit("buffer.json", lambda text: text.replace('"threshold": 0.0', '"threshold": 0.1')),
            r"buffer\.json\.sha256 = ",
        ),
        (edit("buffer.json", lambda text: text.replace('"format": 1', '"format": 2')), r"buffer\.format = 2: 1, what"),
    ],
)
def test_damaged_files_are_named(damage: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    chip = written(tmp_path)
    read_mask_buffer(tmp_path, chip)
    damage(tmp_path)
    with pytest.raises(BankError, match=message):
        read_mask_buffer(tmp_path, chip)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 32}, r"buffer\.stem\.rows = 16: 32, this chip's"),
        ({"cols": 12}, r"buffer\.stem\.cols = 10: 12"),
        ({"active_rows": None}, r"buffer\.stem\.active_rows = 8: 16"),
        ({"cell": Cell(7)}, r"buffer\.stem\.slices = 2: 1"),
        ({"encoding": "offset"}, r"buffer\.stem\.polarities = 2: 1"),
        ({"row_order": "tap"}, r"buffer\.stem\.row_order = 'channel': 'tap'"),
    ],
)
def test_a_chip_of_another_geometry(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    written(tmp_path / "one")
    other = written(tmp_path / "other", SMALL.replace(**change))
    with pytest.raises(BankError, match=message):
        read_mask_buffer(tmp_path / "one", other)


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ({"stem": a_plan((24, 3))}, r"buffer\.layers = \['a/b', 'stem'\]: the chip's layers \['stem'\]"),
        ({"stem": a_plan((24, 3)), "a/b": a_plan((3, 3, 2, 6))}, r"buffer\.a/b\.groups = 2: 1"),
        ({"stem": a_plan((24, 4)), "a/b": a_plan((3, 3, 2, 6))}, r"buffer\.stem\.kernel_shape = \[24, 3\]: \[24, 4\]"),
    ],
)
def test_a_chip_of_other_layers(plans: dict[str, Plan], message: str, tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(BankError, match=message):
        read_mask_buffer(tmp_path, bare_chip(plans))


@pytest.mark.parametrize(
    ("bit", "number", "why"),
    [((0, 0, 0, 0, 9), 6, "an unused bit line"), ((1, 0, 1, 0, 0), 11, "no row tile"), ((0, 1, 0, 0, 2), 8, "a copy")],
)
def test_bits_that_no_mask_gives(bit: tuple[int, ...], number: int, why: str, tmp_path: Path) -> None:
    """A foreign writer's words, with checksums and all, that a mask of columns cannot have."""
    del why
    chip = written(tmp_path)
    buffer = mask_buffer(chip, a_task(chip, methods.xbm()))
    words = buffer.layers[0].words.copy()
    words[bit] ^= 1
    wrong = (dataclasses.replace(buffer.layers[0], words=words), *buffer.layers[1:])
    dataclasses.replace(buffer, layers=wrong).write(tmp_path)
    with pytest.raises(BankError, match=rf"stem\.memh:{number} = '...': the same bit on all bit lines of a column"):
        read_mask_buffer(tmp_path, chip)


def test_interrupted_between_two_files(tmp_path: Path) -> None:
    """New words under the old description, as a crash before the last file leaves them, are refused."""
    chip = written(tmp_path)
    new = mask_buffer(chip, a_task(chip, methods.xbm(), seed=5))
    (tmp_path / "stem.memh").write_text(mask_files.memh(new.layers[0]))
    with pytest.raises(BankError, match=r"stem\.memh:\d+ = "):
        read_mask_buffer(tmp_path, chip)


def test_a_file_of_another_folder_is_not_read(tmp_path: Path) -> None:
    chip = written(tmp_path)

    class Outward(MaskBuffer):
        def to_json(self) -> dict[str, Any]:
            card = super().to_json()
            card["layers"][0]["file"] = "../stem.memh"
            return {**card, "sha256": mask_files._digest(card)}

    buffer = mask_buffer(chip, a_task(chip, methods.xbm()))
    Outward(buffer.network, buffer.method, buffer.rule, buffer.layers).write(tmp_path / "in")
    with pytest.raises(BankError, match=r"buffer\.stem\.file = '\.\./stem\.memh': the name of a file beside"):
        read_mask_buffer(tmp_path / "in", chip)
