"""The REST API of deployments: each button of the page is one call here."""

from datetime import UTC, datetime
from typing import Any

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.accounts.access import Actor, actor_of
from controlplane.core.api import page_response, parse, word
from controlplane.core.errors import PreconditionRequired
from controlplane.core.json import JSONRenderer
from controlplane.core.openapi import PAGING, Page, header, query, refusals, sorting
from controlplane.registry import selectors as registry
from controlplane.registry.api import bodies
from deployments import drift, exports, handover, preview, selectors, services, specs, why
from deployments import rollouts as verbs
from deployments.api import documents, inputs, schemas
from deployments.domain.rollouts import Health
from deployments.models import Deployment as DeploymentRow
from deployments.models import Load as LoadRow
from deployments.models import Revision as RevisionRow
from deployments.models import Rollout as RolloutRow
from deployments.targets.kubernetes.export import Form
from deployments.telemetry.figures import ALL, DEFAULT_RANGE, RANGES_S, figure

IF_MATCH = header("If-Match", "The ETag of the plan it was decided on; `*` takes any.", required=True)
EPOCH = {"type": "number", "minimum": 0, "exclusiveMaximum": 1e11}
STARTED: dict[Any, Any] = {202: schemas.Rollout, **refusals(409, 412, 428)}


def _deployment(request: Request, name: str) -> tuple[Actor, DeploymentRow]:
    actor = actor_of(request)
    return actor, get_object_or_404(selectors.deployments(actor), name=name)


def _revision(deployment: DeploymentRow, number: int) -> RevisionRow:
    return get_object_or_404(selectors.revisions(deployment), number=number)


def _rollout(request: Request, name: str, rollout: int) -> tuple[Actor, RolloutRow]:
    actor, deployment = _deployment(request, name)
    return actor, get_object_or_404(selectors.rollouts(deployment), pk=rollout)


class Deployments(APIView):
    @extend_schema(
        parameters=[
            *PAGING,
            *sorting(selectors.SORTS),
            query("q", description="Literal text in the name, or in that of the live model."),
            query("health", enum=list(Health)),
        ],
        responses=Page[schemas.Deployment],
    )
    def get(self, request: Request) -> Response:
        """Deployments of the team, newest first."""
        rows = selectors.search(
            selectors.deployments(actor_of(request)),
            text=request.GET.get("q", ""),
            health=word(request, "health", list(Health)),
        )
        return page_response(rows, request, documents.deployment, sorts=selectors.SORTS)

    @extend_schema(request=inputs.NewDeployment, responses={201: schemas.CreatedDeployment, **refusals(409)})
    def post(self, request: Request) -> Response:
        """Create an endpoint. With `protected`, the answer carries its API key, once."""
        actor = actor_of(request)
        wanted = parse(inputs.NewDeployment, request)
        target = get_object_or_404(selectors.targets(actor), name=wanted["target"])
        row, key = services.create_deployment(
            actor, name=wanted["name"], target=target, protected=wanted["protected"]
        )
        document: schemas.CreatedDeployment = {**documents.deployment(row), "api_key": key or None}
        return Response(document, status=201, headers={"Location": document["url"]})


class Deployment(APIView):
    @extend_schema(responses=schemas.Deployment)
    def get(self, request: Request, name: str) -> Response:
        """One endpoint, with what its replicas were last seen to do."""
        return Response(documents.deployment(_deployment(request, name)[1]))

    @extend_schema(responses={202: schemas.Removal})
    def delete(self, request: Request, name: str) -> Response:
        """Drain and remove the endpoint."""
        actor, row = _deployment(request, name)
        services.remove_deployment(actor, row)
        document: schemas.Removal = {"name": row.name, "health": "removing"}
        return Response(document, status=202)


