"""What the deployments API takes. A revision's spec is checked by the values it becomes, not a second time here."""

from controlplane.core.fields import Flag, Number, Shaped, StrictSerializer, Text, Whole
from deployments.api import schemas


class NewDeployment(StrictSerializer):
    name = Text(max_length=253, trim_whitespace=False)
    target = Text(max_length=63, default="this-machine")
    protected = Flag(default=False)


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
