"""Text and controls can be read in both themes: every pair of tokens that meet is computed (WCAG 2.2 AA)."""

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
from django.conf import settings

TOKENS = Path(settings.BASE_DIR) / "controlplane/ui/static/ui/css/tokens.css"
_PAIR = re.compile(
    r"--(?P<name>[\w-]+): light-dark\(oklch\((?P<light>[\d. ]+)\), oklch\((?P<dark>[\d. ]+)\)\);"
)
TONES = ("ok", "progressing", "warning", "failed", "paused", "unknown")
SURFACES = ("surface", "surface-frame", "surface-raised", "fill-1", "fill-2")

TEXT = [
    *((text, surface) for text in ("text-strong", "text", "text-muted") for surface in SURFACES),
    *(
        (tone, surface)
        for tone in TONES
        for surface in ("surface", "surface-raised", "fill-1", f"{tone}-soft")
    ),
    *((text, f"{tone}-soft") for tone in TONES for text in ("text", "text-strong", "accent")),
    *(("accent", surface) for surface in (*SURFACES, "accent-soft")),
    *(
        ("on-accent", fill)
        for fill in ("accent-fill", "accent-fill-hover", "failed-fill", "failed-fill-hover")
    ),
    ("text-strong", "fill-3"),
    ("text-muted", "accent-soft"),
    ("text-muted", "failed-soft"),
    ("chart-axis", "surface"),
]
MARKS = [
    *((line, "surface") for line in ("line-control", "focus", "chart-mark", "chart-p95", "chart-p99")),
    *((f"chart-{number}", "surface") for number in (1, 2, 3, 4)),
    *(("focus", surface) for surface in SURFACES),
]


def _tokens(theme: str) -> dict[str, tuple[float, float, float]]:
    return {
        found["name"]: tuple(float(part) for part in found[theme].split())  # type: ignore[misc]
        for found in _PAIR.finditer(TOKENS.read_text())
    }


def _linear_rgb(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """OKLCH to linear sRGB, clipped to what a screen shows. Source: Ottosson, A perceptual color space."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    return tuple(min(1.0, max(0.0, part)) for part in (red, green, blue))  # type: ignore[return-value]


def _luminance(color: tuple[float, float, float]) -> float:
    red, green, blue = _linear_rgb(*color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: tuple[float, float, float], second: tuple[float, float, float]) -> float:
    dark, light = sorted((_luminance(first), _luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_black_on_white_is_the_most_there_is() -> None:
    assert contrast((0, 0, 0), (1, 0, 0)) == pytest.approx(21, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_four_and_a_half_to_one(theme: str) -> None:
    tokens = _tokens(theme)
    poor = {pair: round(contrast(tokens[pair[0]], tokens[pair[1]]), 2) for pair in TEXT}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_controls_focus_and_lines_have_three_to_one(theme: str) -> None:
    tokens = _tokens(theme)
    poor = {pair: round(contrast(tokens[pair[0]], tokens[pair[1]]), 2) for pair in MARKS}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 3} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_percentiles_are_one_hue_in_even_steps(theme: str) -> None:
    tokens = _tokens(theme)
    lightness = [tokens[f"chart-{name}"][0] for name in ("p50", "p95", "p99")]
    assert len({tokens[f"chart-{name}"][2] for name in ("p50", "p95", "p99")}) == 1
    steps = [abs(after - before) for before, after in pairwise(lightness)]
    assert min(steps) >= 0.13