class Key(APIView):
    @extend_schema(request=None, responses={201: schemas.NewKey, **refusals(409)})
    def post(self, request: Request, name: str) -> Response:
        """Make a new API key for the endpoint, or its first one. The answer carries it, once.

        Replicas are replaced one by one, and each answers the key that it was started with. A repeated call makes
        another key; the last one holds.
        """
        actor, row = _deployment(request, name)
        document: schemas.NewKey = {"name": row.name, "api_key": services.rotate_key(actor, row)}
        return Response(document, status=201, headers={"Cache-Control": "no-store"})

    @extend_schema(request=None, responses={204: None, **refusals(409)})
    def delete(self, request: Request, name: str) -> Response:
        """Let everyone who reaches the address ask. Removing twice is the same."""
        actor, row = _deployment(request, name)
        services.remove_key(actor, row)
        return Response(status=204)


class Revisions(APIView):
    @extend_schema(parameters=PAGING, responses=Page[schemas.Revision])
    def get(self, request: Request, name: str) -> Response:
        """Revisions, newest first."""
        return page_response(selectors.revisions(_deployment(request, name)[1]), request, documents.revision)

    @extend_schema(request=inputs.NewRevision, responses={201: schemas.Revision, **refusals(409, 422)})
    def post(self, request: Request, name: str) -> Response:
        """Fix a spec that could be rolled out. Nothing moves yet."""
        actor, deployment = _deployment(request, name)
        wanted = parse(inputs.NewRevision, request)
        row = services.add_revision(
            actor,
            deployment,
            variant=registry.variant(actor, wanted["model"], wanted["version"], wanted["variant"]),
            spec=specs.read_spec(wanted["spec"], deployment.target),
        )
        return Response(documents.revision(row), status=201)


class Revision(APIView):
    @extend_schema(responses=schemas.Revision)
    def get(self, request: Request, name: str, number: int) -> Response:
        """One revision, with its whole spec."""
        return Response(documents.revision(_revision(_deployment(request, name)[1], number)))


class Plan(APIView):
    @extend_schema(responses=schemas.Plan)
    def get(self, request: Request, name: str, number: int) -> Response:
        """What rolling the revision out would change, and what stands in its way. The ETag goes into If-Match."""
        _, deployment = _deployment(request, name)
        shown = preview.preview(deployment, _revision(deployment, number))
        return Response(documents.preview(shown), headers={"ETag": f'"{shown.etag}"'})


class Manifests(APIView):
    renderer_classes = (JSONRenderer, bodies.Bytes)

    @extend_schema(
        parameters=[query("as", enum=list(Form), default=str(Form.YAML))],
        responses={
            (200, "text/plain"): OpenApiTypes.STR,
            (200, "application/zip"): OpenApiTypes.BINARY,
            (200, "application/gzip"): OpenApiTypes.BINARY,
            **refusals(409),
        },
    )
    def get(self, request: Request, name: str, number: int) -> HttpResponse:
        """The objects that a cluster is given: one YAML file, a Kustomize base (zip) or a Helm chart (tgz).

        For the deployment's present size, and for people who apply them themselves: they carry no token and nothing
        by which Slipway would take them for its own.
        """
        _, deployment = _deployment(request, name)
        form = exports.form_of(request.GET.get("as", ""))
        file = exports.export(deployment, _revision(deployment, number), form)
        disposition = {"Content-Disposition": f'attachment; filename="{file.name}"'}
        return HttpResponse(file.content, content_type=file.content_type, headers=disposition)


class Rollouts(APIView):
    @extend_schema(parameters=PAGING, responses=Page[schemas.Rollout])
    def get(self, request: Request, name: str) -> Response:
        """Rollouts, newest first."""
        return page_response(selectors.rollouts(_deployment(request, name)[1]), request, documents.rollout)

    @extend_schema(request=inputs.RevisionNumber, parameters=[IF_MATCH], responses=STARTED)
    def post(self, request: Request, name: str) -> Response:
        """Roll a revision out. If-Match carries the ETag of the plan that was looked at."""
        return _start(request, name, kind="update")


class Rollback(APIView):
    @extend_schema(request=inputs.RevisionNumber, parameters=[IF_MATCH], responses=STARTED)
    def post(self, request: Request, name: str) -> Response:
        """Go back to an earlier revision; the same move as a rollout, named for what it is."""
        return _start(request, name, kind="rollback")


