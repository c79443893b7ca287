"""The kernel as a Django app: it owns template tags, checks and the cache table."""

from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "controlplane.core"
    label = "core"

    def ready(self) -> None:
        from controlplane.core import checks  # noqa: F401  registers the system checks
