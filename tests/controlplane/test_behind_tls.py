"""Where TLS ends at a proxy, what a browser sends from an https page is believed, and only then."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings

ASKED = """
import json
import django
django.setup()
from django.conf import settings
from django.middleware.csrf import CsrfViewMiddleware
from django.test import RequestFactory
form = RequestFactory().post("/", HTTP_HOST="slipway.example.com", HTTP_ORIGIN="{origin}")
believed = CsrfViewMiddleware(lambda request: None)._origin_verified(form)
print(json.dumps([believed, settings.SESSION_COOKIE_SECURE, settings.CSRF_COOKIE_SECURE]))
"""


def told(origin: str, **environment: str) -> Any:
    """Whether a form from that origin is believed, and which cookies are for https alone, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-c", ASKED.format(origin=origin)],
        env=os.environ
        | {"DJANGO_SETTINGS_MODULE": "controlplane.settings", "SLIPWAY_HOSTS": "slipway.example.com"}
        | environment,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout)


@pytest.mark.parametrize(
    ("origin", "tls", "believed"),
    [
        ("https://slipway.example.com", "true", True),
        ("https://slipway.example.com", "false", False),
        ("https://elsewhere.example.com", "true", False),
    ],
)
def test_a_form_of_an_https_page_is_believed_where_the_installation_is_asked_by_https(
    origin: str, tls: str, believed: bool
) -> None:
    secure = tls == "true"
    assert told(origin, SLIPWAY_TLS=tls) == [believed, secure, secure]
