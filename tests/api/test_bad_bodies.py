"""What is no good body is refused by every operation that takes one, and nothing of it is kept."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings

from tests.api.answers import Complaints, complaints, nothing_written
from tests.api.routes import Operation, operations, taking_json
from tests.api.world import World

UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "truncated": b'{"name": "a',
    "trailing comma": b'{"name": "a",}',
    "byte order mark": b'\xef\xbb\xbf{"name": "a"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"name": "a"}'.encode("utf-16-le"),
    "Latin-1": b'{"name": "caf\xe9"}',
    "NaN": b'{"rate_per_s": NaN, "replicas": NaN}',
    "Infinity": b'{"rate_per_s": Infinity}',
    "beyond any float": b'{"rate_per_s": 1e400, "replicas": 1e400}',
    "5,000 digits": b'{"replicas": ' + b"9" * 5000 + b"}",
    "100,000 open arrays": b"[" * 100_000,
    "100,000 arrays": b"[" * 100_000 + b"]" * 100_000,
    "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a raw NUL": b'{"name": "a\x00b"}',
    "an escaped NUL": b'{"name": "a\\u0000b"}',
    "a NUL in a key": b'{"na\\u0000me": "a"}',
    "a lone surrogate": b'{"name": "\\ud800"}',
    "a lone surrogate in a key": b'{"\\udfff": 1}',
    "a surrogate in bytes": b'{"name": "\xed\xa0\x80"}',
    "two values": b'{"name": "a"} {"name": "b"}',
    "single quotes": b"{'name': 'a'}",
    "a comment": b'{"name": "a"} // b',
    "a list": b"[]",
    "a list of objects": b'[{"name": "a"}]',
    "null": b"null",
    "true": b"true",
    "a number": b"7",
    "a text": b'"name"',
    "YAML": b"!!python/object/apply:os.system ['id']",
    "XML": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
}

SERVERS_OWN = [
    "id", "pk", "owner", "owner_id", "team", "team_id", "tenant", "state", "sha256", "created", "created_at",
    "created_by", "is_admin", "is_superuser", "is_staff", "generation", "fence", "verdict", "api_key_sha256",
    "digest", "token", "token_key", "password", "user", "url", "queue", "max_attempts", "retry_of",
    "__class__", "__proto__", "constructor", "name ", "Name", "", " ", "a" * 10_000,
]  # fmt: skip


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_is_a_bad_request(world: World, body: bytes) -> None:
    with complaints() as wrong, nothing_written(wrong, "an unreadable body"):
        for operation in taking_json():
            headers = world.good(operation).get("headers")
            response = world.admin.ask(operation.method, world.path(operation), body, headers=headers)
            wrong.check(operation, response, statuses={400})


def test_a_field_that_is_not_known_is_refused_by_name(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "unknown fields"):
        for operation in taking_json():
            good = world.good(operation)["body"]
            unknown = set(SERVERS_OWN) - good.keys() - operation.body_schema()["properties"].keys()
            response = _send(world, operation, good | dict.fromkeys(unknown, 1))
            wrong.check(operation, response, statuses={400})
            named = {one["field"] for one in response.json().get("errors", ())}
            if missed := sorted(unknown - named - {""}):
                wrong.say(operation, f"does not name {missed}")
            for name in ("id", "team"):
                wrong.check(f"{operation} {name}", _send(world, operation, good | {name: 1}), statuses={400})


def test_a_field_that_is_needed_is_missed_by_name(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "missing fields"):
        for operation in taking_json():
            for name in operation.body_schema().get("required", []):
                body = {key: value for key, value in world.good(operation)["body"].items() if key != name}
                response = _send(world, operation, body)
                wrong.check(f"{operation} without {name}", response, statuses={400})


OF_ANOTHER_KIND: dict[str, list[Any]] = {
    "string": [7, 1.5, True, [], {}, ["a"], {"a": 1}],
    "integer": ["7", 1.5, True, False, [], {}, "", "٣", 10**30, -(10**30), 1e18, 2**63, 2**31],
    "number": ["7", True, [], {}, "", "NaN", "Infinity"],
    "boolean": [0, 1, "true", "false", "", [], {}],
    "array": [{}, "a", 7, True, {"0": "a"}],
    "object": [[], "a", 7, True, [["a", 1]]],
}


def _kinds(schema: Any) -> Iterator[str]:
    """The JSON types that a field's schema allows."""
    for one in schema.get("anyOf", [schema]):
        kind = one.get("type", "object")
        yield from kind if isinstance(kind, list) else [kind]


def test_a_value_of_another_kind_is_refused_never_converted(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "another kind"):
        for operation in taking_json():
            properties = operation.body_schema()["properties"]
            for name, schema in properties.items():
                kinds = set(_kinds(schema))
                values = [value for kind in kinds - {"null"} for value in OF_ANOTHER_KIND[kind]]
                for value in [*values, *([] if "null" in kinds else [None])]:
                    response = _send(world, operation, world.good(operation)["body"] | {name: value})
                    wrong.check(f"{operation} {name}={value!r}", response, statuses={400, 422})


