"""Page addresses."""

from django.urls import URLPattern

app_name = "optimizer"
urlpatterns: list[URLPattern] = []
