"""Versions whose file is code: opened only where the operator allows it and an admin trusts this very version.

Both are asked again before every job and before every attempt, so taking the setting away stops what is queued.
Refused: trust in a model, a person or a digest, which would cover files that nobody looked at.
"""

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from controlplane.accounts import audit
from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core import bus
from controlplane.core.errors import Conflict
from controlplane.registry import formats
from controlplane.registry.models import Variant, Version


def refuse_untrusted(variant: Variant) -> None:
    """Raises Conflict for a file that must not be opened."""
    if variant.format not in formats.RUN_CODE:
        return
    _refuse_switched_off()
    if variant.version.trusted_at is None:
        raise Conflict(
            "not_trusted",
            f"{variant.version} is TorchScript, which runs its code when it is opened.",
            "An admin of the team has to trust this version first, on its page.",
        )


def trust(actor: Actor, version: Version) -> Version:
    """From now on jobs may open the version, in the sandbox. Raises Conflict where nothing need or may be trusted."""
    actor.require(Role.ADMIN)
    if version.format not in formats.RUN_CODE:
        raise Conflict(
            "nothing_to_trust", f"{version} is data.", "No code of it runs, so no trust is needed."
        )
    _refuse_switched_off()
    return _written_down(
        actor, version, "trusted the code of", before=True, trusted_at=Now(), trusted_by=actor.user
    )


def withdraw(actor: Actor, version: Version) -> Version:
    """No job opens it from now on; one that runs finishes its attempt, and its variants stay."""
    actor.require(Role.ADMIN)
    return _written_down(
        actor, version, "withdrew trust in the code of", before=False, trusted_at=None, trusted_by=None
    )


def _written_down(actor: Actor, version: Version, verb: str, *, before: bool, **changes: object) -> Version:
    """Once, however often it is asked for. `before`: whether it was untrusted until now."""
    with transaction.atomic():
        rows = Version.objects.filter(pk=version.pk, trusted_at__isnull=before)
        if rows.update(**changes):
            audit.record(
                actor,
                verb,
                object_type="version",
                object_id=version.pk,
                object_name=str(version),
                object_url=version.get_absolute_url(),
                details={"sha256": version.source_sha256},
            )
            bus.publish("models", f"model:{version.model_id}", team_id=actor.team.pk)
    version.refresh_from_db(fields=["trusted_at", "trusted_by"])
    return version


def _refuse_switched_off() -> None:
    if not settings.ENVIRONMENT.torchscript:
        raise Conflict(
            "torchscript_off",
            "TorchScript is not opened here.",
            "It runs code when it is opened. An operator can allow it with SLIPWAY_TORCHSCRIPT; else export the model "
            "with torch.export or to ONNX.",
        )
