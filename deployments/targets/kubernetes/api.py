"""The cluster's API as this target needs it: a dozen calls on plain documents, each with a timeout.

The official client brings the connection (TLS, proxies, encoding); its generated models are not used: a document
that went through them loses the fields that this version does not know. Every error is one of ours.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from controlplane.core.errors import NotFound, SlipwayError, Unprocessable
from deployments.targets.kubernetes import errors
from deployments.targets.kubernetes.kinds import Kind
from deployments.targets.kubernetes.kubeconfig import Connection

CONNECT_S, READ_S = 3.0, 10.0
WATCH_S, WATCH_READ_S = 240, 300.0
"""A watch is ended by the server before it is given up by us: silence for longer than that is a dead line."""
MANAGER = "slipway"
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
PAGE = 500

type Object = dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """All objects of a kind, and the resourceVersion from which a watch goes on."""

    items: list[Object]
    version: str


class Line:
    """A watch's connection, to be cut from another thread by whoever learns that nothing will come of it."""

    def __init__(self) -> None:
        self.is_cut = False
        self._answer: Any = None

    def opened(self, answer: Any) -> None:
        self._answer = answer
        if self.is_cut:
            self.cut()

    def cut(self) -> None:
        """Whoever reads it is woken; it cannot be used again."""
        self.is_cut = True
        if self._answer is not None:
            with suppress(ValueError, RuntimeError, OSError):  # it ended meanwhile
                self._answer.shutdown()


