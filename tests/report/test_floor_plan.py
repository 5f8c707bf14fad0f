"""A chip's floor plan: what stands where, how large and in which colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.collections import PolyCollection
from PIL import Image

from models.tiny import resnet20_chip, tiny_chip
from xbm_jax.errors import BankError, DataError
from xbm_jax.hardware import array_use, arrays_used
from xbm_jax.masks import methods
from xbm_jax.report import draw_floor_plan
from xbm_jax.report.figure import DPI
from xbm_jax.tasks import Task, chip_mark, source_task


def rectangles(figure: Any) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Of every array: its square, its used corner (x0, y0, x1, y1), and that corner's colour."""
    whole, used = (c for axes in figure.axes for c in axes.collections if isinstance(c, PolyCollection))
    boxes = [np.array([p.get_extents().extents for p in collection.get_paths()]) for collection in (whole, used)]
    return boxes[0], boxes[1], [tuple(colour) for colour in np.asarray(used.get_facecolor())]


def area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def words(figure: Any) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in figure.texts]


def a_task(**layers: np.ndarray) -> Task:
    """A task of column masks, all on but where it is said."""
    masks = {p: np.ones((t.plan.row_tiles, t.plan.columns), np.uint8) for p, t in tiny_chip().tiles.items()}
    masks |= {path.replace("__", "/"): mask for path, mask in layers.items()}
    trained = {**source_task(tiny_chip()).trained, "masks": {p: jnp.asarray(m) for p, m in masks.items()}}
    return Task(trained, {}, methods.xbm())


def test_filled_area_is_the_share_of_cells(tmp_path, drawn):
    chip = resnet20_chip()
    draw_floor_plan(chip, tmp_path / "plan.png")
    whole, used, _ = rectangles(drawn[0])
    shares = np.concatenate([array_use(chip.tiles[p].plan).reshape(-1) for p in sorted(chip.tiles)])
    assert len(whole) == arrays_used(chip) == 147
    assert area(used) / area(whole) == pytest.approx(shares)
    assert used[:, :2] == pytest.approx(whole[:, :2])
    assert "layer3_0/conv1" in words(drawn[0]) and "5 × 2, 90 % used" in words(drawn[0])
    assert words(drawn[0])[-1] == "cifar-resnet20: 147 arrays of 64 × 64, 89 % of their cells used"
    with Image.open(tmp_path / "plan.png") as image:
        image.load()
        assert image.format == "PNG" and 1600 <= image.width <= 2000


def test_arrays_do_not_overlap_and_stand_inside(tmp_path, drawn):
    draw_floor_plan(resnet20_chip(), tmp_path / "plan.png")
    whole, _, _ = rectangles(drawn[0])
    axes = drawn[0].axes[0]
    assert whole.min() >= 0 and whole[:, 2].max() <= axes.get_xlim()[1] and whole[:, 3].max() <= axes.get_ylim()[0]
    left, top, right, bottom = (whole[:, None, i] for i in range(4))
    apart = (right <= left.T + 1e-9) | (left + 1e-9 >= right.T) | (bottom <= top.T + 1e-9) | (top + 1e-9 >= bottom.T)
    assert (apart | np.eye(len(whole), dtype=bool)).all()


def test_labels_do_not_run_into_each_other(tmp_path, drawn):
    draw_floor_plan(tiny_chip(), tmp_path / "plan.png", a_task())
    texts = drawn[0].axes[0].texts
    boxes = [text.get_window_extent(dpi=DPI) for text in texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_colour_is_the_share_of_columns_on(tmp_path, drawn):
    """Three layers of 8 columns on 3, 3 and 2 arrays one above the other."""
    mask = np.ones((3, 8), np.uint8)
    mask[0, :6], mask[2] = 0, 0
    draw_floor_plan(tiny_chip(), tmp_path / "plan.png", a_task(blocks__0__conv=mask))
    _, _, colours = rectangles(drawn[0])
    shares = [0.25, 1, 0, 1, 1, 1, 1, 1]
    assert colours == [tuple(colormaps["viridis"](share)) for share in map(float, shares)]
    assert "3 × 1, 100 % used, 42 % on" in words(drawn[0])
    assert any(
        "a task of xbm: 8 arrays of 24 × 16" in text and "78 % of columns on" in text for text in words(drawn[0])
    )


def test_a_task_without_column_masks_has_all_on(tmp_path, drawn):
    draw_floor_plan(tiny_chip(), tmp_path / "plan.png", source_task(tiny_chip()))
    assert set(rectangles(drawn[0])[2]) == {tuple(colormaps["viridis"](1.0))}


@pytest.mark.parametrize("path", ["block10/conv", "a/$x$", "_under", "x" * 80])
def test_any_layer_name(path: str, tmp_path: Path, drawn) -> None:
    chip = tiny_chip()
    tiles = {"block9/conv": chip.tiles["stem"], path: chip.tiles["stem"]}
    draw_floor_plan(chip.replace(tiles=tiles), tmp_path / "plan.png")
    names = [text for text in words(drawn[0]) if "used" not in text]
    assert len(names) == 2 and len(max(names, key=len)) <= 36
    if path.startswith("block10"):
        assert names == ["block9/conv", "block10/conv"]


def test_same_chip_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        given = draw_floor_plan(tiny_chip(), tmp_path / name, a_task())
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes() == given


def test_what_cannot_be_drawn(tmp_path):
    chip = tiny_chip()
    with pytest.raises(DataError, match="at least one layer on arrays"):
        draw_floor_plan(chip.replace(tiles={}), tmp_path / "plan.png")
    with pytest.raises(BankError, match=r"task\.chip"):
        draw_floor_plan(chip, tmp_path / "plan.png", a_task().replace(chip=chip_mark(resnet20_chip())))
    assert list(tmp_path.iterdir()) == []
