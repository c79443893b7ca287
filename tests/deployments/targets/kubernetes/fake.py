"""A Kubernetes API in memory on kmock: server-side apply with owners, dry runs, label selectors, watches that expire,
and a Deployment controller. Answers can be scripted in front of it (429, 500, 403, silence).

It stands where no real API server can run. What a real one does besides (defaulting, validation, admission) it does
not, which is why the same suite runs against a real one where there is one.
"""

import asyncio
import copy
import itertools
import json
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp.web
import attrs
import kmock
from kmock._internal import parsing

from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.kubeconfig import Connection
from deployments.targets.kubernetes.rights import RIGHTS, review

type Object = dict[str, Any]
type Key = tuple[str, str, str]
"""Plural, namespace and name."""

_LIST_KEYS = ("name", "containerPort", "port", "mountPath", "topologyKey", "key", "type")
_parsed = parsing.parse_path
_PROXIED = re.compile(r"/api/v1/namespaces/[^/]+/pods/(?P<pod>[^/]+)/proxy/metrics")


def _parse_path(path: str) -> parsing.ParsedPath:
    """kmock takes /api/v1/namespaces for the beginning of a path inside a namespace."""
    parts = path.strip("/").split("/")
    if parts[:3] == ["api", "v1", "namespaces"] and (len(parts) <= 4 or parts[4:] == ["status"]):
        return parsing.ParsedPath("", "v1", "namespaces", None, *parts[3:])
    return _parsed(path)


parsing.parse_path = _parse_path
GROUPS = {"scaledobjects": "keda.sh", "httproutes": "gateway.networking.k8s.io"}
KUBELET = "of-the-kubelet"
"""Whose token it is meets no scripted fault: pods live on, whatever happens on the way to the cluster."""
UNSERVED = frozenset({"scaledobjects", "triggerauthentications", "httproutes"})


@dataclass(kw_only=True)
class Script:
    """What is answered instead, `times` times, to requests that `matches`."""

    matches: Callable[[kmock.Request], bool]
    status: int
    message: str = ""
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1
    details: Mapping[str, Any] = field(default_factory=dict)
    delay_s: float = 0


