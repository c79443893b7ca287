"""Third-party files reach the browser, and charts keep their shape under the strict policy."""

import json
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from controlplane.ui.management.commands import vendor_assets
from controlplane.ui.management.commands.vendor_assets import UnknownBundle, plotly_styles, vendor

HASH = "9f215cf04c5486422605d13261cb87401f4e7763b6296af81e98efbc0130da53"
RULES = (
    """{"X,X div":'font-family:"Open Sans",sans-serif;',"X a:hover":"color:#444;","""
    """Y:"top:50px;","Y p":"margin:0;"}"""
)
BUNDLE = (
    f'(function(){{if(!document.getElementById("{HASH}"))add()}})();'
    'if(n&&n.matches(".no-inline-styles"))return;'
    f"var pM={RULES};for(k in pM)addStyleRule(k,pM[k]);"
)


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    folder = tmp_path / "node_modules"
    for source in vendor_assets.FILES.values():
        (folder / source).parent.mkdir(parents=True, exist_ok=True)
        (folder / source).write_text(f"// {source}")
    (folder / vendor_assets.FILES["plotly-basic.min.js"]).write_text(BUNDLE)
    return folder


def test_the_rules_of_the_bundle_become_a_sheet_in_the_order_the_library_would_give_them() -> None:
    styles = plotly_styles(BUNDLE)
    assert styles.sheet.splitlines() == [
        ".plotly-notifier p { margin:0; }",
        ".plotly-notifier { top:50px; }",
        ".js-plotly-plot .plotly a:hover { color:#444; }",
        '.js-plotly-plot .plotly,.js-plotly-plot .plotly div { font-family:"Open Sans",sans-serif; }',
    ]


def test_the_id_of_the_map_styles_is_read_from_the_bundle() -> None:
    other = "0" * 64
    assert plotly_styles(BUNDLE.replace(HASH, other)).map_styles_id == other


@pytest.mark.parametrize("mark", ["no-inline-styles", HASH, '"X,X div"'])
def test_a_bundle_without_the_marks_is_refused_at_set_up(mark: str) -> None:
    with pytest.raises(UnknownBundle):
        plotly_styles(BUNDLE.replace(mark, "gone"))


def test_the_vendor_folder_is_replaced_as_a_whole(modules: Path, tmp_path: Path) -> None:
    target = tmp_path / "vendor"
    target.mkdir()
    (target / "of-last-year.js").write_text("old")
    written = {path.name for path in vendor(modules=modules, target=target)}
    assert written == {*vendor_assets.FILES, "plotly.css", "plotly-strict.js"}
    assert f'id: "{HASH}"' in (target / "plotly-strict.js").read_text()


def test_a_refused_bundle_leaves_the_old_folder_alone(modules: Path, tmp_path: Path) -> None:
    target = tmp_path / "vendor"
    vendor(modules=modules, target=target)
    (modules / vendor_assets.FILES["plotly-basic.min.js"]).write_text("another library")
    with pytest.raises(CommandError, match="lacks the marks"):
        call_command("vendor_assets", modules=modules, target=target)
    assert (target / "plotly-strict.js").exists()


def test_missing_packages_are_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="npm ci"):
        call_command("vendor_assets", modules=tmp_path, target=tmp_path / "vendor")


@pytest.mark.skipif(
    not (Path(settings.BASE_DIR) / "node_modules").is_dir(), reason="not run: packages not installed (npm ci)"
)
def test_the_pinned_bundle_is_understood() -> None:
    bundle = Path(settings.BASE_DIR) / "node_modules" / vendor_assets.FILES["plotly-basic.min.js"]
    styles = plotly_styles(bundle.read_text(encoding="utf-8"))
    assert ".js-plotly-plot .plotly .main-svg { position:absolute;" in styles.sheet
    assert not re.search(r"\b[XY] ", styles.sheet)
    assert len(styles.sheet.splitlines()) > 50


def test_the_lock_names_no_registry_and_pins_exactly() -> None:
    root = Path(settings.BASE_DIR)
    lock = (root / "package-lock.json").read_text()
    assert "://" not in lock
    assert '"resolved"' not in lock
    wanted = json.loads((root / "package.json").read_text())
    versions = [*wanted["dependencies"].values(), *wanted["devDependencies"].values()]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions)
