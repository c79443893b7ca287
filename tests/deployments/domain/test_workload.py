"""The values that travel between control plane and node are read strictly."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import InvalidInput
from deployments.domain.workload import (
    Batching,
    DesiredDeployment,
    ReplicaState,
    ReplicaStatus,
    TargetEvent,
    TargetStatus,
    Workload,
)

DIGEST = "a" * 64
text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
moments = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))

batchings = st.integers(1, 4096).flatmap(
    lambda largest: st.builds(
        Batching,
        max_batch_size=st.just(largest),
        preferred_batch_size=st.lists(st.integers(1, largest), max_size=3).map(tuple),
        max_queue_delay_microseconds=st.integers(0, 10_000_000),
        max_queue_size=st.integers(1, 100_000),
    )
)
workloads = st.builds(
    Workload,
    revision=st.integers(1, 1000),
    replicas=st.integers(0, 256),
    stack=text,
    model_name=text,
    model_version=text,
    artifact_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    artifact_path=text,
    signature=st.fixed_dictionaries({"inputs": st.lists(st.dictionaries(text, text), max_size=2)}),
    batching=batchings,
    threads=st.integers(1, 64),
    memory_bytes=st.none() | st.integers(2**24, 2**40),
    api_key_sha256=st.none() | st.just(DIGEST),
    environment=st.dictionaries(
        st.sampled_from(["OMP_WAIT_POLICY", "A", "_X9"]), text.filter(lambda t: "\0" not in t)
    ),
)
wishes = st.builds(
    DesiredDeployment,
    key=st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True),
    path=st.just("/team/name"),
    generation=st.integers(0, 2**40),
    workloads=st.lists(workloads, max_size=3, unique_by=lambda one: one.revision).map(tuple),
    drain_s=st.floats(0, 600),
)
replicas = st.builds(
    ReplicaStatus,
    name=text,
    revision=st.integers(1, 9),
    state=st.sampled_from(ReplicaState),
    url=text,
    pid=st.none() | st.integers(1, 9999),
    restarts=st.integers(0, 9),
    started_at=moments,
    ready_at=st.none() | moments,
    reason=text,
    log_tail=st.lists(text, max_size=3).map(tuple),
)
statuses = st.builds(
    TargetStatus,
    key=text,
    generation=st.integers(0, 9),
    address=st.none() | text,
    replicas=st.lists(replicas, max_size=3).map(tuple),
    observed_at=moments,
)


def workload(**fields: Any) -> Workload:
    given_fields: dict[str, Any] = {
        "revision": 1,
        "replicas": 2,
        "stack": "fastapi",
        "model_name": "m",
        "model_version": "1",
        "artifact_sha256": DIGEST,
        "artifact_path": "/a",
        "signature": {},
        "batching": Batching(),
    }
    return Workload(**given_fields | fields)


@given(value=st.one_of(batchings, workloads, wishes, statuses))
def test_every_value_survives_a_journey_as_json(value: Any) -> None:
    assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value


@given(
    wish=wishes,
    junk=st.one_of(st.none(), st.booleans(), st.lists(st.integers(), max_size=2), st.just({"x": {}})),
)
def test_a_wrongly_typed_field_is_refused_by_its_path(wish: DesiredDeployment, junk: Any) -> None:
    for name in ("key", "path", "generation", "drain_s"):
        with pytest.raises(InvalidInput) as caught:
            DesiredDeployment.from_json(wish.to_json() | {name: junk})
        assert name in caught.value.detail


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"max_batch_sizes": 8}, "Batching.max_batch_sizes"),
        ({"max_batch_size": True}, "Batching.max_batch_size"),
        ({"max_batch_size": 0}, "batching.max_batch_size"),
        ({"max_batch_size": 8, "preferred_batch_size": [16]}, "batching.preferred_batch_size"),
        ({"preferred_batch_size": [4, "8"]}, "Batching.preferred_batch_size[1]"),
        ([], "Batching"),
    ],
)
def test_batching_that_cannot_work_is_refused(document: Any, path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Batching.from_json(document)
    assert list(caught.value.fields) == [path]


@pytest.mark.parametrize("missing", ["revision", "stack", "artifact_sha256", "batching"])
def test_a_missing_field_is_named(missing: str) -> None:
    document = {name: value for name, value in workload().to_json().items() if name != missing}
    with pytest.raises(InvalidInput, match=missing):
        Workload.from_json(document)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONPATH", "PATH", "HOME", "lower", "A=B", ""])
def test_a_replica_cannot_be_given_variables_that_run_other_code(name: str) -> None:
    with pytest.raises(InvalidInput):
        workload(environment={name: "x"})


@pytest.mark.parametrize("path", ["team/name", "/team", "/team/name/", "/team/../x", "/a b/c", "/t/n\n"])
def test_a_path_is_exactly_team_and_deployment(path: str) -> None:
    with pytest.raises(InvalidInput):
        DesiredDeployment(key="k", path=path, generation=1, workloads=())


def test_a_wish_names_each_revision_once() -> None:
    with pytest.raises(InvalidInput, match="each revision once"):
        DesiredDeployment(key="k", path="/t/n", generation=1, workloads=(workload(), workload(replicas=3)))


def test_the_template_of_a_revision_does_not_depend_on_its_replicas() -> None:
    assert workload(replicas=1).template() == workload(replicas=9).template()
    assert workload().template() != workload(threads=2).template()


def test_times_without_an_offset_are_refused() -> None:
    event = TargetEvent(id=1, at=datetime.now(UTC), key="k", replica=None, kind="ready", message="")
    assert TargetEvent.from_json(event.to_json()) == event
    with pytest.raises(InvalidInput, match="offset"):
        TargetEvent.from_json(event.to_json() | {"at": "2026-11-24T12:00:00"})


@given(status=statuses)
def test_ready_counts_only_what_is_ready(status: TargetStatus) -> None:
    assert status.ready() == sum(
        status.ready(revision) for revision in {one.revision for one in status.replicas}
    )
    none_ready = replace(
        status, replicas=tuple(replace(one, state=ReplicaState.NOT_READY) for one in status.replicas)
    )
    assert none_ready.ready() == 0
