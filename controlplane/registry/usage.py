"""What stands in the way of a deletion. Apps above the registry say what they use, without being imported.

Each registers a function in its `AppConfig.ready`; it answers with sentences that name the user of a variant.
"""

from collections.abc import Callable, Iterable

from controlplane.registry.models import Alias, Variant

type Uses = Callable[[list[int]], Iterable[str]]

_USES: list[Uses] = []


def register(uses: Uses) -> None:
    """`uses(variant_ids)` names everything of its app that needs one of them. One or two queries."""
    if uses not in _USES:
        _USES.append(uses)


def of(variants: Iterable[Variant]) -> list[str]:
    ids = [variant.pk for variant in variants]
    aliases = Alias.objects.filter(variant__in=ids).select_related("variant__version__model")
    found = [f"alias “{alias.name}” points to {alias.variant}" for alias in aliases]
    for uses in _USES:
        found += uses(ids)
    return found
