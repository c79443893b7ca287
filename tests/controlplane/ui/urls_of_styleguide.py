"""The product's addresses as they are with DEBUG."""

from django.urls import include, path

from controlplane.ui import styleguide
from controlplane.urls import handler400, handler403, handler404, handler500
from controlplane.urls import urlpatterns as product

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]

urlpatterns = [path("", include((styleguide.urlpatterns, "guide"))), *product]
