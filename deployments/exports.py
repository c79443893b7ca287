"""A revision's objects to take away, from a deployment on a cluster; see `targets.kubernetes.export`."""

from controlplane.core.errors import Conflict, InvalidInput
from deployments.domain.cluster_strategy import Part
from deployments.models import Deployment, Revision
from deployments.targets.kubernetes.export import File, Form
from deployments.targets.kubernetes.export import export as exported
from deployments.targets.kubernetes.opening import place
from deployments.wishes import start_size, wish


def form_of(word: str) -> Form:
    """YAML without a word. Raises InvalidInput."""
    try:
        return Form(word or Form.YAML)
    except ValueError as error:
        known = f"Use one of: {', '.join(Form)}."
        raise InvalidInput(
            "invalid_form", "There is no such export.", known, fields={"as": [known]}
        ) from error


def export(deployment: Deployment, revision: Revision, form: Form) -> File:
    """As rolling it out now would write them; asks nothing of the cluster. Raises Conflict for a deployment that is on
    none."""
    if not deployment.target.is_cluster:
        raise Conflict(
            "no_cluster",
            f"“{deployment.target.name}” is no cluster, so there are no objects to export.",
            "Make a deployment on a target that is one.",
        )
    parts = [Part(revision=revision.number, replicas=start_size(deployment, revision))]
    return exported(
        wish(deployment, parts, generation=deployment.generation), place(deployment.target.settings), form
    )
