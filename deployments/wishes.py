"""What a target is asked for: a deployment's revisions as workloads, with the bytes and the sizes they run with."""

from collections.abc import Sequence
from dataclasses import replace

from controlplane.core import storage
from controlplane.core.errors import Conflict, NotFound
from controlplane.registry.engines import Engine
from controlplane.registry.formats import TENSORRT
from controlplane.registry.models import Variant
from deployments.domain.cluster_strategy import Part
from deployments.domain.spec import RevisionSpec
from deployments.domain.workload import DesiredDeployment, Workload
from deployments.models import Deployment, Revision


def wish(deployment: Deployment, parts: Sequence[Part], *, generation: int) -> DesiredDeployment:
    """The wish for these replicas of these revisions. One query."""
    rows = deployment.revisions.filter(number__in={one.revision for one in parts}).select_related(
        "variant__artifact", "variant__version__model"
    )
    by_number = {row.number: row for row in rows}
    return DesiredDeployment(
        key=deployment.key,
        path=f"/{deployment.team.name}/{deployment.name}",
        generation=generation,
        workloads=tuple(
            _workload(deployment, by_number[part.revision], part)
            for part in sorted(parts, key=lambda part: (part.candidate, part.revision))
            if part.revision in by_number
        ),
    )


def start_size(deployment: Deployment, revision: Revision) -> int:
    """The wanted size within the revision's bounds."""
    hpa = RevisionSpec.from_json(revision.spec).hpa()
    return min(max(deployment.replicas, hpa.min_replicas), hpa.max_replicas)


def _workload(deployment: Deployment, revision: Revision, part: Part) -> Workload:
    spec = RevisionSpec.from_json(revision.spec)
    if spec.cluster is not None and deployment.autoscaling_paused:
        # Then the size is a person's alone, and the cluster's own autoscaler is taken away.
        spec = replace(spec, cluster=replace(spec.cluster, autoscaler="none"))
    workload = workload_of(
        revision.variant,
        spec,
        revision=revision.number,
        replicas=part.replicas,
        path=_artifact_path(revision.variant),
        api_key_sha256=deployment.api_key_sha256,
    )
    return replace(workload, candidate=part.candidate, weight=part.weight)


def workload_of(
    variant: Variant, spec: RevisionSpec, *, revision: int, replicas: int, path: str, api_key_sha256: str
) -> Workload:
    engine = Engine.of(variant.provenance) if variant.format == TENSORRT else None
    return spec.workload(
        revision=revision,
        replicas=replicas,
        model=variant.version.model.name,
        version=variant.version.number,
        artifact=(variant.artifact.sha256, path, variant.format),
        signature=variant.signature,
        api_key_sha256=api_key_sha256,
        capabilities=engine.capabilities if engine is not None else (),
    )


def _artifact_path(variant: Variant) -> str:
    try:
        return str(storage.path(variant.artifact.sha256))
    except NotFound as error:
        raise Conflict(
            "artifact_missing",
            f"The stored bytes of {variant} are missing.",
            "Upload the same file again; it mends the stored bytes.",
        ) from error
