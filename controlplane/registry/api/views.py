"""The registry's REST API. Each view parses, asks through the actor's team, calls one verb, answers."""

from functools import partial

from django.conf import settings
from django.http import FileResponse, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.accounts.access import actor_of
from controlplane.accounts.models import Role
from controlplane.core.api import answer_page, page_response, parse, word
from controlplane.core.errors import InvalidInput, TooLarge
from controlplane.core.json import JSONRenderer
from controlplane.core.openapi import PAGING, Page, header, query, refusals, sorting
from controlplane.core.pagination import Wanted
from controlplane.core.uploads import accept_file
from controlplane.registry import (
    costs,
    downloads,
    formats,
    listing,
    report_file,
    selectors,
    services,
)
from controlplane.registry.answers import Answers as AnswersValue
from controlplane.registry.api import bodies, documents, inputs, schemas
from controlplane.registry.gate import Gate as GateValue
from controlplane.registry.metrics import METRICS
from controlplane.registry.models import Dataset, Verdict
from controlplane.registry.models import Model as ModelRow
from controlplane.registry.models import Version as VersionRow

BYTES = {"application/octet-stream": OpenApiTypes.BINARY}
DIGEST = header(
    "X-Content-SHA256",
    "What the body's SHA-256 must be, in hexadecimal. Needed where the body has no Content-Length.",
)
FORM = {
    "multipart/form-data": {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}},
        "required": ["file"],
    }
}
NUMBER = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
PRICE = query(
    "price_per_hour",
    {"type": "string", "pattern": r"^\d{1,7}(\.\d{1,6})?$"},
    "Of the machine that measured, such as 0.45: the document then has `cost`.",
)
UPLOADS = refusals(409, 422, 507)


class Models(APIView):
    @extend_schema(
        parameters=[
            *PAGING,
            *sorting(selectors.MODEL_SORTS),
            query("search", description="Literal text in name or description."),
            query("verdict", enum=Verdict.values, description="Some variant has it."),
            query("alias", description="The model has an alias of this name."),
        ],
        responses=Page[schemas.Model],
    )
    def get(self, request: Request) -> Response:
        """Models of the team, newest first."""
        rows = selectors.filtered_models(
            selectors.with_findings(selectors.models(actor_of(request))),
            text=request.GET.get("search", ""),
            verdict=word(request, "verdict", Verdict.values),
            alias=request.GET.get("alias", ""),
        )
        return page_response(rows, request, documents.model, sorts=selectors.MODEL_SORTS)

    @extend_schema(request=inputs.NewModel, responses={201: schemas.Model, **refusals(409)})
    def post(self, request: Request) -> Response:
        """Register a model."""
        actor = actor_of(request)
        row = services.register_model(actor, **parse(inputs.NewModel, request))
        document = documents.model(row)
        return Response(document, status=201, headers={"Location": document["url"]})


class Model(APIView):
    @extend_schema(responses=schemas.Model)
    def get(self, request: Request, name: str) -> Response:
        """One model."""
        return Response(documents.model(selectors.model(actor_of(request), name)))

    @extend_schema(request=inputs.Description, responses=schemas.Model)
    def patch(self, request: Request, name: str) -> Response:
        """Describe a model."""
        actor = actor_of(request)
        row = selectors.model(actor, name)
        return Response(
            documents.model(services.describe_model(actor, row, **parse(inputs.Description, request)))
        )

    @extend_schema(responses={204: None, **refusals(409)})
    def delete(self, request: Request, name: str) -> Response:
        """Delete a model that nothing uses, with its versions."""
        actor = actor_of(request)
        services.delete_model(actor, selectors.model(actor, name))
        return Response(status=204)


class Gate(APIView):
    @extend_schema(responses=schemas.Gate)
    def get(self, request: Request, name: str) -> Response:
        """What an alias of the model asks of a variant."""
        return Response(documents.gate(selectors.model(actor_of(request), name)))

    @extend_schema(request=inputs.GateLimits, responses=schemas.Gate)
    def put(self, request: Request, name: str) -> Response:
        """Replace the gate; what is left out asks nothing. Aliases stay where they point."""
        actor = actor_of(request)
        wanted = GateValue(**parse(inputs.GateLimits, request))
        return Response(documents.gate(services.set_gate(actor, selectors.model(actor, name), wanted)))


