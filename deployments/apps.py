from django.apps import AppConfig


class DeploymentsConfig(AppConfig):
    name = "deployments"

    def ready(self) -> None:
        from controlplane.registry import usage
        from deployments import selectors

        usage.register(selectors.uses)
