"""The OpenAPI document says what the API does: complete, valid, and true of every answer."""

import json
from typing import Any

import jsonschema
import pytest
from django.core.management import call_command
from django.test import Client

from controlplane.api import contract
from tests.api.answers import complaints
from tests.api.routes import PAGES, ROOT, operations, resolved, routes
from tests.api.world import JSON, World

COMMON = {"400", "401", "404", "406", "411", "415", "503"}


def test_it_is_made_without_a_warning_and_is_valid_openapi(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json")
    assert json.loads(capsys.readouterr().out)["openapi"].startswith("3.1")


def test_it_names_every_route_and_method_and_no_other() -> None:
    told = {(path, method.upper()) for path, item in contract()["paths"].items() for method in item}
    there = {
        (route.template, method) for route in routes() if route.name != "schema" for method in route.methods
    }
    assert told == there
    assert {"docs"} == PAGES


def test_every_operation_can_be_read_by_a_person() -> None:
    seen: set[str] = set()
    for operation in operations():
        document = operation.document
        assert document.get("summary"), operation
        assert len(document["summary"]) < 120, operation
        assert "Slipway" not in document["operationId"], operation
        assert document["operationId"] not in seen, operation
        seen.add(document["operationId"])
        assert len(document["tags"]) == 1, operation
    assert {operation.document["tags"][0] for operation in operations()} == {
        "Accounts",
        "Registry",
        "Optimizer",
        "Deployments",
    }


def test_every_operation_has_its_own_words() -> None:
    """A method without a docstring would borrow those of its class or base."""
    from django.urls import resolve

    for operation in operations():
        view = resolve(operation.route.template.format_map(_Anything())).func.view_class  # type: ignore[attr-defined]
        assert vars(view)[operation.method.lower()].__doc__, operation


class _Anything(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "1"


def test_every_answer_has_a_shape() -> None:
    """No bare object, and every refusal is a problem document."""
    for operation in operations():
        responses = operation.document["responses"]
        assert responses.keys() >= COMMON, operation
        for status, response in responses.items():
            assert response["description"], (str(operation), status)
            for media_type, content in response.get("content", {}).items():
                if status >= "400":
                    assert media_type == "application/problem+json"
                    assert content["schema"]["$ref"].endswith("/Problem")
                elif media_type == JSON:
                    assert "$ref" in content["schema"], (str(operation), status)
                    assert resolved(content["schema"])["properties"], (str(operation), status)


def test_every_object_says_whether_more_fields_may_come() -> None:
    """Only a problem may carry more than is named, and what is free-form is said to be."""
    for name, schema in contract()["components"]["schemas"].items():
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is (name == "Problem"), name


def test_every_operation_wants_a_token_or_a_session() -> None:
    schemes = contract()["components"]["securitySchemes"]
    assert (schemes["Token"]["type"], schemes["Token"]["scheme"]) == ("http", "bearer")
    for operation in operations():
        assert {"Token": []} in operation.document["security"], operation
        assert {} not in operation.document["security"], operation


def test_no_word_of_the_server_is_in_the_contract() -> None:
    text = json.dumps(contract())
    assert not [word for word in ("Traceback", "serializer", "queryset", "django") if word in text.lower()]


def _validator(schema: Any) -> jsonschema.Draft202012Validator:
    whole = {**schema, "components": contract()["components"]}
    return jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker())


def test_what_is_answered_is_what_is_promised(world: World) -> None:
    """Each operation, asked well by an admin: its status and its document are in the contract, to the field."""
    from django.db import transaction

    with complaints() as wrong:
        for operation in operations():
            with transaction.atomic():
                response = world.admin.ask(operation.method, world.path(operation), **world.good(operation))
                transaction.set_rollback(True)
            told = operation.document["responses"].get(str(response.status_code))
            if told is None:
                wrong.say(operation, f"{response.status_code} is not promised")
                continue
            content = told.get("content", {})
            kind = response.headers.get("Content-Type", "")
            if response.status_code == 204:
                if content or response.content:
                    wrong.say(operation, "204 with a body")
            elif kind not in content:
                wrong.say(operation, f"{response.status_code} is {kind}, not {sorted(content)}")
            elif "json" in kind:
                for error in _validator(content[kind]["schema"]).iter_errors(response.json()):
                    wrong.say(operation, f"{error.json_path}: {error.message[:200]}")


def test_the_good_requests_are_good_by_the_contract(world: World) -> None:
    """Who follows the contract is understood."""
    for operation in operations():
        if operation.takes_json:
            schema = operation.document["requestBody"]["content"][JSON]["schema"]
            _validator(schema).validate(world.good(operation)["body"])


def test_the_document_is_served_to_who_is_logged_in_and_to_nobody_else(world: World) -> None:
    response = world.viewer.ask("GET", f"{ROOT}schema/")
    assert (response.status_code, response["Content-Type"]) == (200, JSON)
    assert response.json() == json.loads(json.dumps(contract()))
    assert Client().get(f"{ROOT}schema/").status_code == 401


@pytest.mark.parametrize("query", ["version=9", "version=a%0d%0aX:%20y", "lang=x", "format=yaml", "format="])
def test_no_query_changes_the_document(world: World, query: str) -> None:
    response = world.viewer.ask("GET", f"{ROOT}schema/", QUERY_STRING=query)
    assert response.status_code == 200
    assert response.json()["info"]["version"] == "1"
    assert "X" not in response.headers


def test_the_page_to_read_it_asks_for_a_login_and_runs_under_the_policy(world: World) -> None:
    assert Client().get(f"{ROOT}docs/").status_code == 302
    browser = Client()
    assert world.viewer.actor.user is not None
    browser.force_login(world.viewer.actor.user)
    response = browser.get(f"{ROOT}docs/")
    assert response.status_code == 200
    page = response.content.decode()
    policy = response["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "<style" not in page
    assert " style=" not in page
    assert all(" src=" in tag for tag in page.split("<script")[1:])
    assert f'data-contract="{ROOT}schema/"' in page
