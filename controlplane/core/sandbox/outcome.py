"""How a child ended, as values: read from its messages, its exit status and what it printed last."""

import signal
from dataclasses import dataclass
from typing import Any

from controlplane.core.sandbox.limits import MIB, Limits

type Message = dict[str, Any]
"""One JSON line of a child; `kind` is log, step, progress, point, result or refused."""

_ALLOCATION_FAILED = (
    "bad_alloc",
    "MemoryError",
    "Cannot allocate memory",
    "Failed to allocate memory",
    "out of memory",
    "Unable to allocate",
)
_NEAR_LIMIT = 0.5
"""Resident memory beyond this share of the limit makes a SIGKILL that nobody of us sent the kernel's."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A `SlipwayError` raised in the child."""

    code: str
    title: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`result` is None unless the entry returned; then `reason` is one of timeout, out_of_memory, crashed,
    refused, storage_full, abandoned, error and `detail` the sentence for the reader. With `error` it may quote an
    exception: for those who may know of our code and our folders."""

    result: dict[str, Any] | None
    reason: str
    detail: str
    refusal: Refusal | None
    peak_bytes: int
    elapsed_s: float
    log_tail: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.result is not None


class SandboxFailure(Exception):
    """The child ended without a result."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.reason}: {outcome.detail}")
        self.reason = outcome.reason
        self.detail = outcome.detail
        self.refusal = outcome.refusal
        self.outcome = outcome


@dataclass(kw_only=True)
class Evidence:
    """What the parent gathers while the child lives."""

    limits: Limits
    result: dict[str, Any] | None = None
    refusal: Refusal | None = None
    failed: Message | None = None
    broken_rule: str = ""
    """Set when the parent killed the child because it did not keep to the protocol."""
    wall_exceeded: bool = False
    killed_by_caller: bool = False
    abandoned: bool = False
    """It had ended when its parent looked again, after the time until which that had held it."""
    host_out_of_memory: bool = False
    status: int | None = None
    peak_bytes: int = 0
    elapsed_s: float = 0.0
    log_tail: tuple[str, ...] = ()

    def judge(self) -> Outcome:
        finished = self.status == 0 and self.result is not None and not self.wall_exceeded
        reason, detail = ("", "") if finished else self._why()
        return Outcome(
            result=self.result if finished else None,
            reason=reason,
            detail=detail,
            refusal=self.refusal if reason == "refused" else None,
            peak_bytes=self.peak_bytes,
            elapsed_s=self.elapsed_s,
            log_tail=self.log_tail,
        )

    def _why(self) -> tuple[str, str]:
        if self.wall_exceeded:
            return "timeout", f"It was stopped at its limit of {self.limits.wall_s:g} s."
        if self.broken_rule:
            return "error", self.broken_rule
        if self.killed_by_caller:
            return "error", "It was stopped before it ended."
        if self.refusal is not None:
            return "refused", f"{self.refusal.title} {self.refusal.detail}".strip()
        if self.failed is not None:
            return self._raised(str(self.failed.get("reason")), str(self.failed.get("detail", "")))
        if self.abandoned and self.elapsed_s < self.limits.wall_s:
            return "abandoned", "It was stopped because its parent held it no longer."
        if self.abandoned:
            return "timeout", f"It was stopped at its limit of {self.limits.wall_s:g} s."
        if self.status is not None and self.status < 0:
            return self._signalled(-self.status)
        if self.status == 0:
            return "error", "It ended without a result."
        return "error", f"It ended with exit status {self.status}."

    def _raised(self, reason: str, detail: str) -> tuple[str, str]:
        if reason == "out_of_memory" or any(text in detail for text in _ALLOCATION_FAILED):
            return "out_of_memory", self._memory_sentence()
        return ("storage_full" if reason == "storage_full" else "error"), detail

    def _signalled(self, number: int) -> tuple[str, str]:
        if number == signal.SIGXCPU:
            return "timeout", f"It was stopped at its limit of {self.limits.cpu_s} s of processor time."
        if number == signal.SIGKILL and self._kernel_ran_out():
            return "out_of_memory", self._memory_sentence()
        if number == signal.SIGABRT and any(
            text in line for line in self.log_tail for text in _ALLOCATION_FAILED
        ):
            return "out_of_memory", self._memory_sentence()
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return "crashed", f"It crashed with {name}."

    def _kernel_ran_out(self) -> bool:
        return self.host_out_of_memory or self.peak_bytes > self.limits.memory_bytes * _NEAR_LIMIT

    def _memory_sentence(self) -> str:
        return (
            f"It ran out of memory: peak {self.peak_bytes // MIB:,} MB with libraries, "
            f"limit {self.limits.memory_bytes // MIB:,} MB without."
        )
