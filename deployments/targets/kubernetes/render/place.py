"""Where a deployment is rendered to: what differs between two clusters, and nothing of the revision."""

from dataclasses import dataclass

FETCH_IMAGE = "slipway/replica-fastapi"


@dataclass(frozen=True, kw_only=True)
class Place:
    """`fetch_url` is Slipway's address as pods reach it, `fetch_ca` the PEM of who signed its certificate (empty: one
    that everybody knows); `fetch_image` runs the module that fetches.

    `slipway_namespace` is where Slipway itself runs in this cluster, empty where it runs elsewhere. `metrics_url` and
    `keda_secret` serve KEDA, which asks for the signals itself.
    """

    namespace: str
    fetch_url: str
    fetch_ca: str = ""
    fetch_image: str = FETCH_IMAGE
    slipway_namespace: str = ""
    metrics_url: str = ""
    keda_secret: str = ""
