"""System checks with ids: what can be wrong with an installation, found before it serves anyone."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from controlplane.core.sandbox import isolation


@register(Tags.security, deploy=True)
def secret_key_is_generated(**_: Any) -> list[CheckMessage]:
    if not settings.SLIPWAY_DEVELOPMENT_KEY:
        return []
    return [
        Error(
            "SLIPWAY_SECRET_KEY is not set.",
            hint="Set it to 50 or more random characters; `manage.py up` generates its own.",
            id="slipway.E001",
        )
    ]


@register(Tags.security, deploy=True)
def uploads_are_confined(**_: Any) -> list[CheckMessage]:
    """Only for `check --deploy`, because it starts a process."""
    lacking = isolation.probe()
    if not lacking:
        return []
    what, hint = isolation.told(lacking)
    return [Warning(what, hint=hint, id="slipway.W004")]


@register(Tags.files)
def home_is_writable(app_configs: Sequence[Any] | None = None, **_: Any) -> list[CheckMessage]:
    home = settings.ENVIRONMENT.home
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return [
            Error(
                f"SLIPWAY_HOME {home} cannot be written to: {error.strerror}.",
                hint="Point SLIPWAY_HOME at a folder that this user owns.",
                id="slipway.E002",
            )
        ]
    return []


@register(Tags.staticfiles)
def front_end_is_vendored(**_: Any) -> list[CheckMessage]:
    if (settings.ENVIRONMENT.home / "vendor").is_dir():
        return []
    return [
        Warning(
            "The front-end packages are not installed, so pages work without live updates and charts.",
            hint="Run `make demo` or `make up`, which install them.",
            id="slipway.W003",
        )
    ]
