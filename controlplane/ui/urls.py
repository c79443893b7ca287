"""Page addresses."""

from django.urls import path

from controlplane.ui import health, views

app_name = "ui"
urlpatterns = [
    path("", views.overview, name="overview"),
    path("search/", views.search, name="search"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
]
