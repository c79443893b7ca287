from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deployments", "0002_this_machine")]
    operations = [
        migrations.AddIndex(
            model_name="rollup",
            index=models.Index(fields=["resolution_s", "ts"], name="rollup_by_age"),
        )
    ]
