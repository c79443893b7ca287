"""The API's verbs of an admin on what may be done with a version: trust in its code, and the end of a quarantine."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.accounts.access import actor_of
from controlplane.core.openapi import refusals
from controlplane.registry import selectors, services, trust
from controlplane.registry.api import documents, schemas


class VersionTrust(APIView):
    @extend_schema(request=None, responses={200: schemas.Version, **refusals(409)})
    def post(self, request: Request, name: str, number: int) -> Response:
        """Trust the code of a version whose format is code (`torchscript`): from now on jobs may open it, in the
        sandbox. For admins, where the operator has allowed the format.
        """
        actor = actor_of(request)
        row = trust.trust(actor, selectors.version(actor, name, number))
        return Response(documents.version(row))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, name: str, number: int) -> Response:
        """Take the trust back: no job opens the version from now on. What was made of it stays. For admins."""
        actor = actor_of(request)
        trust.withdraw(actor, selectors.version(actor, name, number))
        return Response(status=204)


class VersionQuarantine(APIView):
    @extend_schema(responses={204: None})
    def delete(self, request: Request, name: str, number: int) -> Response:
        """Lift the quarantine of a version that kept crashing what opened it: it may be used again. For admins."""
        actor = actor_of(request)
        services.lift_quarantine(actor, selectors.version(actor, name, number))
        return Response(status=204)
