from django.db import migrations, models
from django.db.models import F, OuterRef, Subquery


def name_the_job(apps, schema_editor):
    """Until now a variant had one report, of the job that made it."""
    report, variant = apps.get_model("registry", "Report"), apps.get_model("registry", "Variant")
    made_by = variant.objects.filter(pk=OuterRef("variant")).values("job_id")
    first = report.objects.filter(variant=OuterRef("variant")).order_by("pk").values("pk")[:1]
    report.objects.annotate(first=Subquery(first)).filter(pk=F("first")).update(job_id=Subquery(made_by))


class Migration(migrations.Migration):
    dependencies = [("registry", "0002_gate")]

    operations = [
        migrations.AddField(
            model_name="report",
            name="job_id",
            field=models.BigIntegerField(null=True, unique=True),
        ),
        migrations.RunPython(name_the_job, migrations.RunPython.noop),
    ]
