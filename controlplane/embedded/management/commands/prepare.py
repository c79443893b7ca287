"""`manage.py prepare`: migrate, and make what an empty installation needs. Running it again changes nothing.

The first person is made only while there is none, from SLIPWAY_ADMIN_PASSWORD.
"""

import os
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from controlplane.accounts import services as accounts
from controlplane.accounts.models import User
from controlplane.embedded.processes import ADMIN_PASSWORD
from controlplane.embedded.up import ADMIN

FIRST_TEAM = "main"


class Command(BaseCommand):
    help = "Migrate the database and make the first admin and team."

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=1)
        password = os.environ.get(ADMIN_PASSWORD)
        if password and not User.objects.exists():
            accounts.ensure_admin(username=ADMIN, team=FIRST_TEAM, password=password)
