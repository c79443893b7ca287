"""The registry's API: each verb by an engineer, a viewer of the team and a stranger; uploads of every kind."""

import io
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from django.test import Client

from controlplane.registry import services
from controlplane.registry.models import Alias, Artifact, Dataset, Model, Version
from tests import factories
from tests.controlplane.registry import people
from tests.controlplane.registry.people import code, coming_in, stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("storage_of_its_own")]


def test_registering_is_for_engineers(three):
    owner, viewer, _ = three
    made = owner.api("POST", "models/", {"name": "fraud", "description": "Scores."})
    assert made.status_code == 201
    assert made.headers["Location"] == "/api/v1/models/fraud/"
    assert code(viewer.api("POST", "models/", {"name": "other"})) == (403, "role_too_low")
    assert code(owner.api("POST", "models/", {"name": "fraud"})) == (409, "model_exists")
    assert Client().post("/api/v1/models/", {"name": "x"}, content_type="application/json").status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": 7},
        {"name": "fraud", "id": 3},
        {"name": "fraud", "team": 1},
        {"name": "Fraud"},
        {"name": "a\u0000b"},
        {"name": "fraud", "description": "x" * 2001},
        {"name": "fraud", "description": ["x"]},
        [],
        "fraud",
        None,
    ],
)
def test_a_body_that_is_not_a_new_model_is_400_and_says_where(three, body):
    owner, _, _ = three
    answer = owner.api("POST", "models/", body)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert not Model.objects.exists()


def test_everything_of_a_model_is_read_by_its_team_only(three, registered):
    owner, viewer, stranger = three
    model, version = registered(owner.actor)
    services.move_alias(owner.actor, model, name="champion", variant=version.variants.get())
    base = f"models/{model.name}/"
    addresses = [
        base,
        f"{base}versions/",
        f"{base}versions/1/",
        f"{base}versions/1/variants/",
        f"{base}versions/1/variants/0/",
        f"{base}versions/1/variants/0/content/",
        f"{base}aliases/",
        f"{base}aliases/champion/",
        f"{base}datasets/",
    ]
    for address in addresses:
        for reader in (owner, viewer):
            answer = reader.api("GET", address)
            assert answer.status_code == 200, address
            assert b"".join(answer.streaming_content) if answer.streaming else answer.content
        assert code(stranger.api("GET", address)) == (404, "not_found"), address
    assert viewer.api("GET", f"{base}versions/1/variants/0/report/").status_code == 204
    assert stranger.api("GET", "models/").json()["items"] == []
    assert [row["name"] for row in viewer.api("GET", "models/").json()["items"]] == [model.name]


def test_every_change_of_a_model_is_refused_to_a_viewer_and_hidden_from_a_stranger(
    three, registered, onnx, npz
):
    owner, viewer, stranger = three
    model, version = registered(owner.actor)
    services.move_alias(owner.actor, model, name="champion", variant=version.variants.get())
    services.add_dataset(owner.actor, model, name="held", role="evaluation", version=version, chunks=[npz()])
    base = f"models/{model.name}/"
    changes: list[tuple[str, str, Any]] = [
        ("PATCH", base, {"description": "mine now"}),
        ("PUT", f"{base}versions/upload/", onnx(9)),
        ("PUT", f"{base}aliases/champion/", {"version": 1}),
        ("DELETE", f"{base}aliases/champion/", None),
        ("PUT", f"{base}datasets/other/", npz()),
        ("DELETE", f"{base}datasets/held/", None),
        ("DELETE", f"{base}versions/1/", None),
        ("DELETE", base, None),
    ]
    for method, address, body in changes:
        assert code(viewer.api(method, address, body)) == (403, "role_too_low"), (method, address)
        assert code(stranger.api(method, address, body)) == (404, "not_found"), (method, address)
    assert Version.objects.count() == Dataset.objects.count() == Alias.objects.count() == 1
    assert not coming_in()