class Api:
    """One cluster, as one identity. Safe in several threads. Each method raises Unreachable and what `errors` lists."""

    def __init__(
        self, connection: Connection, *, connect_s: float = CONNECT_S, read_s: float = READ_S
    ) -> None:
        self.connection = connection
        self._timeout_s = (connect_s, read_s)
        self.manager = MANAGER
        self._rest = _rest_client(connection)

    def get(self, kind: Kind, name: str, namespace: str | None) -> Object:
        return self._json("GET", kind.path(namespace, name), what=f"read {kind.kind} {name}")

    def find(self, kind: Kind, name: str, namespace: str | None) -> Object | None:
        """None where there is none."""
        try:
            return self.get(kind, name, namespace)
        except NotFound:
            return None

    def list(self, kind: Kind, namespace: str | None, *, labels: str = "") -> Listed:
        """In pages, so that ten thousand pods are no one answer."""
        items: list[Object] = []
        asked: dict[str, str] = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        while True:
            page = self._json("GET", kind.path(namespace), asked, what=f"list {kind.plural}")
            metadata = page.get("metadata")
            if not isinstance(metadata, dict):
                raise self._nonsense("its answer is no list")
            for item in page.get("items") or ():
                item.setdefault("kind", kind.kind)
                item.setdefault("apiVersion", kind.api_version)
                items.append(item)
            more = metadata.get("continue")
            if not more:
                return Listed(items, str(metadata.get("resourceVersion", "")))
            asked["continue"] = more

    def apply(
        self,
        kind: Kind,
        manifest: Mapping[str, Any],
        *,
        dry_run: bool = False,
        force: bool = False,
        manager: str = "",
    ) -> Object:
        """Server-side apply. A `metadata.resourceVersion` in the manifest makes it conditional (Moved)."""
        metadata = manifest["metadata"]
        asked = {"fieldManager": manager or self.manager, "fieldValidation": "Strict"}
        asked |= {"dryRun": "All"} if dry_run else {}
        asked |= {"force": "true"} if force else {}
        path = kind.path(metadata.get("namespace"), metadata["name"])
        what = f"apply {kind.kind} {metadata['name']}"
        return self._json("PATCH", path, asked, body=manifest, content=APPLY, what=what)

    def merge(
        self, kind: Kind, name: str, namespace: str | None, change: Mapping[str, Any], *, part: str = ""
    ) -> Object:
        """A merge patch of the object or of one of its subresources, such as `scale`. A `metadata.resourceVersion` in
        it makes it conditional (Moved)."""
        path = kind.path(namespace, name) + (f"/{part}" if part else "")
        asked = {"fieldManager": f"{self.manager}-{part}" if part else self.manager}
        return self._json(
            "PATCH", path, asked, body=change, content=MERGE, what=f"change {part or kind.kind} of {name}"
        )

    def create(self, kind: Kind, document: Mapping[str, Any], namespace: str | None) -> Object:
        what = f"create {kind.kind}"
        return self._json(
            "POST", kind.path(namespace), {"fieldManager": self.manager}, body=document, what=what
        )

    def delete_now(self, kind: Kind, name: str, namespace: str | None) -> bool:
        """Without the time to drain: for a pod whose node is gone."""
        return self.delete(kind, name, namespace, grace_s=0)

    def delete(self, kind: Kind, name: str, namespace: str | None, *, grace_s: int | None = None) -> bool:
        """In the background, its pods after it. False where it was gone."""
        asked = {"propagationPolicy": "Background"}
        asked |= {} if grace_s is None else {"gracePeriodSeconds": str(grace_s)}
        try:
            self._json("DELETE", kind.path(namespace, name), asked, what=f"delete {kind.kind} {name}")
        except NotFound:
            return False
        return True

    def log(self, name: str, namespace: str, *, container: str, tail: int, previous: bool = False) -> str:
        from deployments.targets.kubernetes.kinds import POD

        asked = {"container": container, "tailLines": str(tail), "limitBytes": str(1024 * 1024)}
        asked |= {"previous": "true"} if previous else {}
        path = f"{POD.path(namespace, name)}/log"
        return self._call("GET", path, asked, what=f"read the log of {name}").decode("utf-8", "replace")

    def raw(self, path: str, *, within_s: float | None = None) -> bytes:
        """Anything else that is only read: versions, a pod's own page through the API server."""
        return self._call("GET", path, what=f"read {path}", within_s=within_s)

    def watch(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        version: str,
        labels: str = "",
        for_s: float = WATCH_S,
        line: Line | None = None,
    ) -> Iterator[tuple[str, Object]]:
        """(ADDED, MODIFIED, DELETED or BOOKMARK, object) until the server ends it, after `for_s` at the latest, or
        `line` is cut. Raises errors.Expired on 410."""
        asked = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(for_s))),
        } | ({"labelSelector": labels} if labels else {})
        what = f"watch {kind.plural}"
        with self._stream(kind.path(namespace), asked, what=what, line=line or Line()) as said:
            for text in said:
                event, one = self._event(text)
                if event == "ERROR":
                    if one.get("code") == 410:
                        raise errors.Expired(str(one.get("message", "")))
                    raise self._error(int(one.get("code") or 500), json.dumps(one).encode(), what=what)
                yield event, one

    # How it does it

    def _json(
        self,
        method: str,
        path: str,
        asked: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
        what: str,
    ) -> Object:
        answer = self._call(method, path, asked, body=body, content=content, what=what)
        try:
            document = json.loads(answer)
        except ValueError as error:
            raise self._nonsense("its answer is not JSON") from error
        if not isinstance(document, dict):
            raise self._nonsense("its answer is no object")
        return document

    def _event(self, text: bytes) -> tuple[str, Object]:
        try:
            event = json.loads(text)
            kind, one = str(event["type"]), event["object"]
            if kind != "ERROR":
                str(one["metadata"]["resourceVersion"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._nonsense("what its watch said is no event") from error
        return kind, one if isinstance(one, dict) else {}

    def _nonsense(self, cause: str) -> SlipwayError:
        """Something else answers at that address, such as a proxy's page."""
        return errors.away(self.connection.server, cause)

    def _call(
        self,
        method: str,
        path: str,
        asked: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
        what: str,
        within_s: float | None = None,
    ) -> bytes:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        url = f"{self.connection.server}{path}" + (f"?{urlencode(asked)}" if asked else "")
        connect_s, read_s = self._timeout_s if within_s is None else (min(CONNECT_S, within_s), within_s)
        headers = self.headers() | ({"Content-Type": content} if body is not None else {})
        try:
            answer = self._rest.request(
                method, url, headers=headers, body=body, _request_timeout=(connect_s, read_s)
            )
            data: bytes = answer.response.read(decode_content=True)
            answer.response.release_conn()
        except (HTTPError, ApiException, OSError) as error:
            raise errors.away(self.connection.server, _cause(error)) from error
        if answer.status >= 300:
            raise self._error(
                answer.status, data, what=what, retry_after=answer.headers.get("Retry-After", "")
            )
        return data

    @contextmanager
    def _stream(
        self, path: str, asked: Mapping[str, str], *, what: str, line: Line
    ) -> Iterator[Iterator[bytes]]:
        from urllib3.exceptions import HTTPError

        url = f"{self.connection.server}{path}?{urlencode(asked)}"
        try:
            answer = self._rest.pool_manager.request(
                "GET", url, headers=self.headers(), preload_content=False, timeout=_timeout(*self._timeout_s)
            )
            try:
                line.opened(answer)
                if answer.status == 410:
                    raise errors.Expired(answer.data.decode("utf-8", "replace"))
                if answer.status >= 300:
                    after = answer.headers.get("Retry-After", "")
                    raise self._error(answer.status, answer.data, what=what, retry_after=after)
                # It is answered at once; what it says then may take long.
                answer.connection.sock.settimeout(WATCH_READ_S)
                yield _lines(answer)
            finally:
                answer.close()
        except (HTTPError, OSError) as error:
            raise errors.away(self.connection.server, _cause(error)) from error

    def headers(self) -> dict[str, str]:
        """Of every request, as of now."""
        token = self.connection.token
        if self.connection.token_file:
            try:
                token = Path(self.connection.token_file).read_text().strip()
            except OSError as error:
                cause = f"the token of this installation cannot be read ({error.strerror})"
                raise errors.away(self.connection.server, cause) from error
        found = {"Accept": "application/json", "User-Agent": "slipway"}
        return found | ({"Authorization": f"Bearer {token}"} if token else {})

    def _error(self, status: int, body: bytes, *, what: str, retry_after: str = "") -> SlipwayError:
        if self.connection.token:  # an odd server's answer may have what it was asked with
            body = body.replace(self.connection.token.encode(), b"(token)")
        return errors.of(status, body, server=self.connection.server, what=what, retry_after=retry_after)


def last_lines(
    api: Api, pod: Object, containers: Sequence[tuple[str, bool]], *, tail: int
) -> tuple[str, ...]:
    """Of the first of its containers that has said anything; with True of the one that ran there before."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    for container, previous in containers:
        with suppress(NotFound, Unprocessable):
            text = api.log(name, namespace, container=container, tail=tail, previous=previous)
            if text.strip():
                return tuple(text.splitlines()[-tail:])
    return ()


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    for chunk in answer.stream(amt=None, decode_content=True):
        rest += chunk
        *whole, rest = rest.split(b"\n")
        yield from (line for line in whole if line.strip())


def _timeout(connect_s: float, read_s: float) -> Any:
    from urllib3 import Timeout

    return Timeout(connect=connect_s, read=read_s)


def _cause(error: BaseException) -> str:
    """The innermost reason: urllib3 wraps what happened three times over."""
    inner: Any = getattr(error, "reason", None) or error
    text = str(inner).split("): ", 1)[-1].strip() or type(inner).__name__
    return text[:200].rstrip(".")


def _rest_client(connection: Connection) -> Any:
    """Keys touch the disk only while they are loaded: OpenSSL takes them from files alone."""
    from kubernetes.client import Configuration
    from kubernetes.client.rest import RESTClientObject

    configuration = Configuration()
    configuration.host = connection.server
    configuration.retries = False
    configuration.keep_alive = True  # so that the kernel notices a watch whose other end is gone
    configuration.connection_pool_maxsize = 8
    configuration.ca_cert_data = connection.ca_pem or None
    configuration.tls_server_name = connection.server_name or None
    client = RESTClientObject(configuration)
    if connection.certificate_pem:
        client.pool_manager.connection_pool_kw["ssl_context"] = context_of(connection)
    return client


def context_of(connection: Connection) -> Any:
    """The cluster's authority, and our certificate where it is one that shows who we are."""
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context()
    if connection.ca_pem:
        context.load_verify_locations(cadata=connection.ca_pem)
    else:
        context.load_default_certs()
    if not connection.certificate_pem:
        return context
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("crt", "key")]  # noqa: PTH118
        for path, text in zip(paths, (connection.certificate_pem, connection.key_pem), strict=True):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(text)
        context.load_cert_chain(*paths)
    return context
