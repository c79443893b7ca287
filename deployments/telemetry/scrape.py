"""What a scrape is, apart from how it is made: whoever reads stored series needs no HTTP client for that."""

from dataclasses import dataclass
from enum import StrEnum

from deployments.domain.vocabulary import MetricsMap
from deployments.targets.port import Way
from deployments.telemetry.exposition import NO_PAGE, BadPageReason, Page


class Unanswered(StrEnum):
    """Why no page came at all; what is wrong with a page that came is a `BadPageReason`."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    STATUS = "status"


type Failure = Unanswered | BadPageReason


@dataclass(frozen=True, kw_only=True)
class Target:
    """One replica's metrics page. Another `incarnation` (a pid, a start time) or address is another
    target. `way` is None where the page is simply there."""

    deployment: str
    revision: int
    replica: str
    url: str
    metrics: MetricsMap
    incarnation: str = ""
    way: Way | None = None


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """One attempt: a `page`, or else a `failure` with what was seen. Times are those of the answer."""

    target: Target
    at_monotonic: float
    at_wall: float
    late_s: float
    page: Page = NO_PAGE
    failure: Failure | None = None
    detail: str = ""
