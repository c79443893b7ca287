"""The secrets that `up` makes for itself, once, so that nobody has to choose or publish one."""

import json
import secrets
from dataclasses import asdict, dataclass, fields

from controlplane.embedded.errors import SetupError
from controlplane.embedded.home import Home, write_private


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Kept in SLIPWAY_HOME/secrets.json. Every value is safe inside a URL and inside SQL quotes."""

    secret_key: str
    postgres_password: str
    redis_password: str
    node_token: str
    admin_password: str


def _fresh(name: str) -> str:
    return secrets.token_urlsafe(12 if name == "admin_password" else 36)


def generated(home: Home) -> Generated:
    """Reads the file, and makes what it lacks. Raises SetupError for a file that is not ours to repair."""
    try:
        found = json.loads(home.secrets.read_text())
        known = {str(name): str(value) for name, value in found.items()}
    except FileNotFoundError:
        known = {}
    except (ValueError, AttributeError) as error:
        raise SetupError(
            "secrets_unreadable",
            f"{home.secrets} is not the JSON object that `up` wrote: restore it, or remove it to get new secrets.",
        ) from error
    complete = Generated(
        **{field.name: known.get(field.name) or _fresh(field.name) for field in fields(Generated)}
    )
    if asdict(complete) != known:
        write_private(home.secrets, json.dumps(asdict(complete), indent=2) + "\n")
    return complete
