"""What stands in an address: ids, names, pages and searches that mean nothing, or something else than they say."""

from typing import Any

import pytest

from controlplane.registry.models import Model
from tests import factories
from tests.api.answers import complaints, nothing_written
from tests.api.routes import ROOT, Operation, operations, routes
from tests.api.world import World

NO_SUCH: dict[str, list[str]] = {
    "id": [
        "0", "-1", "00", "01", "9223372036854775808", str(10**30), "9" * 5000, "٣", "%D9%A3", "１", "1.0", "1e3",
        "0x1", "1_0", "+1", "NaN", "true", "null", "%20", "%00", "1%00", "..", "%2e%2e", "1;2", "1'--",
        "123e4567-e89b-12d3-a456-426614174000",
    ],
    "int": [
        "-1", "9223372036854775808", str(10**30), "9" * 5000, "٣", "１", "1.0", "1e3", "0x1", "NaN", "%00",
        "123e4567-e89b-12d3-a456-426614174000",
    ],
    "name": [
        "A", "-a", "a-", "a_b", "a.b", "a" * 64, "х", "%D1%85", "a%20b", "%00", "a%00b", "%ED%A0%80", "%FF",
        "..", "%2e%2e", "%2e%2e%2f", "a%2Fb", "a%5Cb", "a%0Ab", "a%0D%0ASet-Cookie:x", "%F0%9F%98%80",
        "'--", "%25", "*", "a;b", "{{7*7}}", "$%7Bx%7D", "%3Cscript%3E", "~", "a\u202eb",
    ],
    "slug": ["%00", "..", "a%2Fb", "%D1%85", "a" * 5000, "'--", "%25", "no-such-token"],
    "str": ["%00", "a%00b", "..", "a%2Fb", "%D1%85", "a" * 5000, "'--", "%25", "%ED%A0%80", "%0A", "_%25", "VIC"],
}  # fmt: skip


@pytest.mark.parametrize("converter", NO_SUCH)
def test_an_address_of_nothing_is_not_found_by_any_method(world: World, converter: str) -> None:
    with complaints() as wrong, nothing_written(wrong, "addresses"):
        for operation in operations():
            for parameter, kind in operation.route.parameters:
                if kind == converter:
                    for value in NO_SUCH[converter]:
                        path = world.path(operation, **{parameter: value})
                        response = world.admin.ask(operation.method, path, **world.good(operation))
                        wrong.check(f"{operation} {parameter}={value[:30]}", response, statuses={404})


def test_every_kind_of_parameter_has_its_bad_values() -> None:
    kinds = {kind for route in routes() for _, kind in route.parameters}
    assert kinds == NO_SUCH.keys()


NO_NUMBER = [
    "0",
    "-1",
    "abc",
    str(10**18 * 10),
    str(10**30),
    "9" * 5000,
    "1.5",
    "1e3",
    "%D9%A3",
    "%EF%BC%91",
    "+1",
    "1+",
    "NaN",
    "%",
]


def _lists() -> list[Operation]:
    return [one for one in operations() if {"cursor", "limit"} <= one.query_names]


def test_lists_are_enumerated() -> None:
    assert {one.route.name for one in _lists()} >= {"models", "jobs", "deployments", "activity", "decisions"}


@pytest.mark.parametrize("name", ["limit", "cursor"])
def test_a_page_that_cannot_be_is_a_bad_request_that_names_what_is_wrong(world: World, name: str) -> None:
    with complaints() as wrong:
        for operation in _lists():
            for value in [*NO_NUMBER, *(["201", str(10**9)] if name == "limit" else [])]:
                response = world.admin.ask("GET", world.path(operation), QUERY_STRING=f"{name}={value}")
                wrong.check(f"{operation} {name}={value[:20]}", response, statuses={400})
                if response.status_code == 400 and response.json()["errors"][0]["field"] != name:
                    wrong.say(operation, "names another field")


def test_a_forged_cursor_shows_only_what_is_the_teams(world: World) -> None:
    with complaints() as wrong:
        for operation in _lists():
            for cursor in (1, 2**31, 2**63 - 1):
                path = world.path(operation)
                response = world.stranger.ask("GET", path, QUERY_STRING=f"cursor={cursor}")
                wrong.check(operation, response, statuses={200, 404})
                if "churn" in response.content.decode().replace(path, ""):
                    wrong.say(operation, "shows another team's rows")


