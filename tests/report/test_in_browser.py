"""The page in a browser: it sorts, filters and answers pointer and keyboard, and nothing but its own script runs."""

from __future__ import annotations

import pytest

from report.browser import Browser
from report.pages import HOSTILE, whole
from xbm_jax.report.web.markup import Markup, document
from xbm_jax.report.web.page import page_of

pytestmark = pytest.mark.slow

ROWS = "[...document.querySelectorAll('#results tbody tr')]"
SHOWN = f"{ROWS}.filter(r => r.offsetParent).map(r => r.dataset.row).join()"
TIP = "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser, tmp_path):
    """The page of one of everything, with a hostile name wherever a name can stand; it has to leave no complaint."""
    browser.errors.clear()
    path = tmp_path / "page.html"
    path.write_text(page_of(whole(HOSTILE)), encoding="utf-8")
    browser.open(path)
    yield browser
    assert browser.errors == []


def type_into(browser, selector: str, value: str) -> None:
    browser.run(
        f"(f => {{ f.value = {value!r}; f.dispatchEvent(new Event('input')); }})(document.querySelector({selector!r}))"
    )


def test_headings_sort_both_ways_by_number_and_by_word(page):
    press = "[...document.querySelectorAll('#results th button')].find(b => b.textContent === {!r})"
    order = f"{ROWS}.map(r => r.dataset.row).join()"
    assert page.run(order) == "0,1,2"
    for heading, up, down in (("accuracy %", "0,2,1", "1,2,0"), ("method", "0,1,2", "1,2,0")):
        for wanted, way in ((up, "ascending"), (down, "descending")):
            page.run(press.format(heading) + ".click()")
            assert page.run(order) == wanted
            assert page.run(press.format(heading) + ".closest('th').ariaSort") == way
            assert page.run("document.querySelectorAll('#results th[aria-sort]').length") == 1


def test_filters_take_rows_and_their_points(page):
    points = "[...document.querySelectorAll('.pt[data-row]')].filter(p => getComputedStyle(p).display !== 'none')"
    assert page.run(SHOWN) == "0,1,2" and page.run(f"{points}.length") == 3 * page.run(
        "document.querySelectorAll('#s1 h3').length"
    )
    type_into(page, "#filter", "XBM quick")
    assert page.run(SHOWN) == "2"
    assert page.run(f"[...new Set({points}.map(p => p.dataset.row))].join()") == "2"
    assert page.run("document.getElementById('shown').textContent") == "1 of 3 rows"
    page.run("document.getElementById('reset').click()")
    assert page.run(SHOWN) == "0,1,2"
    type_into(page, "select[data-column='1']", "head_only")
    assert page.run(SHOWN) == "0"


def test_a_point_and_a_map_say_what_they_are_to_pointer_and_keyboard(page):
    page.move_to(".pt[data-row='1']")
    assert page.run(TIP).splitlines()[1].startswith("84.7 %")
    page.move_to("h1")
    assert page.run(TIP) == ""
    page.move_to(".maps img")
    assert "3 row tiles of 8 columns" in page.run(TIP)
    page.run("document.querySelector(\".pt[data-row='0']\").focus()")
    page.settle()
    assert "head_only" in page.run(TIP)
    page.press("Escape")
    assert page.run(TIP) == ""


def test_every_control_is_reached_by_the_tabulator_key(page):
    page.run("document.activeElement.blur()")
    seen = []
    for _ in range(60):
        page.press("Tab")
        seen.append(page.run("document.activeElement.tagName + (document.activeElement.id || '')"))
    assert seen[0] == "A" and {"INPUTfilter", "BUTTON", "BUTTONreset", "SELECT", "path"} <= set(seen)


def test_a_narrow_page_does_not_scroll_sideways_and_a_dark_one_is_dark(page, tmp_path):
    path = tmp_path / "page.html"
    for width, dark in ((390, False), (390, True), (1280, True)):
        page.open(path, width, dark)
        assert page.run("document.documentElement.scrollWidth") <= width
        light = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert light != dark


def test_what_a_name_would_run_if_it_were_markup_is_stopped_by_the_policy(browser, tmp_path):
    """The second wall, tried without the first: the same name, unescaped."""
    browser.errors.clear()
    path = tmp_path / "open.html"
    path.write_text(
        document("t", Markup("<script>document.title = 'ran'</script><img src='x:y' onerror='document.title = 2'>"))
    )
    browser.open(path)
    assert browser.run("document.title") == "t"
    assert len([e for e in browser.errors if "Content Security Policy" in e.get("text", "")]) >= 2
