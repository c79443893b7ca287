"""What an admin says of a version: trust in its code, which the operator has to allow, and the end of a quarantine."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controlplane.accounts.access import Actor
from controlplane.accounts.models import AuditEvent
from controlplane.core.errors import Conflict
from controlplane.registry import formats, trust
from controlplane.registry import services as registry
from controlplane.registry.models import Variant, Version
from optimizer import services
from optimizer.domain.jobs import FailureReason, JobState
from optimizer.domain.recipe import Recipe, Step
from optimizer.models import Job
from optimizer.tasks import run_job
from tests import factories
from tests.controlplane.registry import people
from tests.controlplane.registry.people import code

pytestmark = pytest.mark.django_db
EXPORT = Recipe(steps=(Step(technique="onnx-export"),))


@pytest.fixture
def setting(settings: Any) -> Callable[[bool], None]:
    def change(allowed: bool) -> None:
        settings.ENVIRONMENT = replace(settings.ENVIRONMENT, torchscript=allowed)

    change(True)
    return change


def script(of: Actor) -> Version:
    version = factories.version(factories.model(of.team))
    Version.objects.filter(pk=version.pk).update(
        format=formats.TORCHSCRIPT,
        summary={"precision": "fp32", "operators": [], "parameters": None, "seconds": 0.1},
    )
    version.variants.update(format=formats.TORCHSCRIPT)
    return Version.objects.get(pk=version.pk)


def own(version: Version) -> Variant:
    return version.variants.select_related("version__model__team", "artifact").get(number=0)


def test_no_job_opens_it_before_an_admin_trusts_it(three, setting):
    owner, _, _ = three
    version = script(owner.actor)
    with pytest.raises(Conflict, match="An admin of the team has to trust") as error:
        services.optimize(owner.actor, own(version), recipe=EXPORT)
    assert error.value.code == "not_trusted"
    trust.trust(people.admin(owner).actor, version)
    job, _ = services.optimize(owner.actor, own(version), recipe=EXPORT)
    assert job.queue == "optimize.cpu.torch"


def test_a_job_that_waited_while_the_permission_was_taken_back_is_refused(three, setting):
    owner, _, _ = three
    version = script(owner.actor)
    trust.trust(people.admin(owner).actor, version)
    job, _ = services.optimize(owner.actor, own(version), recipe=EXPORT)
    setting(False)
    run_job.apply(args=[job.pk], throw=True)
    job = Job.objects.get(pk=job.pk)
    assert (job.state, job.reason) == (JobState.FAILED, FailureReason.REFUSED)
    assert "SLIPWAY_TORCHSCRIPT" in job.message
    with pytest.raises(Conflict) as error:
        services.optimize(owner.actor, own(version), recipe=EXPORT)
    assert error.value.code == "torchscript_off"


def test_trust_is_an_admin_s_of_the_team_and_is_written_down_once(three, setting):
    owner, _, stranger = three
    version = script(owner.actor)
    admin = people.admin(owner)
    path = f"models/{version.model.name}/versions/1/trust/"
    assert code(owner.api("POST", path)) == (403, "role_too_low")
    assert stranger.api("POST", path).status_code == 404
    answers = [admin.api("POST", path) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["trusted_at"] == answers[1].json()["trusted_at"] is not None
    event = AuditEvent.objects.get(verb="trusted the code of")
    assert event.details == {"sha256": version.source_sha256}


def test_nothing_is_trusted_that_is_data_or_that_the_operator_does_not_allow(three, setting):
    owner, _, _ = three
    admin = people.admin(owner)
    data, version = factories.version(factories.model(owner.actor.team)), script(owner.actor)
    assert code(admin.api("POST", f"models/{data.model.name}/versions/1/trust/")) == (409, "nothing_to_trust")
    setting(False)
    path = f"models/{version.model.name}/versions/1/trust/"
    assert code(admin.api("POST", path)) == (409, "torchscript_off")
    assert Version.objects.get(pk=version.pk).trusted_at is None


def test_the_page_says_what_trust_means_and_wants_the_name_typed(three, setting):
    owner, _, _ = three
    version = script(owner.actor)
    admin, url = people.admin(owner), version.get_absolute_url()
    assert f"{url}trust/" not in owner.browser.get(url).content.decode()
    assert f"{url}trust/" in admin.browser.get(url).content.decode()
    assert owner.browser.get(f"{url}trust/").status_code == 403
    wrong = admin.browser.post(f"{url}trust/", {"confirm": "yes"})
    assert (wrong.status_code, Version.objects.get(pk=version.pk).trusted_at) == (400, None)
    admin.browser.post(f"{url}trust/", {"confirm": f"{version.model.name}/1"})
    assert Version.objects.get(pk=version.pk).trusted_by == admin.actor.user
    assert "Code trusted" in owner.browser.get(url).content.decode()


def test_trust_is_taken_back_by_an_admin_and_no_job_opens_the_version_any_more(three, setting):
    owner, _, _ = three
    version, admin = script(owner.actor), people.admin(owner)
    trust.trust(admin.actor, version)
    job, _ = services.optimize(owner.actor, own(version), recipe=EXPORT)
    path = f"models/{version.model.name}/versions/1/trust/"
    assert code(owner.api("DELETE", path)) == (403, "role_too_low")
    assert [admin.api("DELETE", path).status_code for _ in range(2)] == [204, 204]
    assert AuditEvent.objects.filter(verb="withdrew trust in the code of").count() == 1
    run_job.apply(args=[job.pk], throw=True)
    assert Job.objects.get(pk=job.pk).reason == FailureReason.REFUSED
    assert admin.api("POST", path).json()["trusted_at"] is not None


def test_trust_is_taken_back_from_its_page(three, setting):
    owner, _, _ = three
    version, admin = script(owner.actor), people.admin(owner)
    trust.trust(admin.actor, version)
    url = version.get_absolute_url()
    assert f"{url}trust/withdraw/" not in owner.browser.get(url).content.decode()
    assert f"{url}trust/withdraw/" in admin.browser.get(url).content.decode()
    wrong = admin.browser.post(f"{url}trust/withdraw/", {"confirm": "yes"})
    assert (wrong.status_code, Version.objects.get(pk=version.pk).trusted_by) == (400, admin.actor.user)
    admin.browser.post(f"{url}trust/withdraw/", {"confirm": f"{version.model.name}/1"})
    assert Version.objects.get(pk=version.pk).trusted_by is None


def test_a_quarantine_is_lifted_by_an_admin_and_the_version_may_be_used_again(three):
    owner, _, stranger = three
    version, admin = factories.version(factories.model(owner.actor.team)), people.admin(owner)
    registry.quarantine(version, reason="It crashed its worker three times.")
    url, path = version.get_absolute_url(), f"models/{version.model.name}/versions/1/quarantine/"
    graph = Recipe(steps=(Step(technique="onnx-graph"),))
    with pytest.raises(Conflict, match="quarantined"):
        services.optimize(owner.actor, own(Version.objects.get()), recipe=graph)
    assert code(owner.api("DELETE", path)) == (403, "role_too_low")
    assert stranger.api("DELETE", path).status_code == 404
    shown = owner.browser.get(url).content.decode()
    assert "quarantine/" not in shown
    assert "Deploy the original" not in shown
    assert 'id="optimize"' not in shown
    page = admin.browser.get(f"{url}quarantine/").content.decode()
    assert "It crashed its worker three times." in page
    admin.browser.post(f"{url}quarantine/", {"confirm": f"{version.model.name}/1"})
    assert admin.api("DELETE", path).status_code == 204
    assert "Deploy the original" in owner.browser.get(url).content.decode()
    event = AuditEvent.objects.get(verb="lifted the quarantine of")
    assert event.details == {"reason": "It crashed its worker three times."}
    job, _ = services.optimize(owner.actor, own(Version.objects.get()), recipe=graph)
    assert job.state == JobState.QUEUED
