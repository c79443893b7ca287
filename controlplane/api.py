"""The REST API, put together from what each app offers under /api/v1/."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

app_name = "api"

urlpatterns = [
    path("", include("controlplane.registry.api.urls")),
    path("", include("controlplane.accounts.api.urls")),
    path("", include("optimizer.api.urls")),
    path("", include("deployments.api.urls")),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerSplitView.as_view(url_name="api:schema"), name="docs"),
]
