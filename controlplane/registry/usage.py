"""What stands in the way of a deletion. Apps above the registry say what they use, without being imported.

Each registers a function in its `AppConfig.ready`; it answers with sentences that name the user of a variant.
"""

from collections.abc import Callable, Iterable

from controlplane.registry.models import Alias, Dataset, Variant

type Uses = Callable[[list[int]], Iterable[str]]
type DatasetUses = Callable[[int], Iterable[str]]

_USES: list[Uses] = []
_DATASET_USES: list[DatasetUses] = []


def register(uses: Uses) -> None:
    """`uses(variant_ids)` names everything of its app that needs one of them. One or two queries."""
    if uses not in _USES:
        _USES.append(uses)


def register_datasets(uses: DatasetUses) -> None:
    """`uses(dataset_id)` names everything of its app that still needs the data set."""
    if uses not in _DATASET_USES:
        _DATASET_USES.append(uses)


def of_dataset(dataset: Dataset) -> list[str]:
    return [user for uses in _DATASET_USES for user in uses(dataset.pk)]


def of(variants: Iterable[Variant]) -> list[str]:
    ids = [variant.pk for variant in variants]
    aliases = Alias.objects.filter(variant__in=ids).select_related("variant__version__model")
    found = [f"alias “{alias.name}” points to {alias.variant}" for alias in aliases]
    for uses in _USES:
        found += uses(ids)
    return found
