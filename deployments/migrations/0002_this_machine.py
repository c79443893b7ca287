from typing import Any

from django.db import migrations


def equip(apps: Any, schema_editor: Any) -> None:
    """Teams of earlier versions got their target when somebody first looked."""
    target = apps.get_model("deployments", "Target")
    for team in apps.get_model("accounts", "Team").objects.exclude(targets__name="this-machine"):
        target.objects.create(team=team, name="this-machine", kind="local")


class Migration(migrations.Migration):
    dependencies = [("deployments", "0001_initial")]
    operations = [migrations.RunPython(equip, migrations.RunPython.noop)]
