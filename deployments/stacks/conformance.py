"""Which words of the vocabulary a metrics page really speaks.

A map from words to names is a claim; this reads a page of a running replica and says what is true. Refused:
trusting `# TYPE` lines alone, since servers announce families that never get a sample.
"""

import re
from collections.abc import Mapping

from deployments.domain.vocabulary import Source, Word

_SAMPLE = re.compile(r"^[ \t]*([A-Za-z_:][\w:]*)(?=[{ \t])", re.MULTILINE | re.ASCII)


def spoken(page: str, metrics: Mapping[Word, str | Source]) -> frozenset[Word]:
    """The words of `metrics` with at least one sample; a histogram needs its +Inf bucket, sum and count.

    Raises ValueError for a page that cannot be parsed. Costs 1-2 ms a page: for set-up, not for scraping.
    """
    from prometheus_client.parser import text_string_to_metric_families

    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    # From the text: the parser gives every counter the ending _total, which not every server writes.
    names = set(_SAMPLE.findall(page))
    ended = {
        sample.name.removesuffix("_bucket") for sample in samples if sample.labels.get("le") == "+Inf"
    } & {name.removesuffix("_sum") for name in names if name.endswith("_sum")}
    histograms = {name for name in ended if f"{name}_count" in names}
    return frozenset(
        word
        for word, source in metrics.items()
        for name in [source.name if isinstance(source, Source) else source]
        if name in histograms or (name in names and word not in (Word.LATENCY, Word.BATCH_SIZE))
    )
