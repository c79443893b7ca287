"""Which Chromium the tests drive, and how it is started."""

import shutil

CHROMIUM = next(
    (
        found
        for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
"""The one without a desktop first: it does the same in two thirds of the processor time."""
MISSING = "not run: no Chromium on PATH (Debian: chromium-headless-shell, or chromium)"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
