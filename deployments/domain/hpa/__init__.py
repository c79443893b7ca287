"""The Kubernetes HPA's algorithm as a pure function. Start at decide.py."""

from deployments.domain.hpa.decide import Decision, decide
from deployments.domain.hpa.errors import InvalidHpa
from deployments.domain.hpa.limits import LimitedBy
from deployments.domain.hpa.quantity import Quantity
from deployments.domain.hpa.spec import HpaSpec, default_spec
from deployments.domain.hpa.state import (
    CLUSTER,
    LOCAL,
    Condition,
    Controller,
    HpaState,
    Observation,
    Reading,
)
from deployments.domain.hpa.votes import Vote

__all__ = [
    "CLUSTER",
    "LOCAL",
    "Condition",
    "Controller",
    "Decision",
    "HpaSpec",
    "HpaState",
    "InvalidHpa",
    "LimitedBy",
    "Observation",
    "Quantity",
    "Reading",
    "Vote",
    "decide",
    "default_spec",
]
