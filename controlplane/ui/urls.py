"""Page addresses."""

from django.conf import settings
from django.urls import path

from controlplane.ui import health, styleguide, views

app_name = "ui"
urlpatterns = [
    path("", views.overview, name="overview"),
    path("search/", views.search, name="search"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    *(styleguide.urlpatterns if settings.DEBUG else []),
]