def test_following_next_shows_every_row_once(world: World) -> None:
    """With whatever else the address asks for."""
    for _ in range(5):
        factories.model(world.team)
    wanted = set(Model.objects.in_team(world.team).values_list("name", flat=True))
    seen: list[str] = []
    address = f"{ROOT}models/?limit=2&search="
    while address:
        document = world.viewer.ask("GET", address).json()
        seen += [row["name"] for row in document["items"]]
        address = document["next"]
    assert len(seen) == len(wanted)
    assert set(seen) == wanted


HOSTILE_VALUES = [
    "", "%", "_", "\\", "%25", "'", "' OR 1=1--", '"', "*", "(", "[", "a" * 5000, "%ED%A0%80", "%FF",
    "{{7*7}}", "-1", "0", "NaN", "Infinity", "%E2%80%AE", "1e400", "99999999999999", "x&x=y", "..", "%0A", "%0D%0AX: y",
    "active", "all", "slipway", "null", "[]", "%D9%A3",
]  # fmt: skip


def test_no_value_of_any_query_breaks_an_answer(world: World) -> None:
    """But of those of every list, which have their own tests above."""
    with complaints() as wrong, nothing_written(wrong, "queries"):
        for operation in operations():
            if operation.method != "GET":
                continue
            names = operation.query_names - {"limit", "cursor"}
            asked = [f"{name}={value}" for name in names for value in HOSTILE_VALUES]
            for query in [*asked, "format=xml", "unknown=%ED%A0%80"]:
                response = world.admin.ask("GET", world.path(operation), QUERY_STRING=query)
                wrong.check(f"{operation} ?{query[:60]}", response, statuses={200, 204, 400, 404})


@pytest.mark.parametrize("query", ["x=%00", "%00", "search=a%00b", "cursor=1%00", "a=b&%00=c"])
def test_a_nul_in_any_query_is_a_bad_request(world: World, query: str) -> None:
    with complaints() as wrong:
        for operation in operations():
            path = world.path(operation)
            response = world.admin.ask(operation.method, path, **world.good(operation), QUERY_STRING=query)
            wrong.check(operation, response, statuses={400})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("%25", ["percent"]),
        ("_", ["underscore"]),
        ("%5C", ["backslash"]),
        ("100%25", ["percent"]),
        ("%25%25", []),
        ("a_b", ["underscore"]),
        ("axb", []),
        ("' OR 1=1--", []),
        ("'", ["quote"]),
        (".*", []),
        ("PERCENT", ["percent"]),
    ],
)
def test_a_search_takes_its_text_literally(world: World, text: str, found: list[str]) -> None:
    texts = {"percent": "is 100% sure", "underscore": "a_b", "backslash": "a\\c", "quote": "the model's"}
    for name, description in texts.items():
        Model.objects.create(team=world.team, name=name, description=description)
    response = world.viewer.ask("GET", f"{ROOT}models/", QUERY_STRING=f"search={text}")
    assert [row["name"] for row in response.json()["items"]] == found


@pytest.mark.parametrize("text", ["%25", "_", "%5C", "' OR 1=1--", "%25%25"])
def test_the_trail_is_searched_literally(world: World, text: str) -> None:
    response = world.viewer.ask("GET", f"{ROOT}activity/", QUERY_STRING=f"text={text}")
    assert (response.status_code, response.json()["items"]) == (200, [])


@pytest.mark.parametrize(
    "query",
    [
        "from=0", "from=1&to=1", "from=2&to=1", "from=99999999999", "to=0", "from=-1", "from=NaN", "from=1e9",
        "to=1e400", "from=" + "9" * 400, "range=", "range=1s", "range=10y", "range=-1h", "step=0",
        "from=1000000000&to=1000000001", "from=1700000000&to=9999999999", "range=30d", "range=all",
    ],
)  # fmt: skip
def test_no_range_of_a_chart_breaks_it(world: World, query: str) -> None:
    with complaints() as wrong:
        response: Any = world.viewer.ask("GET", f"{ROOT}deployments/scoring/series/", QUERY_STRING=query)
        wrong.check(query[:40], response, statuses={200, 400})
        if response.status_code == 200:
            assert len(response.json()["t"]) <= 722


def test_an_address_without_its_slash_never_loses_a_body(world: World) -> None:
    """A redirect turns a POST into a GET; so there is none."""
    with complaints() as wrong, nothing_written(wrong, "no slash"):
        for operation in operations():
            path = world.path(operation).rstrip("/")
            response = world.admin.ask(operation.method, path, **world.good(operation))
            if operation.method == "GET":
                assert (response.status_code, response["Location"]) == (301, f"{path}/")
            else:
                wrong.check(operation, response, statuses={404})