def test_the_owner_walks_through_every_verb(three, onnx, npz):
    owner, _, _ = three
    boss = people.admin(owner)
    owner.api("POST", "models/", {"name": "fraud"})
    body = onnx()
    made = owner.api("PUT", "models/fraud/versions/upload/?filename=a.onnx", body)
    assert made.status_code == 201
    assert made.json()["sha256"] == sha256(body).hexdigest()
    assert made.json()["created"] is True
    again = owner.api("PUT", "models/fraud/versions/upload/", body)
    assert (again.status_code, again.json()["version"], again.json()["created"]) == (200, 1, False)
    content = owner.api("GET", "models/fraud/versions/1/variants/0/content/")
    assert b"".join(content.streaming_content) == body
    assert content.headers["Content-Disposition"] == 'attachment; filename="fraud-v1-0.onnx"'
    assert owner.api("PATCH", "models/fraud/", {"description": "Scores."}).json()["description"] == "Scores."
    assert owner.api("PUT", "models/fraud/aliases/champion/", {"version": 1}).json()["variant"] == 0
    slow = factories.variant(Version.objects.get(), verdict="inconclusive")
    target = {"version": 1, "variant": slow.number}
    assert code(owner.api("PUT", "models/fraud/aliases/trial/", target)) == (409, "gate_failed")
    moved = owner.api("PUT", "models/fraud/aliases/trial/", target | {"override": "To compare."})
    assert (moved.status_code, moved.json()["variant"]) == (200, slow.number)
    assert owner.api("DELETE", "models/fraud/aliases/trial/").status_code == 204
    assert code(owner.api("DELETE", "models/fraud/versions/1/")) == (409, "in_use")
    assert owner.api("DELETE", "models/fraud/aliases/champion/").status_code == 204
    dataset = owner.api("PUT", "models/fraud/datasets/held/?role=calibration", npz())
    assert (dataset.status_code, dataset.json()["role"]) == (201, "calibration")
    assert owner.api("DELETE", "models/fraud/datasets/held/").status_code == 204
    assert owner.api("DELETE", "models/fraud/versions/1/").status_code == 204
    assert code(owner.api("DELETE", "models/fraud/")) == (403, "role_too_low")
    assert boss.api("DELETE", "models/fraud/").status_code == 204
    assert code(owner.api("GET", "models/fraud/")) == (404, "not_found")


def test_a_form_uploads_as_well(three, onnx):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    file = io.BytesIO(onnx())
    file.name = "../../evil.onnx"
    answer = Client(headers={"Authorization": f"Bearer {owner.token}"}).post(
        f"/api/v1/models/{model.name}/versions/", {"file": file}
    )
    assert answer.status_code == 201
    assert answer.json()["filename"] == "evil.onnx"
    nothing = Client(headers={"Authorization": f"Bearer {owner.token}"}).post(
        f"/api/v1/models/{model.name}/versions/", {"other": "x"}
    )
    assert code(nothing) == (400, "no_file")
    assert not coming_in()


def test_d1_d2_d3_wrong_sizes_lengths_and_digests(three, onnx, settings):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    address = f"models/{model.name}/versions/upload/"
    body = onnx()
    assert owner.api("PUT", address, b"").status_code == 422
    wrong = owner.api("PUT", address, body, **{"X-Content-SHA256": "0" * 64})
    assert code(wrong) == (422, "digest_mismatch")
    assert code(
        owner.api("PUT", address, body, **{"X-Content-SHA256": "d41d8cd98f00b204e9800998ecf8427e"})
    ) == (
        400,
        "invalid_digest",
    )
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, max_upload_bytes=len(body) - 1)
    assert code(owner.api("PUT", address, body)) == (413, "upload_too_large")
    assert code(owner.api("PUT", f"models/{model.name}/datasets/d/", body)) == (413, "upload_too_large")
    form = Client(headers={"Authorization": f"Bearer {owner.token}"}).post(
        f"/api/v1/models/{model.name}/versions/", {"file": io.BytesIO(body)}
    )
    assert code(form) == (413, "upload_too_large")
    assert not Version.objects.exists()
    assert not Artifact.objects.exists()
    assert not coming_in()


