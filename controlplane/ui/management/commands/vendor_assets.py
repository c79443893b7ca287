"""Copies what the browser needs and is not ours from node_modules to SLIPWAY_HOME/vendor (served as /static/vendor/).

Plotly puts a style element into the page, which our policy blocks: titles and cursors fall out of place. The
library skips that where a link `plotly.js-style-global` of class `no-inline-styles` stands, and leaves out its map
styles where an element with their id stands. So the rules are read out of the bundle into a sheet, and a small
module is written that puts both elements in place before it loads the bundle. The id of the map styles is a hash
that changes between versions; it is read as well, and a bundle without any of these marks is refused here instead
of breaking charts later.

Refused: committing third-party files, and running the bundle in a browser at set-up.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

FILES = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "htmx.LICENSE.txt": "htmx.org/LICENSE",
    "plotly-basic.min.js": "plotly.js-basic-dist-min/plotly-basic.min.js",
    "plotly.LICENSE.txt": "plotly.js-basic-dist-min/LICENSE",
}
_STRING = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_RULES = re.compile(r'\{"X,X div":(?:[^{}]|\{[^{}]*\})*?\};for\(')
_RULE = re.compile(rf"({_STRING}|[A-Za-z_$][\w$]*):({_STRING})")
_MAP_STYLES = re.compile(r'document\.getElementById\("([0-9a-f]{32,})"\)')
_PREFIXES = {"X": ".js-plotly-plot .plotly", "Y": ".plotly-notifier"}

LOADER = """/* Written by vendor_assets. Loads Plotly under a policy that allows no inline styles. */
let loading = null;

export function loadPlotly() {
  loading ??= new Promise((resolve, reject) => {
    const make = (tag, attributes) => Object.assign(document.createElement(tag), attributes);
    const beside = (name) => new URL(name, import.meta.url).href;
    const sheet = make("link", { id: "plotly.js-style-global", className: "no-inline-styles", rel: "stylesheet" });
    sheet.href = beside("plotly.css");
    const maps = make("meta", { id: %(map_styles_id)s });
    const script = make("script", { src: beside("plotly-basic.min.js") });
    script.onload = () => resolve(globalThis.Plotly);
    script.onerror = () => reject(new Error("The chart library cannot be loaded."));
    document.head.append(sheet, maps, script);
  });
  return loading;
}
"""


class UnknownBundle(ValueError):
    """The bundle lacks a mark that the strict policy depends on."""


@dataclass(frozen=True, kw_only=True)
class PlotlyStyles:
    """`sheet` holds the rules the library would have inserted; `map_styles_id` is the element it looks for."""

    sheet: str
    map_styles_id: str


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[:1] in "\"'" else text


def _selector(short: str) -> str:
    named = short.removeprefix(",")
    for letter, prefix in _PREFIXES.items():
        named = re.sub(rf"\b{letter}\b", prefix, named)
    return named


def _rules(bundle: str) -> Iterator[str]:
    found = _RULES.search(bundle)
    if found is None:
        raise UnknownBundle("The Plotly bundle holds its rules in another form than vendor_assets knows.")
    for selector, declarations in _RULE.findall(found.group()):
        yield f"{_selector(_unquoted(selector))} {{ {_unquoted(declarations)} }}"


def plotly_styles(bundle: str) -> PlotlyStyles:
    """Read from the minified bundle. The library inserts each rule at the top, so the order is reversed.

    Raises UnknownBundle.
    """
    map_styles = _MAP_STYLES.search(bundle)
    if map_styles is None or "no-inline-styles" not in bundle:
        raise UnknownBundle("The Plotly bundle lacks the marks by which it leaves out its inline styles.")
    rules = list(_rules(bundle))
    return PlotlyStyles(sheet="\n".join(reversed(rules)) + "\n", map_styles_id=map_styles.group(1))


def vendor(*, modules: Path, target: Path) -> list[Path]:
    """Writes the vendor folder anew, in a neighbour that then takes its place; returns the files.

    Raises FileNotFoundError where a package is not installed, and UnknownBundle.
    """
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, source in FILES.items():
        shutil.copyfile(modules / source, fresh / name)
    styles = plotly_styles((fresh / "plotly-basic.min.js").read_text(encoding="utf-8"))
    (fresh / "plotly.css").write_text(styles.sheet, encoding="utf-8")
    loader = LOADER % {"map_styles_id": json.dumps(styles.map_styles_id)}
    (fresh / "plotly-strict.js").write_text(loader, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return sorted(target.iterdir())


class Command(BaseCommand):
    help = "Copies htmx and Plotly from node_modules to SLIPWAY_HOME/vendor."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--modules", type=Path, default=Path(settings.BASE_DIR) / "node_modules")
        parser.add_argument("--target", type=Path, default=Path(settings.ENVIRONMENT.home) / "vendor")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            files = vendor(modules=options["modules"], target=options["target"])
        except FileNotFoundError as error:
            raise CommandError(f"{error.filename} is missing. Run `npm ci` first.") from error
        except UnknownBundle as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{len(files)} files in {options['target']}")
