import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("optimizer", "0001_initial"), ("registry", "0003_report_job")]

    operations = [
        migrations.AddField(
            model_name="job",
            name="measures",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="measured_by",
                to="registry.variant",
            ),
        ),
    ]
