"""How a cluster is reached: a kubeconfig that somebody pasted, read without running or opening anything it names.

A kubeconfig can name programs to run (`exec`) and files to read; both would be this server's. Only what stands in
the document itself is taken. Refused: the client library's own loader, which runs and reads all of it.
"""

import base64
import binascii
import ipaddress
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates

from controlplane.core.errors import InvalidInput

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_RUNS_CODE = ("exec", "auth-provider")
_NAMES_A_FILE = ("client-certificate", "client-key", "tokenFile")
_ADDRESS = re.compile(
    r"https://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~:@/%-]*)?"
)
_HOST = re.compile(r"[A-Za-z0-9._:-]{0,253}")
_TOKEN = re.compile(r"[!-~]*")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NOT_YAML = (
    yaml.YAMLError,
    ValueError,
    RecursionError,
    ArithmeticError,
    LookupError,
    AttributeError,
    TypeError,
)
"""All that PyYAML raises about documents that are none: a wrong !!timestamp is an AttributeError to it."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """One cluster and one identity. Certificates are PEM; either `token` or certificate and key, or neither.

    `token_file` is read anew with every request: only this installation's own account has one.
    """

    server: str
    ca_pem: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    certificate_pem: str = ""
    key_pem: str = field(default="", repr=False)
    server_name: str = ""
    namespace: str = "default"
    context: str = ""


def contexts(text: str) -> tuple[str, ...]:
    """The contexts that can be chosen, the current one first. Raises InvalidInput."""
    document = _read(text)
    listed = [str(one.get("name", "")) for one in _list(document, "contexts")]
    current = document.get("current-context")
    return tuple(sorted(listed, key=lambda name: (name != current, name)))


def read(text: str, *, context: str = "") -> Connection:
    """The connection of `context`, or of the current one. Raises InvalidInput that names the entry and what to do."""
    document = _read(text)
    wanted = context or str(document.get("current-context") or "")
    chosen = _entry(document, "contexts", wanted, "context")
    cluster = _entry(document, "clusters", str(chosen.get("cluster", "")), "cluster")
    user = _entry(document, "users", str(chosen.get("user", "")), "user") if chosen.get("user") else {}
    return Connection(
        server=_server(cluster),
        ca_pem=_authority(cluster),
        server_name=_server_name(cluster),
        namespace=str(chosen.get("namespace") or "default"),
        context=wanted,
        **_identity(user),
    )


def in_cluster(*, account: Path = _ACCOUNT, host: str, port: str) -> Connection:
    """This installation's own service account. Raises InvalidInput where it does not run in a cluster."""
    try:
        ca, namespace = (account / "ca.crt").read_text(), (account / "namespace").read_text().strip()
    except OSError as error:
        raise _refuse("Slipway does not run in a cluster.", "Paste a kubeconfig instead.") from error
    address = f"[{host}]" if ":" in host else host
    return Connection(
        server=f"https://{address}:{port}",
        ca_pem=ca,
        token_file=str(account / "token"),
        namespace=namespace,
        context="in-cluster",
    )


def _refuse(what: str, to_do: str = "") -> InvalidInput:
    detail = f"{what} {to_do}".strip()
    return InvalidInput(
        "invalid_kubeconfig", "The kubeconfig cannot be used.", detail, fields={"kubeconfig": [detail]}
    )


def _read(text: str) -> Mapping[str, Any]:
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise _refuse(f"It is larger than {MAX_BYTES // 1024} KiB.", "Send one with this cluster alone.")
    try:
        _refuse_bombs(text)
        document = yaml.load(text, Loader=_LOADER)  # noqa: S506 - the safe one, in C where that was built
    except _NOT_YAML as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise _refuse(f"It is not YAML{where}.") from error
    if not isinstance(document, Mapping) or not document.get("clusters"):
        raise _refuse(
            "It lists no cluster.", "“kubectl config view --minify --flatten” prints one that does."
        )
    return document


