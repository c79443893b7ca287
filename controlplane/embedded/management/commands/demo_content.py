"""`manage.py demo_content`: the demo's story, told to a running Slipway through its API."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import BaseCommand, CommandError

from controlplane.accounts import services
from controlplane.accounts.access import Actor
from controlplane.accounts.models import Membership, Role, Team, User
from controlplane.embedded.demo.client import Api, Refused
from controlplane.embedded.demo.content import Demo
from controlplane.embedded.management.commands.prepare import FIRST_TEAM
from controlplane.embedded.processes import ADMIN

TOKEN_LIFE = timedelta(hours=1)


class Command(BaseCommand):
    help = "Register, optimize, roll out and load the demo model on the Slipway that runs here."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            user, team = User.objects.get(username=ADMIN), Team.objects.get(name=FIRST_TEAM)
            Membership.objects.get(user=user, team=team)
        except ObjectDoesNotExist as error:
            raise CommandError(
                f"The demo is told by {ADMIN} in the team {FIRST_TEAM}, and there is no such member. "
                f"Make one: manage.py create_admin {ADMIN} --team {FIRST_TEAM}"
            ) from error
        actor = Actor(team=team, role=Role.ADMIN, user=user)
        token, text = services.issue_token(actor, name="demo", role=Role.ADMIN, lifetime=TOKEN_LIFE)
        try:
            Demo(
                api=Api(url=f"http://{settings.ENVIRONMENT.address}/", token=text),
                project=settings.BASE_DIR,
                say=self.stdout.write,
            ).run()
        except (Refused, TimeoutError) as error:
            raise CommandError(str(error)) from error
        finally:
            services.revoke_token(actor, token)
