"""A headless browser and the page in it."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from io import BytesIO
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-sync", "--disable-component-update"),
)
_PATIENCE = 30_000  # milliseconds


def browser_path():
    """Where a browser is that speaks Chromium's protocol; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def opened(url):
    """The page in a browser with an empty profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=list(_ARGUMENTS))
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 1100})
            page.set_default_timeout(_PATIENCE)
            yield Demo(page, url)
        finally:
            browser.close()


class Demo:
    """What one does on the page."""

    def __init__(self, page, url):
        self.page = page
        self.hosts, self.refused, self.failed = set(), [], []
        page.on("request", self._requested)
        page.on("response", self._answered)
        page.on("console", self._said)
        page.goto(url)
        self.says("is ready")

    def _requested(self, request):
        if request.url.split(":")[0] not in ("data", "blob"):
            self.hosts.add(urlsplit(request.url).hostname)

    def _answered(self, response):
        if response.status >= 400:
            self.failed.append((response.status, response.url))

    def _said(self, message):
        if "Content Security Policy" in message.text:
            self.refused.append(message.text)

    def says(self, text):
        """Wait until the status line says so; gives the line."""
        from playwright.sync_api import TimeoutError

        line = self.page.locator("#status .srt-status:not(.old)")
        found = line.filter(has_text=text)
        try:
            found.wait_for()
        except TimeoutError:
            pytest.fail(f"waited for {text!r}, the page says {line.all_inner_texts()}")
        return found.inner_text()

    def upload(self, path):
        """Give an image, instead of the one that is there."""
        if self.page.locator("#image [aria-label='Clear']").count():
            self.page.locator("#image [aria-label='Clear']").click()
            self.says("No image")
        self.page.locator("#image input[type=file]").set_input_files(str(path))

    def choose_model(self, name):
        self._pick("#model", name)
        self.says("is ready")

    def choose_layer(self, name):
        self._pick("#layer", name)

    def layers(self):
        self.page.locator("#layer input").click()
        options = self.page.locator("#layer [role=option]").all_inner_texts()
        self.page.keyboard.press("Escape")
        return [text.replace("✓", "").strip() for text in options]

    def _pick(self, where, name):
        self.page.locator(f"{where} input").click()
        self.page.locator(f"{where} [role=option]").filter(has_text=name).first.click()

    def views(self, kind, **numbers):
        """Choose views, with ``level``, ``per_axis`` or ``count``."""
        from playwright.sync_api import expect

        option = self.page.locator("#views").get_by_label(kind, exact=True)
        if not option.is_checked():
            option.click()
            shown = {"phases": "per_axis", "number": "count"}.get(kind, "level")
            self._field(shown).wait_for()
            # The page puts a level that goes with the kind, for patches of 16 pixels.
            expect(self._field("level")).to_have_value("3" if kind == "grid" else "8")
        for name, number in numbers.items():
            self._field(name).fill(str(number))
            self._field(name).press("Tab")

    def _field(self, name):
        return self.page.locator(f"#{name} input[type=number]")

    def hint(self, text):
        self.page.locator("#hint").filter(has_text=text).wait_for()

    def run(self):
        """Press Run and wait; gives the status line."""
        # A line that is replaced loses the mark.
        self.page.locator("#status .srt-status").evaluate("line => line.classList.add('old')")
        self.page.click("#run")
        return self.says("Done in ")

    def tab(self, name):
        self.page.get_by_role("tab", name=name).click()

    def picture(self, name):
        """A picture of the page as it was sent, ``(H, W, 3)`` uint8."""
        image = self.page.locator(f"#{name} img").first
        image.wait_for()
        return self.fetched(image.get_attribute("src"))

    def fetched(self, address):
        answer = self.page.request.get(address)
        assert answer.ok
        return np.asarray(Image.open(BytesIO(answer.body())).convert("RGB"))
