"""Finds what is named in everything the team has, down to aliases and revisions. A text is matched literally.

Refused: a search index. Names are short and few, and an index can lag behind what was just made.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import Q
from django.urls import reverse

from controlplane.accounts.access import Actor
from controlplane.registry import selectors as registry
from controlplane.registry.models import Alias, Dataset
from deployments import selectors as deployments
from deployments.models import Revision
from optimizer import selectors as optimizer

MOST_HITS = 8
MAX_TEXT = 200
_JOB = re.compile(r"(?:job\s*)?#?([0-9]{1,18})", re.IGNORECASE | re.ASCII)
_VERSION = re.compile(r"(.*?)\s+v(?:ersion\s*)?([0-9]{1,9})", re.IGNORECASE | re.ASCII)
_REVISION = re.compile(r"(.*?)\s*\br(?:evision\s*)?([0-9]{1,9})", re.IGNORECASE | re.ASCII)
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")


@dataclass(frozen=True, kw_only=True)
class Hit:
    name: str
    note: str
    url: str
    state: str = ""


@dataclass(frozen=True, kw_only=True)
class Group:
    """`more` says that the list was cut at MOST_HITS."""

    title: str
    icon: str
    hits: Sequence[Hit]
    more: bool


def search(actor: Actor, text: str) -> list[Group]:
    """The groups that have hits. One query each; nothing for an empty text."""
    text = text.strip()[:MAX_TEXT]
    if not text:
        return []
    groups = (
        _group("Models", "models", _models(actor, text)),
        _group("Versions", "versions", _versions(actor, text)),
        _group("Aliases", "aliases", _aliases(actor, text)),
        _group("Data sets", "datasets", _datasets(actor, text)),
        _group("Deployments", "deployments", _deployments(actor, text)),
        _group("Revisions", "revisions", _revisions(actor, text)),
        _group("Targets", "targets", _targets(actor, text)),
        _group("Jobs", "jobs", _jobs(actor, text)),
    )
    return [group for group in groups if group.hits]


def _group(title: str, icon: str, hits: Iterable[Hit]) -> Group:
    found = list(hits)
    return Group(title=title, icon=icon, hits=found[:MOST_HITS], more=len(found) > MOST_HITS)


def _models(actor: Actor, text: str) -> Iterable[Hit]:
    for row in registry.search_models(registry.models(actor), text)[: MOST_HITS + 1]:
        yield Hit(name=row.name, note=row.description[:100], url=row.get_absolute_url())


def _versions(actor: Actor, text: str) -> Iterable[Hit]:
    """By digest, by `name v3`, or by file name."""
    wanted = Q(source_filename__icontains=text)
    if named := _VERSION.fullmatch(text):
        wanted |= Q(model__name__icontains=named[1], number=int(named[2]))
    if digest := _DIGEST.fullmatch(text.lower()):
        wanted |= Q(source_sha256__startswith=digest[1])
    for row in registry.versions(actor).filter(wanted)[: MOST_HITS + 1]:
        yield Hit(name=str(row), note=row.source_filename, url=row.get_absolute_url())


def _aliases(actor: Actor, text: str) -> Iterable[Hit]:
    rows = Alias.objects.in_team(actor.team).filter(name__icontains=text).order_by("model__name", "name")
    for row in rows.select_related("variant__version__model")[: MOST_HITS + 1]:
        yield Hit(name=row.name, note=f"points to {row.variant}", url=row.variant.get_absolute_url())


def _datasets(actor: Actor, text: str) -> Iterable[Hit]:
    rows = Dataset.objects.in_team(actor.team).filter(name__icontains=text).order_by("model__name", "name")
    for row in rows.select_related("model")[: MOST_HITS + 1]:
        yield Hit(name=row.name, note=f"data of {row.model.name}", url=row.model.get_absolute_url())


def _deployments(actor: Actor, text: str) -> Iterable[Hit]:
    for row in deployments.deployments(actor).filter(name__icontains=text)[: MOST_HITS + 1]:
        serves = str(row.live_revision.variant) if row.live_revision else "serves nothing yet"
        state = str(deployments.health_of(row))
        yield Hit(name=row.name, note=serves, url=row.get_absolute_url(), state=state)


def _revisions(actor: Actor, text: str) -> Iterable[Hit]:
    """By `name revision 3` or `name r3`, and every deployment's by `revision 3` alone."""
    if not (named := _REVISION.fullmatch(text)):
        return
    mine = deployments.deployments(actor).filter(name__icontains=named[1])
    rows = Revision.objects.filter(deployment__in=mine, number=int(named[2])).order_by("-pk")
    for row in rows.select_related("deployment", "variant__version__model")[: MOST_HITS + 1]:
        url = reverse("deployments:plan", args=[row.deployment.name, row.number])
        yield Hit(name=f"{row.deployment.name} revision {row.number}", note=f"of {row.variant}", url=url)


def _targets(actor: Actor, text: str) -> Iterable[Hit]:
    """By name, or by the address of a cluster."""
    wanted = Q(name__icontains=text) | Q(settings__server__icontains=text)
    for row in deployments.targets(actor).filter(wanted)[: MOST_HITS + 1]:
        note = f"namespace {row.settings.get('namespace')}" if row.is_cluster else "this machine"
        yield Hit(name=row.name, note=note, url=row.get_absolute_url())


def _jobs(actor: Actor, text: str) -> Iterable[Hit]:
    """By number, or by the model they work on."""
    wanted = Q(version__model__name__icontains=text)
    if numbered := _JOB.fullmatch(text):
        wanted |= Q(pk=int(numbered[1]))
    for row in optimizer.jobs(actor).filter(wanted).order_by("-id")[: MOST_HITS + 1]:
        yield Hit(name=f"Job {row.pk}", note=f"on {row.version}", url=row.get_absolute_url(), state=row.state)
