"""A revision as people compare it: the document whose field-level diff the plan page, the API and a compared
pair of revisions show.

What a target needs and nobody decides (generation, key, drain time, paths) is left out; what was decided is
under the name it was decided by. Refused: diffing the target's wish, where each revision is a list entry of its
own and every field of it reads as removed and added.
"""

from collections.abc import Mapping
from typing import Any

from deployments.domain import lines
from deployments.domain.cluster import ClusterSettings
from deployments.domain.hpa import HpaSpec
from deployments.domain.spec import RevisionSpec, RolloutPolicy, Strategy

_EVERY = {"Percent": " %", "Pods": " replicas"}


def document(
    spec: RevisionSpec,
    *,
    variant: str,
    artifact_sha256: str,
    signature: Mapping[str, Any],
    revision: int | None = None,
    replicas: int | None = None,
) -> dict[str, Any]:
    """The readable fields. `revision` and `replicas` are left out where two specs are compared as such."""
    found: dict[str, Any] = {
        "variant": variant,
        "artifact": artifact_sha256[:12],
        "signature": signature_words(signature),
        "stack": spec.stack,
        "threads": spec.threads,
        "batching": spec.batching.to_json()
        | {"preferred_batch_size": ", ".join(map(str, spec.batching.preferred_batch_size)) or "none"},
        "autoscaling": _autoscaling(spec.hpa()),
        "rollout": _rollout(spec.rollout),
    }
    if spec.memory_bytes is not None:
        found["memory_bytes"] = spec.memory_bytes
    if spec.cluster is not None:
        found["cluster"] = cluster(spec.cluster)
    if spec.environment:
        found["environment"] = dict(spec.environment)
    if revision is not None:
        found["revision"] = revision
    if replicas is not None:
        found["replicas"] = replicas
    return found


def flat(document: Mapping[str, Any]) -> list[tuple[str, object]]:
    """As a list of facts shows it: what lies deeper has the path for its name."""
    found: list[tuple[str, object]] = []
    for name, value in document.items():
        inside = flat(value) if isinstance(value, dict) else []
        found += [(f"{name}.{inner}", shown) for inner, shown in inside] or [(name, value)]
    return found


def cluster(settings: ClusterSettings) -> dict[str, Any]:
    """Without what was left empty."""
    said = settings.to_json() | {
        "tolerations": ", ".join(lines.write_tolerations(settings.tolerations).splitlines()),
        "allow_from": ", ".join(settings.allow_from),
    }
    return {name: value for name, value in map(_filled, said.items()) if value not in (None, "", {})}


def _filled(item: tuple[str, Any]) -> tuple[str, Any]:
    name, value = item
    if isinstance(value, dict):
        value = {inner: one for inner, one in value.items() if one not in (None, "")}
    return name, value


def signature_words(signature: Mapping[str, Any]) -> str:
    """`x FP32 [batch, 4] → y FP32 [batch, 3]`."""
    return " → ".join(
        ", ".join(
            f"{one['name']} {one['dtype']} [{', '.join(str(size) for size in one['shape'])}]" for one in side
        )
        for side in (signature["inputs"], signature["outputs"])
    )


def _rollout(policy: RolloutPolicy) -> dict[str, Any]:
    """What the strategy reads; the defaults of the others would be noise."""
    fields = policy.to_json()
    steps, gate, hold_s = fields.pop("steps"), fields.pop("gate"), fields.pop("hold_s")
    if policy.strategy is Strategy.BLUE_GREEN:
        fields["hold_s"] = hold_s
    if policy.strategy is Strategy.CANARY:
        fields["steps"] = ", ".join(_step(**step) for step in steps)
        fields["gate"] = gate
    return fields


def _step(*, weight: int, min_requests: int, pause_s: int) -> str:
    more = [f"{min_requests:,} requests"] * bool(min_requests) + [f"{pause_s:,} s"] * bool(pause_s)
    return f"{weight} %" + (f" for at least {' and '.join(more)}" if more else "")


def _autoscaling(hpa: HpaSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"min_replicas": hpa.min_replicas, "max_replicas": hpa.max_replicas}
    for metric in hpa.metrics:
        per = "per replica" if metric.target_type == "AverageValue" else "in total"
        found[f"{metric.name}_target"] = f"{metric.target.words()} {per}"
    behavior = hpa.to_json().get("behavior")
    if behavior:
        found["scale_up"] = _rules(behavior["scaleUp"])
        found["scale_down"] = _rules(behavior["scaleDown"])
    return found


def _rules(rules: Mapping[str, Any]) -> str:
    if rules.get("selectPolicy") == "Disabled":
        return "never"
    policies = [
        f"{policy['value']}{_EVERY[policy['type']]} per {policy['periodSeconds']} s"
        for policy in rules["policies"]
    ]
    window = rules.get("stabilizationWindowSeconds")
    after = f", after {window} s" if window else ""
    chosen = " or ".join(policies) if rules.get("selectPolicy") != "Min" else " and ".join(policies)
    return f"at most {chosen}{after}"
