from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0004_dataset_metric")]

    operations = [
        migrations.AddField(model_name="model", name="answers", field=models.JSONField(default=dict)),
    ]
