"""The peer: the same list as Django REST framework's own tutorial would build it, in one module.

ModelSerializer, TokenAuthentication, IsAuthenticated, CursorPagination, JSONRenderer, and the middleware that
`startproject` writes, on the product's tables and with the same joins. It is also the settings module, so that
its token table can be migrated.
"""

from django.apps import AppConfig
from django.conf import settings
from django.core.wsgi import get_wsgi_application

from controlplane.settings import DATABASES


class Accounts(AppConfig):
    """The tables alone: what the product's own configuration listens to is not installed here."""

    name = "controlplane.accounts"


settings.configure(
    SECRET_KEY="for-benchmarks-only-" + "x" * 50,
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    DATABASES=DATABASES,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    AUTH_USER_MODEL="accounts.User",
    USE_TZ=True,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "rest_framework",
        "rest_framework.authtoken",
        "knox",
        "controlplane.core",
        f"{__name__}.Accounts",
        "controlplane.registry",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    REST_KNOX={"TOKEN_MODEL": "accounts.ApiToken"},
    KNOX_TOKEN_MODEL="accounts.ApiToken",
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    },
)
application = get_wsgi_application()

from django.db.models import QuerySet  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework import serializers  # noqa: E402
from rest_framework.generics import ListAPIView  # noqa: E402
from rest_framework.pagination import CursorPagination  # noqa: E402

from controlplane.registry.models import Version  # noqa: E402


class VersionSerializer(serializers.ModelSerializer[Version]):
    model = serializers.CharField(source="model.name")
    version = serializers.IntegerField(source="number")
    sha256 = serializers.CharField(source="source_sha256")
    size_bytes = serializers.IntegerField(source="source_bytes")
    filename = serializers.CharField(source="source_filename")
    quarantined = serializers.CharField(source="quarantined_reason")
    created_by = serializers.StringRelatedField()
    page = serializers.CharField(source="get_absolute_url")
    url = serializers.SerializerMethodField()

    class Meta:
        model = Version
        fields = [
            *("model", "version", "format", "sha256", "size_bytes", "filename", "signature", "summary"),
            *("quarantined", "created_by", "created_at", "url", "page"),
        ]

    def get_url(self, row: Version) -> str:
        return f"/api/v1/models/{row.model.name}/versions/{row.number}/"


class NewestFirst(CursorPagination):
    page_size = 50
    ordering = "-id"


class Versions(ListAPIView[Version]):
    serializer_class = VersionSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Version]:
        rows = Version.objects.filter(
            model__team__memberships__user=self.request.user, model__name=self.kwargs["name"]
        )
        return rows.select_related("model", "created_by")


urlpatterns = [path("api/v1/models/<slug:name>/versions/", Versions.as_view())]
