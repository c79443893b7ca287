"""Makes the first person: `manage.py create_admin NAME --team TEAM`. The same call again changes nothing else.

The password comes from SLIPWAY_ADMIN_PASSWORD or from standard input, never from the arguments, which every
process of the machine can read.
"""

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.accounts import services
from controlplane.core.errors import SlipwayError

VARIABLE = "SLIPWAY_ADMIN_PASSWORD"


class Command(BaseCommand):
    help = f"Make a person admin of a team. The password is read from {VARIABLE} or standard input."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--team", default="main", help="made if it does not exist (default: main)")

    def handle(self, *, username: str, team: str, **_: Any) -> None:
        password = os.environ.get(VARIABLE) or sys.stdin.readline().rstrip("\n")
        if not password:
            raise CommandError(f"No password. Set {VARIABLE}, or write it to standard input.")
        try:
            user = services.ensure_admin(username=username, team=team, password=password)
        except SlipwayError as error:
            raise CommandError(f"{error.title} {error.detail}") from error
        self.stdout.write(f"{user.username} is admin of the team {team}.")
