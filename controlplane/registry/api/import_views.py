"""The REST API of imports. Each view parses, asks through the actor's team, calls one verb, answers."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.accounts.access import actor_of
from controlplane.core.api import page_response, parse
from controlplane.core.openapi import PAGING, Page, refusals
from controlplane.registry import imports, selectors
from controlplane.registry.api import documents, inputs, schemas


class Imports(APIView):
    @extend_schema(parameters=PAGING, responses=Page[schemas.Import])
    def get(self, request: Request, name: str) -> Response:
        """Imports of a model, newest first."""
        actor = actor_of(request)
        selectors.model(actor, name)
        return page_response(selectors.imports(actor, name), request, documents.one_import)

    @extend_schema(request=inputs.NewImport, responses={202: schemas.QueuedImport, **refusals(422, 429)})
    def post(self, request: Request, name: str) -> Response:
        """Fetch a version from Hugging Face or MLflow, in the background. A branch or alias is pinned to what it is
        when the import begins. While one of the same reference is under way, that is the answer.

        Taken are an ONNX file with its external data (`model.onnx`, `onnx/model.onnx`, or the only one there is), else
        `config.json` with `model.safetensors`. Nothing else is fetched.
        """
        actor = actor_of(request)
        model = selectors.model(actor, name)
        row, created = imports.start(actor, model, **parse(inputs.NewImport, request))
        document: schemas.QueuedImport = {**documents.one_import(row), "created": created}
        return Response(document, status=202, headers={"Location": document["url"]})


class Import(APIView):
    @extend_schema(responses=schemas.Import)
    def get(self, request: Request, name: str, number: int) -> Response:
        """One import: its state, how much has come, and the version that came of it."""
        return Response(documents.one_import(selectors.one_import(actor_of(request), name, number)))


class ImportCancel(APIView):
    @extend_schema(request=None, responses={202: schemas.ImportStateChange, **refusals(409)})
    def post(self, request: Request, name: str, number: int) -> Response:
        """Cancel an import; nothing of it is kept."""
        actor = actor_of(request)
        row = selectors.one_import(actor, name, number)
        return Response({"id": row.pk, "state": imports.cancel(actor, row)}, status=202)
