"""Who gets what: nobody without a token, nothing for strangers, reading only for viewers, on every address."""

import json
from typing import Any

from django.db import transaction
from django.test import Client

from tests.api.answers import complaints, nothing_written
from tests.api.routes import Operation, mutations, operations, routes
from tests.api.world import REQUESTS, World

OF_ONES_OWN = {
    ("POST", "tokens"): "a viewer makes tokens that read",
    ("DELETE", "token"): "tokens are one's own; another's is not there",
    ("DELETE", "member"): "everybody may leave",
}
"""What a viewer may do, and why."""

SHARED = {
    "worker-drain": "workers are everybody's, and so is the right of an admin to spare one",
    "worker-resume": "as worker-drain",
}
"""Whose objects belong to no team, and why."""

ABSENT = {
    "worker": "999999999",
    "name": "absent",
    "number": "77",
    "variant": "77",
    "alias": "absent",
    "dataset": "absent",
    "job": "999999999",
    "search": "999999999",
    "rollout": "999999999",
    "replica": "absent",
    "token_key": "absent",
    "username": "absent",
}


def test_every_address_needs_a_token(world: World) -> None:
    anonymous = Client()
    with complaints() as wrong, nothing_written(wrong, "anonymous"):
        for route in routes():
            for method in route.methods:
                response = anonymous.generic(method, world.path(route))
                wrong.check(f"{method} {route.template}", response, statuses={401})
                if response.headers.get("WWW-Authenticate") != "Bearer":
                    wrong.say(route.name, "does not say how to log in")


def test_what_does_not_need_a_body_needs_a_token_all_the_same(world: World) -> None:
    """The refusal comes before the body is looked at."""
    anonymous = Client()
    with complaints() as wrong:
        for operation in mutations():
            path = world.path(operation)
            response = anonymous.generic(operation.method, path, b"[" * 100_000, "application/json")
            wrong.check(operation, response, statuses={401})


def _same_but_for_the_address(response: Any) -> Any:
    problem = json.loads(response.content)
    return {name: value for name, value in problem.items() if name not in {"instance", "request_id"}}


def test_a_strangers_object_is_answered_like_one_that_never_was(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "a stranger"):
        for operation in operations():
            if not operation.route.parameters or operation.route.name in SHARED:
                continue
            good = world.good(operation)
            theirs = world.stranger.ask(operation.method, world.path(operation), **good)
            nobodys = world.stranger.ask(operation.method, world.path(operation, **ABSENT), **good)
            wrong.check(operation, theirs, statuses={404})
            wrong.check(operation, nobodys, statuses={404})
            if _same_but_for_the_address(theirs) != _same_but_for_the_address(nobodys):
                wrong.say(operation, f"tells them apart: {theirs.content!r} {nobodys.content!r}")


def test_lists_show_strangers_nothing_of_the_team(world: World) -> None:
    own = {"harbor", "churn", "scoring", "turning", "ada", "eve", "vic", "spare", "digits"}
    with complaints() as wrong:
        for operation in operations():
            if operation.method != "GET" or operation.route.parameters:
                continue
            response = world.stranger.ask("GET", world.path(operation))
            wrong.check(operation, response, statuses={200})
            if seen := sorted(word for word in own if f'"{word}' in response.content.decode()):
                wrong.say(operation, f"shows {seen}")


def test_a_body_that_names_a_strangers_object_finds_nothing(world: World) -> None:
    job = world.good(_operation("POST", "jobs"))["body"]
    with complaints() as wrong, nothing_written(wrong, "a stranger"):
        foreign = world.stranger.ask("POST", "/api/v1/jobs/", job)
        missing = world.stranger.ask("POST", "/api/v1/jobs/", job | {"model": "absent"})
        wrong.check("a foreign model", foreign, statuses={404})
        assert _same_but_for_the_address(foreign) == _same_but_for_the_address(missing)


def _operation(method: str, name: str) -> Operation:
    return next(one for one in operations() if one.key == (method, name))


def test_a_viewer_changes_nothing_by_any_address(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "a viewer"):
        for operation in mutations():
            if operation.key in OF_ONES_OWN:
                continue
            if operation.body_types and operation.key not in REQUESTS:
                wrong.say(operation, "has no good request in tests/api/world.py")
            response = world.viewer.ask(operation.method, world.path(operation), **world.good(operation))
            wrong.check(operation, response, statuses={403})


def test_a_viewer_reads_everything(world: World) -> None:
    with complaints() as wrong:
        for operation in operations():
            if operation.method == "GET" and operation.key != ("GET", "token"):
                path = world.path(operation)
                wrong.check(operation, world.viewer.ask("GET", path), statuses={200})


def test_what_viewers_are_refused_is_a_good_request_of_an_admins(world: World) -> None:
    """Or the refusal would prove nothing. Uploads are refused for their bytes, after the role was looked at."""
    with complaints() as wrong:
        for operation in mutations():
            expected = (
                {422, 400} if operation.body_types and not operation.takes_json else {200, 201, 202, 204}
            )
            with transaction.atomic():
                response = world.admin.ask(operation.method, world.path(operation), **world.good(operation))
                wrong.check(operation, response, statuses=expected)
                transaction.set_rollback(True)
