"""The page that shows every part: it renders without a database, under the policy, and only with DEBUG."""

import re

import pytest
from django.conf import settings
from django.test import Client, override_settings
from django.urls import NoReverseMatch, reverse

from controlplane.core.vocabulary import WORDS


@pytest.fixture
def page() -> str:
    with override_settings(ROOT_URLCONF="tests.controlplane.ui.urls_of_styleguide"):
        answer = Client().get("/styleguide/")
    assert answer.status_code == 200
    return answer.content.decode()


def test_it_does_not_exist_in_production() -> None:
    with pytest.raises(NoReverseMatch):
        reverse("ui:styleguide")


def test_every_word_of_the_product_is_shown(page: str) -> None:
    assert [word.label for word in WORDS.values() if f"<span>{word.label}</span>" not in page] == []


def test_ids_are_unique_because_a_refresh_finds_its_element_by_id(page: str) -> None:
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), sorted(one for one in set(ids) if ids.count(one) > 1)


def test_every_control_is_labelled_by_an_element_that_exists(page: str) -> None:
    ids = set(re.findall(r'\sid="([^"]+)"', page))
    referred = re.findall(r'\s(?:for|aria-labelledby|aria-describedby|popovertarget)="([^"]+)"', page)
    assert {one for names in referred for one in names.split()} - ids == set()


def test_it_is_served_under_the_strict_policy() -> None:
    with override_settings(ROOT_URLCONF="tests.controlplane.ui.urls_of_styleguide"):
        policy = Client().get("/styleguide/")["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert set(settings.SECURE_CSP) == {part.split()[0] for part in policy.split("; ")}
    assert "frame-ancestors 'none'" in policy
