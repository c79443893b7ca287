"""The one table of what a state is called and how it looks, in pages, API, logs and CSV.

Six tones carry the meaning (`Tone`), the icon's shape says it without colour, the label says it in a word.
The words are those of the state machines; a word means the same wherever it stands. Refused: colours chosen
in templates, and one table per app, which drift apart.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Tone(StrEnum):
    OK = "ok"
    PROGRESSING = "progressing"
    WARNING = "warning"
    FAILED = "failed"
    PAUSED = "paused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Word:
    """`icon` names a symbol of the icon sheet; each tone has one of its own."""

    label: str
    tone: Tone
    icon: str


def _word(label: str, tone: Tone, icon: str = "") -> Word:
    return Word(label=label, tone=tone, icon=icon or tone.value)


WORDS: dict[str, Word] = {
    # jobs
    "queued": _word("Queued", Tone.UNKNOWN, "queued"),
    "running": _word("Running", Tone.PROGRESSING),
    "cancelling": _word("Cancelling", Tone.PROGRESSING, "stopping"),
    "succeeded": _word("Succeeded", Tone.OK),
    "failed": _word("Failed", Tone.FAILED),
    "cancelled": _word("Cancelled", Tone.PAUSED, "cancelled"),
    # recipes of a search
    "skipped": _word("Skipped", Tone.PAUSED, "cancelled"),
    # verdicts
    "better": _word("Better", Tone.OK, "better"),
    "faster_but_inaccurate": _word("Faster but inaccurate", Tone.WARNING, "inaccurate"),
    "not_faster": _word("Not faster", Tone.FAILED, "slower"),
    "inconclusive": _word("Inconclusive", Tone.UNKNOWN),
    "not_measured": _word("Not measured", Tone.PAUSED, "not-measured"),
    "stale": _word("Stale", Tone.WARNING),
    # rollouts
    "pending": _word("Pending", Tone.UNKNOWN, "queued"),
    "paused": _word("Paused", Tone.PAUSED),
    "rolling_back": _word("Rolling back", Tone.WARNING, "rollback"),
    "rolled_back": _word("Rolled back", Tone.WARNING, "rollback"),
    "refused": _word("Refused", Tone.WARNING),
    "step": _word("Step passed", Tone.OK),
    "took_over": _word("Took over", Tone.WARNING),
    # deployment health
    "read_only": _word("Read-only", Tone.PAUSED),
    "progressing": _word("Progressing", Tone.PROGRESSING),
    "healthy": _word("Healthy", Tone.OK),
    "degraded": _word("Degraded", Tone.WARNING),
    "scaled_to_zero": _word("Scaled to zero", Tone.PAUSED, "zero"),
    "unreachable": _word("Unreachable", Tone.UNKNOWN, "unreachable"),
    "removing": _word("Removing", Tone.PROGRESSING, "removing"),
    # replicas
    "starting": _word("Starting", Tone.PROGRESSING),
    "ready": _word("Ready", Tone.OK),
    "not_ready": _word("Not ready", Tone.WARNING),
    "draining": _word("Draining", Tone.PROGRESSING, "stopping"),
    # workers
    "online": _word("Online", Tone.OK),
    "busy": _word("Busy", Tone.PROGRESSING),
    "idle": _word("Idle", Tone.OK),
    "drained": _word("Drained", Tone.PAUSED),
    "stopping": _word("Stopping", Tone.PROGRESSING, "stopping"),
    "offline": _word("Offline", Tone.FAILED, "unreachable"),
    "silent": _word("Silent", Tone.WARNING, "unreachable"),
    # severities of findings and log lines
    "ok": _word("OK", Tone.OK),
    "info": _word("Info", Tone.UNKNOWN, "info"),
    "warning": _word("Warning", Tone.WARNING),
    "error": _word("Error", Tone.FAILED),
    "blocking": _word("Blocking", Tone.FAILED),
}


def word_of(state: Any) -> Word:
    """The word of a state: its own `label`, `tone` and `icon` first, then (label, tone), then WORDS by value.

    A value without a word is shown as it is written, in the unknown tone: never a wrong colour.
    """
    if isinstance(state, Word):
        return state
    if isinstance(state, tuple):
        label, tone = state
        return _word(str(label), Tone(tone))
    key = str(getattr(state, "value", state))
    known = WORDS.get(key)
    tone = getattr(state, "tone", None)
    if tone is not None:
        label = str(getattr(state, "label", known.label if known else key))
        return _word(label, Tone(tone), str(getattr(state, "icon", "")))
    if known is not None:
        return known
    return _word(key.replace("_", " ").capitalize() or "Unknown", Tone.UNKNOWN)
