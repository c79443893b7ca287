"""Page addresses of models, below /models/. `new` cannot be a name; see `core.names`."""

from django.urls import path

from controlplane.registry import import_views, standing_views, views

app_name = "registry"

MODEL = "<name:name>/"
VERSION = MODEL + "versions/<id:number>/"
VARIANT = VERSION + "variants/<int:variant>/"

urlpatterns = [
    path("", views.models, name="models"),
    path("new/", views.new_model, name="new-model"),
    path("new/import/", import_views.import_model, name="import-model"),
    path(MODEL, views.model, name="model"),
    path(MODEL + "edit/", views.describe, name="describe"),
    path(MODEL + "gate/", views.gate, name="gate"),
    path(MODEL + "answers/", views.answers, name="answers"),
    path(MODEL + "delete/", views.delete_model, name="delete-model"),
    path(MODEL + "versions/new/", views.new_version, name="new-version"),
    path(MODEL + "versions/import/", import_views.import_version, name="import-version"),
    path(MODEL + "imports/<id:number>/cancel/", import_views.cancel_import, name="cancel-import"),
    path(MODEL + "aliases/new/", views.move_alias, name="move-alias"),
    path(MODEL + "aliases/<name:alias>/remove/", views.remove_alias, name="remove-alias"),
    path(MODEL + "datasets/new/", views.new_dataset, name="new-dataset"),
    path(MODEL + "datasets/<name:dataset>/delete/", views.delete_dataset, name="delete-dataset"),
    path(VERSION, views.version, name="version"),
    path(VERSION + "delete/", views.delete_version, name="delete-version"),
    path(VERSION + "trust/", standing_views.trust_version, name="trust-version"),
    path(VERSION + "trust/withdraw/", standing_views.withdraw_trust, name="withdraw-trust"),
    path(VERSION + "quarantine/", standing_views.lift_quarantine, name="lift-quarantine"),
    path(VARIANT, views.variant, name="variant"),
]
