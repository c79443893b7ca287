"""`manage.py prepare`: migrate, and make what an empty installation needs. Running it again changes nothing.

The first person is made only while there is none, from SLIPWAY_ADMIN_PASSWORD; the arguments ask for more.
"""

import os
from argparse import ArgumentParser
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from controlplane.accounts import services as accounts
from controlplane.accounts.models import User
from controlplane.embedded.processes import ADMIN, ADMIN_PASSWORD, OWN_LOGIN

FIRST_TEAM = "main"


class Command(BaseCommand):
    help = "Migrate the database and make the first admin and team."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--admin", action="store_true", help=f"make {ADMIN} also beside other people")
        parser.add_argument(
            "--new-password", action="store_true", help=f"make {ADMIN}, or give the password anew"
        )

    def handle(self, *, admin: bool, new_password: bool, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=1)
        password = os.environ.get(ADMIN_PASSWORD)
        if not password:
            return
        people, known = User.objects.exists(), User.objects.filter(username=ADMIN).first()
        if new_password or not people or (admin and known is None):
            accounts.ensure_admin(username=ADMIN, team=FIRST_TEAM, password=password)
        elif known is None or not known.check_password(password):
            self.stdout.write(OWN_LOGIN)