TEXTS = [
    "", " ", "\t", "a" * 64, "a" * 254, "a" * 100_000, "\n", "\r\n", "\x1b[31m", "\x7f", "\x85", "\u2028",
    "х", "a\u200bb", "\u202eabc", "a" + "\u0301" * 10_000, "../../etc/passwd", "a/b", "%2e%2e%2f", "a?b#c",
    "' OR 1=1--", "<script>alert(1)</script>", "{{7*7}}", "${jndi:ldap://x}", "*a", "$(id)", "`id`", "-rf",
    "\ufffe", "\U0010ffff", "😀" * 100, "None", "NaN", "-1", "0", "http://169.254.169.254/", "file:///etc/passwd",
]  # fmt: skip


def test_no_text_in_any_field_breaks_an_answer(world: World) -> None:
    """Some are fine descriptions; what matters is that each is answered, and that a refusal writes nothing."""
    with complaints() as wrong:
        for operation in taking_json():
            for name, schema in operation.body_schema()["properties"].items():
                if "string" in set(_kinds(schema)):
                    for text in TEXTS:
                        what = f"{operation} {name}={text[:30]!r}"
                        _unharmed(wrong, what, lambda o=operation, n=name, t=text: _with(world, o, n, t))


def _with(world: World, operation: Operation, name: str, value: Any) -> Any:
    return _send(world, operation, world.good(operation)["body"] | {name: value})


def _unharmed(wrong: Complaints, what: str, ask: Callable[[], Any]) -> None:
    """What is taken is taken back; what is refused must not need it."""
    from django.db import transaction

    with transaction.atomic():
        response = ask()
        wrong.check(what, response)
        transaction.set_rollback(response.status_code < 400)


def test_a_value_of_free_form_is_bounded_in_depth(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "depth"):
        for operation in taking_json():
            for name, schema in operation.body_schema()["properties"].items():
                if not {"object", "array"} & set(_kinds(schema)):
                    continue
                good = json.dumps(world.good(operation)["body"] | {name: "HERE"})
                for opened, closed in ((b'{"a":', b"}"), (b"[", b"]")):
                    body = good.encode().replace(b'"HERE"', opened * 20_000 + b"1" + closed * 20_000)
                    response = world.admin.ask(operation.method, world.path(operation), body)
                    wrong.check(f"{operation} {name}", response, statuses={400})
                    if response.status_code == 400 and response.json()["code"] != "json_too_deep":
                        wrong.say(f"{operation} {name}", response.json()["code"])


SPECS: list[Any] = [
    {"hostPath": "/"}, {"privileged": True}, {"nodeName": "a"}, {"serviceAccountName": "admin"},
    {"securityContext": {}}, {"volumes": []}, {"command": ["sh", "-c", "id"]}, {"args": ["; id"]},
    {"image": "evil.example/x:latest"}, {"cpu": -1}, {"gpu": 0.5},
    {"threads": 0}, {"threads": -1}, {"threads": 10**9}, {"threads": "2"}, {"threads": True}, {"threads": 1.5},
    {"memory_bytes": -1}, {"memory_bytes": 1}, {"memory_bytes": 2**60}, {"memory_bytes": "1Gi"},
    {"stack": ""}, {"stack": "absent"}, {"stack": "../fastapi"}, {"stack": 7},
    {"batching": {"max_batch_size": 0}}, {"batching": {"max_batch_size": 10**6}},
    {"batching": {"preferred_batch_size": [9999]}}, {"batching": {"preferred_batch_size": "4"}},
    {"batching": {"max_queue_delay_microseconds": -1}}, {"batching": {"max_queue_size": 0}},
    {"batching": {"unknown": 1}}, {"batching": []}, {"batching": None},
    {"rollout": {"max_surge": -1}}, {"rollout": {"max_surge": 0, "max_unavailable": 0}},
    {"rollout": {"progress_deadline_s": 10**9}}, {"rollout": 7},
    {"environment": {"LD_PRELOAD": "/x.so"}}, {"environment": {"PYTHONPATH": "/x"}},
    {"environment": {"PATH": "/x"}}, {"environment": {"a b": "x"}}, {"environment": {"A=B": "x"}},
    {"environment": {"A": 7}}, {"environment": ["A=1"]}, {"environment": {"": "x"}},
    {"autoscaling": {}}, {"autoscaling": {"maxReplicas": 0}}, {"autoscaling": {"maxReplicas": -1}},
    {"autoscaling": {"minReplicas": 5, "maxReplicas": 2, "metrics": []}},
    {"autoscaling": {"maxReplicas": 10**9, "metrics": []}}, {"autoscaling": {"maxReplicas": "4"}},
    {"autoscaling": {"maxReplicas": 4, "unknown": 1}}, {"autoscaling": {"maxReplicas": True}},
    {"autoscaling": {"maxReplicas": 4, "metrics": "x"}}, {"autoscaling": {"maxReplicas": 4, "metrics": [7]}},
    {"autoscaling": {"maxReplicas": 4, "metrics": [{"type": "Resource"}]}},
    {"autoscaling": {"maxReplicas": 4, "behavior": {"scaleDown": {"stabilizationWindowSeconds": -1}}}},
    {"autoscaling": {"maxReplicas": 4, "behavior": 7}}, {"autoscaling": []}, {"autoscaling": "x"},
]  # fmt: skip


