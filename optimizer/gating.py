"""A model's gate in the optimizer's words: what its jobs are judged by, and how a report is judged again."""

from collections.abc import Mapping
from typing import Any

from controlplane.registry.gate import Gate
from optimizer.domain.evidence import fidelity_of, speeds_of
from optimizer.domain.verdict import Policy, Verdict, decide


def policy_of(gate: Gate) -> Policy:
    share = gate.max_loss_points / 100
    return Policy(min_speedup=gate.min_speedup, max_loss=share, max_disagreement=share)


def judge(report: Mapping[str, Any], gate: Gate) -> tuple[str, str]:
    """The verdict on what the report measured, under the limits of the gate. What failed stays failed."""
    if report["verdict"] == Verdict.FAILED:
        return report["verdict"], report["sentence"]
    judgment = decide(speeds=speeds_of(report), fidelity=fidelity_of(report), policy=policy_of(gate))
    return judgment.verdict.value, judgment.sentence
