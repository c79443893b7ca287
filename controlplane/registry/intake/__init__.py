"""What users upload, looked at: formats by allow-list, models and data sets in the sandbox only.

Imports no Django and no database: the services of the registry decide what is kept.
"""

from controlplane.registry.intake.inspection import (
    SCRATCH_PREFIX,
    Bounds,
    DatasetInspection,
    Inspection,
    inspected,
    inspected_dataset,
    scratch_root,
)

__all__ = [
    "SCRATCH_PREFIX",
    "Bounds",
    "DatasetInspection",
    "Inspection",
    "inspected",
    "inspected_dataset",
    "scratch_root",
]
