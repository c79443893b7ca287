"""Django's settings. What differs between installations is read in `environment`; the rest is decided here."""

from datetime import timedelta

from django.utils.csp import CSP

from controlplane.core.limits import LARGEST_BODY_BYTES
from controlplane.settings.environment import (
    DEVELOPMENT_KEY,
    REPOSITORY,
    database,
    folder_for_uploads,
    https_origins,
    read_environment,
)

ENVIRONMENT = read_environment()

BASE_DIR = REPOSITORY
SECRET_KEY = ENVIRONMENT.secret_key
DEBUG = ENVIRONMENT.debug
ALLOWED_HOSTS = list(ENVIRONMENT.hosts)

INSTALLED_APPS = [
    "controlplane.core",
    "controlplane.accounts",
    "controlplane.registry",
    "optimizer",
    "deployments",
    "controlplane.ui",
    "controlplane.embedded",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.forms",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "rest_framework",
    "knox",
    "django_filters",
    "django_htmx",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "controlplane.ui.staticfiles.StaticFiles",
    "controlplane.ui.middleware.RequestId",
    "controlplane.ui.middleware.Problems",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "controlplane.accounts.middleware.CurrentTeam",
    "controlplane.ui.middleware.FormsOfTheirTeam",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

ROOT_URLCONF = "controlplane.urls"
WSGI_APPLICATION = "controlplane.wsgi.application"
APPEND_SLASH = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "builtins": ["controlplane.ui.templatetags.form_token"],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "controlplane.ui.context.shell",
            ],
        },
    }
]
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"

DATABASES = {"default": database(ENVIRONMENT.database_url, lease_s=ENVIRONMENT.lease_s)}
MIGRATION_MODULES = {"knox": None}  # its own token model is swapped for ours and needs no table
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {
    # In Postgres, because no request may depend on the broker; it holds rate limits only.
    "default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "slipway_cache"}
}

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.ScryptPasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "ui:overview"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_ADAPTER = "controlplane.accounts.adapter.Login"
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = True
ACCOUNT_RATE_LIMITS = {"login": "60/m/ip", "login_failed": "10/m/ip,5/5m/key"}
ALLAUTH_TRUSTED_CLIENT_IP_HEADER = ENVIRONMENT.client_ip_header
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = ENVIRONMENT.tls
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SECURE = ENVIRONMENT.tls
CSRF_TRUSTED_ORIGINS = https_origins(ENVIRONMENT)
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CSP = {
    "default-src": [CSP.SELF],
    "script-src": [CSP.SELF],
    "style-src": [CSP.SELF],
    "img-src": [CSP.SELF, "data:"],
    "connect-src": [CSP.SELF],
    "object-src": [CSP.NONE],
    "base-uri": [CSP.SELF],
    "form-action": [CSP.SELF],
    "frame-ancestors": [CSP.NONE],
}
CSRF_FAILURE_VIEW = "controlplane.ui.errors.csrf_failure"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

STATIC_URL = "/static/"
STATIC_ROOT = ENVIRONMENT.home / "static"
STATICFILES_DIRS = [("vendor", ENVIRONMENT.home / "vendor")] if (ENVIRONMENT.home / "vendor").is_dir() else []
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = DEBUG
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "artifacts": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": ENVIRONMENT.home / "artifacts"},
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
DATA_UPLOAD_MAX_MEMORY_SIZE = LARGEST_BODY_BYTES
FILE_UPLOAD_HANDLERS = ["controlplane.core.uploads.BoundedUpload"]
FILE_UPLOAD_TEMP_DIR = folder_for_uploads(ENVIRONMENT.home)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "controlplane.accounts.authentication.Token",
        "controlplane.accounts.authentication.Session",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "controlplane.core.json.Negotiation",
    "DEFAULT_PARSER_CLASSES": ["controlplane.core.json.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["controlplane.core.json.JSONRenderer"],
    "URL_FORMAT_OVERRIDE": None,
    "DEFAULT_SCHEMA_CLASS": "controlplane.core.openapi.Operation",
    "EXCEPTION_HANDLER": "controlplane.core.problems.handle",
    "UNAUTHENTICATED_USER": None,
}
REST_KNOX = {
    "TOKEN_TTL": timedelta(days=365),
    "AUTO_REFRESH": False,
    "AUTH_HEADER_PREFIX": "Bearer",
    "TOKEN_MODEL": "accounts.ApiToken",
}
KNOX_TOKEN_MODEL = "accounts.ApiToken"  # noqa: S105  a model, not a password
SPECTACULAR_SETTINGS = {
    "TITLE": "Slipway",
    "DESCRIPTION": "Register, optimize, roll out and watch models.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "OAS_VERSION": "3.1.1",
    "PATH_CONVERTER_OVERRIDES": {  # what `core.converters` lets through
        "id": {"type": "integer", "minimum": 1, "maximum": 10**18 - 1},
        "int": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    },
    "POSTPROCESSING_HOOKS": [],
}

LOGGING_CONFIG = "controlplane.core.logs.configure"
LOGGING = {"level": "DEBUG" if DEBUG else "INFO"}

SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W008"]  # TLS ends at the platform's proxy
SLIPWAY_DEVELOPMENT_KEY = SECRET_KEY == DEVELOPMENT_KEY