class _Refusal(Exception):
    def __init__(
        self, status: int, reason: str, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.details = status, reason, message, details or {}


@attrs.define(kw_only=True)
class FakeCluster(kmock.KubernetesScaffold):
    """`requests_made` are (method, path) of every request; `writes` those that change something."""

    objects: dict[Key, Object] = attrs.field(factory=dict)
    scripts: list[Script] = attrs.field(factory=list)
    requests_made: list[tuple[str, str]] = attrs.field(factory=list)
    unserved: set[str] = attrs.field(factory=lambda: set(UNSERVED))
    may: Callable[[Mapping[str, str]], bool] = lambda attributes: True
    username: str = "system:serviceaccount:ml:slipway"
    oldest_watched: int = 0
    disturb: Callable[[Object], list[Object]] = lambda event: [event]
    """What a watch says in place of an event: nothing, the same twice, an older one."""
    answering: asyncio.Event = attrs.field(factory=asyncio.Event)
    """Clear while it is silent: lines stay open and nothing comes."""
    lines: set[asyncio.Transport] = attrs.field(factory=set)
    """Of the watches that are open."""
    muted: set[asyncio.Transport] = attrs.field(factory=set)
    """Lines that are half open: nothing comes on them any more."""
    logs: dict[tuple[str, str], list[str]] = attrs.field(factory=dict)
    """By a deployment's key and revision."""
    pages: dict[str, str] = attrs.field(factory=dict)
    """What a pod's /metrics says through the API server: by “name:port”."""
    _versions: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    _changes: list[tuple[int, str, str, Object]] = attrs.field(factory=list)
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def _handle(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        path = str(request.url.path)
        self.requests_made.append((str(request.method.value), path))
        await self.answering.wait()
        played = KUBELET in request.headers.get("Authorization", "")
        for script in () if played else list(self.scripts):
            if script.times > 0 and script.matches(request):
                script.times -= 1
                if script.delay_s:
                    await asyncio.sleep(script.delay_s)
                return _failure(
                    _Refusal(script.status, script.reason, script.message, script.details),
                    headers=script.headers,
                )
        if (found := _PROXIED.fullmatch(path)) is not None:
            if request.headers.get("Authorization") != "Bearer of-the-fake":
                return _failure(_Refusal(401, "Unauthorized", "Unauthorized"))
            page = self.pages.get(found["pod"])
            if page is None:
                return _failure(_Refusal(404, "NotFound", f"pods {found['pod']} not found"))
            return aiohttp.web.Response(text=page, content_type="text/plain")
        try:
            return await self._answer(request)
        except _Refusal as refusal:
            return _failure(refusal)

    async def _answer(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        resource = request.resource
        if str(request.url.path) == "/apis":
            return _json(
                {"groups": [{"name": GROUPS[plural]} for plural in GROUPS if plural not in self.unserved]}
            )
        if resource is None or resource.plural is None:
            return _json({"gitVersion": "v1.36.0-fake", "major": "1", "minor": "36"})
        plural = str(resource.plural)
        if plural == "selfsubjectaccessreviews":
            allowed = self.may(request.data["spec"]["resourceAttributes"])
            return _json(request.data | {"status": {"allowed": allowed}})
        if plural == "selfsubjectrulesreviews":
            return _json(request.data | {"status": {"incomplete": False, "resourceRules": self._rules()}})
        if plural == "selfsubjectreviews":
            return _json(request.data | {"status": {"userInfo": {"username": self.username}}})
        if plural in self.unserved:
            raise _Refusal(404, "NotFound", f"the server could not find the requested resource ({plural})")
        key = (plural, request.namespace or "", request.name or "")
        if request.method.value == "GET" and request.params.get("watch") == "true":
            return await self._watch(request, plural)
        match request.method.value:
            case "GET" if request.name and request.subresource == "log":
                return aiohttp.web.Response(text="\n".join(self._log(self._object(key))))
            case "GET" if request.name:
                return _json(self._object(key))
            case "GET":
                return _json(self._list(plural, request.namespace, request.params.get("labelSelector", "")))
            case "POST":
                return _json(self._create(plural, request.namespace or "", request.data), status=201)
            case "PATCH":
                return _json(self._patch(key, request))
            case "DELETE":
                return _json(self._delete(key))
        raise _Refusal(405, "MethodNotAllowed", "not served")

    def _rules(self) -> list[Object]:
        """What `may` says of each row of the table."""
        asked = [
            (right, verb, review(right, verb, "any")["spec"]["resourceAttributes"])
            for right in RIGHTS
            for verb in right.verbs
        ]
        return [
            {
                "verbs": [verb], "apiGroups": [right.kind.group], "resources": [right.resource],
                **({"resourceNames": [*right.names]} if right.names else {}),
            }
            for right, verb, attributes in asked
            if self.may(attributes)
        ]  # fmt: skip

    # What it keeps

    def put(self, plural: str, one: Object, *, kind: str = "MODIFIED") -> Object:
        version = next(self._versions)
        one["metadata"]["resourceVersion"] = str(version)
        key = (plural, one["metadata"].get("namespace", ""), one["metadata"]["name"])
        if kind == "DELETED":
            self.objects.pop(key, None)
        else:
            kind = "MODIFIED" if key in self.objects else "ADDED"
            self.objects[key] = one
        self._changes.append((version, kind, plural, copy.deepcopy(one)))
        self._changed.set()
        self._changed = asyncio.Event()
        if plural in ("deployments", "pods"):
            self._control(key[1])
        return one

    def _object(self, key: Key) -> Object:
        if key not in self.objects:
            raise _Refusal(404, "NotFound", f'{key[0]} "{key[2]}" not found')
        return self.objects[key]

    def _list(self, plural: str, namespace: str | None, selector: str) -> Object:
        items = [
            _without_log(one)
            for (kind, where, _), one in sorted(self.objects.items())
            if kind == plural and namespace in (None, where) and _selected(one, selector)
        ]
        return {"metadata": {"resourceVersion": str(next(self._versions))}, "items": items}

    def _log(self, pod: Object) -> list[str]:
        labels = pod["metadata"]["labels"]
        return self.logs.get((labels[names.KEY], labels[names.REVISION]), [])

    def _create(self, plural: str, namespace: str, document: Object) -> Object:
        metadata = document.setdefault("metadata", {})
        if "name" not in metadata:
            metadata["name"] = f"{metadata.pop('generateName', 'x-')}{next(self._versions):06x}"
        if namespace:
            metadata["namespace"] = namespace
        if (plural, namespace, metadata["name"]) in self.objects:
            raise _Refusal(409, "AlreadyExists", f'{plural} "{metadata["name"]}" already exists')
        return self.put(plural, _born(document))

    def _delete(self, key: Key) -> Object:
        one = self._object(key)
        return self.put(key[0], one, kind="DELETED")

    def _patch(self, key: Key, request: kmock.Request) -> Object:
        asked, change = request.params, copy.deepcopy(request.data)
        if request.headers.get("Content-Type", "").startswith("application/apply-patch"):
            return self._apply(key, change, asked)
        before = self._object(key)
        after = _merged(before, change)
        if request.subresource == "scale":
            _own(after, asked.get("fieldManager", "?"), {("spec", "replicas")}, "Update")
        elif request.subresource != "status":
            _own(after, asked.get("fieldManager", "?"), set(_leaves(change)), "Update")
        if after.get("spec") != before.get("spec"):
            after["metadata"]["generation"] = int(after["metadata"].get("generation", 1)) + 1
        return self.put(key[0], after)

    def _apply(self, key: Key, wanted: Object, asked: Mapping[str, str]) -> Object:
        manager, known = asked["fieldManager"], self.objects.get(key)
        version = wanted["metadata"].pop("resourceVersion", None)
        if version is not None and (known is None or known["metadata"]["resourceVersion"] != version):
            raise _Refusal(409, "Conflict", "the object has been modified; please apply your changes")
        after = copy.deepcopy(known) if known else _born({"metadata": {}})
        paths = set(_leaves(wanted))
        theirs = {
            path: owner
            for owner, owned in _owners(after).items()
            if owner != manager
            for path in owned & paths
            if _at(after, path) != _at(wanted, path)
        }
        if theirs and "force" not in asked:
            causes = [
                {"reason": "FieldManagerConflict", "field": "." + ".".join(path),
                 "message": f'conflict with "{owner}" using v1'}
                for path, owner in theirs.items()
            ]  # fmt: skip
            raise _Refusal(409, "Conflict", f"Apply failed with {len(causes)} conflicts", {"causes": causes})
        for path in _owners(after).get(manager, set()) - paths:
            if not any(path in owned for owner, owned in _owners(after).items() if owner != manager):
                _remove(after, path)
        after = _merged(after, wanted)
        for owner, owned in _owners(after).items():
            if owner != manager:
                _own(after, owner, owned - set(theirs), "Update")
        _own(after, manager, paths, "Apply")
        _default(key[0], after)
        if known is not None and _unversioned(after) == _unversioned(known):
            return known
        if known is not None and after.get("spec") != known.get("spec"):
            after["metadata"]["generation"] = int(known["metadata"].get("generation", 1)) + 1
        return after if asked.get("dryRun") else self.put(key[0], after)

    async def _watch(self, request: kmock.Request, plural: str) -> aiohttp.web.StreamResponse:
        response = aiohttp.web.StreamResponse()
        raw = request._raw_request
        assert raw is not None
        assert raw.transport is not None
        await response.prepare(raw)
        self.lines.add(line := raw.transport)
        try:
            async for event in self._events(request, plural):
                for said in self.disturb(event) if event["type"] != "ERROR" else [event]:
                    await self.answering.wait()
                    if line not in self.muted:
                        await response.write(json.dumps(said).encode() + b"\n")
        finally:
            self.lines.discard(line)
        return response

    async def _events(self, request: kmock.Request, plural: str) -> AsyncIterator[Object]:
        since = int(request.params.get("resourceVersion") or 0)
        until = asyncio.get_running_loop().time() + float(request.params.get("timeoutSeconds", 240))
        while asyncio.get_running_loop().time() < until:
            if since < self.oldest_watched:
                yield {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
                return
            changed = self._changed
            for version, kind, of, one in list(self._changes):
                inside = request.namespace in (None, one["metadata"].get("namespace", ""))
                meant = inside and _selected(one, request.params.get("labelSelector", ""))
                if version > since and of == plural and (meant or kind == "BOOKMARK"):
                    yield {"type": kind, "object": _without_log(one)}
                since = max(since, version)
            try:
                await asyncio.wait_for(changed.wait(), timeout=0.2)
            except TimeoutError:
                continue

    # What befalls its watches

    def bookmark(self) -> None:
        """To every watch: how far it has seen."""
        for plural in {of for of, _, _ in self.objects}:
            version = next(self._versions)
            one = {"metadata": {"resourceVersion": str(version)}}
            self._changes.append((version, "BOOKMARK", plural, one))
        self._changed.set()
        self._changed = asyncio.Event()

    def expire(self) -> None:
        """Every watch that is open, and every one from a version of until now."""
        self.oldest_watched = next(self._versions)

    def break_lines(self) -> None:
        for line in list(self.lines):
            line.abort()

    # Its one controller

    def _control(self, namespace: str) -> None:
        """A Deployment's pods: as many of the present template as wanted, old ones when new ones are ready."""
        for (plural, where, _), one in list(self.objects.items()):
            if plural == "deployments" and where == namespace:
                self._control_one(one)
        owners = {
            one["metadata"]["uid"] for (plural, _, _), one in self.objects.items() if plural == "deployments"
        }
        for (plural, where, _), pod in list(self.objects.items()):
            if plural == "pods" and where == namespace and _owner(pod) not in owners:
                self._take_away(pod)

    def _control_one(self, one: Object) -> None:
        wanted, uid = int(one["spec"].get("replicas", 1)), one["metadata"]["uid"]
        template = json.dumps(one["spec"]["template"], sort_keys=True)
        mine = [
            pod
            for (plural, _, _), pod in sorted(self.objects.items())
            if plural == "pods" and _owner(pod) == uid
        ]
        mine = [pod for pod in mine if not pod["metadata"].get("deletionTimestamp")]
        new = [pod for pod in mine if pod["template"] == template]
        old = [pod for pod in mine if pod["template"] != template]
        ready = [pod for pod in new if _ready(pod)]
        if len(new) < wanted:
            self._new_pod(one, template)
            return
        new.sort(key=lambda pod: (not _ready(pod), int(pod["metadata"]["born"])))
        for pod in new[wanted:]:
            self._take_away(pod)
            return
        for pod in old[: max(0, len(old) - (wanted - len(ready)))]:
            self._take_away(pod)
            return
        status = {
            "observedGeneration": one["metadata"].get("generation", 1),
            "replicas": len(mine), "updatedReplicas": len(new), "readyReplicas": len(ready) + sum(map(_ready, old)),
            "availableReplicas": len(ready) + sum(map(_ready, old)),
        }  # fmt: skip
        if said := (one.get("status") or {}).get("conditions"):
            status["conditions"] = said
        if one.get("status") != status:
            one["status"] = status
            self.put("deployments", one)

    def _new_pod(self, of: Object, template: str) -> None:
        number = next(self._versions)
        inner = copy.deepcopy(of["spec"]["template"])
        name, where = f"{of['metadata']['name']}-{number:06x}", of["metadata"]["namespace"]
        labels = inner["metadata"]["labels"]
        pod = {
            "apiVersion": "v1", "kind": "Pod", "template": template,
            "metadata": {
                "name": name, "namespace": where, "labels": labels, "born": str(number),
                "creationTimestamp": _now(), "ownerReferences": [{"uid": of["metadata"]["uid"]}],
            },
            "spec": inner["spec"] | {"nodeName": "node-1"},
            "status": {"phase": "Pending"},
        }  # fmt: skip
        self.put("pods", pod)

    def _take_away(self, pod: Object) -> None:
        if not pod["metadata"].get("deletionTimestamp"):
            pod["metadata"]["deletionTimestamp"] = _now()
            self.put("pods", pod)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(document: Object, *, status: int = 200) -> aiohttp.web.Response:
    return aiohttp.web.json_response(document, status=status)


def _failure(refusal: _Refusal, *, headers: Mapping[str, str] | None = None) -> aiohttp.web.Response:
    document = {
        "kind": "Status", "status": "Failure", "code": refusal.status, "reason": refusal.reason,
        "message": refusal.message, "details": refusal.details,
    }  # fmt: skip
    return aiohttp.web.json_response(document, status=refusal.status, headers=headers)


def _born(document: Object) -> Object:
    document["metadata"] |= {"uid": f"uid-{id(document):x}-{datetime.now(UTC).timestamp()}", "generation": 1}
    document["metadata"].setdefault("creationTimestamp", _now())
    return document


def _default(plural: str, one: Object) -> None:
    if plural == "deployments":
        one["spec"].setdefault("replicas", 1)


def _without_log(one: Object) -> Object:
    return {name: value for name, value in one.items() if name not in ("log", "template")}


def _unversioned(one: Object) -> str:
    """The object with who owns what, but not since when."""
    metadata = {name: value for name, value in one["metadata"].items() if name != "resourceVersion"}
    owners = {owner: sorted(paths) for owner, paths in _owners(one).items()}
    return json.dumps(one | {"metadata": metadata | {"managedFields": owners}}, sort_keys=True)


def _owner(pod: Object) -> str:
    return str((pod["metadata"].get("ownerReferences") or [{}])[0].get("uid"))


def _ready(pod: Object) -> bool:
    listed = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in listed)


def _selected(one: Object, selector: str) -> bool:
    labels = one["metadata"].get("labels") or {}
    return all(
        labels.get(part.partition("=")[0]) == part.partition("=")[2] for part in selector.split(",") if part
    )


def _list_key(items: list[Any]) -> str | None:
    if not items or not all(isinstance(one, dict) for one in items):
        return None
    return next((name for name in _LIST_KEYS if all(name in one for one in items)), None)


def _merged(before: Any, change: Any) -> Any:
    if isinstance(before, dict) and isinstance(change, dict):
        after = dict(before)
        for name, value in change.items():
            if value is None:
                after.pop(name, None)
            else:
                after[name] = _merged(before.get(name), value)
        return after
    if (
        isinstance(before, list)
        and isinstance(change, list)
        and (key := _list_key(change)) == _list_key(before)
        and key
    ):
        known = {one[key]: one for one in before}
        return [_merged(known.get(one[key]), one) for one in change]
    return copy.deepcopy(change)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list) and (key := _list_key(value)):
        for one in value:
            yield from _leaves(one, (*path, f"[{key}={one[key]}]"))
    elif path and path[0] not in ("apiVersion", "kind") and path[:2] != ("metadata", "name"):
        yield path


def _step(value: Any, part: str) -> Any:
    if part.startswith("["):
        key, _, wanted = part[1:-1].partition("=")
        return next((one for one in value or () if str(one.get(key)) == wanted), None)
    return value.get(part) if isinstance(value, dict) else None


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        value = _step(value, part)
    return value


def _remove(value: Any, path: tuple[str, ...]) -> None:
    inner = _at(value, path[:-1])
    if isinstance(inner, dict):
        inner.pop(path[-1], None)


def _owners(one: Object) -> dict[str, set[tuple[str, ...]]]:
    return {
        entry["manager"]: {tuple(path) for path in entry["paths"]}
        for entry in one["metadata"].get("managedFields") or ()
    }


def _own(one: Object, manager: str, paths: set[tuple[str, ...]], operation: str) -> None:
    """As the API shows it (`fieldsV1`, to the second level), and whole for ourselves (`paths`)."""
    rest = [entry for entry in one["metadata"].get("managedFields") or () if entry["manager"] != manager]
    fields: dict[str, Any] = {}
    for path in paths:
        place = fields
        for part in path[:3]:
            place = place.setdefault(f"f:{part}", {})
    entry = {
        "manager": manager, "operation": operation, "time": _now(), "fieldsV1": fields,
        "paths": sorted(list(path) for path in paths),
    }  # fmt: skip
    one["metadata"]["managedFields"] = [*rest, entry]


# A played kubelet looks twenty times a second.
logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


class RunningFake:
    """The fake behind a port, in a thread of its own. `connection` is how it is reached."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stop: asyncio.Event | None = None
        self.url = ""

    @property
    def connection(self) -> Connection:
        return Connection(server=self.url, token="of-the-fake")

    def start(self) -> "RunningFake":
        self._thread.start()
        self._started.wait(10)
        return self

    def stop(self) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def call[R](self, work: Callable[[], R]) -> R:
        """Runs it in the fake's own thread: its objects are not for two threads at once."""

        async def run() -> R:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def script(self, script: Script) -> None:
        self.call(lambda: self.cluster.scripts.append(script))

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Answers 503 to everything meanwhile."""
        script = Script(matches=lambda request: True, status=503, message="gone", times=10**9)
        self.script(script)
        yield
        script.times = 0

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Takes connections and answers nothing meanwhile, on open lines neither."""
        self.call(self.cluster.answering.clear)
        try:
            yield
        finally:
            self.call(self.cluster.answering.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self.cluster.answering.set()
        async with self.cluster, kmock.Server(self.cluster) as server:
            self.url = str(server.url).rstrip("/")
            self._started.set()
            await self._stop.wait()
