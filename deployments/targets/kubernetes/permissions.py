"""Which of the rights in the table this account has, asked of the cluster.

The cluster lists its rules of a namespace in one answer; what that does not show (other namespaces, the cluster itself,
an authorizer that cannot list) is asked for one by one, some at once.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from controlplane.core.errors import NotFound, SlipwayError
from deployments.targets.kubernetes import kinds, rights
from deployments.targets.kubernetes.api import Api
from deployments.targets.kubernetes.rights import Right

AT_ONCE = 4
"""Half of the connections to a cluster, so that nothing else waits for one."""

type Question = tuple[Right, str]
"""A right and one of its verbs."""


@dataclass(frozen=True)
class Missing:
    """As “verb resource”: rights that a rollout needs, and those that something is looked up with."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]


def missing(api: Api, namespace: str) -> Missing:
    """Raises Unreachable."""
    questions = [(right, verb) for right in rights.RIGHTS for verb in right.verbs]
    listed = _rules(api, namespace)
    open_ones = [one for one in questions if one[0].across or not _covers(listed, *one)]
    refused = {
        one for one, allowed in zip(open_ones, _ask(api, namespace, open_ones), strict=True) if not allowed
    }
    found: dict[bool, list[str]] = {False: [], True: []}
    for right, verb in questions:
        if (right, verb) in refused:
            found[right.optional].append(f"{verb} {right.resource}{' everywhere' * right.everywhere}")
    return Missing(tuple(found[False]), tuple(found[True]))


def _rules(api: Api, namespace: str) -> Sequence[Mapping[str, Any]]:
    """None are listed by a cluster that cannot; then all is asked for."""
    kind = kinds.RULES_REVIEW
    document = {"apiVersion": kind.api_version, "kind": kind.kind, "spec": {"namespace": namespace}}
    try:
        answer = api.create(kind, document, None)
    except NotFound:
        return ()
    return (answer.get("status") or {}).get("resourceRules") or ()


def _covers(rules: Sequence[Mapping[str, Any]], right: Right, verb: str) -> bool:
    wanted = (("verbs", verb), ("apiGroups", right.kind.group), ("resources", right.resource))
    return any(
        all(value in rule.get(name, ()) or "*" in rule.get(name, ()) for name, value in wanted)
        and set(right.names) >= set(rule.get("resourceNames") or right.names)
        and (right.names or not rule.get("resourceNames"))
        for rule in rules
    )


def _ask(api: Api, namespace: str, questions: Sequence[Question]) -> list[bool]:
    def allowed(question: Question) -> bool:
        answer = api.create(kinds.ACCESS_REVIEW, rights.review(*question, namespace), None)
        return bool((answer.get("status") or {}).get("allowed"))

    with ThreadPoolExecutor(AT_ONCE, "rights") as pool:
        try:
            return list(pool.map(allowed, questions))
        except SlipwayError:
            pool.shutdown(cancel_futures=True)
            raise