class Answers(APIView):
    @extend_schema(responses=schemas.Answers)
    def get(self, request: Request, name: str) -> Response:
        """How answers of the model's variants are compared with their parent's."""
        actor = actor_of(request)
        row = selectors.model(actor, name)
        return Response(documents.answers(row, selectors.newest(actor, row)))

    @extend_schema(request=inputs.Comparison, responses={200: schemas.Answers, **refusals(409, 422)})
    def put(self, request: Request, name: str) -> Response:
        """State the task, the output that counts and how its positions are pooled; what is left out or null is read off
        the signature. Jobs from then on compare like that; reports stay.
        """
        actor = actor_of(request)
        stated = parse(inputs.Comparison, request)
        row = selectors.model(actor, name)
        latest = selectors.latest_version(actor, row)
        wanted = AnswersValue(**{field: value or "" for field, value in stated.items()})
        return Response(documents.answers(services.set_answers(actor, row, wanted, version=latest), latest))


def _uploaded(version: VersionRow, *, created: bool) -> Response:
    document: schemas.UploadedVersion = {**documents.version(version), "created": created}
    return Response(document, status=201 if created else 200, headers={"Location": document["url"]})


def _refuse_declared_too_large(size_bytes: int | None) -> None:
    limit = settings.ENVIRONMENT.max_upload_bytes
    if size_bytes is not None and size_bytes > limit:
        raise TooLarge(
            "upload_too_large",
            "The file is too large.",
            f"It has {size_bytes:,} bytes; the limit is {limit:,}.",
        )


class Versions(APIView):
    parser_classes = [MultiPartParser]

    @extend_schema(parameters=PAGING, responses=Page[schemas.Version])
    def get(self, request: Request, name: str) -> Response:
        """Versions of a model, newest first."""
        actor = actor_of(request)
        page = listing.versions(actor, name, Wanted.of(request.GET.dict()))
        if not page.rows:
            selectors.model(actor, name)
        return answer_page(page, request, documents.version_line)

    @extend_schema(
        request=FORM, responses={201: schemas.UploadedVersion, 200: schemas.UploadedVersion, **UPLOADS}
    )
    def post(self, request: Request, name: str) -> Response:
        """Upload a version as the `file` of a form."""
        actor = actor_of(request)
        model = selectors.model(actor, name)
        actor.require(Role.ENGINEER)
        accept_file(request._request)
        file = bodies.form_file(request.data)
        _refuse_declared_too_large(file.size)
        version, created = services.upload_version(
            actor, model, chunks=file.chunks(bodies.CHUNK_BYTES), filename=file.name or ""
        )
        return _uploaded(version, created=created)


class VersionUpload(APIView):
    parser_classes = [bodies.RawBody]

    @extend_schema(
        request=BYTES,
        parameters=[query("filename", description="For people to recognize it by."), DIGEST],
        responses={201: schemas.UploadedVersion, 200: schemas.UploadedVersion, **UPLOADS},
    )
    def put(self, request: Request, name: str) -> Response:
        """Upload a version as the raw body: an ONNX file, a PyTorch program (`.pt2`), a scikit-learn model (`.skops`),
        or a zip archive of an ONNX file with its external data or of a transformers folder. The same bytes again answer
        200 with the version they are.

        What is no ONNX has the format `torch`, `sklearn` or `transformers`, which no stack serves: run the technique
        `onnx-export` on it. Programs are kept without their sample inputs and source lines, so `content/` of the
        original differs from what was sent.

        A body that comes in chunks has no length, so it needs `X-Content-SHA256`; without it the answer is 411.
        """
        actor = actor_of(request)
        model = selectors.model(actor, name)
        request.data  # noqa: B018  lets the content type be refused before anything is read
        announced = bodies.announced(request._request)
        _refuse_declared_too_large(announced.size_bytes)
        version, created = services.upload_version(
            actor,
            model,
            chunks=bodies.raw_chunks(request._request),
            filename=request.GET.get("filename", ""),
            expected_sha256=announced.sha256,
            expected_bytes=announced.size_bytes,
        )
        return _uploaded(version, created=created)