def _start(request: Request, name: str, *, kind: str) -> Response:
    actor, deployment = _deployment(request, name)
    wanted = parse(inputs.RevisionNumber, request)
    etag = request.headers.get("If-Match")
    if etag is None:
        raise PreconditionRequired(
            "if_match_required",
            "A rollout needs the plan it was decided on.",
            f"Read /api/v1/deployments/{name}/revisions/{wanted['revision']}/plan/ and send its ETag as If-Match.",
        )
    revision = _revision(deployment, wanted["revision"])
    row = services.roll_out(actor, deployment, revision, etag=None if etag == "*" else etag, kind=kind)
    return Response(documents.rollout(row), status=202)


class Rollout(APIView):
    @extend_schema(responses=schemas.OneRollout)
    def get(self, request: Request, name: str, rollout: int) -> Response:
        """One rollout, with the diff that was applied and what happened in order."""
        _, row = _rollout(request, name, rollout)
        events = [documents.rollout_event(event) for event in row.events.all()]
        document: schemas.OneRollout = {**documents.rollout(row), "plan": row.plan, "events": events}
        return Response(document)


class RolloutCancel(APIView):
    @extend_schema(request=None, responses={202: schemas.Rollout, **refusals(409)})
    def post(self, request: Request, name: str, rollout: int) -> Response:
        """Stop the move and go back to what served before."""
        actor, row = _rollout(request, name, rollout)
        return Response(documents.rollout(services.cancel_rollout(actor, row)), status=202)


class RolloutPause(APIView):
    @extend_schema(request=None, responses={202: schemas.Rollout, **refusals(409)})
    def post(self, request: Request, name: str, rollout: int) -> Response:
        """Stop where it is: what serves goes on serving, and nothing moves further."""
        actor, row = _rollout(request, name, rollout)
        return Response(documents.rollout(verbs.pause(actor, row)), status=202)


class RolloutResume(APIView):
    @extend_schema(request=None, responses={202: schemas.Rollout, **refusals(409)})
    def post(self, request: Request, name: str, rollout: int) -> Response:
        """Go on where it stopped. A canary's step collects its evidence anew."""
        actor, row = _rollout(request, name, rollout)
        return Response(documents.rollout(verbs.resume(actor, row)), status=202)


class RolloutPromote(APIView):
    @extend_schema(request=None, responses={202: schemas.Rollout, **refusals(409)})
    def post(self, request: Request, name: str, rollout: int) -> Response:
        """Let a canary's step pass without its gate, by your word."""
        actor, row = _rollout(request, name, rollout)
        return Response(documents.rollout(verbs.promote(actor, row)), status=202)


class Drift(APIView):
    @extend_schema(responses={200: schemas.DriftList, **refusals(409, 503)})
    def get(self, request: Request, name: str) -> Response:
        """What others changed of the endpoint's objects in its cluster, asked of the cluster now."""
        _, row = _deployment(request, name)
        return Response(documents.drift(drift.look(row)))


class PutBack(APIView):
    @extend_schema(request=None, responses={200: schemas.DriftList, **refusals(409, 503)})
    def post(self, request: Request, name: str) -> Response:
        """Write what was applied over what others changed; answers what that was. Repeatable."""
        actor, row = _deployment(request, name)
        return Response(documents.drift(drift.put_back(actor, row)))


class GiveBack(APIView):
    @extend_schema(request=None, responses={202: schemas.Deployment, **refusals(409, 503)})
    def post(self, request: Request, name: str) -> Response:
        """Bring the imported Deployment's own replicas back, lead its callers to them, and take Slipway's away."""
        actor, row = _deployment(request, name)
        handover.give_back(actor, row)
        return Response(documents.deployment(_deployment(request, name)[1]), status=202)


