"""A plan says, field by field, what an apply would change."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.plan import Change, Finding, Op, Plan, Severity, canonical, counts, diff, digest

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
names = st.text("abc_", min_size=1, max_size=3)
documents = st.recursive(
    st.dictionaries(names, scalars, max_size=4),
    lambda inner: st.dictionaries(names, inner | scalars | st.lists(scalars, max_size=2), max_size=4),
    max_leaves=12,
)


def applied(before: dict[str, Any], changes: tuple[Change, ...]) -> dict[str, Any]:
    """The document after the changes; an independent reading of what a diff means."""
    result: dict[str, Any] = {}

    def flatten(value: Any, path: str, into: dict[str, Any]) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                flatten(inner, f"{path}.{name}" if path else name, into)
        elif path:
            into[path] = value

    flatten(before, "", result)
    for change in changes:
        if change.op is Op.REMOVE:
            del result[change.path]
        else:
            for path in [path for path in result if path.startswith(f"{change.path}.")]:
                del result[path]
            result.pop(change.path, None)
            flatten(change.after, change.path, result)
    return result


@given(before=documents, after=documents)
def test_the_changes_lead_from_before_to_after(before: dict[str, Any], after: dict[str, Any]) -> None:
    reached = applied(before, diff(before, after))
    # An object that was emptied leaves no field behind; both sides are read as fields.
    wanted = applied({}, diff(None, after))
    kept = {path: value for path, value in reached.items() if value != {}}
    assert canonical(kept) == canonical({path: value for path, value in wanted.items() if value != {}})


@given(document=documents)
def test_a_document_does_not_differ_from_itself(document: dict[str, Any]) -> None:
    assert diff(document, document) == ()


@given(before=documents, after=documents)
def test_the_way_back_mirrors_the_way_there(before: dict[str, Any], after: dict[str, Any]) -> None:
    there, back = counts(diff(before, after)), counts(diff(after, before))
    assert (there.add, there.change, there.remove) == (back.remove, back.change, back.add)


@given(document=documents)
def test_the_digest_does_not_depend_on_the_order_of_names(document: dict[str, Any]) -> None:
    assert digest(dict(reversed(document.items()))) == digest(document)


def test_a_change_carries_the_path_people_use() -> None:
    before = {"batching": {"max_batch_size": 8, "preferred_batch_size": [4]}, "threads": 1, "api_key": "x"}
    after = {
        "batching": {"max_batch_size": 16, "preferred_batch_size": [4]},
        "threads": 1,
        "stack": "fastapi",
    }
    assert diff(before, after) == (
        Change(path="api_key", op=Op.REMOVE, before="x", after=None),
        Change(path="batching.max_batch_size", op=Op.CHANGE, before=8, after=16),
        Change(path="stack", op=Op.ADD, before=None, after="fastapi"),
    )


def test_a_first_deployment_is_all_additions() -> None:
    changes = diff(None, {"replicas": 2, "batching": {"max_batch_size": 8}})
    assert [(change.path, change.op) for change in changes] == [
        ("batching.max_batch_size", Op.ADD),
        ("replicas", Op.ADD),
    ]


def test_workloads_are_compared_by_revision_whatever_their_order() -> None:
    one, two = {"revision": 1, "replicas": 2}, {"revision": 2, "replicas": 1}
    assert diff({"workloads": [one, two]}, {"workloads": [two, one]}) == ()
    assert diff({"workloads": [one]}, {"workloads": [one | {"replicas": 3}]}) == (
        Change(path="workloads.1.replicas", op=Op.CHANGE, before=2, after=3),
    )


@pytest.mark.parametrize(("before", "after"), [(True, 1), (0, False), ([1, 2], [2, 1]), (1, 1.5), ("1", 1)])
def test_values_that_only_look_alike_differ(before: Any, after: Any) -> None:
    assert [change.op for change in diff({"x": before}, {"x": after})] == [Op.CHANGE]


def test_a_number_is_the_same_however_it_is_spelled() -> None:
    assert diff({"drain_s": 5}, {"drain_s": 5.0}) == ()
    assert digest({"drain_s": [5]}) == digest({"drain_s": (5.0,)})


def test_plans_and_findings_travel_as_json() -> None:
    plan = Plan(diff=diff({"a": 1}, {"a": 2, "b": [1]}), live_generation=4, live_digest=digest({"a": 1}))
    assert Plan.from_json(plan.to_json()) == plan
    assert (plan.counts.add, plan.counts.change, plan.counts.remove) == (1, 1, 0)
    finding = Finding(severity=Severity.ERROR, code="c", title="t", evidence="e", action="a")
    assert Finding.from_json(finding.to_json()) == finding
