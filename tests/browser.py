"""A headless Chromium for tests of pages, and what they look like there."""

import shutil

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
HEADLESS = ["--headless", "--no-sandbox", "--disable-gpu"]
