"""How a revision is rolled out, as form fields: the strategy, and what only one strategy reads.

A field of a strategy that is not chosen keeps what it says, so that going back to that strategy by form finds it.
"""

from typing import Any

from django import forms

from controlplane.core.errors import InvalidInput
from deployments.domain import steps
from deployments.domain.spec import CanaryGate, RolloutPolicy, Strategy

STRATEGIES = {
    Strategy.ROLLING: "Rolling – replica by replica, each taking its share as soon as it is ready",
    Strategy.CANARY: "Canary – a growing share of the requests, and each step has to prove itself",
    Strategy.BLUE_GREEN: "Blue/green – a whole second set comes up, then all requests move at once",
    Strategy.RECREATE: "Recreate – the old replicas end first; nothing answers in between",
}
_PLAIN = ("max_surge", "max_unavailable", "progress_deadline_s", "hold_s")
_GATE = ("p99_ratio", "p99_allowance_ms", "error_points", "confidence", "max_wait_s", "min_requests")


class RolloutFields(forms.Form):
    max_surge = forms.IntegerField(label="Surge", help_text="Replicas above the wanted number while moving.")
    max_unavailable = forms.IntegerField(
        label="Unavailable", help_text="Replicas that may be missing while moving. 0 never drops below."
    )
    progress_deadline_s = forms.IntegerField(
        label="Deadline",
        required=False,
        help_text="Without another ready replica for so long, it goes back by itself. "
        "Empty: 60 on this machine, 600 on a cluster.",
    )
    strategy = forms.ChoiceField(
        label="Strategy",
        required=False,
        initial=Strategy.ROLLING,
        choices=list(STRATEGIES.items()),
        widget=forms.RadioSelect,
    )
    steps = forms.CharField(
        label="Steps",
        required=False,
        max_length=1000,
        help_text="Percent of the requests: 5, 25, 50. A step may last longer than its gate needs: "
        "25 for 300 s, 50 for 1000 requests and 300 s. After the last one all requests move.",
    )
    p99_ratio = forms.FloatField(
        label="p99 may be",
        required=False,
        help_text="Times the p99 of the revision that serves, in the same minutes. Empty leaves latency out.",
    )
    p99_allowance_ms = forms.FloatField(
        label="Or above it by",
        required=False,
        help_text="Where that is more: twice 1 ms is nothing that anybody waits for.",
    )
    error_points = forms.FloatField(
        label="Errors may be above by", required=False, help_text="Percentage points of all requests."
    )
    confidence = forms.FloatField(
        label="Confidence",
        required=False,
        help_text="0.95 is 95 % sure, to pass as to fail. The surer, the more requests it takes.",
    )
    max_wait_s = forms.IntegerField(
        label="Longest wait",
        required=False,
        help_text="A step that is not decided by then stops for a person; it never passes by waiting.",
    )
    min_requests = forms.IntegerField(
        label="Fewest requests",
        required=False,
        help_text="Of each side in a step. 0 asks for as many as the confidence needs.",
    )
    hold_s = forms.IntegerField(
        label="Hold",
        required=False,
        help_text="How long the old replicas stay ready after all requests have moved: until then, "
        "going back is one switch.",
    )

    def clean_steps(self) -> list[dict[str, int]]:
        try:
            return steps.read(self.cleaned_data["steps"])
        except InvalidInput as error:
            said = next(iter(error.fields.values()))[0]
            raise forms.ValidationError(f"{said[:1].upper()}{said[1:]}.") from error

    def rollout_document(self) -> dict[str, Any]:
        """Without what was left empty, which gets its default."""
        given = self.cleaned_data
        gate = {name: given[name] for name in _GATE if given[name] is not None}
        if given["p99_ratio"] is None and given["strategy"] == Strategy.CANARY:
            gate["p99_ratio"] = None
        found = {name: given[name] for name in _PLAIN if given[name] is not None}
        if given["strategy"]:
            found["strategy"] = given["strategy"]
        if given["steps"]:
            found["steps"] = given["steps"]
        return found | ({"gate": gate} if gate else {})


def initial_rollout(policy: RolloutPolicy) -> dict[str, Any]:
    gate: CanaryGate = policy.gate
    return {
        **{name: getattr(policy, name) for name in _PLAIN},
        **{name: getattr(gate, name) for name in _GATE if getattr(gate, name) is not None},
        "strategy": policy.strategy.value,
        "steps": steps.write(policy.steps),
    }
