"""The status page in a real Chromium: nothing refused, nothing cut off, and readable in the dark."""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import sync_playwright
from prometheus_client import CollectorRegistry

from scpln_backup.config.schema import Locale
from scpln_backup.service.site import Site
from scpln_backup.service.web import WebServer
from support import page_views as views

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

SWITCHES = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
WIDTHS = (320, 360, 768, 1280)
SCHEMES = ("light", "dark")
STATES = [pytest.param(make, id=name) for name, make in views.STATES.items()]

# Of each piece of text: what it says, and the contrast (WCAG 2.2) of its colour with what is drawn behind it.
CONTRASTS = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([red, green, blue]) => [red, green, blue]
    .map(value => value / 255)
    .map(share => share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4)
    .reduce((sum, share, place) => sum + share * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest("title, .sprite") || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const ink = numbers(element.closest("svg") ? style.fill : style.color);
    const [bright, dim] = [luminance(ink), luminance(behind(element))].sort((one, other) => other - one);
    found.push([node.data.trim(), (bright + 0.05) / (dim + 0.05)]);
  }
  return found;
}"""

# Everything in a chart that is drawn, against the box of its chart, in pixels.
STICKS_OUT = """() => [...document.querySelectorAll("svg.chart")].flatMap(chart => {
  const box = chart.getBoundingClientRect();
  return [...chart.querySelectorAll("rect, use, text")].filter(part => {
    const at = part.getBoundingClientRect();
    const slack = part.tagName === "text" ? 6 : 0.5;
    return at.left < box.left - slack || at.right > box.right + slack
      || at.top < box.top - 0.5 || at.bottom > box.bottom + 0.5;
  }).map(part => part.outerHTML);
})"""

# How far the mark that is farthest off is from the middle of its column, in pixels.
OFF_CENTRE = """() => Math.max(...[...document.querySelectorAll("svg.chart g")].flatMap(column => {
  const middle = box => (box.left + box.right) / 2;
  const of = middle(column.querySelector(".hit").getBoundingClientRect());
  return [...column.querySelectorAll("use, .bar")].map(part => Math.abs(middle(part.getBoundingClientRect()) - of));
}))"""


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


class Shown:
    """What the server shows; tests change it."""

    def __init__(self):
        self.page = views.healthy()

    def view(self):
        return self.page

    def status(self):
        return self.page.recorded.status


@pytest.fixture(scope="module")
def served():
    shown = Shown()
    site = Site(status=shown.status, view=shown.view, registry=CollectorRegistry())
    server = WebServer(site, host="127.0.0.1", port=0, max_connections=64)
    server.start()
    shown.url = server.url
    yield shown
    server.stop()


@pytest.fixture
def open_page(chromium, served):
    """Opens the page of a view; at the end Chromium may have had nothing to complain of."""
    opened, complaints = [], []

    def open_it(view, *, width=1280, locale="en", expected=200):
        served.page = view
        context = chromium.new_context(viewport={"width": width, "height": 800}, locale=locale)
        opened.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        assert page.goto(served.url).status == expected
        # An unreadable catalog is a 503, of which Chromium tells the console.
        complaints[:] = [told for told in complaints if "status of 503" not in told or expected != 503]
        return page

    yield open_it
    for context in opened:
        context.close()
    assert complaints == []


def status_of(make):
    return 503 if make is views.unreadable else 200


@pytest.mark.parametrize("make", STATES)
@pytest.mark.parametrize("locale", Locale)
def test_nothing_is_cut_off_or_refused_at_any_width(open_page, make, locale):
    page = open_page(make(), locale=locale, expected=status_of(make))
    assert page.evaluate("document.documentElement.lang") == locale
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(STICKS_OUT) == []
        assert page.evaluate(OFF_CENTRE) < 1


@pytest.mark.parametrize("make", STATES)
def test_all_text_can_be_read_by_day_and_by_night(open_page, make):
    page = open_page(make(), expected=status_of(make))
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 10
        assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []


def test_the_style_is_in_force_and_follows_the_scheme(open_page):
    page = open_page(views.healthy())
    for scheme, ground in zip(SCHEMES, ("rgb(244, 245, 247)", "rgb(18, 21, 25)"), strict=True):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground


def test_figures_stand_in_columns(open_page):
    page = open_page(views.healthy())
    assert "tabular-nums" in page.evaluate("getComputedStyle(document.querySelector('td')).fontVariantNumeric")
    rights = page.locator(".runs tbody td.number:nth-child(5)").evaluate_all(
        "cells => cells.map(cell => Math.round(cell.getBoundingClientRect().right))"
    )
    assert len(rights) == 14
    assert len(set(rights)) == 1


def test_a_day_can_be_looked_up_without_a_mouse(open_page):
    page = open_page(views.warning(), width=360)
    assert not page.locator(".days").is_visible()
    page.get_by_text("Day by day").press("Enter")
    assert page.locator(".days").is_visible()
    assert page.locator(".days tr").filter(has_text="11-10").inner_text().split() == [
        "11-10", "success", "failed", "110", "MiB", "19", "s",
    ]  # fmt: skip


def test_the_charts_and_the_progress_are_there_for_a_screen_reader(open_page):
    page = open_page(views.warning())
    assert page.get_by_role("img").count() == 3
    assert page.get_by_role("img", name="Outcomes of the runs from 2026-10-24 to 2026-11-22").count() == 1
    assert page.get_by_role("progressbar", name="Backup under way").get_attribute("value") == "42"
    assert page.get_by_role("heading", level=1).inner_text() == "scpln"


def test_what_the_policy_does_not_name_is_refused_and_complained_of(chromium, served):
    """So the tests above would notice."""
    served.page = views.healthy()
    page = chromium.new_page()
    page.goto(served.url)
    with page.expect_console_message() as told:
        page.evaluate("document.body.setAttribute('style', 'color: red')")
    assert "Content Security Policy" in told.value.text
    assert page.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
    page.close()
