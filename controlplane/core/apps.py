"""The kernel as a Django app: it owns template tags, checks and the cache table."""

from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "controlplane.core"
    label = "core"

    def ready(self) -> None:
        from django.urls import register_converter

        from controlplane.core.converters import DigestConverter, IdConverter, NameConverter

        register_converter(IdConverter, "id")
        register_converter(NameConverter, "name")
        register_converter(DigestConverter, "sha256")
        from controlplane.core import checks  # noqa: F401  registers the system checks
