"""The registry's duty: collect what nothing refers to."""

from controlplane.core.dispatcher import Duty
from controlplane.registry.artifacts import collect_garbage

DUTIES = (Duty(name="collect garbage", run=collect_garbage, every_s=900),)