class Version(APIView):
    @extend_schema(responses=schemas.Version)
    def get(self, request: Request, name: str, number: int) -> Response:
        """One version, with its signature."""
        return Response(documents.version(selectors.version(actor_of(request), name, number)))

    @extend_schema(responses={204: None, **refusals(409)})
    def delete(self, request: Request, name: str, number: int) -> Response:
        """Delete a version that nothing uses, with its variants."""
        actor = actor_of(request)
        services.delete_version(actor, selectors.version(actor, name, number))
        return Response(status=204)


class Variants(APIView):
    @extend_schema(parameters=PAGING, responses=Page[schemas.Variant])
    def get(self, request: Request, name: str, number: int) -> Response:
        """Variants of a version, newest first. Number 0 is the version's own bytes."""
        actor = actor_of(request)
        version = selectors.version(actor, name, number)
        return page_response(selectors.variants(actor).filter(version=version), request, documents.variant)


class Variant(APIView):
    @extend_schema(responses=schemas.Variant)
    def get(self, request: Request, name: str, number: int, variant: int) -> Response:
        """One variant, with what it was made from."""
        return Response(documents.variant(selectors.variant(actor_of(request), name, number, variant)))


class VariantReport(APIView):
    @extend_schema(parameters=[PRICE], responses={200: schemas.Report, 204: None})
    def get(self, request: Request, name: str, number: int, variant: int) -> Response:
        """The latest measurement of the variant against its parent."""
        row = selectors.variant(actor_of(request), name, number, variant)
        price = costs.price(request.GET.get("price_per_hour", ""))
        found = selectors.latest_report(row)
        document = documents.report(row, found, price_per_hour=price) if found else None
        return Response(document, status=200 if found else 204)


class VariantReports(APIView):
    @extend_schema(parameters=PAGING, responses=Page[schemas.Report])
    def get(self, request: Request, name: str, number: int, variant: int) -> Response:
        """Every measurement of the variant against its parent, newest first."""
        row = selectors.variant(actor_of(request), name, number, variant)
        return page_response(row.reports.all(), request, partial(documents.report, row))


class OneReport(APIView):
    @extend_schema(parameters=[PRICE], responses=schemas.Report)
    def get(self, request: Request, name: str, number: int, variant: int, report: int) -> Response:
        """One measurement of the variant against its parent."""
        row = selectors.variant(actor_of(request), name, number, variant)
        price = costs.price(request.GET.get("price_per_hour", ""))
        return Response(documents.report(row, selectors.report(row, report), price_per_hour=price))


class ReportFile(APIView):
    renderer_classes = [JSONRenderer, bodies.Html]

    @extend_schema(responses={(200, "text/html; charset=utf-8"): OpenApiTypes.STR})
    def get(self, request: Request, name: str, number: int, variant: int, report: int) -> HttpResponse:
        """One measurement as an HTML file with plots. Nothing in it runs or is fetched, so it can be kept and sent."""
        row = selectors.variant(actor_of(request), name, number, variant)
        found = selectors.report(row, report)
        filename = report_file.name(row, found, "html")
        return HttpResponse(
            report_file.html(row, found),
            headers={"Content-Disposition": f'attachment; filename="{filename}"'},
        )


class VariantContent(APIView):
    renderer_classes = [JSONRenderer, bodies.Bytes]

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, **refusals(409)})
    def get(self, request: Request, name: str, number: int, variant: int) -> FileResponse:
        """The artifact's bytes, hashed before the first one is sent."""
        row = selectors.variant(actor_of(request), name, number, variant)
        suffix = formats.SUFFIXES.get(row.format, row.format)
        filename = f"{name}-v{number}-{row.number}.{suffix}"
        return downloads.content(row, filename=filename)


