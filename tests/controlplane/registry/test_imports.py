"""Versions by reference: what is fetched, from whom, what is refused, and what happens at every wrong moment."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from controlplane.accounts.access import Actor
from controlplane.core.errors import Conflict, InvalidInput, TooMany, Unprocessable
from controlplane.registry import imports, services, sources
from controlplane.registry.importer import Importer
from controlplane.registry.models import Artifact, Import, Model, Version
from controlplane.settings.environment import read_environment
from tests import factories
from tests.controlplane.registry.intake import models
from tests.controlplane.registry.intake.sklearn_files import ridge, skops
from tests.controlplane.registry.intake.test_transformers_folders import CONFIG, SHARDS, safetensors
from tests.controlplane.registry.people import code, coming_in
from tests.controlplane.registry.registries import COMMIT, Hub, Store, Tracking, certificate, serving
from tests.faults.waiting import until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("storage_of_its_own")]
REFERENCE = "hf:acme/churn@v1"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def environment(settings: Any) -> Callable[..., None]:
    def change(**changes: Any) -> None:
        settings.ENVIRONMENT = replace(settings.ENVIRONMENT, **changes)

    return change


@pytest.fixture
def hub(onnx: Callable[..., bytes], environment: Callable[..., None]) -> Iterator[Hub]:
    files = {"README.md": b"# churn", "model.onnx": onnx(), "pytorch_model.bin": b"\x80\x02}."}
    with serving(Hub(files=files)) as running:
        environment(hf_endpoint=running.url, import_hosts=())
        yield running


def fetched(actor: Actor, model: Model, reference: str = REFERENCE) -> Import:
    """Asked for, and then fetched as the process does it."""
    imports.start(actor, model, reference=reference)
    row = imports.claim()
    assert row is not None
    Importer().fetch(row)
    row.refresh_from_db()
    return row


def nothing_is_kept() -> bool:
    return not Version.objects.exists() and not Artifact.objects.exists() and not coming_in()


def test_an_onnx_file_becomes_a_version_pinned_to_its_commit(three, hub, onnx):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    row = fetched(owner.actor, model)
    assert (row.state, row.revision, row.message) == (Import.State.SUCCEEDED, COMMIT, "")
    assert (row.done_bytes, row.total_bytes) == (len(onnx()), len(onnx()))
    version = Version.objects.get(model=model)
    assert row.version == version
    assert (version.source_filename, version.source_sha256) == ("model.onnx", sha256(onnx()).hexdigest())
    provenance = version.variants.get().provenance["imported"]
    assert provenance == {
        "reference": REFERENCE,
        "from": "Hugging Face",
        "at": hub.url.removeprefix("http://"),
        "repository": "acme/churn",
        "commit": COMMIT,
        "files": [{"path": "model.onnx", "size_bytes": len(onnx()), "sha256": sha256(onnx()).hexdigest()}],
    }
    assert hub.asked == ["/api/models/acme/churn/revision/v1", f"/acme/churn/resolve/{COMMIT}/model.onnx"]


def test_the_same_revision_again_is_the_version_that_it_already_is(three, hub):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    first, second = fetched(owner.actor, model), fetched(owner.actor, model)
    assert first.version == second.version is not None
    assert second.state == Import.State.SUCCEEDED


def test_external_data_comes_with_its_model_and_other_models_stay(three, hub):
    owner, _, _ = three
    proto = models.external(location="model.onnx_data").SerializeToString()
    hub.files = {
        "onnx/model.onnx": proto,
        "onnx/model.onnx_data": models.WEIGHT_BYTES,
        "onnx/model_int8.onnx": b"other",
    }
    row = fetched(owner.actor, factories.model(owner.actor.team), "hf:acme/churn")
    assert (row.state, row.message) == (Import.State.SUCCEEDED, "")
    assert [path.rpartition("/")[2] for path in hub.asked[1:]] == ["model.onnx", "model.onnx_data"]
    assert row.version is not None
    assert row.version.source_filename == "model.onnx.zip"


def test_a_folder_of_transformers_is_its_configuration_and_its_weights(three, hub):
    owner, _, _ = three
    hub.files = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": safetensors(),
        "pytorch_model.bin": b"\x80\x02}.",
        "modeling.py": b"raise SystemExit",
    }
    model = factories.model(owner.actor.team)
    row = fetched(owner.actor, model, "hf:acme/churn")
    assert (row.state, row.message) == (Import.State.SUCCEEDED, "")
    assert row.version is not None
    assert row.version.format == "transformers"
    assert [path.rpartition("/")[2] for path in hub.asked[1:]] == ["model.safetensors", "config.json"]
    assert fetched(owner.actor, model, "hf:acme/churn").version == row.version


def test_weights_that_are_split_are_fetched_whole(three, hub):
    owner, _, _ = three
    hub.files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors.index.json": b"{}", **SHARDS}
    row = fetched(owner.actor, factories.model(owner.actor.team), "hf:acme/churn")
    assert (row.state, row.message) == (Import.State.SUCCEEDED, "")
    assert [path.rpartition("/")[2] for path in hub.asked[1:]] == [*sorted(SHARDS), "config.json"]


def test_a_model_of_scikit_learn_is_its_skops_file_and_no_pickle(three, hub):
    owner, _, _ = three
    hub.files = {"churn.skops": skops(ridge()), "churn.pkl": b"\x80\x02}."}
    row = fetched(owner.actor, factories.model(owner.actor.team), "hf:acme/churn")
    assert (row.state, row.message) == (Import.State.SUCCEEDED, "")
    assert row.version is not None
    assert (row.version.format, row.version.source_filename) == ("sklearn", "churn.skops")


@pytest.mark.parametrize(
    ("names", "path", "said"),
    [
        (["pytorch_model.bin"], "", "Its weights (pytorch_model.bin) can run code when they are loaded"),
        (["a.skops", "b.skops"], "", "It has several models: a.skops, b.skops. Write one behind"),
        (["a.onnx", "b.onnx"], "", "It has several models: a.onnx, b.onnx. Write one behind"),
        (["README.md"], "", "neither an .onnx file nor a .skops file nor config.json with model.safetensors"),
        (["model\x00.onnx", f"{'a' * 400}.onnx"], "", "neither an .onnx file nor a .skops file"),
        (["model.onnx"], "other.onnx", "There is no file “other.onnx”"),
        (["model.pt"], "model.pt", "neither an .onnx file nor a .skops file nor model.safetensors"),
        (["model.safetensors"], "model.safetensors", "There is no config.json beside"),
    ],
)
def test_what_cannot_be_taken_is_not_fetched_and_the_sentence_says_why(three, hub, names, path, said):
    owner, _, _ = three
    hub.files = dict.fromkeys(names, b"x")
    reference = f"{REFERENCE}/{path}" if path else REFERENCE
    row = fetched(owner.actor, factories.model(owner.actor.team), reference)
    assert (row.state, row.code) == (Import.State.FAILED, "nothing_to_import")
    assert said in row.message
    assert len(hub.asked) == 1


def test_what_is_fetched_is_looked_at_as_an_upload_is(three, hub):
    owner, _, _ = three
    hub.files = {"model.onnx": b"\x80\x04\x95 this is a pickle"}
    row = fetched(owner.actor, factories.model(owner.actor.team))
    assert (row.state, row.code) == (Import.State.FAILED, "unsafe_format")
    assert nothing_is_kept()


def test_redirects_are_followed_to_allowed_hosts_only_and_without_the_token(three, hub, environment):
    """`localhost` is another host than 127.0.0.1 here. It speaks no TLS, so being listed is not enough for it."""
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    hub.large, hub.wants_token = {"model.onnx"}, "hf_secret"
    with serving(Store(hub=hub), host="localhost") as store:
        hub.store = store.url
        for hosts in ((), ("localhost",)):
            environment(hf_token="hf_secret", import_hosts=hosts)
            row = fetched(owner.actor, model)
            assert (row.state, row.code) == (Import.State.FAILED, "redirect_refused")
            assert "leads to localhost, which is not allowed" in row.message
            assert "signature" not in row.message
        assert store.tokens == []
    assert nothing_is_kept()
    assert set(hub.tokens) == {"Bearer hf_secret"}


def test_large_files_come_from_an_allowed_host_which_never_sees_the_token(
    three, hub, onnx, environment, tmp_path, monkeypatch
):
    owner, _, _ = three
    environment(hf_token="hf_secret", import_hosts=("localhost",))
    hub.large, hub.wants_token = {"model.onnx"}, "hf_secret"
    of_localhost = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(of_localhost))
    with serving(Store(hub=hub), host="localhost", tls=of_localhost) as store:
        hub.store = store.url
        row = fetched(owner.actor, factories.model(owner.actor.team))
    assert (row.state, row.message) == (Import.State.SUCCEEDED, "")
    assert store.tokens == [""]
    assert set(hub.tokens) == {"Bearer hf_secret"}


def test_a_token_stays_with_the_endpoint_and_a_redirect_back_to_it_has_it(three, hub, environment):
    owner, _, _ = three
    environment(hf_token="hf_secret")
    hub.large, hub.wants_token = {"model.onnx"}, "hf_secret"
    hub.store = f"{hub.url}/elsewhere"
    row = fetched(owner.actor, factories.model(owner.actor.team))
    assert (row.state, row.code) == (Import.State.FAILED, "source_missing")
    assert hub.tokens == ["Bearer hf_secret"] * 3


@pytest.mark.parametrize(
    "scheme", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://169.254.169.254/x", "//127.1"]
)
def test_no_redirect_leads_to_another_scheme_or_into_the_network(three, hub, scheme):
    owner, _, _ = three
    hub.large, hub.store = {"model.onnx"}, scheme
    row = fetched(owner.actor, factories.model(owner.actor.team))
    assert (row.state, row.code) == (Import.State.FAILED, "redirect_refused")


def test_a_redirect_in_circles_ends(three, hub):
    owner, _, _ = three
    hub.large, hub.store = {"model.onnx"}, f"{hub.url}/acme/churn/resolve/{COMMIT}"
    row = fetched(owner.actor, factories.model(owner.actor.team))
    assert (row.state, row.code) == (Import.State.FAILED, "redirect_refused")


def test_what_is_too_large_is_refused_before_it_is_fetched(three, hub, environment, onnx):
    owner, _, _ = three
    environment(max_upload_bytes=len(onnx()) - 1)
    row = fetched(owner.actor, factories.model(owner.actor.team))
    assert (row.state, row.code) == (Import.State.FAILED, "upload_too_large")
    assert len(hub.asked) == 1


def test_bytes_that_are_not_the_announced_ones_are_not_kept(three, hub):
    owner, _, _ = three
    hub.large, hub.digests = {"model.onnx"}, {"model.onnx": "0" * 64}
    row = fetched(owner.actor, factories.model(owner.actor.team))
    assert (row.state, row.code) == (Import.State.FAILED, "digest_mismatch")
    assert nothing_is_kept()


@pytest.mark.parametrize(
    ("status", "word"), [(401, "source_forbidden"), (403, "source_forbidden"), (404, "source_missing")]
)
def test_what_the_hub_refuses_is_told_at_once(three, hub, status, word):
    owner, _, _ = three
    hub.status = status
    row = fetched(owner.actor, factories.model(owner.actor.team))
    assert (row.state, row.code) == (Import.State.FAILED, word)


def test_what_waiting_helps_is_tried_again_later_and_not_for_ever(three, hub):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    hub.status = 503
    row = fetched(owner.actor, model)
    assert row.state == Import.State.QUEUED
    assert row.message == "Hugging Face cannot answer now. It answered 503. Trying again in 20 s."
    assert imports.claim() is None
    for _ in range(imports.MAX_ATTEMPTS - 1):
        Import.objects.update(run_after=timezone.now())
        again = imports.claim()
        assert again is not None
        Importer().fetch(again)
    row.refresh_from_db()
    assert (row.state, row.code) == (Import.State.FAILED, "source_unavailable")


def test_a_connection_that_breaks_is_tried_again(three, hub):
    owner, _, _ = three
    hub.cut = True
    assert fetched(owner.actor, factories.model(owner.actor.team)).state == Import.State.QUEUED
    assert nothing_is_kept()


def test_an_import_that_takes_too_long_is_given_up(three, hub, environment):
    owner, _, _ = three
    environment(import_wall_s=0)
    row = fetched(owner.actor, factories.model(owner.actor.team))
    assert (row.state, row.code) == (Import.State.FAILED, "import_too_slow")


def test_a_second_try_fetches_the_revision_that_the_first_one_saw(three, hub):
    owner, _, _ = three
    imports.start(owner.actor, factories.model(owner.actor.team), reference="hf:acme/churn")
    Import.objects.update(revision=COMMIT)
    row = imports.claim()
    assert row is not None
    Importer().fetch(row)
    assert hub.asked[0] == f"/api/models/acme/churn/revision/{COMMIT}"


def test_mlflow_behind_a_password_is_asked_with_it(three, onnx, environment):
    owner, _, _ = three
    with serving(Tracking(files={"model.onnx": onnx()}, login="ada:secret: with a colon")) as tracking:
        environment(mlflow_uri=tracking.url, mlflow_token="secret: with a colon")
        refused = fetched(owner.actor, factories.model(owner.actor.team), "models:/churn scorer/3")
        environment(mlflow_uri=tracking.url, mlflow_user="ada", mlflow_token="secret: with a colon")
        row = fetched(owner.actor, factories.model(owner.actor.team), "models:/churn scorer/3")
    assert (refused.code, row.state) == ("source_forbidden", Import.State.SUCCEEDED)
    assert "SLIPWAY_MLFLOW_TOKEN" in refused.message


@pytest.mark.parametrize("reference", ["models:/churn scorer/3", "models:/churn scorer@champion"])
def test_a_model_of_mlflow_is_pinned_to_its_version(three, onnx, environment, reference):
    owner, _, _ = three
    files = {"MLmodel": b"flavors:", "data/model.onnx": onnx(), "python_model.pkl": b"\x80\x02}."}
    with serving(Tracking(files=files)) as tracking:
        environment(mlflow_uri=tracking.url)
        row = fetched(owner.actor, factories.model(owner.actor.team), reference)
    assert (row.state, row.message, row.revision) == (Import.State.SUCCEEDED, "", "3")
    assert row.version is not None
    provenance = row.version.variants.get().provenance["imported"]
    assert (provenance["version"], provenance["run"]) == ("3", "r1")
    assert [file["path"] for file in provenance["files"]] == ["data/model.onnx"]


@pytest.mark.parametrize(
    "root",
    ["s3://bucket/model", "file:///etc", "mlflow-artifacts://else.where/a", "mlflow-artifacts:/a/../b"],
)
def test_artifacts_that_the_tracking_server_does_not_hand_out_are_not_looked_for(three, environment, root):
    owner, _, _ = three
    with serving(Tracking(files={}, root=root)) as tracking:
        environment(mlflow_uri=tracking.url)
        row = fetched(owner.actor, factories.model(owner.actor.team), "models:/churn scorer/3")
    assert (row.state, row.code) == (Import.State.FAILED, "artifacts_elsewhere")


@pytest.mark.parametrize(
    "reference",
    [
        "", "https://huggingface.co/acme/churn", "hf:", "hf:../x", "hf:acme/..", "hf:acme/churn@..", "hf:a/b/c",
        "hf:acme/churn@main/../x", "hf:acme/churn@main//x", "hf:acme/churn?x", "hf:acme/churn@v1#x", "models:/x",
        "models:/x/latest", "models:/x/1/..", "models:/../1", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_a_reference_is_two_forms_and_no_address(three, reference):
    owner, _, _ = three
    with pytest.raises(InvalidInput):
        imports.start(owner.actor, factories.model(owner.actor.team), reference=reference)


_PARTS = st.text(alphabet="ab.-_/@:?#%\\ é\n", max_size=12)


@given(
    st.builds(
        str.__add__, st.sampled_from(["hf:", "models:/", ""]), st.lists(_PARTS, max_size=4).map("/".join)
    )
)
def test_whatever_is_written_no_part_of_what_is_read_leaves_its_place(text: str) -> None:
    try:
        found = sources.parse(text)
    except InvalidInput:
        return
    parts = [*found.model.split("/"), found.revision, *found.path.split("/")]
    assert not {".", ".."} & set(parts)
    assert not set("?#\\") & set(found.path)
    assert found.source == "mlflow" or re.fullmatch(r"[\w.-]+(?:/[\w.-]+)?", found.model, re.ASCII)


@pytest.mark.parametrize(
    "address", ["huggingface.co", "ftp://a.example", "https://user:word@a.example", "http://[", "x"]
)
def test_an_address_that_is_none_keeps_slipway_from_starting(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_HF_ENDPOINT", address)
    with pytest.raises(SystemExit, match="SLIPWAY_HF_ENDPOINT"):
        read_environment()


def test_a_source_that_is_not_set_is_refused_by_name(three, environment):
    owner, _, _ = three
    environment(hf_endpoint="")
    for reference, variable in (
        (REFERENCE, "SLIPWAY_HF_ENDPOINT"),
        ("models:/a/1", "SLIPWAY_MLFLOW_TRACKING_URI"),
    ):
        with pytest.raises(Unprocessable, match=variable):
            imports.start(owner.actor, factories.model(owner.actor.team), reference=reference)


def test_an_import_that_is_under_way_is_the_answer_and_a_team_has_a_bound(three):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    first, created = imports.start(owner.actor, model, reference=REFERENCE)
    assert imports.start(owner.actor, model, reference=REFERENCE) == (first, False)
    assert created
    for number in range(imports.MAX_ACTIVE - 1):
        imports.start(owner.actor, model, reference=f"hf:acme/m{number}")
    with pytest.raises(TooMany):
        imports.start(owner.actor, model, reference="hf:acme/one-more")


def test_a_cancelled_import_adds_nothing_even_at_its_last_moment(three, hub, onnx):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    imports.start(owner.actor, model, reference=REFERENCE)
    row = imports.claim()
    assert row is not None

    def cancelled_meanwhile(version: Version) -> None:
        imports.cancel(owner.actor, row)
        imports.succeed(row, version)

    with pytest.raises(imports.Lost):
        services.upload_version(owner.actor, model, chunks=[onnx()], then=cancelled_meanwhile)
    imports.cancel(owner.actor, row)
    Importer().fetch(row)
    row.refresh_from_db()
    assert row.state == Import.State.CANCELLED
    assert not Version.objects.exists()
    with pytest.raises(Conflict):
        imports.cancel(owner.actor, row)


def test_an_import_whose_process_died_is_taken_over_and_the_old_hand_can_write_nothing(three, hub):
    owner, _, _ = three
    imports.start(owner.actor, factories.model(owner.actor.team), reference=REFERENCE)
    old = imports.claim()
    assert old is not None
    assert imports.claim() is None
    Import.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    new = imports.claim()
    assert new is not None
    assert (new.pk, new.attempt) == (old.pk, 2)
    Importer().fetch(old)
    assert not Version.objects.exists()
    Importer().fetch(new)
    assert Version.objects.count() == 1


def test_one_whose_process_always_dies_fails(three):
    owner, _, _ = three
    imports.start(owner.actor, factories.model(owner.actor.team), reference=REFERENCE)
    for _ in range(imports.MAX_ATTEMPTS):
        assert imports.claim() is not None
        Import.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert imports.claim() is None
    assert Import.objects.get().code == "attempts_exhausted"


def test_a_process_that_stops_gives_its_import_back(three, hub):
    owner, _, _ = three
    imports.start(owner.actor, factories.model(owner.actor.team), reference=REFERENCE)
    row = imports.claim()
    assert row is not None
    importer = Importer()
    importer.stopping.set()
    importer.fetch(row)
    row.refresh_from_db()
    assert (row.state, row.attempt) == (Import.State.QUEUED, 0)
    assert nothing_is_kept()


@pytest.mark.django_db(transaction=True)
def test_the_process_takes_what_is_queued_and_ends_when_told(three, hub):
    owner, _, _ = three
    imports.start(owner.actor, factories.model(owner.actor.team), reference=REFERENCE)
    importer = Importer()
    running = threading.Thread(target=importer.run)
    running.start()
    until(lambda: not Import.objects.get().is_active, within_s=30)
    importer.stopping.set()
    running.join()
    assert Import.objects.get().state == Import.State.SUCCEEDED


def test_the_api_queues_tells_and_cancels_and_is_no_stranger_s(three):
    owner, teammate, stranger = three
    model = factories.model(owner.actor.team)
    path = f"models/{model.name}/imports/"
    answer = owner.api("POST", path, {"reference": REFERENCE})
    document = answer.json()
    assert (answer.status_code, document["state"], document["created"]) == (202, "queued", True)
    assert teammate.api("GET", path).json()["items"][0]["reference"] == REFERENCE
    assert code(teammate.api("POST", path, {"reference": REFERENCE})) == (403, "role_too_low")
    for method, address in (
        ("GET", path),
        ("GET", f"{path}{document['id']}/"),
        ("POST", f"{path}{document['id']}/cancel/"),
    ):
        assert stranger.api(method, address).status_code == 404
    assert code(owner.api("POST", path, {"reference": "gopher://x"})) == (400, "invalid_reference")
    cancel = owner.api("POST", f"{path}{document['id']}/cancel/")
    assert (cancel.status_code, cancel.json()["state"]) == (202, "cancelled")
    assert code(owner.api("POST", f"{path}{document['id']}/cancel/")) == (409, "import_is_over")


def test_the_pages_import_a_model_and_show_how_it_goes(three, hub):
    owner, teammate, _ = three
    form = {"name": "churn", "description": "", "reference": "hf:acme/nothing-here"}
    assert owner.browser.post("/models/new/import/", form).url == "/models/churn/#imports"
    row = imports.claim()
    assert row is not None
    Importer().fetch(row)
    page = owner.browser.get("/models/churn/").content.decode()
    assert "Hugging Face has no such model or revision." in page
    assert "/models/churn/versions/import/?reference=hf%3Aacme/nothing-here" in page
    assert owner.browser.post("/models/churn/versions/import/", {"reference": REFERENCE}).status_code == 302
    assert "Cancel the import of" in owner.browser.get("/models/churn/").content.decode()
    assert "Cancel the import of" not in teammate.browser.get("/models/churn/").content.decode()
    last = Import.objects.latest("pk")
    assert teammate.browser.post(f"/models/churn/imports/{last.pk}/cancel/").status_code == 403
    for said in ("Nothing of it is kept.", "The import is over: cancelled."):
        page = owner.browser.post(f"/models/churn/imports/{last.pk}/cancel/", follow=True)
        assert said in page.content.decode()
    owner.browser.post("/models/churn/versions/import/", {"reference": REFERENCE})
    row = imports.claim()
    assert row is not None
    Importer().fetch(row)
    version = owner.browser.get("/models/churn/versions/1/").content.decode()
    assert COMMIT[:12] in version
    assert "from Hugging Face" in version


def test_a_reference_that_is_refused_registers_no_model(three):
    owner, teammate, _ = three
    form = {"name": "churn", "reference": "https://example.com/x"}
    answer = owner.browser.post("/models/new/import/", form)
    assert answer.status_code == 400
    assert "It begins with neither" in answer.content.decode()
    assert not Model.objects.exists()
    assert teammate.browser.post("/models/new/import/", form).status_code == 403
