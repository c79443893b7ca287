"""The registry's API addresses, below /api/v1/."""

from django.urls import path

from controlplane.registry.api import import_views, standing_views, views

MODEL = "models/<name:name>/"
VERSION = MODEL + "versions/<id:number>/"
VARIANT = VERSION + "variants/<int:variant>/"

urlpatterns = [
    path("models/", views.Models.as_view(), name="models"),
    path(MODEL, views.Model.as_view(), name="model"),
    path(MODEL + "versions/", views.Versions.as_view(), name="versions"),
    path(MODEL + "versions/upload/", views.VersionUpload.as_view(), name="version-upload"),
    path(MODEL + "imports/", import_views.Imports.as_view(), name="imports"),
    path(MODEL + "imports/<id:number>/", import_views.Import.as_view(), name="import"),
    path(MODEL + "imports/<id:number>/cancel/", import_views.ImportCancel.as_view(), name="import-cancel"),
    path(VERSION, views.Version.as_view(), name="version"),
    path(VERSION + "trust/", standing_views.VersionTrust.as_view(), name="version-trust"),
    path(VERSION + "quarantine/", standing_views.VersionQuarantine.as_view(), name="version-quarantine"),
    path(VERSION + "variants/", views.Variants.as_view(), name="variants"),
    path(VARIANT, views.Variant.as_view(), name="variant"),
    path(VARIANT + "report/", views.VariantReport.as_view(), name="variant-report"),
    path(VARIANT + "reports/", views.VariantReports.as_view(), name="variant-reports"),
    path(VARIANT + "reports/<id:report>/", views.OneReport.as_view(), name="variant-one-report"),
    path(VARIANT + "reports/<id:report>/html/", views.ReportFile.as_view(), name="variant-report-file"),
    path(VARIANT + "content/", views.VariantContent.as_view(), name="variant-content"),
    path(MODEL + "gate/", views.Gate.as_view(), name="gate"),
    path(MODEL + "answers/", views.Answers.as_view(), name="answers"),
    path(MODEL + "aliases/", views.Aliases.as_view(), name="aliases"),
    path(MODEL + "aliases/<name:alias>/", views.Alias.as_view(), name="alias"),
    path(MODEL + "datasets/", views.Datasets.as_view(), name="datasets"),
    path(MODEL + "datasets/<name:dataset>/", views.DatasetItem.as_view(), name="dataset"),
]
