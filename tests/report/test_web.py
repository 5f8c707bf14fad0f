"""A page of HTML: whole, small, and harmless whatever names are in it."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from report.examples import INSPECTION, ROWS
from report.pages import HOSTILE, Elements, digest, inline, whole
from xbm_jax.errors import BankError, DataError
from xbm_jax.report import run_context, write_results
from xbm_jax.report.web.axes import axis_of, short
from xbm_jax.report.web.charts import Point, _front, marks
from xbm_jax.report.web.found import Confusion, Curve, Found, MaskMap
from xbm_jax.report.web.gather import found_in, write_page
from xbm_jax.report.web.markup import element
from xbm_jax.report.web.page import LARGEST, page_of
from xbm_jax.report.web.tables import flat
from xbm_jax.tasks import Inspection

CONTEXT = {"command": "xbm quickstart", "seed": 7, "versions": {"jax": "1"}, "config": {"epochs": 3}}


def test_a_page_has_a_section_for_each_kind_of_thing():
    page = Elements(page_of(whole()))
    titles = ["Results", "Accuracy against cost", "Learning curves", "Masks", "Confusion", "Chip health", "In words"]
    links = [attributes["href"] for attributes in page.all("a")[1:]]
    places = [attributes["id"] for attributes in page.all("section")]
    assert links == [f"#{place}" for place in places] and len(places) == len(titles) + 1
    for title in (*titles, "Made with", "fashion_mnist is damaged"):
        assert title in page.text
    assert Elements(page_of(Found("Nothing"))).all("section") == []


def test_nothing_of_a_name_is_markup():
    """The hostile page has the elements and the attributes of a harmless one, each of them, in the same order."""
    harmless, hostile = Elements(page_of(whole("h"))), Elements(page_of(whole(HOSTILE)))
    assert [(tag, list(found)) for tag, found in hostile.found] == [(tag, list(found)) for tag, found in harmless.found]
    assert not any(name.startswith("on") for _, found in hostile.found for name in found)
    shown = HOSTILE.replace("\u202e", r"\u202e").replace("\ud800", r"\ud800")
    assert hostile.text.count(shown) >= 10
    assert not {"\u202e", "\ud800"} & set(page_of(whole(HOSTILE)))


def test_the_policy_lets_its_own_style_and_script_run_and_nothing_else():
    page = page_of(whole(HOSTILE))
    elements = Elements(page)
    policy = next(m["content"] for m in elements.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    (style,), (script,) = inline(page, "style"), inline(page, "script")
    assert directives == {
        "default-src": "'none'",
        "style-src": digest(style),
        "script-src": digest(script),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert [tag for tag, _ in elements.found].index("meta") < [tag for tag, _ in elements.found].index("style")
    assert not any("style" in found for _, found in elements.found)  # the policy would ignore it
    assert all(found["src"].startswith("data:image/png;base64,") for found in elements.all("img"))
    for _, found in elements.found:
        assert not any(str(value).startswith(("http", "//")) for value in found.values())


def test_what_is_drawn_can_be_heard_and_reached_by_keyboard():
    page = Elements(page_of(whole()))
    assert page.all("html")[0]["lang"] == "en"
    assert all(found["aria-label"] or found["aria-hidden"] for found in page.all("svg") if "aria-hidden" not in found)
    assert all(found["alt"] for found in page.all("img"))
    points = [found for found in page.all("path") if "data-tip" in found]
    assert points and all(p["tabindex"] == "0" and p["aria-label"] == p["data-tip"] for p in points)
    assert len(page.all("button")) > len(page.all("th")) / 2
    assert all("tabindex" in found for found in page.all("div") if found.get("class") == "wide")


def test_a_mask_is_a_picture_of_a_pixel_a_column():
    on = np.random.default_rng(1).random((3, 8)) < 0.5
    page = Elements(page_of(Found("t", maps=[MaskMap("t", {"a": on, "by line": np.stack([on, ~on], 1)})])))
    seen = []
    for found in page.all("img"):
        content = base64.b64decode(found["src"].partition(",")[2])
        seen.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))[..., 3] > 0)
    np.testing.assert_array_equal(seen[0], on)
    np.testing.assert_array_equal(seen[1], np.stack([on, ~on], 1).reshape(6, 8))
    assert f"a: {on.mean():.1%} of 3 x 8 on" in page.text


def test_a_page_stays_small_and_says_what_it_leaves_out(tmp_path):
    many = [{**ROWS[0].to_json(), "task": f"{i} {HOSTILE[:60]}", "accuracy": i / 5000} for i in range(2000)]
    masks = {f"layer{i}": np.random.default_rng(i).random((64, 2048)) < 0.5 for i in range(30)}
    curve = [(float(i), float(i % 7)) for i in range(4_000)]
    classes = [f"{HOSTILE}{i}" for i in range(30)]
    found = Found(
        "big",
        many,
        [Curve(f"p{i}", "n", "step", curve) for i in range(80)],
        [MaskMap(f"t{i}", masks) for i in range(3)],
        [Confusion(f"c{i}", classes, np.ones((30, 30), int)) for i in range(40)],
        context={"config": {"x": "y" * 10**6}},
        notes=["n" * 10_000] * 500,
    )
    size = write_page(tmp_path / "page.html", found)
    assert 100_000 < size <= LARGEST == 2_000_000
    text = Elements((tmp_path / "page.html").read_text(encoding="utf-8")).text  # type: ignore[arg-type]
    assert "rows the first" in text and "are left out, to keep the page small" in text


def test_many_classes_show_the_mistakes_made_most_often():
    labels, answers = [0] * 5 + [1] * 9 + [2] * 3, [0] * 5 + [7] * 9 + [3] * 3
    found = Confusion.of("t", [f"class {i}" for i in range(40)], labels, answers)
    page = page_of(Found("t", confusions=[found]))
    rows = page.split("<tbody>")[1].split("</tbody>")[0].split("</tr>")
    assert [Elements(row).text for row in rows] == ["class 1class 79", "class 2class 33", ""]  # type: ignore[arg-type]
    assert "t: 5 of 17 as labelled" in Elements(page).text


def test_results_of_the_quickstart_and_of_experiments_are_read(tmp_path):
    write_results(tmp_path / "results.json", ROWS, run_context({"epochs": 3}, 7))
    found = found_in(tmp_path / "results.json")
    assert [row["method"] for row in found.rows] == [row.method for row in ROWS]
    assert found.context["config"] == {"epochs": 3}
    (tmp_path / "arms.json").write_text(json.dumps({"context": CONTEXT, "arms": [{"arm": "a", "accuracy": 0.5}]}))
    assert found_in(tmp_path / "arms.json").rows == [{"arm": "a", "accuracy": 0.5}]
    (tmp_path / "inspection.json").write_text(json.dumps(INSPECTION.to_json()))
    assert found_in(tmp_path / "inspection.json").health == INSPECTION


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.json", None, "report = '.*none.json': a results file"),
        ("a.txt", "[]", "a results file"),
        ("a.json", "{", "report = '.*a.json': JSON"),
        ("a.json", "[1]", "JSON with a list of results"),
        ("a.json", '{"rows": []}', "JSON with a list of results"),
        ("a.json", '{"layers": [1]}', "inspection = 'TypeError': what Inspection.to_json gave"),
        ("a.json", "[" * 100_000, "JSON"),
        ("folder/a", "", "results.json .*bank.json .*log.jsonl"),
    ],
)
def test_what_is_no_result_is_refused(name, content, message, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if content is not None:
        path.write_text(content)
    with pytest.raises((DataError, BankError), match=message):
        found_in(path.parent if name.startswith("folder") else path)


def test_values_of_a_file_that_no_number_has_are_left_out():
    row = {
        "a": float("nan"),
        "b": 10**400,
        "c": "x" * 1000,
        "d": {"e": 1.5, "f": "g"},
        "h": [1],
        "i": True,
        "accuracy": 1,
    }
    assert flat(row) == {"d e": 1.5, "i": True, "accuracy": 1}
    assert flat({"technology": "", "switch_joules": 0.0}) == {"technology": ""}
    assert flat({"technology": "t", "switch_joules": 0.0}) == {"technology": "t", "switch_joules": 0.0}
    assert flat({"mask_bits": 1, "norm_bits": 2, "head_bits": 3})["stored_bits"] == 6


def test_an_inspection_comes_back_from_its_json():
    assert Inspection.from_json(json.loads(json.dumps(INSPECTION.to_json()))) == INSPECTION


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12_500, "12.5k"),
        (3.2e-7, "320n"),
        (-1.5e6, "-1.5M"),
        (0.25, "0.25"),
        (1e-30, "1.00e-30"),
        (1e-6, "1µ"),
    ],
)
def test_numbers_in_few_letters(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("values", "log"), [([1, 1], False), ([0, 0], False), ([3, 50_000], True), ([1e-7, 2e-7], True), ([5], True)]
)
def test_an_axis_has_round_ticks_within(values, log):
    axis = axis_of(values, log)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 9 and all(axis.low <= tick <= axis.high for tick in ticks)
    assert all(0 < axis.share(value) < 1 for value in values)


def test_epochs_are_labelled_by_whole_numbers():
    assert axis_of([1, 2, 3]).ticks() == [1, 2, 3]
    assert axis_of([1, 2.5, 3]).ticks() == [1, 1.5, 2, 2.5, 3]


def test_a_front_is_what_no_other_beats():
    points = [Point(x, y, "n", i, "") for i, (x, y) in enumerate([(1, 1), (2, 3), (2, 2), (3, 3), (4, 5)])]
    assert [p.row for p in _front(points)] == [0, 1, 4]


def test_methods_have_the_colours_of_the_figures_and_shapes_where_those_repeat():
    found = marks(["xbm", "norm_only", *(f"m{i}" for i in range(12))])
    assert (found["xbm"].colour, found["norm_only"].colour) == ("k2", "k1")
    assert len(set(found.values())) == len(found)


def test_text_and_attributes_are_escaped_and_markup_is_not():
    assert (
        element("p", element("b", "<&>"), 'a"', title='"<') == '<p title="&quot;&lt;"><b>&lt;&amp;&gt;</b>a&quot;</p>'
    )
    assert element("input", hidden=True, value=None, data_v=0) == '<input hidden data-v="0">'
