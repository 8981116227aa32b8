"""A real browser without a window, for pages that are one file."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """Chromium; where there is none the test is skipped, except in CI, where that is a failure."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has no browser ({', '.join(_NAMES)}); .ci/run installs chromium.")
        pytest.skip(f"no browser ({', '.join(_NAMES)}) on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox does not start for root, which is who runs the tests in a container.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def opened(browser, path, *, width=1200, scheme="light"):
    """The page of a file; leaving checks that it loaded nothing else and that the console stayed empty."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, said, requests = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    try:
        page.goto(path.as_uri())
        yield page
        assert said == []
        assert requests == [path.as_uri()]
    finally:
        context.close()
