"""A report is judged again as it was judged, and otherwise only where the limits are others."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from optimizer.domain.evidence import fidelity_of, speeds_of
from optimizer.domain.statistics import Estimate
from optimizer.domain.verdict import Basis, Fidelity, Speed
from optimizer.evaluation.report import plain

positive = st.floats(min_value=1e-3, max_value=1e6)
estimates = st.builds(
    Estimate, value=positive, low=positive, high=positive | st.just(math.inf), n=st.integers(0, 10**6),
    confidence=st.just(0.95),
)  # fmt: skip
speeds = st.builds(
    Speed, batch_size=st.integers(1, 64), parent_ms=positive, variant_ms=positive, speedup=estimates,
    spread=positive | st.just(math.inf),
)  # fmt: skip
fidelities = st.builds(Fidelity, basis=st.sampled_from(Basis), loss=estimates)


@given(measured=st.lists(speeds, max_size=3), compared=st.none() | fidelities)
def test_what_a_report_says_is_read_back_unchanged(measured: list[Speed], compared: Fidelity | None) -> None:
    report = {
        "timings": [
            {
                "batch_size": one.batch_size,
                "parent": {"median_ms": one.parent_ms},
                "variant": {"median_ms": one.variant_ms},
                "speedup": plain(one.speedup),
                "spread": plain(one.spread),
            }
            for one in measured
        ],
        "accuracy": None if compared is None else plain(compared),
    }
    read = json.loads(json.dumps(report, allow_nan=False))
    assert list(speeds_of(read)) == measured
    assert fidelity_of(read) == compared
