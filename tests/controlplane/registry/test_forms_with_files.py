"""A file is read from who may send one, and from nobody else: not one byte of it reaches the disk before that."""

import io
from typing import Any

import pytest
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.test import Client

from controlplane.registry.models import Version
from tests import factories
from tests.controlplane.registry.people import Person, code

type Spooled = list[str]


@pytest.fixture
def spooled(monkeypatch: pytest.MonkeyPatch) -> Spooled:
    """The names of files that Django began to write."""
    names: Spooled = []
    begin = TemporaryFileUploadHandler.new_file

    def noted(self: Any, field: str, name: str, *args: Any, **kwargs: Any) -> None:
        names.append(name)
        begin(self, field, name, *args, **kwargs)

    monkeypatch.setattr(TemporaryFileUploadHandler, "new_file", noted)
    return names


def strict(person: Person | None) -> Client:
    """A browser whose forms need their CSRF token, logged in if it is somebody's."""
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    client.cookies["csrftoken"] = "x" * 32
    if person is not None and person.actor.user is not None:
        client.force_login(person.actor.user)
    return client


def sent(client: Client, path: str, body: bytes = b"x", *, token: bool = True, **headers: str) -> Any:
    named = io.BytesIO(body)
    named.name = "model.onnx"
    fields: dict[str, Any] = {"name": "fraud", "file": named}
    if token:
        fields["csrfmiddlewaretoken"] = "x" * 32
    return client.post(path, fields, headers=headers)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/account/login/", 400), ("/models/new/", 302), ("/settings/tokens/", 400), ("/x/", 404)],
)
def test_nobody_fills_the_disk_with_a_csrf_cookie_of_their_own(
    db: None, spooled: Spooled, path: str, status: int
) -> None:
    assert sent(strict(None), path).status_code == status
    assert not spooled


def test_a_viewers_file_is_refused_unread_on_every_way(three: Any, spooled: Spooled) -> None:
    owner, viewer, _ = three
    model = factories.model(owner.actor.team)
    for path in (
        "/models/new/",
        f"/models/{model.name}/versions/new/",
        f"/models/{model.name}/datasets/new/",
    ):
        assert sent(strict(viewer), path).status_code == 403, path
    assert sent(strict(viewer), "/settings/tokens/").status_code == 400
    address = f"/api/v1/models/{model.name}/versions/"
    by_token = sent(Client(), address, Authorization=f"Bearer {viewer.token}")
    by_session = sent(strict(viewer), address, **{"X-CSRFToken": "x" * 32})
    assert code(by_token) == code(by_session) == (403, "role_too_low")
    assert not spooled


def test_an_engineer_needs_the_csrf_token_on_pages_and_in_the_apis_header(
    three: Any, spooled: Spooled, onnx: Any
) -> None:
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    page, address = f"/models/{model.name}/versions/new/", f"/api/v1/models/{model.name}/versions/"
    refused = sent(strict(owner), page, onnx(), token=False)
    assert refused.status_code == 403
    assert "could not be verified" in refused.content.decode()
    spooled.clear()
    assert sent(strict(owner), address, onnx()).status_code == 403
    assert not spooled
    assert not Version.objects.exists()
    assert sent(strict(owner), page, onnx()).status_code == 302
    assert sent(strict(owner), address, onnx(1), **{"X-CSRFToken": "x" * 32}).status_code == 201
    assert Version.objects.count() == 2