@pytest.mark.parametrize("target", ["0", "-1", "NaN", "1e999", "", "abc", None, True, [], "1" * 5000])
def test_an_autoscaling_target_that_means_nothing_is_refused(world: World, target: Any) -> None:
    name = {"metric": {"name": "inference_queue_depth"}}
    metric = {
        "type": "External",
        "external": name | {"target": {"type": "AverageValue", "averageValue": target}},
    }
    with complaints() as wrong, nothing_written(wrong, "a target"):
        response = _spec(world, {"autoscaling": {"maxReplicas": 4, "metrics": [metric]}})
        wrong.check(repr(target)[:40], response, statuses={400, 422})


def test_a_spec_with_anything_but_what_it_knows_is_refused(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "specs"):
        for spec in SPECS:
            wrong.check(spec, _spec(world, spec), statuses={400, 422})


def _spec(world: World, spec: Any) -> Any:
    body = {"model": "churn", "version": 1, "spec": spec}
    return world.admin.ask("POST", "/api/v1/deployments/scoring/revisions/", body)


RECIPES: list[Any] = [
    [], [7], ["int8-dynamic"], [[]], [None], [{}], [{"technique": 7}], [{"technique": None}],
    [{"technique": ""}], [{"technique": "absent"}], [{"technique": "a" * 10_000}],
    [{"technique": "os.system"}], [{"technique": "onnx-graph", "params": []}],
    [{"technique": "onnx-graph", "params": "x"}], [{"technique": "onnx-graph", "params": {"unknown": 1}}],
    [{"technique": "onnx-graph", "params": {"level": {}}}], [{"technique": "onnx-graph", "unknown": 1}],
    [{"technique": "onnx-graph"}] * 9, [{"technique": "onnx-graph"}] * 10_000,
    [{"technique": "onnx-graph", "entry": "os:system"}],
]  # fmt: skip


def test_a_recipe_with_anything_but_what_it_knows_is_refused(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "recipes"):
        for recipe in RECIPES:
            body = {"model": "churn", "version": 1, "recipe": recipe}
            response = world.admin.ask("POST", "/api/v1/jobs/", body)
            wrong.check(str(recipe)[:80], response, statuses={400, 422})


OTHER_TYPES = [
    "text/plain",
    "text/html",
    "application/xml",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/x-yaml",
    "application/jsonx",
    "application/problem+json",
    "application/json; charset=utf-16",
    "application/json; charset=latin-1",
    "",
    "/",
    "json",
    "application/*",
    "*/*",
]


@pytest.mark.parametrize("content_type", OTHER_TYPES)
def test_another_content_type_is_refused_before_its_bytes_are_read(world: World, content_type: str) -> None:
    with complaints() as wrong, nothing_written(wrong, content_type):
        for operation in operations():
            if not operation.body_types or content_type.partition(";")[0] in operation.body_types - {
                "application/json"
            }:
                continue
            body = json.dumps(world.good(operation)["body"]).encode() if operation.takes_json else b"bytes"
            headers = world.good(operation).get("headers")
            response = world.admin.ask(
                operation.method, world.path(operation), body, content_type=content_type, headers=headers
            )
            wrong.check(operation, response, statuses={415})


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x"])
def test_an_encoded_body_is_refused_unread(world: World, encoding: str) -> None:
    """A kilobyte of gzip can be a gigabyte of JSON."""
    with complaints() as wrong, nothing_written(wrong, encoding):
        for operation in operations():
            if operation.body_types:
                good = world.good(operation)
                given = dict(good.get("headers", {})) | {"Content-Encoding": encoding}
                response = world.admin.ask(
                    operation.method, world.path(operation), **good | {"headers": given}
                )
                wrong.check(operation, response, statuses={415})


def test_a_body_above_the_limit_is_too_large(world: World) -> None:
    body = b'{"description": "' + b"a" * settings.DATA_UPLOAD_MAX_MEMORY_SIZE + b'"}'
    with complaints() as wrong, nothing_written(wrong, "too large"):
        for operation in taking_json():
            response = world.admin.ask(operation.method, world.path(operation), body)
            wrong.check(operation, response, statuses={413})


def _send(world: World, operation: Operation, body: Any) -> Any:
    return world.admin.ask(
        operation.method, world.path(operation), body, headers=world.good(operation).get("headers")
    )
