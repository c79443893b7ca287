from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_save


class DeploymentsConfig(AppConfig):
    name = "deployments"

    def ready(self) -> None:
        from controlplane.accounts.models import Team
        from controlplane.registry import serving, usage
        from deployments import selectors, services, stacks

        def equip(instance: Team, created: bool, raw: bool, **_: Any) -> None:
            """Every team can deploy to this machine. Teams are made below us, and know nothing of targets."""
            if created and not raw:
                services.add_this_machine(instance)

        usage.register(selectors.uses)
        serving.register(stacks.served, stacks.only_elsewhere)
        post_save.connect(equip, sender=Team, weak=False, dispatch_uid="this-machine")
