"""The folder that Triton serves a workload from: one model, one version, its configuration, its artifact."""

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.core.errors import Unprocessable
from deployments.domain.plan import Severity
from deployments.domain.workload import Workload
from deployments.stacks.triton.check import Problem, problems_of
from deployments.stacks.triton.config import artifact_name, config_pbtxt, model_config, version_of
from deployments.stacks.triton.parameters import Parameters


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Paths are relative to the repository. `files` are texts; the artifact's bytes go to `artifact`."""

    files: Mapping[str, str]
    artifact: str
    warnings: tuple[Problem, ...] = ()


def parameters_of(workload: Workload, **more: int | str) -> Parameters:
    """What the workload says, and `more` that only this stack knows (`instance_count`, ...).

    Raises pydantic's ValidationError for what a revision of this stack could not have been given.
    """
    return Parameters.model_validate(workload.batching.to_json() | {"threads": workload.threads} | more)


def model_repository(workload: Workload, parameters: Parameters | None = None) -> Repository:
    """Raises Unprocessable for what Triton could not serve, and for what it would refuse to load."""
    parameters = parameters or parameters_of(workload)
    found = problems_of(model_config(workload, parameters), name=workload.model_name)
    if errors := [one for one in found if one.severity is Severity.ERROR]:
        raise Unprocessable(
            "invalid_config",
            "Triton would not load this configuration.",
            " ".join(f"{one.field}: {one.sentence}" for one in errors),
        )
    model = workload.model_name
    return Repository(
        files={f"{model}/config.pbtxt": config_pbtxt(workload, parameters)},
        artifact=f"{model}/{version_of(workload)}/{artifact_name(workload.artifact_format)}",
        warnings=found,
    )
