"""What the jobs API takes."""

from rest_framework.serializers import ChoiceField

from controlplane.core.fields import Shaped, StrictSerializer, Text, Whole
from optimizer.api import schemas
from optimizer.searches import MAX_JOBS, MAX_MINUTES

GPU = "Run on a GPU: `any`, or a compute capability such as `8.9`. Without, the recipe decides."
SEARCH_GPU = (
    "Measure TensorRT's engines on a GPU of this compute capability, such as `8.9`, instead of what CPUs run."
)


class NewJob(StrictSerializer):
    """`recipe` is a list of `{"technique": key, "params": {...}}`; see /api/v1/techniques/ for both."""

    model = Text(max_length=63)
    version = Whole(min_value=1, max_value=2**31 - 1)
    variant = Whole(min_value=0, max_value=2**31 - 1, default=0)
    recipe = Shaped(list[schemas.Step], kind=list)
    evaluation_set = Text(max_length=63, required=False, allow_null=True)
    calibration_set = Text(max_length=63, required=False, allow_null=True)
    priority = ChoiceField(choices=["low", "normal", "high"], default="normal")
    gpu = Text(max_length=10, required=False, allow_null=True, help_text=GPU)


class NewSearch(StrictSerializer):
    """`max_jobs` and `max_minutes` are its budget: it ends with whichever is used up first."""

    model = Text(max_length=63)
    version = Whole(min_value=1, max_value=2**31 - 1)
    variant = Whole(min_value=0, max_value=2**31 - 1, default=0)
    evaluation_set = Text(max_length=63, required=False, allow_null=True)
    calibration_set = Text(max_length=63, required=False, allow_null=True)
    gpu = Text(max_length=10, required=False, allow_null=True, help_text=SEARCH_GPU)
    max_jobs = Whole(min_value=1, max_value=MAX_JOBS, default=12)
    max_minutes = Whole(min_value=1, max_value=MAX_MINUTES, default=60)
