"""The line of waiting jobs as the database knows it: who waits, what is under way, and how much the workers can take.

The dispatcher sends from it and the job's page tells a place in it, by the same rule (`optimizer.domain.line`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models import Count, DurationField, ExpressionWrapper, F, Q, QuerySet, Window
from django.db.models.functions import Now, RowNumber

from optimizer.domain.jobs import JobState
from optimizer.domain.line import Waiter, next_in_line
from optimizer.models import Job, Worker

SILENT_AFTER = timedelta(seconds=15)
"""Three announcements missed."""
REPUBLISH_AFTER = timedelta(minutes=5)
"""A message that nobody answered for so long is sent again."""
AHEAD = 1
"""Messages that wait in the broker for each worker, so that none has to wait for the dispatcher between two jobs."""
FEW = 20
"""As many are read as they come; of more, the oldest of each kind."""
UNSEEN = 2
"""Messages for a queue whose workers, if any, have not announced themselves."""


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """Jobs that are sent or held: by team, by the worker that holds them, and those sent by queue."""

    by_team: Mapping[int, int]
    by_owner: Mapping[str, int]
    sent: Mapping[str, int]


def _due() -> QuerySet[Job]:
    return Job.objects.filter(
        Q(published_at=None) | Q(published_at__lt=Now() - REPUBLISH_AFTER),
        state=JobState.QUEUED,
        run_after__lte=Now(),
    )


def waiting(*, limit_each: int, queue: str | None = None) -> list[Waiter]:
    """Due jobs without a message, the oldest `limit_each` of each team, queue and priority. One query while few wait,
    else two."""
    rows = _due() if queue is None else _due().filter(queue=queue)
    few = _waiters(rows, limit=FEW + 1)
    if len(few) <= FEW:
        return few
    turn = Window(RowNumber(), partition_by=["queue", "team_id", "priority"], order_by="pk")
    return _waiters(rows.annotate(turn=turn).filter(turn__lte=limit_each))


def _waiters(rows: QuerySet[Job], *, limit: int | None = None) -> list[Waiter]:
    waited = ExpressionWrapper(Now() - F("run_after"), output_field=DurationField())
    found = rows.order_by().values_list("pk", "queue", "team_id", "priority", waited)[:limit]
    return [
        Waiter(job_id=job, queue=name, team_id=team, priority=priority, waited_s=waited.total_seconds())
        for job, name, team, priority, waited in found
    ]


def under_way() -> UnderWay:
    """One query."""
    by_team, by_owner, sent = Counter[int](), Counter[str](), Counter[str]()
    fresh = Q(state=JobState.QUEUED, published_at__gte=Now() - REPUBLISH_AFTER)
    rows = Job.objects.filter(fresh | Q(state__in=[JobState.RUNNING, JobState.CANCELLING])).order_by()
    for queue, team, owner, state, count in rows.values_list("queue", "team_id", "owner", "state").annotate(
        count=Count("pk")
    ):
        by_team[team] += count
        if state == JobState.QUEUED:
            sent[queue] += count
        else:
            by_owner[owner] += count
    return UnderWay(by_team=by_team, by_owner=by_owner, sent=sent)


def room(queues: Iterable[str], now: UnderWay) -> dict[str, int]:
    """How many messages each queue can take: the free slots of its workers, and AHEAD for each of them. Drained ones
    take none, though they be away: they come back drained. One query."""
    listening: dict[str, list[int]] = {}
    heard = Q(heartbeat_at__gte=Now() - SILENT_AFTER, draining=False)
    rows = Worker.objects.filter(heard | Q(drain_since__isnull=False))
    for name, names, hardware, drained in rows.values_list("name", "queues", "hardware", "drain_since"):
        free = max(hardware.get("slots", 1) - now.by_owner.get(name, 0), 0)
        for queue in names:
            listening.setdefault(queue, []).append(0 if drained else free + AHEAD)
    return {
        queue: (sum(listening[queue]) if queue in listening else UNSEEN) - now.sent.get(queue, 0)
        for queue in set(queues)
    }


def next_of(waiters: list[Waiter]) -> Iterator[Waiter]:
    """Those of them to be sent now, in order. Two queries."""
    now = under_way()
    return next_in_line(
        waiters,
        room=room((one.queue for one in waiters), now),
        under_way=now.by_team,
        limit=settings.ENVIRONMENT.max_running_jobs,
    )


def place(job: Job, *, limit_each: int = 1000) -> int:
    """How many jobs of its queue are sent before it, as things stand. Three queries."""
    before = Job.objects.filter(
        state=JobState.QUEUED, queue=job.queue, published_at__gte=Now() - REPUBLISH_AFTER
    ).exclude(pk=job.pk)
    if job.published_at is not None:
        return before.filter(published_at__lt=job.published_at).count()
    now, waiters = under_way(), waiting(limit_each=limit_each, queue=job.queue)
    order = next_in_line(waiters, room={job.queue: len(waiters)}, under_way=now.by_team)
    ahead = next((index for index, one in enumerate(order) if one.job_id == job.pk), len(waiters))
    return now.sent.get(job.queue, 0) + ahead
