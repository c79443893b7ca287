"""The pages of models: what stands in them, who sees them, and forms that work without a script."""

import csv
import errno
import io
import json
import re
from typing import Any

import pytest
from django.test import Client

from controlplane.accounts.models import AuditEvent
from controlplane.core import formats, storage
from controlplane.registry import services
from controlplane.registry.models import Alias, Artifact, Dataset, Model, Version
from tests import factories
from tests.controlplane.registry import people
from tests.controlplane.registry.people import coming_in
from tests.optimizer import jobs

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("storage_of_its_own")]


def file(body: bytes, name: str = "model.onnx") -> io.BytesIO:
    made = io.BytesIO(body)
    made.name = name
    return made


def text(response: Any) -> str:
    """What a reader sees, without tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


@pytest.fixture
def measured(three, registered):
    """A version with a variant that was measured, an alias and a data set."""
    owner, _, _ = three
    model, version = registered(owner.actor)
    job = jobs.queued(owner.actor, version)
    job.state = "succeeded"
    job.save()
    variant = jobs.result(job)
    services.move_alias(owner.actor, model, name="champion", variant=variant)
    return model, version, variant


def addresses(model: Model) -> list[str]:
    base = f"/models/{model.name}/"
    return [
        base,
        f"{base}versions/1/",
        f"{base}versions/1/variants/0/",
        f"{base}versions/1/variants/1/",
    ]


def forms(model: Model) -> list[str]:
    base = f"/models/{model.name}/"
    return [
        "/models/new/",
        f"{base}edit/",
        f"{base}versions/new/",
        f"{base}versions/1/delete/",
        f"{base}aliases/new/",
        f"{base}aliases/champion/remove/",
        f"{base}datasets/new/",
        f"{base}datasets/held/delete/",
    ]


def test_pages_are_read_by_the_team_and_by_nobody_else(three, measured):
    owner, viewer, stranger = three
    model, _, _ = measured
    for address in addresses(model):
        assert owner.browser.get(address).status_code == 200, address
        assert viewer.browser.get(address).status_code == 200, address
        hidden = stranger.browser.get(address)
        assert hidden.status_code == 404, address
        assert model.name not in text(hidden).replace(address, "")
        assert Client().get(address).headers["Location"].startswith("/account/login/")
    assert model.name not in text(stranger.browser.get("/models/"))


def test_forms_are_for_engineers(three, measured, npz):
    owner, viewer, stranger = three
    model, version, _ = measured
    services.add_dataset(owner.actor, model, name="held", role="evaluation", version=version, chunks=[npz()])
    boss = people.admin(owner)
    for address in forms(model):
        assert owner.browser.get(address).status_code == 200, address
        assert viewer.browser.get(address).status_code == 403, address
        if address != "/models/new/":
            assert stranger.browser.get(address).status_code == 404, address
            assert stranger.browser.post(address, {"confirm": "x"}).status_code == 404, address
        assert viewer.browser.post(address, {"confirm": "x"}).status_code == 403, address
    assert owner.browser.get(f"/models/{model.name}/delete/").status_code == 403
    assert boss.browser.get(f"/models/{model.name}/delete/").status_code == 200


def test_a_viewer_is_offered_nothing_that_is_refused(three, measured):
    _, viewer, _ = three
    model, _, _ = measured
    for address in ["/models/", *addresses(model)]:
        page = viewer.browser.get(address).content.decode()
        for offer in (
            "Register a model</a>",
            "Upload a version",
            "Set an alias",
            "Delete version",
            "/deployments/new/",
        ):
            assert offer not in page, (address, offer)


def test_an_empty_list_teaches_with_lines_that_work(three):
    owner, _, _ = three
    page = owner.browser.get("/models/")
    assert "No models yet" in text(page)
    assert "curl -X POST http://testserver/api/v1/models/" in page.content.decode().replace("&#x27;", "'")


def test_none_yet_and_none_match_are_told_apart(three):
    owner, _, _ = three
    factories.model(owner.actor.team)
    page = owner.browser.get("/models/?search=nothing-like-it")
    assert "No model matches" in text(page)
    assert "Clear the filters" in text(page)


def test_the_list_shows_versions_aliases_and_the_best_verdict(three, measured):
    owner, _, _ = three
    _, version, _ = measured
    factories.variant(version, verdict="not_faster")
    page = text(owner.browser.get("/models/"))
    assert "Version 1" in page
    assert "champion → 1" in page
    assert "Better" in page.partition("Last upload")[2]


def test_filters_and_pages_are_in_the_address(three, measured):
    owner, _, _ = three
    model, _, _ = measured
    other = factories.model(owner.actor.team)
    for query, found in (
        (f"search={model.name}", True),
        ("verdict=better", True),
        ("verdict=failed", False),
        ("alias=champion", True),
        ("alias=amp", True),
        ("alias=other", False),
    ):
        page = owner.browser.get(f"/models/?{query}").content.decode()
        assert (f'href="/models/{model.name}/"' in page) is found, query
        assert f'href="/models/{other.name}/"' not in page, query
    first = owner.browser.get("/models/?limit=1").content.decode()
    following = re.search(r'rel="next" href="([^"]+)"', first)
    assert following is not None
    second = owner.browser.get("/models/" + following[1].replace("&amp;", "&")).content.decode()
    assert f'href="/models/{other.name}/"' in first
    assert f'href="/models/{model.name}/"' in second
    assert text(owner.browser.get("/models/?limit=1&part=total")) == "of 2"
    exported = owner.browser.get(f"/models/?search={other.name}&part=csv")
    rows = list(csv.DictReader(b"".join(exported.streaming_content).decode().splitlines()))
    assert [row["name"] for row in rows] == [other.name]
    assert owner.browser.get("/models/?cursor=x").status_code == 400
    assert owner.browser.get("/models/?verdict=x").status_code == 200, "a shared address always opens"


def test_a_list_of_fifty_costs_as_many_queries_as_a_list_of_one(three, django_assert_max_num_queries):
    owner, _, _ = three
    for _ in range(50):
        Alias.objects.create(
            model=(version := factories.version(factories.model(owner.actor.team))).model,
            name="champion",
            variant=version.variants.get(),
        )
    with django_assert_max_num_queries(6):
        owner.browser.get("/models/")


def test_a_model_and_its_first_version_are_registered_in_one_form(three, onnx):
    owner, _, _ = three
    sent = {"name": "fraud", "description": "Scores.", "file": file(onnx())}
    answer = owner.browser.post("/models/new/", sent)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/models/fraud/versions/1/")
    assert "is registered, with version 1" in text(owner.browser.get(answer.headers["Location"]))
    assert not coming_in()


def test_a_form_sent_by_script_is_told_where_to_go(three, onnx):
    owner, _, _ = three
    sent = {"name": "fraud", "file": file(onnx())}
    answer = owner.browser.post("/models/new/", sent, headers={"X-Upload": "1"})
    assert (answer.status_code, answer.headers["X-Location"]) == (204, "/models/fraud/versions/1/")


def test_a_refused_file_is_said_beside_the_field_and_nothing_is_kept(three):
    owner, _, _ = three
    sent = {"name": "fraud", "description": "Scores.", "file": file(b"\x7fELF" + bytes(300))}
    answer = owner.browser.post("/models/new/", sent)
    page = answer.content.decode()
    assert answer.status_code == 422
    error = re.search(r'id="id_file_error">(.*?)</div>', page, re.DOTALL)
    assert error is not None
    assert "not an ONNX model" in error[1]
    assert 'aria-invalid="true"' in page
    assert 'value="fraud"' in page, "what was typed stays"
    assert not any([Model.objects.exists(), Artifact.objects.exists(), coming_in()])


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [("Fraud", 400, "lower-case letters"), ("", 400, "required"), ("taken", 409, "taken in your team")],
)
def test_a_name_that_is_refused_is_said_beside_the_field(three, onnx, name, status, said):
    owner, _, _ = three
    factories.model(owner.actor.team, name="taken")
    answer = owner.browser.post("/models/new/", {"name": name, "file": file(onnx())})
    assert answer.status_code == status
    error = re.search(r'id="id_name_error">(.*?)</div>', answer.content.decode(), re.DOTALL)
    assert error is not None
    assert said in error[1]
    assert Model.objects.count() == 1


def test_f22_a_full_disk_is_said_in_the_form_with_507(three, onnx, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    owner, _, _ = three
    model = factories.model(owner.actor.team)
    monkeypatch.setattr(storage.os, "fsync", full)
    answer = owner.browser.post(f"/models/{model.name}/versions/new/", {"file": file(onnx())})
    assert answer.status_code == 507
    assert "storage is full" in text(answer)
    assert not Version.objects.exists()


def test_a_version_page_shows_what_was_found_in_the_file(three, measured):
    owner, _, _ = three
    _, version, _ = measured
    page = text(owner.browser.get(version.get_absolute_url()))
    for fact in (version.source_sha256[:12], "FP32", "[batch, 4]", "ai.onnx", "tests", "MatMul 1", "2.00×"):
        assert fact in page, fact


def test_a_report_is_shown_with_intervals_promises_control_and_machine(three, measured):
    owner, _, _ = three
    _, _, variant = measured
    page = text(owner.browser.get(variant.get_absolute_url()))
    for fact in (
        "−50 % (−52 to −47 %)",
        "median of 40 paired rounds; A/A spread 1.0 %",
        "1.2 to 2×",
        "2.00× (1.90 to 2.10)",
        "−1.0 points",
        "Accuracy on labelled items",
        "2 answered wrongly only by the variant, 1 only by the parent",
        "100 of 200 items",
        "Test CPU",
        "pinned to core 0",
        "ORT_ENABLE_ALL",
    ):
        assert fact in page, fact


@pytest.mark.parametrize(
    ("basis", "said"),
    [("random_inputs", "Random inputs are not your data"), ("evaluation_set", "Agreement is not accuracy")],
)
def test_agreement_is_never_called_accuracy(three, registered, basis, said):
    owner, _, _ = three
    _, version = registered(owner.actor)
    accuracy = jobs.REPORT["accuracy"] | {"basis": basis, "parent_accuracy": None, "variant_accuracy": None}
    variant = jobs.result(jobs.queued(owner.actor, version), data=jobs.REPORT | {"accuracy": accuracy})
    page = text(owner.browser.get(variant.get_absolute_url()))
    assert said in page
    assert "Same answer as the parent" in page
    assert "Accuracy on labelled items" not in page


def latency_cell(page: str) -> str:
    """The change of latency at batch 1, with its tags."""
    row = page.partition("Latency, batch 1")[2].partition("</tr>")[0]
    return row.partition('data-label="Change"')[2].partition("</td>")[0]


@pytest.mark.parametrize(
    ("claim", "speedup", "toned", "said"),
    [
        ("gain", (2.0, 1.9, 2.1), "ok", "A/A spread 1.0 % "),
        ("loss", (0.5, 0.4, 0.6), "failed", "A/A spread 1.0 % "),
        # Beside 1 for sure, and yet no more than what this machine does to the same file.
        ("no_gain", (1.01, 1.005, 1.015), "", "no gain as large as is asked"),
        ("unclear", (0.99, 0.985, 0.995), "", "too unclear to call a gain or a loss"),
    ],
)
def test_latency_is_better_or_worse_only_where_that_is_claimed(
    three, registered, claim, speedup, toned, said
):
    owner, _, _ = three
    _, version = registered(owner.actor)
    value, low, high = speedup
    timing = jobs.REPORT["timings"][0] | {
        "claim": claim,
        "speedup": {"value": value, "low": low, "high": high, "n": 40, "confidence": 0.95},
    }
    variant = jobs.result(jobs.queued(owner.actor, version), data=jobs.REPORT | {"timings": [timing]})
    page = owner.browser.get(variant.get_absolute_url())
    cell = latency_cell(page.content.decode())
    assert f'data-tone="{toned}"' in cell
    assert ("<svg" in cell) is bool(toned)
    assert said in text(page)


@pytest.mark.parametrize(
    ("spread", "needed"),
    [(0.03, "9.00 %"), (0.01, "5.00 %"), (0.0, "5.00 %"), (None, formats.NOTHING)],
)
def test_what_a_gain_needs_is_the_whole_rule_that_claims_are_made_by(three, registered, spread, needed):
    """With too few rounds to tell the spread, no gain is enough."""
    owner, _, _ = three
    _, version = registered(owner.actor)
    data = jobs.REPORT | {
        "control": [jobs.REPORT["control"][0] | {"spread": spread}],
        "timings": [jobs.REPORT["timings"][0] | {"spread": spread}],
        "policy": jobs.REPORT["policy"] | {"spread_floor": 0.005},
    }
    variant = jobs.result(jobs.queued(owner.actor, version), data=data)
    page = owner.browser.get(variant.get_absolute_url())
    shown = page.content.decode().partition('data-label="A gain needs">')[2].partition("</td>")[0]
    assert " ".join(re.sub(r"<[^>]+>", " ", shown).split()) == needed
    assert "its whole interval at least 1.05×" in text(page)


def test_a_report_of_a_variant_that_could_not_be_used_is_shown_too(three, registered):
    owner, _, _ = three
    _, version = registered(owner.actor)
    data = jobs.REPORT | {"accuracy": None, "timings": [], "control": [], "service_curve": []}
    data |= {"variant": {"file_bytes": 10, "load_ms": None, "memory_bytes": None}}
    variant = jobs.result(jobs.queued(owner.actor, version), verdict="failed", data=data)
    page = owner.browser.get(variant.get_absolute_url())
    assert page.status_code == 200
    assert "the variant could not be used" in text(page)


def test_the_variants_of_a_version_are_a_file_too(three, measured):
    owner, _, _ = three
    model, version, variant = measured
    answer = owner.browser.get(f"{version.get_absolute_url()}?part=csv")
    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))
    assert [row["variant"] for row in rows] == ["0", str(variant.number)]
    assert rows[1]["verdict"] == variant.verdict
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{model.name}-v1-variants.csv"'


def test_aliases_are_set_moved_and_removed(three, measured):
    owner, _, _ = three
    model, version, _ = measured
    original = version.variants.get(number=0)
    base = f"/models/{model.name}/aliases/"
    moving = text(owner.browser.get(f"{base}new/?alias=champion"))
    assert "It points to version 1, onnx-graph (better)" in moving
    answer = owner.browser.post(f"{base}new/", {"name": "champion", "variant": original.pk})
    assert answer.status_code == 302
    assert Alias.objects.get().variant == original
    refused = owner.browser.post(f"{base}new/", {"name": "Champion!", "variant": original.pk})
    assert refused.status_code == 400
    assert owner.browser.post(f"{base}champion/remove/").status_code == 302
    assert not Alias.objects.exists()


def test_the_alias_form_asks_why_a_variant_is_used_against_its_verdict(three, measured):
    owner, _, _ = three
    model, version, _ = measured
    slow = factories.variant(version, verdict="not_faster")
    url, asked = f"/models/{model.name}/aliases/new/", {"name": "trial", "variant": slow.pk}
    refused = owner.browser.post(url, asked)
    assert refused.status_code == 409
    assert "has not passed its gate" in text(refused)
    assert "Say why it shall be used all the same." in text(refused)
    assert owner.browser.post(url, asked | {"override": "Only to compare."}).status_code == 302
    assert Alias.objects.get(name="trial").variant == slow
    assert "Only to compare." in text(owner.browser.get("/activity/"))


def test_the_gate_is_said_on_the_model_and_changed_on_a_page_of_its_own(three, measured):
    owner, viewer, _ = three
    model, _, _ = measured
    url = f"/models/{model.name}/gate/"
    assert "at least 1.05x as fast as its parent" in text(viewer.browser.get(f"/models/{model.name}/"))
    assert viewer.browser.get(url).status_code == 403
    wanted = {"min_speedup": "1.5", "max_loss_points": "0.5", "max_size_mib": "2.5", "max_latency_ms": ""}
    assert owner.browser.post(url, wanted).status_code == 302
    page = text(viewer.browser.get(f"/models/{model.name}/"))
    assert "at least 1.5x as fast as its parent" in page
    assert "a file of at most 2.5 MiB" in page
    assert 'value="2.5"' in owner.browser.get(url).content.decode()
    event = AuditEvent.objects.get(verb="changed gate of")
    assert event.details["from"][0] == "at least 1.05x as fast as its parent"
    assert owner.browser.post(url, wanted | {"min_speedup": "0.5"}).status_code == 400
    assert Model.objects.get(pk=model.pk).gate["min_speedup"] == 1.5


def test_an_alias_form_offers_only_the_models_own_variants(three, measured):
    owner, _, stranger = three
    model, _, _ = measured
    foreign = factories.version(factories.model(stranger.actor.team)).variants.get()
    answer = owner.browser.post(f"/models/{model.name}/aliases/new/", {"name": "x", "variant": foreign.pk})
    assert answer.status_code == 400
    assert not Alias.objects.filter(name="x").exists()


def test_data_sets_are_added_and_deleted(three, measured, npz):
    owner, _, _ = three
    model, _, _ = measured
    base = f"/models/{model.name}/datasets/"
    assert "np.zeros((items, 4), np.float32)" in owner.browser.get(f"{base}new/").content.decode()
    sent = {"name": "held", "role": "calibration", "file": file(npz(), "held.npz")}
    assert owner.browser.post(f"{base}new/", sent).status_code == 302
    dataset = Dataset.objects.get()
    assert (dataset.role, dataset.items, dataset.has_labels) == ("calibration", 16, True)
    refused = owner.browser.post(f"{base}new/", sent | {"name": "wide", "file": file(npz(width=5))})
    assert refused.status_code == 422
    assert "id_file_error" in refused.content.decode()
    assert owner.browser.post(f"{base}held/delete/").status_code == 302
    assert not Dataset.objects.exists()


def test_deleting_needs_the_name_typed_and_names_who_uses_it(three, measured):
    owner, _, _ = three
    model, version, _ = measured
    address = f"{version.get_absolute_url()}delete/"
    assert "alias “champion” points to" in text(owner.browser.get(address))
    untyped = owner.browser.post(address, {"confirm": "1"})
    assert (untyped.status_code, Version.objects.count()) == (400, 1)
    used = owner.browser.post(address, {"confirm": f"{model.name}/1"})
    assert used.status_code == 409
    assert "alias “champion” points to" in text(used)
    Alias.objects.all().delete()
    gone = owner.browser.post(address, {"confirm": f"{model.name}/1"})
    assert (gone.status_code, gone.headers["Location"]) == (302, f"/models/{model.name}/")
    boss = people.admin(owner)
    assert boss.browser.post(f"/models/{model.name}/delete/", {"confirm": model.name}).status_code == 302
    assert not Model.objects.exists()


def test_a_description_is_text_and_nothing_else(three):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    attack = "<script>alert(1)</script>\nline two"
    answer = owner.browser.post(f"/models/{model.name}/edit/", {"description": attack})
    assert answer.status_code == 302
    page = owner.browser.get(f"/models/{model.name}/").content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;<br>line two" in page
    assert owner.browser.post(f"/models/{model.name}/edit/", {"description": "x" * 2001}).status_code == 400


def test_forms_are_protected_against_other_sites(three):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(owner.actor.user)
    assert strict.post(f"/models/{model.name}/edit/", {"description": "x"}).status_code == 403


def test_every_page_offers_its_verb_by_api_with_a_line_that_can_be_pasted(three, measured, npz):
    owner, _, _ = three
    model, version, _ = measured
    services.add_dataset(owner.actor, model, name="held", role="evaluation", version=version, chunks=[npz()])
    for address in ["/models/", *addresses(model), *forms(model)]:
        page = owner.browser.get(address).content.decode()
        assert "Do this by API" in page, address
        assert "Bearer $SLIPWAY_TOKEN" in page, address


def test_no_page_has_inline_script_or_style(three, measured):
    owner, _, _ = three
    model, _, _ = measured
    for address in ["/models/", *addresses(model), *forms(model)[:7]]:
        page = owner.browser.get(address).content.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=|<style", page), address


def test_a_hostile_summary_is_only_text(three, registered):
    owner, _, _ = three
    _, version = registered(owner.actor)
    version.summary |= {"producer": "<img src=x onerror=alert(1)>", "operators": [["<b>", 1]]}
    version.signature = json.loads(json.dumps(version.signature).replace('"x"', '"<i>x</i>"'))
    version.save()
    page = owner.browser.get(version.get_absolute_url()).content.decode()
    assert "<img src=x" not in page
    assert "<b> 1" not in page
    assert "<i>x</i>" not in page


def test_damage_and_quarantine_are_said_on_the_page(three, registered):
    owner, _, _ = three
    _, version = registered(owner.actor)
    services.mark_damaged(sha256=version.artifact.sha256)
    services.quarantine(version, reason="It crashed its worker twice.")
    page = text(owner.browser.get(version.get_absolute_url()))
    assert "no longer have their digest" in page
    assert "It crashed its worker twice." in page
