"""The contract turned against the API: requests made from it, good and bad, in process and bounded.

Each operation gets a few generated requests as an admin. Whatever comes: no fault of ours, only statuses,
content types and documents that are promised, and what breaks the contract is refused.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from controlplane.wsgi import application
from tests.api.routes import Operation, operations
from tests.api.world import World

EXAMPLES = int(os.environ.get("SLIPWAY_EXAMPLES", "4"))
"""Of each operation and mode; more by hand, when looking for trouble."""

CHECKS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SCANNED = {"put_version_upload", "post_versions", "put_dataset_item"}
"""Their bodies cost a child process each, and are judged by intake's own tests."""


def _served(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The whole answer, and its file closed: what a server does."""
    answer = application(environ, start_response)
    try:
        return [b"".join(answer)]
    finally:
        answer.close()


@pytest.fixture
def schema(world: World) -> Iterator[Any]:
    """As any client gets it. The test's transaction outlives a request, so no request may end its connection."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    headers = {"Authorization": f"Bearer {world.admin.token}"}
    yield schemathesis.openapi.from_wsgi("/api/v1/schema/", _served, headers=headers)
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize("tag", sorted({one.document["tags"][0] for one in operations()}))
def test_no_request_from_the_contract_gets_what_the_contract_does_not_say(
    world: World, schema: Any, tag: str, mode: schemathesis.GenerationMode
) -> None:
    for operation in operations():
        if operation.document["tags"] == [tag] and operation.document["operationId"] not in SCANNED:
            _turned_against(world, schema, operation, mode=mode)


def _checks(operation: Operation, mode: schemathesis.GenerationMode) -> list[CheckFunction]:
    """Bad bodies must be refused; in an address `?limit=` is as good as nothing, as a browser's form sends it."""
    bad_body = operation.takes_json and mode is schemathesis.GenerationMode.NEGATIVE
    return [*CHECKS, negative_data_rejection] if bad_body else CHECKS


def _turned_against(world: World, schema: Any, operation: Operation, *, mode: Any) -> None:
    made = schema[operation.route.template][operation.method]
    good = world.parameters | world.special.get(operation.route.name, {})
    known = {name: good[name] for name, _ in operation.route.parameters}
    headers = {"Authorization": f"Bearer {world.admin.token}"}

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=made.as_strategy(mode, path_parameters=known) | made.as_strategy(mode))
    def ask(case: Any) -> None:
        with transaction.atomic():
            case.call_and_validate(headers=headers, checks=_checks(operation, mode))
            transaction.set_rollback(True)

    ask()
