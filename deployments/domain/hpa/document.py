"""An HpaSpec as autoscaling/v2 JSON, both ways.

Exists so that whatever a person or a cluster wrote is either understood whole or refused with the path of
the field that is wrong. Refused: skipping unknown fields, because a misspelt `stabilisationWindowSeconds`
that is silently ignored scales down at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from deployments.domain.hpa.errors import InvalidHpa
from deployments.domain.hpa.quantity import Quantity
from deployments.domain.hpa.spec import (
    DEFAULT_SCALE_DOWN,
    DEFAULT_SCALE_UP,
    Behavior,
    HpaSpec,
    Metric,
    Policy,
    PolicyType,
    Rules,
    SelectPolicy,
    TargetType,
)

_TARGET_FIELD = {TargetType.AVERAGE_VALUE: "averageValue", TargetType.VALUE: "value"}


def read_spec(document: object) -> HpaSpec:
    """Raises InvalidHpa, naming the field."""
    known = {"scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"}
    fields = _fields(document, "spec", known)
    if fields.get("maxReplicas") is None:
        raise InvalidHpa("spec.maxReplicas", "this field is required.")
    least = fields.get("minReplicas")
    reference = fields.get("scaleTargetRef")
    behavior = fields.get("behavior")
    metrics = _list(fields.get("metrics"), "spec.metrics")
    return _built(
        "spec",
        lambda: HpaSpec(
            min_replicas=1 if least is None else least,
            max_replicas=fields["maxReplicas"],
            metrics=tuple(_metric(item, f"spec.metrics[{i}]") for i, item in enumerate(metrics)),
            behavior=None if behavior is None else _behavior(behavior, "spec.behavior"),
            scale_target_ref=None if reference is None else _fields(reference, "spec.scaleTargetRef", None),
        ),
    )


def write_spec(spec: HpaSpec) -> dict[str, Any]:
    written: dict[str, Any] = {
        "minReplicas": spec.min_replicas,
        "maxReplicas": spec.max_replicas,
        "metrics": [_written_metric(metric) for metric in spec.metrics],
    }
    if spec.scale_target_ref is not None:
        written["scaleTargetRef"] = dict(spec.scale_target_ref)
    if spec.behavior is not None:
        written["behavior"] = {
            "scaleUp": _written_rules(spec.behavior.scale_up),
            "scaleDown": _written_rules(spec.behavior.scale_down),
        }
    return written


def _metric(item: object, path: str) -> Metric:
    fields = _fields(item, path, {"type", "external"})
    if fields.get("type") != "External":
        raise InvalidHpa(
            f"{path}.type", f"{fields.get('type')!r} is not supported; only External metrics are."
        )
    external = _fields(fields.get("external"), f"{path}.external", {"metric", "target"})
    metric = _fields(external.get("metric"), f"{path}.external.metric", {"name", "selector"})
    target = _fields(external.get("target"), f"{path}.external.target", {"type", "value", "averageValue"})
    name = metric.get("name")
    if not isinstance(name, str):
        raise InvalidHpa(f"{path}.external.metric.name", f"{name!r} is not a name.")
    path_of_target = f"{path}.external.target"
    kind = _kind(target, path_of_target)
    selector = metric.get("selector")
    return _built(
        path,
        lambda: Metric(
            name=name,
            target_type=kind,
            target=Quantity.parse(
                target[_TARGET_FIELD[kind]], field=f"{path_of_target}.{_TARGET_FIELD[kind]}"
            ),
            selector=None
            if selector is None
            else _fields(selector, f"{path}.external.metric.selector", None),
        ),
    )


def _kind(target: Mapping[str, Any], path: str) -> TargetType:
    """The field that is set decides, as in Kubernetes, which does not hold `type` against it."""
    named = _one_of(TargetType, target.get("type"), f"{path}.type")
    given = [kind for kind, name in _TARGET_FIELD.items() if target.get(name) is not None]
    if len(given) > 1:
        raise InvalidHpa(path, "it has both averageValue and value; only one of them can be the target.")
    if not given:
        raise InvalidHpa(f"{path}.{_TARGET_FIELD[named]}", f"a target of type {named} needs this field.")
    return given[0]


def _behavior(item: object, path: str) -> Behavior:
    fields = _fields(item, path, {"scaleUp", "scaleDown"})
    return Behavior(
        scale_up=_rules(fields.get("scaleUp"), f"{path}.scaleUp", DEFAULT_SCALE_UP),
        scale_down=_rules(fields.get("scaleDown"), f"{path}.scaleDown", DEFAULT_SCALE_DOWN),
    )


def _rules(item: object, path: str, default: Rules) -> Rules:
    if item is None:
        return default
    known = {"stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance"}
    fields = _fields(item, path, known)
    window, select = fields.get("stabilizationWindowSeconds"), fields.get("selectPolicy")
    policies, tolerance = fields.get("policies"), fields.get("tolerance")
    return _built(
        path,
        lambda: Rules(
            window_s=default.window_s if window is None else window,
            select=default.select
            if select is None
            else _one_of(SelectPolicy, select, f"{path}.selectPolicy"),
            policies=default.policies if policies is None else _policies(policies, f"{path}.policies"),
            tolerance=None if tolerance is None else Quantity.parse(tolerance, field=f"{path}.tolerance"),
        ),
    )


def _policies(items: object, path: str) -> tuple[Policy, ...]:
    return tuple(_policy(item, f"{path}[{i}]") for i, item in enumerate(_list(items, path)))


def _policy(item: object, path: str) -> Policy:
    fields = _fields(item, path, {"type", "value", "periodSeconds"})
    kind = _one_of(PolicyType, fields.get("type"), f"{path}.type")
    return _built(
        path,
        lambda: Policy(type=kind, value=fields.get("value"), period_s=fields.get("periodSeconds")),  # type: ignore[arg-type]  # Policy itself refuses what is no whole number
    )


def _written_metric(metric: Metric) -> dict[str, Any]:
    named: dict[str, Any] = {"name": metric.name}
    if metric.selector is not None:
        named["selector"] = dict(metric.selector)
    target = {"type": str(metric.target_type), _TARGET_FIELD[metric.target_type]: str(metric.target)}
    return {"type": "External", "external": {"metric": named, "target": target}}


def _written_rules(rules: Rules) -> dict[str, Any]:
    written: dict[str, Any] = {
        "selectPolicy": str(rules.select),
        "policies": [
            {"type": str(policy.type), "value": policy.value, "periodSeconds": policy.period_s}
            for policy in rules.policies
        ],
    }
    if rules.window_s is not None:
        written["stabilizationWindowSeconds"] = rules.window_s
    if rules.tolerance is not None:
        written["tolerance"] = str(rules.tolerance)
    return written


def _built[Value](path: str, build: Callable[[], Value]) -> Value:
    """Puts the path of the document in front of what a value refuses about itself."""
    try:
        return build()
    except InvalidHpa as refused:
        if refused.field.startswith("spec"):
            raise
        raise InvalidHpa(f"{path}.{refused.field}", refused.reason) from None


def _fields(item: object, path: str, known: set[str] | None) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        given = "nothing" if item is None else repr(item)
        raise InvalidHpa(path, f"an object is needed here, not {given}.")
    if known is not None and (unknown := sorted(str(key) for key in item if key not in known)):
        raise InvalidHpa(f"{path}.{unknown[0]}", f"unknown field; known are {', '.join(sorted(known))}.")
    return dict(item)


def _list(item: object, path: str) -> list[Any]:
    if not isinstance(item, list | tuple):
        raise InvalidHpa(path, f"a list is needed here, not {item!r}.")
    return list(item)


def _one_of[Choice: StrEnum](choices: type[Choice], value: object, path: str) -> Choice:
    try:
        return choices(value)  # type: ignore[arg-type]  # the call is the check
    except ValueError:
        known = ", ".join(choice.value for choice in choices)
        raise InvalidHpa(path, f"{value!r} is not one of {known}.") from None