class Aliases(APIView):
    @extend_schema(responses=Page[schemas.Alias])
    def get(self, request: Request, name: str) -> Response:
        """All aliases of a model, by name."""
        actor = actor_of(request)
        selectors.model(actor, name)
        return Response(
            {"items": [documents.alias(row) for row in selectors.aliases(actor, name)], "next": None}
        )


class Alias(APIView):
    @extend_schema(responses=schemas.Alias)
    def get(self, request: Request, name: str, alias: str) -> Response:
        """Where one alias points."""
        return Response(documents.alias(selectors.alias(actor_of(request), name, alias)))

    @extend_schema(request=inputs.AliasTarget, responses={200: schemas.Alias, **refusals(409)})
    def put(self, request: Request, name: str, alias: str) -> Response:
        """Point the alias to a variant of a version.

        One that was optimized must have passed the gate, or `override` say why it is used all the same.
        """
        actor = actor_of(request)
        wanted = parse(inputs.AliasTarget, request)
        model = selectors.model(actor, name)
        variant = selectors.variant(actor, name, wanted["version"], wanted["variant"])
        moved = services.move_alias(actor, model, name=alias, variant=variant, override=wanted["override"])
        return Response(documents.alias(moved))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, name: str, alias: str) -> Response:
        """Remove an alias; what it pointed to stays."""
        actor = actor_of(request)
        services.remove_alias(actor, selectors.alias(actor, name, alias))
        return Response(status=204)


class Datasets(APIView):
    @extend_schema(parameters=PAGING, responses=Page[schemas.Dataset])
    def get(self, request: Request, name: str) -> Response:
        """Data sets of a model, newest first."""
        actor = actor_of(request)
        selectors.model(actor, name)
        return page_response(selectors.datasets(actor, name), request, documents.dataset)


def _fitting_version(request: Request, model: ModelRow) -> VersionRow:
    """Whose signature the data set must fit: that of `?version=`, else the latest."""
    actor, text = actor_of(request), request.GET.get("version")
    if text is None:
        return selectors.latest_version(actor, model)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidInput("invalid_version", "“version” is not a version's number.", "Use a whole number.")
    return selectors.version(actor, model.name, int(text))


class DatasetItem(APIView):
    parser_classes = [bodies.RawBody]

    @extend_schema(responses=schemas.Dataset)
    def get(self, request: Request, name: str, dataset: str) -> Response:
        """One data set."""
        return Response(documents.dataset(selectors.dataset(actor_of(request), name, dataset)))

    @extend_schema(
        request=BYTES,
        parameters=[
            query("role", enum=Dataset.Role.values, default=Dataset.Role.EVALUATION.value),
            query(
                "metric", enum=list(METRICS), description="What answers are scored by; its labels choose it."
            ),
            query("version", NUMBER, "Whose signature it must fit; the latest version's by default."),
            DIGEST,
        ],
        responses={201: schemas.Dataset, **UPLOADS},
    )
    def put(self, request: Request, name: str, dataset: str) -> Response:
        """Upload an npz, Parquet or CSV file: one array or column per input, named as in the signature, and optional
        `labels`. Which of them it is, its bytes say; a table is kept as npz.

        A body that comes in chunks has no length, so it needs `X-Content-SHA256`; without it the answer is 411.
        """
        actor = actor_of(request)
        model = selectors.model(actor, name)
        request.data  # noqa: B018
        announced = bodies.announced(request._request)
        _refuse_declared_too_large(announced.size_bytes)
        role = word(request, "role", Dataset.Role.values) or Dataset.Role.EVALUATION
        row = services.add_dataset(
            actor,
            model,
            name=dataset,
            role=role,
            metric=word(request, "metric", METRICS),
            version=_fitting_version(request, model),
            chunks=bodies.raw_chunks(request._request),
            expected_sha256=announced.sha256,
            expected_bytes=announced.size_bytes,
        )
        return Response(documents.dataset(row), status=201)

    @extend_schema(responses={204: None, **refusals(409)})
    def delete(self, request: Request, name: str, dataset: str) -> Response:
        """Delete a data set that no job still needs."""
        actor = actor_of(request)
        services.delete_dataset(actor, selectors.dataset(actor, name, dataset))
        return Response(status=204)
