"""How a deployment's pods get their variants: a token of the deployment becomes an address that is good for minutes.

The token lies in the cluster for as long as the deployment does; what proxies and logs see on the way of the bytes is
worth nothing soon after. Refused: the bytes straight for the token, which would have to go wherever they are kept.
"""

from urllib.parse import urlencode

from django.core import signing

from controlplane.core.errors import Forbidden, NotFound
from controlplane.registry import artifacts
from controlplane.registry.models import Artifact, Variant
from deployments.targets.kubernetes.opening import deployment_of

GOOD_FOR_S = 300
SALT = "slipway.pull.content"


def granted(token: str, sha256: str) -> Variant:
    """The variant of these bytes that a revision of the token's deployment serves. Raises NotFound, with the same
    words whatever is wrong, and Conflict where the bytes are damaged."""
    try:
        key = deployment_of(token)
    except signing.BadSignature as error:
        raise _nothing() from error
    rows = Variant.objects.filter(
        artifact__sha256=sha256,
        revisions__deployment=int(key.removeprefix("d")),
        revisions__deployment__removing=False,
    )
    variant = rows.select_related("artifact", "version__model").first()
    if variant is None:
        raise _nothing()
    if variant.artifact.state == Artifact.State.DAMAGED:
        raise artifacts.damaged(variant)
    return variant


def signed(variant: Variant) -> str:
    """The query that opens the bytes to whoever has it."""
    return urlencode({"signature": signing.dumps([variant.artifact.sha256, variant.pk], salt=SALT)})


def opened(sha256: str, signature: str) -> Variant:
    """Raises Forbidden for a signature that is too old, or of other bytes, or none."""
    try:
        of, pk = signing.loads(signature, salt=SALT, max_age=GOOD_FOR_S)
    except signing.SignatureExpired as error:
        raise Forbidden(
            "signature_expired",
            "This address is too old.",
            f"It was good for {GOOD_FOR_S} s. Ask for a new one.",
        ) from error
    except signing.BadSignature as error:
        raise _unsigned() from error
    if of != sha256:
        raise _unsigned()
    variant = Variant.objects.filter(pk=pk, artifact__sha256=sha256)
    found = variant.select_related("artifact", "version__model").first()
    if found is None:
        raise _nothing()
    return found


def _nothing() -> NotFound:
    return NotFound(
        "no_such_variant",
        "There is nothing here.",
        "The token is no deployment's, or the deployment serves no such variant.",
    )


def _unsigned() -> Forbidden:
    return Forbidden("not_signed", "This address is not signed.", "Ask /pull/<sha256>/ for one that is.")
