"""What a strict policy would block, and what htmx 4 would silently ignore, is not in any template."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.template.loader import get_template

ROOT = Path(settings.BASE_DIR)
TEMPLATES = ROOT / "templates"
STATIC = ROOT / "controlplane/ui/static/ui"
_COMMENT = re.compile(r"\{% comment.*?%\}.*?\{% endcomment %\}|\{#.*?#\}", re.DOTALL)

RULES = {
    "a style attribute": re.compile(r"""\sstyle\s*=\s*["']"""),
    "an inline sheet": re.compile(r"<style\b"),
    "an inline handler": re.compile(r"""\son[a-z]+\s*=\s*["']"""),
    "an inline script": re.compile(r"<script\b(?![^>]*\bsrc=)(?![^>]*type=\"application/json\")"),
    "a javascript address": re.compile(r"javascript:"),
    "something from elsewhere": re.compile(
        r"""(?:src|href)=["'](?:https?:)?//(?!127\.0\.0\.1)[^"']*\.(?:js|css)"""
    ),
    "code for htmx to evaluate": re.compile(r"""\bhx-on\b|hx-vals=["']js:|hx-trigger=["'][^"']*\["""),
    "an attribute htmx 4 has not": re.compile(
        r"\bhx-(?:ext|vars|params|prompt|disinherit|inherit|request|history|disabled-elt|swap-oob-)\b(?!:)"
    ),
    "a swap that drops focus": re.compile(r"""<(?![^>]*hx-trigger="load")[^>]*hx-swap=["']outerHTML"""),
    "an event name of htmx 2": re.compile(r"htmx:(?:before|after|config|response|send|swap|load)[A-Z]"),
    "a secure flag left to be marked": re.compile(r"\|safe\b(?<!help_text\|safe)"),
}


DOWNLOADED = {TEMPLATES / "registry/report_file.html"}
"""Read from a disk, where no policy holds and no address answers: its sheet must be inside."""


def templates() -> Iterator[Path]:
    return TEMPLATES.rglob("*.html")


def offences(text: str) -> dict[str, list[str]]:
    bare = _COMMENT.sub("", text)
    return {name: found for name, rule in RULES.items() if (found := rule.findall(bare))}


@pytest.mark.parametrize("path", sorted(templates()), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_template_keeps_to_the_policy(path: Path) -> None:
    allowed = {"an inline sheet"} if path in DOWNLOADED else set()
    assert offences(path.read_text()).keys() <= allowed


@pytest.mark.parametrize("path", sorted(DOWNLOADED), ids=lambda path: path.name)
def test_a_file_that_is_kept_fetches_nothing(path: Path) -> None:
    assert not re.findall(
        r"""(?:src|href|action)\s*=|url\(|@import|\{% (?:icon|static|url)""", path.read_text()
    )


@pytest.mark.parametrize("path", sorted(templates()), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_template_compiles(path: Path) -> None:
    get_template(str(path.relative_to(TEMPLATES)))


@pytest.mark.parametrize(
    "text",
    [
        '<p style="color: red">',
        "<style>p{}</style>",
        '<button onclick="go()">',
        "<script>go()</script>",
        '<script src="https://cdn.example/x.js"></script>',
        '<div hx-ext="sse">',
        '<div hx-disabled-elt="this">',
        '<div hx-on:click="go()">',
        '<div hx-get="/rows/" hx-swap="outerHTML">',
        "{{ name|safe }}",
    ],
)
def test_the_lint_finds_what_it_looks_for(text: str) -> None:
    assert offences(text)


def test_scripts_speak_the_names_of_htmx_4() -> None:
    for path in (STATIC / "js").glob("*.js"):
        assert not RULES["an event name of htmx 2"].findall(path.read_text()), path.name


def test_scripts_evaluate_nothing_and_write_no_markup() -> None:
    rule = re.compile(r"\beval\(|new Function\(|\.innerHTML\s*=|insertAdjacentHTML|document\.write")
    for path in (STATIC / "js").glob("*.js"):
        assert not rule.findall(path.read_text()), path.name


def test_every_icon_that_is_named_exists() -> None:
    sheet = (STATIC / "icons.svg").read_text()
    drawn = set(re.findall(r'<symbol id="([\w-]+)"', sheet))
    named = {
        name
        for path in templates()
        for name in re.findall(r"""\{% icon ["']([\w-]+)["']|icon=["']([\w-]+)["']""", path.read_text())
        for name in name
        if name
    }
    assert named - drawn == set()
    assert "<style" not in sheet
    assert "style=" not in sheet


def test_the_first_page_is_light() -> None:
    """Under 150 kB gzipped without charts (INTERFACE.md 46): sheets, scripts, htmx, icons."""
    import gzip

    files = [*STATIC.glob("css/*.css"), *STATIC.glob("js/*.js"), STATIC / "icons.svg"]
    ours = sum(len(gzip.compress(path.read_bytes())) for path in files)
    htmx = 15_000
    assert ours + htmx < 100_000
