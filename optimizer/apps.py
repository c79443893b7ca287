from django.apps import AppConfig


class OptimizerConfig(AppConfig):
    name = "optimizer"

    def ready(self) -> None:
        from controlplane.registry import usage
        from optimizer import selectors

        usage.register(selectors.uses)
        usage.register_datasets(selectors.uses_of_dataset)
