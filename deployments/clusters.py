"""The verbs on targets: adding a cluster, changing how it is reached, testing it, taking it away.

A kubeconfig goes in and never comes out: it is read before it is stored, stored sealed, and named in no audit row and
no answer. Refused: a cluster that two teams share a namespace of, since whoever holds it could read the other's.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self
from urllib.parse import urlsplit

from django.db import IntegrityError, transaction

from controlplane.accounts import audit
from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core import sealing
from controlplane.core.errors import Conflict, InvalidInput, SlipwayError, Unprocessable
from controlplane.core.names import check_name
from controlplane.core.rows import locked
from deployments import targets
from deployments.domain.cluster import ClusterSettings
from deployments.models import CLUSTER, Target
from deployments.targets.kubernetes import checkup, kubeconfig, metrics_install, opening, pem
from deployments.targets.kubernetes.api import Api
from deployments.targets.kubernetes.checkup import Report
from deployments.targets.kubernetes.kubeconfig import Connection
from deployments.targets.kubernetes.metrics_install import Installation, MetricsApi
from deployments.targets.kubernetes.render.place import FETCH_IMAGE

THIS_KIND = "local"
IN_CLUSTER = "in-cluster"
SCRAPES = ("", "pods", "proxy")
"""How replicas are measured; see `targets.kubernetes.opening.is_proxied`."""
KEPT_S = 900
"""How long a form that has to be sent again keeps the kubeconfig that came with it."""
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_SYSTEM = ("kube-", "openshift-")


@dataclass(frozen=True, kw_only=True)
class ClusterPlace:
    """What is said of a cluster besides how it is reached; see `targets.kubernetes.render.place.Place`.

    Raises InvalidInput about the field.
    """

    namespace: str
    fetch_url: str = ""
    fetch_ca: str = ""
    fetch_image: str = FETCH_IMAGE
    scrape: str = ""
    slipway_namespace: str = ""
    metrics_url: str = ""
    keda_secret: str = ""

    def __post_init__(self) -> None:
        if not is_namespace(self.namespace):
            raise _wrong("namespace", "Use 1 to 63 lower-case letters, digits and inner dashes.")
        if self.namespace == "default" or self.namespace.startswith(_SYSTEM):
            raise _wrong("namespace", "Use one of the team's own: this is the cluster's.")
        if self.slipway_namespace and not is_namespace(self.slipway_namespace):
            raise _wrong("slipway_namespace", "Use the name of a namespace, or leave it empty.")
        if self.keda_secret and not _OBJECT.fullmatch(self.keda_secret):
            raise _wrong("keda_secret", "Use the name of a Secret, or leave it empty.")
        if self.scrape not in SCRAPES:
            raise _wrong("scrape", f"Use {' or '.join(filter(None, SCRAPES))}, or leave it empty.")
        if self.fetch_ca and (trouble := pem.trouble(self.fetch_ca)):
            raise _wrong("fetch_ca", trouble)
        for name in ("fetch_url", "metrics_url"):
            if not _is_address(getattr(self, name)):
                raise _wrong(name, "Write an address such as https://slipway.example.com, without a user.")
        try:
            ClusterSettings(image=self.fetch_image)
        except InvalidInput as error:
            raise _wrong("fetch_image", "Use an image such as registry.example.com/slipway:1.2.") from error

    @classmethod
    def of(cls, target: Target) -> Self:
        """As it is stored."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: target.settings[name] for name in names if name in target.settings})


def _wrong(field: str, sentence: str) -> InvalidInput:
    title = "The cluster cannot be used like that."
    return InvalidInput("invalid_cluster", title, f"{field}: {sentence}", fields={field: [sentence]})


def _is_address(text: str) -> bool:
    """Or nothing."""
    if not text:
        return True
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text and len(text) <= 500
    bare = not (parts.query or parts.fragment or "@" in parts.netloc)
    return plain and bare and parts.scheme in ("http", "https") and bool(parts.hostname)


def add_cluster(
    actor: Actor,
    *,
    name: str,
    place: ClusterPlace,
    kubeconfig_text: str = "",
    context: str = "",
    in_cluster: bool = False,
) -> Target:
    """Nothing is asked of the cluster: one that is away now can be added. Raises InvalidInput about the field."""
    actor.require(Role.ADMIN)
    check_name(name, what="target")
    found = _connection(kubeconfig_text, context, in_cluster=in_cluster)
    settings = _settings(place, found, in_cluster=in_cluster)
    try:
        with transaction.atomic():
            _refuse_shared(actor, settings)
            target = Target.objects.create(
                team=actor.team,
                name=name,
                kind=CLUSTER,
                settings=settings,
                secret=b"" if in_cluster else sealing.seal(kubeconfig_text),
            )
            _audit(actor, "added", target, _told(settings))
    except IntegrityError as error:
        raise Conflict(
            "target_exists",
            f"The team already has a target “{name}”.",
            "Choose another name.",
            fields={"name": ["This name is taken in your team."]},
        ) from error
    return target


