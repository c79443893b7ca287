"""All signals that can be asked for from elsewhere, as one text: who they belong to, and what they are.

Whoever answers autoscalers must read thousands of deployments at once and cheaply, so one write of the collector
is one value: a line each, the labels before a tab and the signals after it, both as JSON. Lines are taken apart
without being read: labels that were there before are known by their bytes, and signals are read when asked for.
Refused: a key for each deployment, which costs thousands of replies, and a list of lists, which must be read whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import orjson

_SORTED = orjson.OPT_SORT_KEYS


@dataclass(frozen=True, kw_only=True)
class SignalLabels:
    """Under which namespace and labels the signals of a deployment are found."""

    namespace: str
    labels: Mapping[str, str]

    def to_json(self) -> bytes:
        """The same bytes for the same labels."""
        return orjson.dumps({"namespace": self.namespace, "labels": dict(self.labels)}, option=_SORTED)

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        data = orjson.loads(body)
        return cls(namespace=data["namespace"], labels=data["labels"])


def pack(signals: Mapping[str, bytes], labels: Mapping[str, SignalLabels]) -> bytes:
    """One line for each deployment that has labels; the others are nobody's to ask for. Both by the deployment's key,
    the signals as JSON."""
    return b"\n".join(labels[key].to_json() + b"\t" + body for key, body in signals.items() if key in labels)


def unpack(sheet: bytes) -> dict[bytes, bytes]:
    """Labels to signals, both still as JSON (which has neither tabs nor line feeds of its own)."""
    lines = (line.partition(b"\t") for line in sheet.split(b"\n") if line)
    return {labels: signals for labels, _, signals in lines}
