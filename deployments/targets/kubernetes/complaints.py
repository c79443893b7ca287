"""What stands in the way in a cluster whoever asks, a connection test or a pre-flight: said alike by both. Pure."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from controlplane.core.errors import SlipwayError
from deployments.domain.plan import Finding
from deployments.targets.kubernetes.permissions import Missing
from deployments.targets.kubernetes.render.place import Place

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def not_known(error: SlipwayError) -> Finding:
    """The cluster does not let us ask, or does not know what was asked."""
    return Finding.info(
        "not_known",
        "The cluster does not let Slipway look at this.",
        error.detail,
        "Grant it by the table of rights on the target's page if you want it checked.",
    )


def namespace_missing(namespace: str) -> Finding:
    return Finding.error(
        "namespace_missing",
        f"There is no namespace {namespace}.",
        "The cluster does not have it.",
        f"kubectl create namespace {namespace}",
    )


def rights(missing: Missing) -> Iterator[Finding]:
    if missing.needed:
        yield Finding.error(
            "permission_missing",
            "Slipway is not permitted what a rollout needs.",
            f"Missing: {', '.join(missing.needed)}.",
            "Apply the role that the target's page prints.",
        )
    if missing.optional:
        yield Finding.info(
            "permission_partial",
            "Some things cannot be looked at with these rights.",
            f"Missing: {', '.join(missing.optional)}.",
            "Nothing, if you can do without; the target's page says what each is for.",
        )


def address(place: Place) -> Iterator[Finding]:
    """At which pods fetch their variants."""
    parts = urlsplit(place.fetch_url)
    if parts.hostname is None or parts.hostname in LOOPBACK:
        yield Finding.error(
            "address_unreachable",
            "Pods could not fetch variants.",
            f"They would ask {place.fetch_url}, which from inside a pod is the pod itself."
            if parts.hostname
            else "The target does not say at which address pods reach Slipway.",
            "Set the address of Slipway as pods reach it on the target's page.",
        )
    elif parts.scheme != "https":
        yield Finding.error(
            "address_not_https",
            "Pods would not fetch variants.",
            f"{place.fetch_url} is not https, and they show nobody their token in the clear.",
            "Give Slipway an address with TLS; the target's page takes the authority that signed its certificate.",
        )