def _refuse_bombs(text: str) -> None:
    """Aliases can make a document of kilobytes into one of gigabytes, and deep nesting costs its square in time. Both
    are seen event by event, before anything is built."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise _refuse("It refers to parts of itself (YAML aliases).", "Write them out.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _refuse(f"It is nested more than {MAX_DEPTH} deep.", "A kubeconfig is not.")


def _list(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = document.get(name) or []
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise _refuse(f"{name} must be a list of named entries.")
    return found


def _entry(document: Mapping[str, Any], plural: str, name: str, kind: str) -> Mapping[str, Any]:
    for one in _list(document, plural):
        if one.get("name") == name:
            inner = one.get(kind)
            if isinstance(inner, Mapping):
                return inner
    known = ", ".join(str(one.get("name")) for one in _list(document, plural)) or "none"
    raise _refuse(f"It has no {kind} “{name[:80]}”; known: {known[:200]}.")


def _server(cluster: Mapping[str, Any]) -> str:
    server = str(cluster.get("server") or "")
    try:
        usable = _ADDRESS.fullmatch(server) is not None and urlsplit(server).port != 0
        host = urlsplit(server).hostname or ""
    except ValueError:
        usable, host = False, ""
    if not usable or _is_link_local(host):
        # What stands before an @ is a password, and a document may have anything in it.
        plain = isinstance(cluster.get("server"), str) and "@" not in server
        said = f" “{server[:120]}”" if plain else ""
        raise _refuse(
            f"Its server{said} must be an https address of a cluster.", "Tokens are not sent in the clear."
        )
    if cluster.get("insecure-skip-tls-verify"):
        raise _refuse(
            "It switches off the verification of the server (insecure-skip-tls-verify).",
            "Give the cluster's certificate-authority-data instead.",
        )
    if cluster.get("certificate-authority"):
        raise _names_a_file("certificate-authority")
    if cluster.get("proxy-url"):
        raise _refuse(
            "It asks for a proxy (proxy-url), which is not supported.", "Use HTTPS_PROXY for Slipway."
        )
    return server.rstrip("/")


def _server_name(cluster: Mapping[str, Any]) -> str:
    name = str(cluster.get("tls-server-name") or "")
    if not _HOST.fullmatch(name):
        raise _refuse("tls-server-name of its cluster is no host name.")
    return name


def _authority(cluster: Mapping[str, Any]) -> str:
    pem = _pem(cluster, "certificate-authority-data", "cluster")
    try:
        if pem:
            ssl.create_default_context(cadata=pem)
    except ssl.SSLError as error:
        raise _refuse("certificate-authority-data of its cluster is no certificate.") from error
    return pem


def _is_link_local(host: str) -> bool:
    """No cluster lives there, but the metadata of clouds does."""
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False


def _names_a_file(name: str) -> InvalidInput:
    return _refuse(
        f"It names a file ({name}), which would be one of Slipway's own machine.",
        "“kubectl config view --minify --flatten --raw” writes the contents into it.",
    )


def _identity(user: Mapping[str, Any]) -> dict[str, str]:
    for name in _RUNS_CODE:
        if user.get(name):
            raise _refuse(
                f"Its user is logged in by a program ({name}), which Slipway does not run.",
                "Make a service account for Slipway and give its token: the page prints the commands.",
            )
    for name in _NAMES_A_FILE:
        if user.get(name):
            raise _names_a_file(name)
    if user.get("username") or user.get("password"):
        raise _refuse("Its user has a password, which Kubernetes has not taken since 1.19.", "Give a token.")
    certificate, key = (_pem(user, f"client-{what}-data", "user") for what in ("certificate", "key"))
    token = str(user.get("token") or "").strip()
    if not token and not (certificate and key):
        raise _refuse("Its user has neither a token nor a client certificate with its key.")
    if not _TOKEN.fullmatch(token):
        raise _refuse("The token of its user is not one: it has spaces or letters that no token has.")
    if certificate and key:
        _refuse_strangers(certificate, key)
    return {"token": token, "certificate_pem": certificate, "key_pem": key}


def _refuse_strangers(certificate: str, key: str) -> None:
    try:
        theirs = load_pem_x509_certificates(certificate.encode())[0].public_key()
        ours = load_pem_private_key(key.encode(), password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _refuse("The client certificate of its user, or its key, cannot be read.") from error
    if theirs != ours:
        raise _refuse("The client certificate of its user and its key do not belong together.")


def _pem(entry: Mapping[str, Any], name: str, kind: str) -> str:
    encoded = entry.get(name)
    if not encoded:
        return ""
    try:
        text = base64.b64decode(str(encoded), validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise _refuse(f"{name} of its {kind} is not base64.") from error
    if "-----BEGIN" not in text:
        raise _refuse(f"{name} of its {kind} is not PEM.")
    return text
