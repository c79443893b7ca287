"""The table of DatabaseCache, so that `migrate` alone makes an installation complete."""

from django.db import migrations


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.RunSQL(
            "CREATE UNLOGGED TABLE slipway_cache ("
            "cache_key varchar(255) PRIMARY KEY, value text NOT NULL, expires timestamptz NOT NULL);"
            "CREATE INDEX slipway_cache_expires ON slipway_cache (expires);",
            "DROP TABLE slipway_cache;",
        )
    ]
