"""What the sources of models elsewhere have in common: where one is asked, what it was asked for, and what it has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One registry elsewhere, as the operator set it. `hosts` are those that it may redirect to, with their
    subdomains; with a `user`, the token is its password; `settings` names its variables, for sentences."""

    name: str
    endpoint: str
    token: str
    user: str = ""
    hosts: tuple[str, ...] = ()
    settings: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """`model` in words of the source, at `revision`, which may move; `path` where one file of it was meant."""

    source: str
    model: str
    revision: str
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """`address` follows the endpoint. Size and digest are what the source says, where it says them."""

    path: str
    address: str
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All files of one revision, which never moves again. `facts` are for the provenance."""

    revision: str
    files: tuple[RemoteFile, ...]
    facts: Mapping[str, Any]


def invalid(why: str) -> InvalidInput:
    return InvalidInput(
        "invalid_reference",
        "This reference cannot be read.",
        f"{why} Write hf:organization/name@revision, or models:/name/version.",
        fields={"reference": [why]},
    )
