"""What the jobs API takes."""

from controlplane.core.fields import Shaped, StrictSerializer, Text, Whole
from optimizer.api import schemas


class NewJob(StrictSerializer):
    """`recipe` is a list of `{"technique": key, "params": {...}}`; see /api/v1/techniques/ for both."""

    model = Text(max_length=63)
    version = Whole(min_value=1, max_value=2**31 - 1)
    variant = Whole(min_value=0, max_value=2**31 - 1, default=0)
    recipe = Shaped(list[schemas.Step], kind=list)
    evaluation_set = Text(max_length=63, required=False, allow_null=True)
    calibration_set = Text(max_length=63, required=False, allow_null=True)