def test_what_the_scan_refuses_is_a_problem_document_with_a_code(three):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    answer = owner.api("PUT", f"models/{model.name}/versions/upload/", b"\x7fELF" + bytes(300))
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "not_onnx"
    assert "ELF" in problem["detail"]
    assert problem["instance"].endswith("/versions/upload/")


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""]
)
def test_b12_a_raw_upload_says_that_it_is_one(three, onnx, content_type):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    answer = Client(headers={"Authorization": f"Bearer {owner.token}"}).generic(
        "PUT", f"/api/v1/models/{model.name}/versions/upload/", onnx(), content_type=content_type
    )
    assert code(answer) == (415, "unsupported_media_type")
    assert "send “Content-Type: application/octet-stream”" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["..%2f..%2fx", "%2fetc%2fpasswd", "C:%5Cx", ".x", "a%0d%0ab", "x" * 4096])
def test_d4_a_file_name_is_only_for_people(three, onnx, name):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    answer = owner.api("PUT", f"models/{model.name}/versions/upload/?filename={name}", onnx())
    assert answer.status_code == 201
    shown = answer.json()["filename"]
    assert shown.isprintable()
    assert not set(shown) & set("/\\")


def test_d23_a_team_cannot_learn_whether_another_has_some_bytes(three, onnx):
    owner, _, stranger = three
    for person in (owner, stranger):
        person.api("POST", "models/", {"name": "same"})
    mine = owner.api("PUT", "models/same/versions/upload/", onnx())
    theirs = stranger.api("PUT", "models/same/versions/upload/", onnx())
    assert (mine.status_code, theirs.status_code) == (201, 201)
    told_me, told_them = mine.json(), theirs.json()
    for document in (told_me, told_them):
        for own in ("created_at", "created_by", "summary"):
            document.pop(own)
    assert told_me == told_them
    assert Artifact.objects.count() == 1


def test_d26_bytes_changed_on_disk_are_not_handed_out(three, registered):
    owner, _, _ = three
    model, version = registered(owner.actor)
    file = stored(version.artifact.sha256)
    file.chmod(0o644)
    file.write_bytes(b"other bytes")
    address = f"models/{model.name}/versions/1/variants/0/content/"
    assert code(owner.api("GET", address)) == (409, "integrity")
    version.artifact.refresh_from_db()
    assert version.artifact.state == "damaged"
    assert code(owner.api("PUT", f"models/{model.name}/aliases/a/", {"version": 1})) == (409, "integrity")
    job = owner.api(
        "POST", "jobs/", {"model": model.name, "version": 1, "recipe": [{"technique": "onnx-graph"}]}
    )
    assert code(job) == (409, "integrity")


@pytest.mark.parametrize("number", ["0", "-1", "9223372036854775808", "1" + "0" * 30, "٣", "x", "1.0"])
def test_b8_a_number_that_is_none_is_not_found(three, registered, number):
    owner, _, _ = three
    model, _ = registered(owner.actor)
    assert owner.api("GET", f"models/{model.name}/versions/{number}/").status_code == 404


@pytest.mark.parametrize("variant", ["9" * 19, "9" * 30, "٣"])
def test_b8_a_variant_number_beyond_any_is_not_found(three, registered, variant):
    owner, _, _ = three
    model, _ = registered(owner.actor)
    assert owner.api("GET", f"models/{model.name}/versions/1/variants/{variant}/").status_code == 404


@pytest.mark.parametrize("text", ["%25", "_", "%27%20OR%201=1--", "%5C"])
def test_b11_a_search_is_literal(three, text):
    owner, _, _ = three
    factories.model(owner.actor.team)
    assert owner.api("GET", f"models/?search={text}").json()["items"] == []


