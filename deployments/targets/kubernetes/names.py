"""Names and labels of what Slipway makes in a cluster: valid for whatever people call their models.

A deployment's objects all have its own name, which a person looks for with kubectl, and carry its key, which
never changes. Refused: the key as a name (`d12` says nothing at 3 a.m.), and names from a model's own.
"""

import hashlib
import re
from dataclasses import replace

from controlplane.core.errors import Unprocessable
from deployments.domain.workload import DesiredDeployment, Workload

MANAGER = "slipway"
PREFIX = "slipway.dev/"
KEY, SLOT, REVISION = f"{PREFIX}key", f"{PREFIX}slot", f"{PREFIX}revision"
GENERATION, MODEL, ARTIFACT = f"{PREFIX}generation", f"{PREFIX}model", f"{PREFIX}artifact"
RECORD, SIZED_BY = f"{PREFIX}record", f"{PREFIX}sized-by"
MANAGED_BY = "app.kubernetes.io/managed-by"
RECORDED = f"-{MANAGER}"
"""Ends the name of the record of a deployment."""
MAIN, CANDIDATE = "main", "candidate"
LONGEST = 40
"""Leaves room for what is appended: “-candidate”, a digest, a ReplicaSet's and a pod's own suffix."""

_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")
_NOT_IN_A_LABEL = re.compile(r"[^A-Za-z0-9_.-]+")


def short(text: str, length: int = 8) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def object_name(name: str) -> str:
    """A DNS-1035 label (a Service's rule) of at most 40 characters; the same as `name` where that is one already,
    else marked with a piece of its digest, so that two names never become one."""
    slug = _NOT_IN_A_NAME.sub("-", name.lower()).strip("-")
    if not slug[:1].isalpha():
        slug = f"m-{slug}".strip("-")
    if slug == name and len(slug) <= LONGEST:
        return slug
    return f"{slug[: LONGEST - 9].strip('-')}-{short(name)}"


def label_value(text: str) -> str:
    """At most 63 characters of `text` that a label may hold; empty where there are none."""
    return _NOT_IN_A_LABEL.sub("-", text)[:63].strip("-_.")


def name_of(desired: DesiredDeployment) -> str:
    return object_name(desired.path.rpartition("/")[2])


def pull_secret(name: str) -> str:
    """Of the object name of a deployment: what its pods fetch variants with."""
    return f"{name}-pull"


def selector(key: str) -> str:
    """What finds every object of a deployment, as the API takes it."""
    return f"{MANAGED_BY}={MANAGER},{KEY}={key}"


def labels(desired: DesiredDeployment) -> dict[str, str]:
    """On every object of the deployment."""
    _, team, name = desired.path.split("/")
    return {
        "app.kubernetes.io/name": label_value(name),
        "app.kubernetes.io/part-of": label_value(team),
        MANAGED_BY: MANAGER,
        KEY: desired.key,
    }


def with_slots(desired: DesiredDeployment) -> DesiredDeployment:
    """Where nobody says which revision is the candidate, the first has the main place and the other one is. Raises
    Unprocessable for more than two: a cluster has two Deployments for an endpoint at most."""
    workloads = desired.workloads
    if not any(one.candidate for one in workloads):
        workloads = tuple(replace(one, candidate=place > 0) for place, one in enumerate(workloads))
    slots = [one.candidate for one in workloads]
    if slots.count(True) > 1 or slots.count(False) > 1:
        raise Unprocessable(
            "too_many_revisions",
            "More than two revisions cannot run side by side in a cluster.",
            f"Wished for: {', '.join(str(one.revision) for one in workloads)}.",
        )
    return replace(desired, workloads=workloads)


def slot_of(workload: Workload) -> str:
    return CANDIDATE if workload.candidate else MAIN


def pod_labels(desired: DesiredDeployment, workload: Workload) -> dict[str, str]:
    return labels(desired) | {SLOT: slot_of(workload), REVISION: str(workload.revision)}


def pod_selector(desired: DesiredDeployment, workload: Workload) -> dict[str, str]:
    """What never changes for as long as there is a Deployment: its selector is immutable."""
    return {KEY: desired.key, SLOT: slot_of(workload)}
