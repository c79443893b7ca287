"""The one error of the autoscaler's formula.

Exists so that a form, an API and a command can all point at the field that is wrong. Refused: the product's
own error classes, which carry HTTP words that a pure formula has no business with.
"""

from __future__ import annotations


class InvalidHpa(ValueError):
    """A value the autoscaler cannot work with. `field` is the path in autoscaling/v2 names, `reason` a
    sentence.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
