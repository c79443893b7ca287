"""What allauth's pages change stands in the audit trail too.

It tells when it has changed something, not before: these rows are the only ones that are written after their mutation
and not in its transaction.
"""

from typing import Any

from allauth.account.signals import password_changed
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authenticator_added, authenticator_removed, authenticator_reset
from django.dispatch import receiver

from controlplane.accounts import services
from controlplane.accounts.models import User


@receiver(password_changed)
def _password(user: User, **_: Any) -> None:
    services.note_of_account(user, "changed the password of")


@receiver(authenticator_added)
def _on(user: User, authenticator: Authenticator, **_: Any) -> None:
    """Recovery codes come and go with it."""
    if authenticator.type == Authenticator.Type.TOTP:
        services.note_of_account(user, "turned on two-factor login of")


@receiver(authenticator_removed)
def _off(user: User, authenticator: Authenticator, **_: Any) -> None:
    if authenticator.type == Authenticator.Type.TOTP:
        services.note_of_account(user, "turned off two-factor login of")


@receiver(authenticator_reset)
def _new_codes(user: User, **_: Any) -> None:
    services.note_of_account(user, "made new recovery codes of")