def change_cluster(
    actor: Actor,
    target: Target,
    *,
    changes: Mapping[str, str],
    kubeconfig_text: str = "",
    context: str = "",
) -> Target:
    """`changes` are fields of `ClusterPlace`. With `kubeconfig_text` the old one is gone; with `context` alone another
    one of the stored kubeconfig is taken. While deployments use it, its namespace and the cluster itself stay."""
    actor.require(Role.ADMIN)
    refuse_no_cluster(target)
    place = replace(ClusterPlace.of(target), **changes)
    in_cluster = bool(target.settings.get("in_cluster"))
    if in_cluster and (kubeconfig_text or context):
        raise _wrong("kubeconfig", "This target uses Slipway's own account, and has none.")
    with transaction.atomic():
        target = locked(target)
        settings = target.settings | {name: getattr(place, name) for name in changes}
        if kubeconfig_text or context:
            text = kubeconfig_text or sealing.opened(bytes(target.secret))
            found = _connection(text, context or _same_context(text, target), in_cluster=False)
            _refuse_other_cluster(target, found)
            settings |= {"server": found.server, "context": found.context}
            target.secret = sealing.seal(text)
        _refuse_moved(target, settings)
        _refuse_shared(actor, settings)
        target.settings = settings
        target.save(update_fields=["settings", "secret"])
        verb = "replaced the kubeconfig of" if kubeconfig_text else "changed"
        _audit(actor, verb, target, {name: settings[name] for name in changes} | _told(settings))
    return target


def remove_target(actor: Actor, target: Target) -> None:
    """Forgets it and its kubeconfig. Raises Conflict while deployments use it, and for the machine itself."""
    actor.require(Role.ADMIN)
    with transaction.atomic():
        target = locked(target)
        if target.kind == THIS_KIND:
            raise Conflict(
                "own_machine", "The machine itself cannot be removed.", "It costs nothing to leave it."
            )
        if number := target.deployments.count():
            raise _in_use(number, "Remove them first: afterwards nobody could stop what they run.")
        _audit(actor, "removed", target, _told(target.settings))
        target.delete()


def test_connection(target: Target) -> Report:
    """Seconds at most; what is wrong is in the report, and nothing is raised."""
    if not target.is_cluster:
        return _test_machine(target)
    server = str(target.settings.get("server", ""))
    try:
        place = opening.place(target.settings)
        api = _api(target, connect_s=checkup.CONNECT_S, read_s=checkup.READ_S)
    except SlipwayError as error:
        return checkup.unreachable(error, server=server, namespace=str(target.settings.get("namespace", "")))
    return checkup.look(api, place)


def plan_metrics_api(target: Target, wanted: MetricsApi) -> Installation:
    """See `metrics_install.plan`."""
    refuse_no_cluster(target)
    return metrics_install.plan(_api(target), wanted)


def install_metrics_api(actor: Actor, target: Target, wanted: MetricsApi, *, etag: str) -> Installation:
    """Applies what `plan_metrics_api` showed under `etag`."""
    actor.require(Role.ADMIN)
    refuse_no_cluster(target)
    shown = metrics_install.install(_api(target), wanted, etag=etag)
    told = {"namespace": wanted.namespace, "outside": wanted.outside}
    _audit(actor, "installed the metrics API on", target, told)
    return shown


def keep(actor: Actor, text: str) -> str:
    """A kubeconfig for a form that has to be sent again: sealed, for this user and team, for a quarter of an hour."""
    held = {"team": actor.team.pk, "user": _user(actor), "until": time.time() + KEPT_S, "text": text}
    return base64.urlsafe_b64encode(sealing.seal(json.dumps(held))).decode()


def kept(actor: Actor, token: str) -> str:
    """What `keep` was given; empty for a token that is none, is another's, or has ended."""
    try:
        held = json.loads(sealing.opened(base64.urlsafe_b64decode(token.encode())))
    except (Conflict, ValueError, binascii.Error):
        return ""
    if not isinstance(held, dict) or held.keys() != {"team", "user", "until", "text"}:
        return ""
    mine = held["team"] == actor.team.pk and held["user"] == _user(actor)
    return str(held["text"]) if mine and held["until"] > time.time() else ""


