"""What a cluster is told, as text with one entry a line: labels as “key=value”, taints as kubectl writes them.

Each `read` is the inverse of its `write`. What Kubernetes refuses of a key or a value is checked by the values
themselves (`cluster`).
"""

from collections.abc import Mapping, Sequence

from deployments.domain.cluster import Toleration
from deployments.domain.wire import refuse


def read_labels(name: str, text: str) -> dict[str, str]:
    """Raises InvalidInput about `name` for a line without “=”, and for a key that stands twice."""
    found: dict[str, str] = {}
    for line in _lines(text):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key:
            raise refuse(name, f"must have lines such as pool=gpu, but one is “{line[:60]}”")
        if key in found:
            raise refuse(name, f"has “{key[:60]}” twice")
        found[key] = value
    return found


def write_labels(labels: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={value}" for key, value in labels.items())


def read_tolerations(name: str, text: str) -> list[dict[str, str]]:
    """`key[=value][:effect]`, which a toleration's own checks accept or refuse."""
    found = []
    for line in _lines(text):
        taint, _, effect = line.partition(":")
        key, _, value = taint.partition("=")
        if not key.strip():
            raise refuse(name, f"must have lines such as nvidia.com/gpu:NoSchedule, but one is “{line[:60]}”")
        found.append({"key": key.strip(), "value": value.strip(), "effect": effect.strip()})
    return found


def write_tolerations(tolerations: Sequence[Toleration]) -> str:
    return "\n".join(
        one.key + (f"={one.value}" if one.value else "") + (f":{one.effect}" if one.effect else "")
        for one in tolerations
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
