from django.apps import AppConfig


class OptimizerConfig(AppConfig):
    name = "optimizer"

    def ready(self) -> None:
        from controlplane.registry import gate, usage
        from optimizer import gating, selectors

        gate.register(gating.judge)
        usage.register(selectors.uses)
        usage.register_datasets(selectors.uses_of_dataset)