def _user(actor: Actor) -> int | None:
    return actor.user.pk if actor.user else None


def _api(target: Target, **timeouts: float) -> Api:
    return Api(opening.connection(target.settings, bytes(target.secret or b"")), **timeouts)


def _connection(text: str, context: str, *, in_cluster: bool) -> Connection:
    if in_cluster:
        if text.strip():
            raise _wrong("kubeconfig", "Leave it empty, or do not take Slipway's own account.")
        return opening.connection({"in_cluster": True}, b"")
    if not text.strip():
        raise _wrong("kubeconfig", "Paste the kubeconfig of an account for Slipway.")
    known = kubeconfig.contexts(text)
    if context and context not in known:
        listed = ", ".join(known)[:300] or "none"
        raise _wrong("context", f"The kubeconfig has no such context; it has: {listed}.")
    return kubeconfig.read(text, context=context)


def _same_context(text: str, target: Target) -> str:
    """The one that was chosen, where the new kubeconfig has it, too."""
    before = str(target.settings.get("context", ""))
    return before if before in kubeconfig.contexts(text) else ""


def _settings(place: ClusterPlace, found: Connection, *, in_cluster: bool) -> dict[str, Any]:
    said = {field.name: getattr(place, field.name) for field in fields(place)}
    reached = {"server": IN_CLUSTER, "in_cluster": True} if in_cluster else {"server": found.server}
    return said | reached | {"context": found.context}


def _told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit trail says of it."""
    return {name: settings.get(name, "") for name in ("server", "context", "namespace")}


def is_namespace(text: str) -> bool:
    """Whether a cluster could have one of that name."""
    return _LABEL.fullmatch(text) is not None


def refuse_no_cluster(target: Target) -> None:
    """Raises Unprocessable."""
    if not target.is_cluster:
        raise Unprocessable("no_cluster", f"“{target.name}” is no cluster.", "It has nothing to be set.")


def _in_use(number: int, what_to_do: str, **more: Any) -> Conflict:
    has = "A deployment uses" if number == 1 else f"{number} deployments use"
    return Conflict("target_in_use", f"{has} this target.", what_to_do, **more)


def _refuse_moved(target: Target, settings: Mapping[str, Any]) -> None:
    if settings["namespace"] != target.settings.get("namespace") and (number := target.deployments.count()):
        sentence = "What they run would stay behind in the old namespace. Add the cluster once more instead."
        raise _in_use(number, sentence, fields={"namespace": [sentence]})


def _refuse_other_cluster(target: Target, found: Connection) -> None:
    """The same address or the same authority is the same cluster: either may be renewed by itself."""
    number = target.deployments.count()
    if not number or found.server == target.settings.get("server"):
        return
    try:
        before = opening.connection(target.settings, bytes(target.secret))
    except SlipwayError:
        before = None  # what it was cannot be read any more, so nothing is lost
    if before is None or not before.ca_pem or before.ca_pem.strip() != found.ca_pem.strip():
        sentence = "The kubeconfig is of another cluster. Add that one as a target of its own."
        raise _in_use(number, sentence, fields={"kubeconfig": [sentence]})


def _refuse_shared(actor: Actor, settings: Mapping[str, Any]) -> None:
    others = Target.objects.filter(
        kind=CLUSTER, settings__server=settings["server"], settings__namespace=settings["namespace"]
    ).exclude(team=actor.team)
    if others.exists():
        raise Conflict(
            "namespace_taken",
            "Another team uses this namespace.",
            "Make one for your own (kubectl create namespace …), so that neither can read the other's.",
            fields={"namespace": ["Another team uses this namespace of the cluster."]},
        )


def _test_machine(target: Target) -> Report:
    begun = time.perf_counter()
    try:
        targets.of(target).observe_all()
    except SlipwayError as error:
        return checkup.unreachable(error)
    return Report(reachable=True, latency_ms=round((time.perf_counter() - begun) * 1000, 1))


def _audit(actor: Actor, verb: str, target: Target, details: Mapping[str, Any]) -> None:
    audit.record(
        actor,
        verb,
        object_type="target",
        object_id=target.pk,
        object_name=target.name,
        object_url="" if verb == "removed" else target.get_absolute_url(),
        details=details,
    )