class Scale(APIView):
    @extend_schema(request=inputs.Replicas, responses={202: schemas.Scaled, **refusals(409, 422)})
    def post(self, request: Request, name: str) -> Response:
        """Set the number of replicas within the live revision's bounds."""
        actor, row = _deployment(request, name)
        replicas = parse(inputs.Replicas, request)["replicas"]
        services.scale(actor, row, replicas=replicas)
        document: schemas.Scaled = {"name": row.name, "replicas": replicas}
        return Response(document, status=202)


class Autoscaling(APIView):
    @extend_schema(request=inputs.Paused, responses=schemas.AutoscalingState)
    def put(self, request: Request, name: str) -> Response:
        """Pause or resume the autoscaler."""
        actor, row = _deployment(request, name)
        paused = parse(inputs.Paused, request)["paused"]
        services.pause_autoscaling(actor, row, paused=paused)
        document: schemas.AutoscalingState = {"name": row.name, "autoscaling_paused": paused}
        return Response(document)


class Replicas(APIView):
    @extend_schema(responses=schemas.ReplicaList)
    def get(self, request: Request, name: str) -> Response:
        """The replicas as last observed, with the reason and the last log lines of what is not ready."""
        _, row = _deployment(request, name)
        seen = selectors.status(row)
        items = [one.to_json() for one in seen.replicas] if seen else []
        document: schemas.ReplicaList = {"items": items, "next": None, "observed_at": row.observed_at}
        return Response(document)


class ReplicaLog(APIView):
    @extend_schema(responses=schemas.ReplicaLog)
    def get(self, request: Request, name: str, replica: str) -> Response:
        """The last 200 lines of a replica, asked of the target now."""
        _, row = _deployment(request, name)
        document: schemas.ReplicaLog = {"lines": list(services.replica_log(row, replica))}
        return Response(document)


class Decisions(APIView):
    @extend_schema(parameters=PAGING, responses=Page[schemas.Decision])
    def get(self, request: Request, name: str) -> Response:
        """What the autoscaler decided, newest first, each with its signals and its sentence."""
        return page_response(_deployment(request, name)[1].decisions.all(), request, documents.decision)


class Why(APIView):
    @extend_schema(
        parameters=[query("at", EPOCH, "Epoch seconds; now by default.")],
        responses=schemas.Why,
    )
    def get(self, request: Request, name: str) -> Response:
        """Why there were so many replicas at a moment: a sentence, and what it is made of."""
        row = _deployment(request, name)[1]
        at = why.moment(request.GET["at"]) if request.GET.get("at") else datetime.now(UTC)
        return Response(documents.why(why.answer(row, at)))


class Load(APIView):
    @extend_schema(responses=schemas.Load)
    def get(self, request: Request, name: str) -> Response:
        """The bounded traffic that was last asked for, and how much of it was sent."""
        return Response(documents.load(get_object_or_404(LoadRow, deployment=_deployment(request, name)[1])))

    @extend_schema(request=inputs.NewLoad, responses={200: schemas.Load, **refusals(409, 422)})
    def put(self, request: Request, name: str) -> Response:
        """Send bounded traffic to the endpoint, or change its rate: at most 200 requests/s for 30 minutes."""
        actor, row = _deployment(request, name)
        wanted = parse(inputs.NewLoad, request)
        return Response(documents.load(services.start_load(actor, row, **wanted)))

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, name: str) -> Response:
        """Stop it. Stopping twice is the same."""
        actor, row = _deployment(request, name)
        services.stop_load(actor, row)
        return Response(status=204)


class Series(APIView):
    @extend_schema(
        parameters=[
            query("range", enum=[*RANGES_S, ALL], default=DEFAULT_RANGE),
            query("from", EPOCH, "Epoch seconds; instead of `range`."),
            query("to", EPOCH, "Epoch seconds; now by default."),
        ],
        responses=schemas.Series,
    )
    def get(self, request: Request, name: str) -> Response:
        """Latency percentiles, throughput, errors, queue depth, in-flight and replicas over a range."""
        return Response(figure(_deployment(request, name)[1], request.GET))
