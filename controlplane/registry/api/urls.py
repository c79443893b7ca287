"""The registry's API addresses, below /api/v1/."""

from django.urls import path

from controlplane.registry.api import views

MODEL = "models/<name:name>/"
VERSION = MODEL + "versions/<id:number>/"
VARIANT = VERSION + "variants/<int:variant>/"

urlpatterns = [
    path("models/", views.Models.as_view(), name="models"),
    path(MODEL, views.Model.as_view(), name="model"),
    path(MODEL + "versions/", views.Versions.as_view(), name="versions"),
    path(MODEL + "versions/upload/", views.VersionUpload.as_view(), name="version-upload"),
    path(VERSION, views.Version.as_view(), name="version"),
    path(VERSION + "variants/", views.Variants.as_view(), name="variants"),
    path(VARIANT, views.Variant.as_view(), name="variant"),
    path(VARIANT + "report/", views.VariantReport.as_view(), name="variant-report"),
    path(VARIANT + "content/", views.VariantContent.as_view(), name="variant-content"),
    path(MODEL + "gate/", views.Gate.as_view(), name="gate"),
    path(MODEL + "aliases/", views.Aliases.as_view(), name="aliases"),
    path(MODEL + "aliases/<name:alias>/", views.Alias.as_view(), name="alias"),
    path(MODEL + "datasets/", views.Datasets.as_view(), name="datasets"),
    path(MODEL + "datasets/<name:dataset>/", views.DatasetItem.as_view(), name="dataset"),
]
