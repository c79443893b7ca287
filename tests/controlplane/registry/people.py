"""Callers of the API and readers of pages, and what the storage holds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.storage import storages
from django.test import Client

from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from tests import factories


@dataclass(frozen=True, kw_only=True)
class Person:
    """One actor, with a token for the API and a session for the pages."""

    actor: Actor
    token: str
    browser: Client

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """`body` as JSON, or bytes as they are."""
        raw = isinstance(body, bytes)
        return Client().generic(
            method,
            f"/api/v1/{path}",
            body if raw else b"" if body is None else json.dumps(body),
            content_type="application/octet-stream" if raw else "application/json",
            headers={"Authorization": f"Bearer {self.token}", **headers},
        )


def person(actor: Actor) -> Person:
    assert actor.user is not None
    browser = Client()
    browser.force_login(actor.user)
    return Person(actor=actor, token=factories.token(actor), browser=browser)


def three() -> tuple[Person, Person, Person]:
    """An engineer, a viewer of the same team, and the admin of another team."""
    team = factories.team()
    return (
        person(factories.member(team)),
        person(factories.member(team, role=Role.VIEWER)),
        person(factories.member(factories.team(), role=Role.ADMIN)),
    )


def admin(of: Person) -> Person:
    return person(factories.member(of.actor.team, role=Role.ADMIN))


def artifacts_root() -> Path:
    return Path(storages["artifacts"].path(""))


def stored(sha256: str) -> Path:
    return artifacts_root() / "sha256" / sha256[:2] / sha256[2:]


def coming_in() -> list[str]:
    """Temporary files of uploads, of both kinds."""
    folders = (artifacts_root() / "incoming", Path(settings.FILE_UPLOAD_TEMP_DIR))
    return [file.name for folder in folders if folder.is_dir() for file in folder.iterdir()]


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json().get("code", "")
