"""What the registry's API takes."""

from rest_framework.serializers import ChoiceField

from controlplane.core.fields import Number, StrictSerializer, Text, Whole
from controlplane.registry.answers import MAX_OUTPUT_NAME, POOLINGS, TASKS
from controlplane.registry.gate import MAX_OVERRIDE, MOST_MIB, MOST_MS, POINTS, SPEEDUPS
from controlplane.registry.services import MAX_DESCRIPTION
from controlplane.registry.sources import MAX_REFERENCE


class NewModel(StrictSerializer):
    name = Text(max_length=253, trim_whitespace=False)
    description = Text(max_length=MAX_DESCRIPTION, required=False, allow_blank=True)


class Description(StrictSerializer):
    description = Text(max_length=MAX_DESCRIPTION, allow_blank=True)


class GateLimits(StrictSerializer):
    min_speedup = Number(min_value=SPEEDUPS[0], max_value=SPEEDUPS[1])
    max_loss_points = Number(min_value=POINTS[0], max_value=POINTS[1])
    max_relative_loss_percent = Number(
        min_value=POINTS[0], max_value=POINTS[1], allow_null=True, default=None
    )
    max_size_mib = Number(min_value=0, max_value=MOST_MIB, allow_null=True, default=None)
    max_latency_ms = Number(min_value=0, max_value=MOST_MS, allow_null=True, default=None)


class Comparison(StrictSerializer):
    """null: as the signature of the latest version suggests."""

    task = ChoiceField(list(TASKS), allow_null=True)
    output = Text(max_length=MAX_OUTPUT_NAME, allow_null=True, default=None)
    pooling = ChoiceField(list(POOLINGS), allow_null=True, default=None)


class NewImport(StrictSerializer):
    reference = Text(
        max_length=MAX_REFERENCE,
        help_text="hf:organization/name@revision or models:/name/version (or name@alias), and then perhaps the path of "
        "one .onnx file or model.safetensors in it.",
    )


class AliasTarget(StrictSerializer):
    version = Whole(min_value=1, max_value=2**31 - 1)
    variant = Whole(min_value=0, max_value=2**31 - 1, default=0)
    override = Text(
        max_length=MAX_OVERRIDE,
        default="",
        allow_blank=True,
        help_text="Why a variant is used that has not passed the gate. Kept in the audit trail.",
    )
