"""The REST API of targets: each button of their pages is one call here. What a cluster is reached with is written and
never read back."""

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.accounts.access import Actor, actor_of
from controlplane.accounts.models import Role
from controlplane.core.api import page_response, parse
from controlplane.core.errors import PreconditionRequired
from controlplane.core.openapi import PAGING, Page, header, refusals
from controlplane.registry import selectors as registry
from deployments import clusters, imports, selectors
from deployments.api import documents, inputs, schemas
from deployments.clusters import ClusterPlace
from deployments.models import Target as TargetRow
from deployments.targets.kubernetes.metrics_install import MetricsApi

IF_MATCH = header("If-Match", "The ETag of the dry run that was looked at; not asked for by a dry run.")
WAYS_IN = ("kubeconfig", "context", "in_cluster")


def _target(request: Request, name: str) -> tuple[Actor, TargetRow]:
    actor = actor_of(request)
    return actor, get_object_or_404(selectors.targets(actor), name=name)


def _cluster(request: Request, name: str) -> tuple[Actor, TargetRow]:
    """Raises Unprocessable for a target that is none."""
    actor, row = _target(request, name)
    clusters.refuse_no_cluster(row)
    return actor, row


class Targets(APIView):
    @extend_schema(parameters=PAGING, responses=Page[schemas.Target])
    def get(self, request: Request) -> Response:
        """Where the team's replicas can run."""
        actor = actor_of(request)
        return page_response(selectors.targets(actor), request, documents.target)

    @extend_schema(request=inputs.NewTarget, responses={201: schemas.Target, **refusals(409)})
    def post(self, request: Request) -> Response:
        """Add a cluster. Its kubeconfig is stored sealed, and never answered."""
        actor = actor_of(request)
        actor.require(Role.ADMIN)
        wanted = parse(inputs.NewTarget, request)
        said = {name: value for name, value in wanted.items() if name not in ("name", *WAYS_IN)}
        row = clusters.add_cluster(
            actor,
            name=wanted["name"],
            place=ClusterPlace(**said),
            kubeconfig_text=wanted["kubeconfig"],
            context=wanted["context"],
            in_cluster=wanted["in_cluster"],
        )
        document = documents.target(selectors.targets(actor).get(pk=row.pk))
        return Response(document, status=201, headers={"Location": document["url"]})


class Target(APIView):
    @extend_schema(responses=schemas.Target)
    def get(self, request: Request, name: str) -> Response:
        """One target, without what it is reached with."""
        return Response(documents.target(_target(request, name)[1]))

    @extend_schema(request=inputs.ChangedTarget, responses={200: schemas.Target, **refusals(409, 422)})
    def patch(self, request: Request, name: str) -> Response:
        """Change a cluster's settings, or replace its kubeconfig. What is left out stays."""
        actor, row = _target(request, name)
        actor.require(Role.ADMIN)
        wanted = parse(inputs.ChangedTarget, request)
        clusters.change_cluster(
            actor,
            row,
            changes={name: value for name, value in wanted.items() if name not in WAYS_IN},
            kubeconfig_text=wanted.get("kubeconfig", ""),
            context=wanted.get("context", ""),
        )
        return Response(documents.target(_target(request, name)[1]))

    @extend_schema(responses={204: None, **refusals(409)})
    def delete(self, request: Request, name: str) -> Response:
        """Forget a cluster, while no deployment uses it. Nothing is changed in it."""
        actor, row = _target(request, name)
        clusters.remove_target(actor, row)
        return Response(status=204)


class TargetConnection(APIView):
    @extend_schema(responses=schemas.Connection)
    def get(self, request: Request, name: str) -> Response:
        """Test the connection now. A target that does not answer is a report, too, after a few seconds."""
        report = clusters.test_connection(_target(request, name)[1])
        return Response(report.to_json() | {"usable": report.usable})


class TargetRights(APIView):
    @extend_schema(responses={200: schemas.Rights, **refusals(422)})
    def get(self, request: Request, name: str) -> Response:
        """What Slipway's account needs in the cluster and why, as a table and as YAML."""
        return Response(documents.rights(_cluster(request, name)[1].settings.get("namespace", "")))


class TargetImports(APIView):
    @extend_schema(responses={200: schemas.Importables, **refusals(422)})
    def get(self, request: Request, name: str) -> Response:
        """What others run in the cluster's namespace and can be imported. Asks the cluster now."""
        found = imports.importable(_cluster(request, name)[1])
        return Response({"items": [documents.importable(one) for one in found]})

    @extend_schema(
        request=inputs.NewImportedDeployment, responses={201: schemas.Deployment, **refusals(404, 409, 422)}
    )
    def post(self, request: Request, name: str) -> Response:
        """Import a Deployment as revision 1 of a new deployment. It is only looked at until that is rolled out."""
        actor, row = _cluster(request, name)
        actor.require(Role.ENGINEER)
        wanted = parse(inputs.NewImportedDeployment, request)
        made, _ = imports.import_deployment(
            actor,
            row,
            source=wanted["deployment"],
            name=wanted["name"] or imports.proposed_name(wanted["deployment"]),
            variant=registry.variant(actor, wanted["model"], wanted["version"], wanted["variant"]),
            stack=wanted["stack"],
        )
        document = documents.deployment(selectors.deployments(actor).get(pk=made.pk))
        return Response(document, status=201, headers={"Location": document["url"]})


RESPONSES: dict[Any, Any] = {200: schemas.Installation, **refusals(409, 412, 422, 428)}


class TargetMetricsApi(APIView):
    @extend_schema(request=inputs.NewMetricsApi, parameters=[IF_MATCH], responses=RESPONSES)
    def post(self, request: Request, name: str) -> Response:
        """Install the metrics API in the cluster. First with `dry_run`; its ETag then goes into If-Match."""
        actor, row = _target(request, name)
        actor.require(Role.ADMIN)
        given = parse(inputs.NewMetricsApi, request)
        clusters.refuse_no_cluster(row)
        dry_run = given.pop("dry_run")
        wanted = MetricsApi(**given)
        if dry_run:
            shown = clusters.plan_metrics_api(row, wanted)
        else:
            shown = clusters.install_metrics_api(actor, row, wanted, etag=_etag(request))
        document = documents.installation(shown, applied=not dry_run)
        return Response(document, headers={"ETag": f'"{shown.etag}"'})


def _etag(request: Request) -> str:
    etag = request.headers.get("If-Match")
    if etag is None:
        raise PreconditionRequired(
            "if_match_required",
            "Installing needs the dry run that was looked at.",
            "Ask with dry_run first, and send its ETag as If-Match.",
        )
    return etag.strip('"')
