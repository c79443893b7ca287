"""What the deployments API takes. A revision's spec is checked by the values it becomes, not a second time here."""

from typing import Any

from rest_framework.exceptions import ValidationError

from controlplane.core.fields import Flag, Number, Shaped, StrictSerializer, Text, Whole
from deployments.api import schemas
from deployments.targets.kubernetes.render.place import FETCH_IMAGE


class NewTarget(StrictSerializer):
    """A cluster. `kubeconfig` is written and never read back; `in_cluster` takes Slipway's own account instead."""

    name = Text(max_length=253, trim_whitespace=False)
    kubeconfig = Text(default="", allow_blank=True, trim_whitespace=False)
    context = Text(max_length=253, default="", allow_blank=True)  # type: ignore[assignment]
    in_cluster = Flag(default=False)
    namespace = Text(max_length=63, trim_whitespace=False)
    fetch_url = Text(max_length=500, default="", allow_blank=True)
    fetch_ca = Text(max_length=100_000, default="", allow_blank=True)
    scrape = Text(max_length=10, default="", allow_blank=True)
    fetch_image = Text(max_length=512, default=FETCH_IMAGE)
    slipway_namespace = Text(max_length=63, default="", allow_blank=True)
    metrics_url = Text(max_length=500, default="", allow_blank=True)
    keda_secret = Text(max_length=253, default="", allow_blank=True)


class ChangedTarget(StrictSerializer):
    """What is left out stays. With `context` alone, another context of the stored kubeconfig is taken."""

    kubeconfig = Text(required=False, trim_whitespace=False)
    context = Text(max_length=253, required=False)  # type: ignore[assignment]
    namespace = Text(max_length=63, required=False, trim_whitespace=False)
    fetch_url = Text(max_length=500, required=False, allow_blank=True)
    fetch_ca = Text(max_length=100_000, required=False, allow_blank=True)
    scrape = Text(max_length=10, required=False, allow_blank=True)
    fetch_image = Text(max_length=512, required=False)
    slipway_namespace = Text(max_length=63, required=False, allow_blank=True)
    metrics_url = Text(max_length=500, required=False, allow_blank=True)
    keda_secret = Text(max_length=253, required=False, allow_blank=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise ValidationError({"body": ["Name at least one field to change."]})
        return attrs


class NewMetricsApi(StrictSerializer):
    """`outside` is HOST:PORT of the process where it does not run in the cluster. With `dry_run` nothing is changed."""

    namespace = Text(max_length=63, trim_whitespace=False)
    ca_pem = Text(max_length=100_000)
    outside = Text(max_length=300, default="", allow_blank=True)
    dry_run = Flag(default=False)


class NewDeployment(StrictSerializer):
    name = Text(max_length=253, trim_whitespace=False)
    target = Text(max_length=63, default="this-machine")
    protected = Flag(default=False)


class NewImportedDeployment(StrictSerializer):
    """`deployment` is the name of what others run; `name` is what it is called here. `stack` is guessed
    by its image if it is left out."""

    deployment = Text(max_length=253, trim_whitespace=False)
    name = Text(max_length=253, trim_whitespace=False, default="", allow_blank=True)
    model = Text(max_length=63)
    version = Whole(min_value=1, max_value=2**31 - 1)
    variant = Whole(min_value=0, max_value=2**31 - 1, default=0)
    stack = Text(max_length=63, default="", allow_blank=True)


class NewRevision(StrictSerializer):
    """`spec` may leave out everything it wants by default; see `deployments.domain.spec.RevisionSpec`."""

    model = Text(max_length=63)
    version = Whole(min_value=1, max_value=2**31 - 1)
    variant = Whole(min_value=0, max_value=2**31 - 1, default=0)
    spec = Shaped(schemas.Spec, kind=dict, default=dict)


class RevisionNumber(StrictSerializer):
    revision = Whole(min_value=1, max_value=2**31 - 1)


class Replicas(StrictSerializer):
    replicas = Whole(min_value=0, max_value=256)


class Paused(StrictSerializer):
    paused = Flag()


class NewLoad(StrictSerializer):
    """The bounds are the service's; these only keep out what is no number."""

    rate_per_s = Number(min_value=0, max_value=1e6)
    duration_s = Whole(min_value=1, max_value=2**31 - 1)