def test_a_data_set_fits_the_version_that_is_named(three, npz):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    factories.version(model)
    wide = factories.SIGNATURE | {"inputs": [{"name": "x", "dtype": "FP32", "shape": ["batch", 5]}]}
    factories.version(model, signature=wide)
    base = f"models/{model.name}/datasets"
    assert owner.api("PUT", f"{base}/narrow/?version=1", npz()).status_code == 201
    assert owner.api("PUT", f"{base}/latest/", npz()).status_code == 422
    assert code(owner.api("PUT", f"{base}/a/?version=x", npz())) == (400, "invalid_version")
    assert owner.api("PUT", f"{base}/a/?version=3", npz()).status_code == 404
    assert code(owner.api("PUT", f"{base}/a/?role=x", npz())) == (400, "invalid_role")
    assert code(owner.api("PUT", f"{base}/narrow/?version=1", npz())) == (409, "dataset_exists")


def test_lists_come_in_pages_that_new_rows_do_not_shift(three):
    owner, _, _ = three
    names = [factories.model(owner.actor.team).name for _ in range(5)]
    first = owner.api("GET", "models/?limit=2").json()
    factories.model(owner.actor.team)
    second = owner.api("GET", first["next"].partition("/api/v1/")[2]).json()
    seen = [row["name"] for row in first["items"] + second["items"]]
    assert seen == names[::-1][:4]


def test_a_table_is_uploaded_by_the_same_verb_and_kept_as_npz(three, registered):
    owner, _, _ = three
    model, _ = registered(owner.actor)
    body = b'x,label\n"[1, 2, 3, 4]",0\n"[5, 6, 7, 8]",2\n'
    made = owner.api("PUT", f"models/{model.name}/datasets/rows/", body)
    document = made.json()
    assert (made.status_code, document["items"], document["has_labels"]) == (201, 2, True)
    assert document["summary"]["arrays"] == [{"name": "x", "dtype": "FP32", "shape": [2, 4]}]
    assert stored(document["sha256"]).read_bytes().startswith(b"PK")
    refused = owner.api("PUT", f"models/{model.name}/datasets/wrong/", body.replace(b"8]", b"]"))
    assert code(refused) == (422, "bad_column")
    assert "row 2" in refused.json()["detail"]
    page = owner.browser.get(f"/models/{model.name}/datasets/new/").content.decode()
    assert "Parquet" in page
    assert "x,label" in page


def test_a_data_set_says_what_it_is_scored_by_or_why_it_cannot_be(three, registered, npz):
    owner, viewer, _ = three
    model, _ = registered(owner.actor)
    address = f"models/{model.name}/datasets/"
    for query, metric in (("", "top-1"), ("?metric=f1-macro", "f1-macro")):
        made = owner.api("PUT", f"{address}set-{metric}/{query}", npz())
        assert (made.status_code, made.json()["metric"]) == (201, metric)
    refused = owner.api("PUT", f"{address}other/?metric=cosine", npz())
    assert code(refused) == (422, "metric_unfit")
    assert "takes vectors; the labels are class numbers" in refused.json()["detail"]
    assert code(owner.api("PUT", f"{address}other/?metric=best", npz())) == (400, "invalid_metric")
    vectors = b'x,label\n"[1, 2, 3, 4]","[0.5, 1, 2]"\n'
    made = owner.api("PUT", f"{address}vectors/", vectors)
    assert (made.json()["metric"], made.json()["summary"]["labels"]) == (
        "cosine",
        {"kind": "vectors", "shape": [3]},
    )
    assert viewer.api("GET", f"{address}vectors/").json()["metric"] == "cosine"
    page = owner.browser.get(f"/models/{model.name}/").content.decode()
    for said in ("F1, mean over classes", "Cosine to the labels, mean", "vectors"):
        assert said in page
    form = owner.browser.get(f"/models/{model.name}/datasets/new/").content.decode()
    assert "Score answers by" in form
