"""The documentation as a site: it builds without a warning, and its pages fetch nothing from elsewhere."""

from __future__ import annotations

import functools
import html.parser
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browser import browser
from fences import ROOT

pytestmark = pytest.mark.slow

__all__ = ["browser"]

# What a page loads by itself; links are for the reader to follow.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
LONGEST_MS = 120_000
"""Where a wait for a page gives up, which only a page that is broken lets come."""
LINKS_THAT_LOAD = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a strict build, and what it said."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return folder, result


@pytest.fixture(scope="module")
def site(built):
    folder, result = built
    if not (folder / "index.html").is_file():
        pytest.fail(result.stderr)
    return folder


@pytest.fixture(scope="module")
def address(site):
    """Where the site is served on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def pages_of(site):
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))


def test_the_site_builds_with_warnings_as_errors(built):
    _, result = built
    said = [line for line in result.stderr.splitlines() if line.startswith(("WARNING", "ERROR"))]
    assert (result.returncode, said) == (0, []), result.stderr


class Loads(html.parser.HTMLParser):
    """Collects the addresses that a page loads."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        address = given.get(LOADED.get(tag, ""))
        if address and (tag != "link" or LINKS_THAT_LOAD & set(given.get("rel", "").split())):
            self.found.append(address)


def test_no_page_asks_for_anything_from_elsewhere(site):
    found = {}
    for name in pages_of(site):
        loads = Loads()
        loads.feed((site / name).read_text(encoding="utf-8"))
        if away := [one for one in loads.found if "//" in one]:
            found[name] = away
    assert found == {}


def test_every_page_has_words_and_fits_a_phone_and_says_nothing_on_the_console(browser, site, address):
    context = browser.new_context(viewport={"width": 375, "height": 800})
    page, wrong, name = context.new_page(), [], ""
    page.on("console", lambda message: wrong.append(f"{name}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"{name}: {error}"))
    page.on(
        "request", lambda request: request.url.startswith(address) or wrong.append(f"{name}: {request.url}")
    )
    try:
        for name in pages_of(site):
            page.goto(address + name)
            width = page.evaluate("document.documentElement.scrollWidth")
            words = len(page.locator("article, .md-content").first.inner_text().split())
            if width > 375 or (words < 40 and name != "404.html"):
                wrong.append(f"{name}: {width} wide, {words} words")
    finally:
        context.close()
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1200])
def test_the_picture_of_the_data_flow_is_drawn_at_a_size_one_can_read(browser, address, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.goto(f"{address}concepts.html")
        shown = page.locator("img.flow").evaluate(
            "one => [one.naturalWidth, one.getBoundingClientRect().width]"
        )
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    finally:
        context.close()
    # Its letters are 14 units high of a width of 480.
    assert shown[0] > 0
    assert shown[1] * 14 / 480 > 9.5
    assert (sum(map(int, background.strip("rgb()").split(", "))) > 600) == (scheme == "light")


def test_a_search_for_a_recipe_key_finds_the_recipes_page(browser, address):
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    try:
        page = context.new_page()
        page.set_default_timeout(LONGEST_MS)
        page.goto(f"{address}index.html")
        query = page.locator("input.md-search__input")
        query.click()
        # What it says once its worker has read the index; on a busy machine that takes its time.
        page.locator(".md-search-result__meta", has_text="Type to start searching").wait_for()
        # As keys: the search looks at what stands there when one comes up, not when the text changes.
        query.press_sequentially("mask_learning_rate")
        first = page.locator("a.md-search-result__link").first
        first.wait_for()
        targets = page.locator("a.md-search-result__link").evaluate_all("all => all.map(one => one.href)")
    finally:
        context.close()
    assert any("/recipes.html" in target for target in targets)
