"""The table of rights as people take it away: as lines, as YAML, and as commands that make an account and a kubeconfig.

The kubeconfig is written by a template and not by `kubectl config view` alone, which would copy the identity of
whoever runs it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from deployments.domain.wire import Document
from deployments.targets.kubernetes import metrics_install, written
from deployments.targets.kubernetes.rights import RIGHTS, Right, role

ACCOUNT = "slipway"
FILE = "slipway-rights.yaml"
YEAR = "8760h"
_KUBECONFIG = (
    '{{ $cluster := (index .clusters 0).cluster }}{"apiVersion":"v1","kind":"Config","current-context":"slipway",'
    '"contexts":[{"name":"slipway","context":{"cluster":"slipway","user":"slipway","namespace":"NAMESPACE"}}],'
    '"clusters":[{"name":"slipway","cluster":{"server":"{{ $cluster.server }}",'
    '"certificate-authority-data":"{{ index $cluster "certificate-authority-data" }}"}}],'
    '"users":[{"name":"slipway","user":{"token":"\'"$TOKEN"\'"}}]}'
)
_LASTING = """\
kubectl apply -f - <<END
apiVersion: v1
kind: Secret
metadata:
  name: ACCOUNT-token
  namespace: NAMESPACE
  annotations: {kubernetes.io/service-account.name: ACCOUNT}
type: kubernetes.io/service-account-token
END
TOKEN=$(kubectl -n NAMESPACE get secret ACCOUNT-token -o go-template='{{.data.token | base64decode}}')"""


@dataclass(frozen=True, kw_only=True)
class Row(Document):
    """One line of the table. `scope` is “namespace” or “cluster”; `names` limits it to objects of those names.
    `for_button` rights are only those of the button that installs the metrics API."""

    resource: str
    group: str
    verbs: tuple[str, ...]
    scope: str
    names: tuple[str, ...]
    why: str
    optional: bool
    for_button: bool


def rows() -> tuple[Row, ...]:
    return (*_rows(RIGHTS, for_button=False), *_rows(metrics_install.INSTALLING, for_button=True))


def _rows(rights: tuple[Right, ...], *, for_button: bool) -> Iterator[Row]:
    for one in rights:
        yield Row(
            resource=one.resource,
            group=one.kind.group,
            verbs=one.verbs,
            scope="cluster" if one.across else "namespace",
            names=one.names,
            why=one.why,
            optional=one.optional,
            for_button=for_button,
        )


def as_yaml(namespace: str, *, with_button: bool = False) -> str:
    """The objects that grant it, for kubectl apply."""
    rights = (*RIGHTS, *metrics_install.INSTALLING) if with_button else RIGHTS
    return written.documents(role(ACCOUNT, namespace, rights))


def commands(namespace: str) -> tuple[tuple[str, str], ...]:
    """(what it does, the command). The third prints what the form takes."""

    def named(text: str) -> str:
        return text.replace("NAMESPACE", namespace).replace("ACCOUNT", ACCOUNT)

    printed = f"kubectl config view --minify --flatten --raw -o go-template='{_KUBECONFIG}'"
    return (
        (
            "Make the namespace, the account, and what it may do",
            f"kubectl get namespace {namespace} || kubectl create namespace {namespace}\nkubectl apply -f {FILE}",
        ),
        (
            "Take a token of it for a year; the cluster may give a shorter one",
            f"TOKEN=$(kubectl -n {namespace} create token {ACCOUNT} --duration={YEAR})",
        ),
        ("Print the kubeconfig", named(printed)),
        ("Instead of the second, where the token must not end", named(_LASTING)),
    )
