"""Kubeconfigs that people paste, good and bad, with the words that the bad ones must be answered with."""

import base64
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.certificates import Authority

TOKEN = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0LXNlY3JldC1zZWNyZXQ.c2lnbmF0dXJl"
SERVER = "https://cluster.example.com:6443"
NO_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"
type Document = dict[str, Any]


def document(*, server: str = SERVER, token: str = TOKEN, namespace: str = "risk") -> Document:
    """One context, without an authority."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "current-context": "main",
    }


def text(**said: str) -> str:
    return yaml.safe_dump(document(**said))


def with_contexts(*names: str) -> str:
    """The last one is the current one."""
    found = document()
    found["contexts"] = [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in names]
    return yaml.safe_dump(found | {"current-context": names[-1]})


def _changed(change: Callable[[Document], Any]) -> str:
    found = copy.deepcopy(document())
    change(found)
    return yaml.safe_dump(found)


def _cluster(**more: Any) -> str:
    return _changed(lambda one: one["clusters"][0]["cluster"].update(more))


def _user(**more: Any) -> str:
    def change(one: Document) -> None:
        one["users"][0]["user"] = more

    return _changed(change)


def bomb() -> str:
    """Billions of words in a few hundred bytes."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    return "\n".join([*lines, text()])


def encoded(words: str) -> str:
    return base64.b64encode(words.encode()).decode()


BAD: dict[str, tuple[str, str]] = {
    "a program": (
        _user(exec={"command": "aws", "args": ["eks", "get-token"]}),
        "logged in by a program (exec)",
    ),
    "a provider": (_user(**{"auth-provider": {"name": "gcp"}}), "logged in by a program (auth-provider)"),
    "a certificate file": (
        _user(**{"client-certificate": "/etc/a.crt"}),
        "names a file (client-certificate)",
    ),
    "a token file": (_user(tokenFile="/var/run/token"), "names a file (tokenFile)"),
    "an authority file": (
        _cluster(**{"certificate-authority": "/etc/ca.crt"}),
        "names a file (certificate-authority)",
    ),
    "no verification": (_cluster(**{"insecure-skip-tls-verify": True}), "insecure-skip-tls-verify"),
    "a proxy": (_cluster(**{"proxy-url": "http://proxy:3128"}), "asks for a proxy"),
    "http": (text(server="http://cluster.example.com"), "must be an https address"),
    "a password in the address": (
        text(server="https://root:hunter2@x.example.com"),
        "must be an https address",
    ),
    "an address with spaces": (text(server="https://a b"), "must be an https address"),
    "metadata of a cloud": (text(server="https://169.254.169.254"), "must be an https address"),
    "a document as address": (_cluster(server={"token": TOKEN}), "must be an https address"),
    "no server": (_cluster(server=None), "must be an https address"),
    "wrong base64": (_cluster(**{"certificate-authority-data": "***"}), "is not base64"),
    "no PEM": (_cluster(**{"certificate-authority-data": encoded("hello")}), "is not PEM"),
    "no certificate": (
        _cluster(
            **{
                "certificate-authority-data": encoded(
                    "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"
                )
            }
        ),
        "is no certificate",
    ),
    "half a pair": (
        _user(**{"client-certificate-data": encoded("-----BEGIN CERTIFICATE-----")}),
        "neither a token nor a client certificate with its key",
    ),
    "no pair": (
        _user(
            **{
                "client-certificate-data": encoded(
                    "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"
                ),
                "client-key-data": encoded("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----"),
            }
        ),
        "cannot be read",
    ),
    "a password": (_user(username="root", password="hunter2"), "has a password"),
    "nobody": (_user(), "neither a token nor a client certificate"),
    "a broken token": (_user(token="two words"), "spaces or letters that no token has"),
    "a control letter": (_user(token="a\x01b"), "spaces or letters that no token has"),
    "aliases": (bomb(), "YAML aliases"),
    "1 MB": (text() + "#" * 1024**2, "larger than 256 KiB"),
    "no context": (_changed(lambda one: one.pop("contexts")), "has no context"),
    "a context of no cluster": (
        _changed(lambda one: one["clusters"][0].update(name="other")),
        "has no cluster",
    ),
    "a context of no user": (_changed(lambda one: one["users"][0].update(name="other")), "has no user"),
    "no cluster at all": ("hello: world", "lists no cluster"),
    "no YAML": ("a: [", "is not YAML"),
    "a tag that runs code": ("!!python/object/apply:os.system ['id']", "is not YAML"),
    "a wrong timestamp": ("clusters: !!timestamp x", "is not YAML"),
    "a number of nothing": ('clusters: !!int ""', "is not YAML"),
    "a list": ("[1, 2]", "lists no cluster"),
    "100 brackets": ("[" * 100, "nested more than 32 deep"),
    "100,000 brackets": ("[" * 100_000, "It is "),
    "100,000 dashes": ("- " * 100_000, "nested more than 32 deep"),
    "clusters as text": ("clusters: many", "has no context"),
}


def with_certificate(folder: Path, *, key_of: str = "slipway") -> str:
    """A client certificate of `slipway`, with the key of whom is said."""
    authority = Authority.make(folder, called="cluster")
    own = authority.client("slipway")
    key = authority.client(key_of).key if key_of != "slipway" else own.key
    found = document()
    found["clusters"][0]["cluster"]["certificate-authority-data"] = encoded(authority.certificate.read_text())
    found["users"][0]["user"] = {
        "client-certificate-data": encoded(own.certificate.read_text()),
        "client-key-data": encoded(key.read_text()),
    }
    return yaml.safe_dump(found)
