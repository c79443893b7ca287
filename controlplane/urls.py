"""Every address of the product."""

from django.urls import include, path

from controlplane.ui import errors

urlpatterns = [
    path("", include("controlplane.ui.urls")),
    path("models/", include("controlplane.registry.urls")),
    path("", include("optimizer.urls")),
    path("deployments/", include("deployments.urls")),
    path("", include("controlplane.accounts.urls")),
    path("account/", include("allauth.urls")),
    path("api/v1/", include("controlplane.api")),
]

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler429 = errors.too_many  # allauth's name
handler500 = errors.server_error
