from django.db import migrations, models


def name_the_metric(apps, schema_editor):
    """Until now there was one."""
    apps.get_model("registry", "Dataset").objects.filter(has_labels=True).update(metric="top-1")


class Migration(migrations.Migration):
    dependencies = [("registry", "0003_report_job")]

    operations = [
        migrations.AddField(
            model_name="dataset",
            name="metric",
            field=models.CharField(blank=True, default="", max_length=20),
            preserve_default=False,
        ),
        migrations.RunPython(name_the_metric, migrations.RunPython.noop),
    ]
