"""The peer: Celery alone. A worker of one process, whose task commits one row and says when, on the shared clock."""

import os
import time
from functools import cache
from typing import Any

import psycopg
from celery import Celery
from redis import Redis

QUEUE, DONE = "bench.peer", "bench:peer-done"

app = Celery("peer", broker=os.environ["REDIS_URL"])
app.conf.update(task_default_queue=QUEUE, task_ignore_result=True, broker_connection_retry_on_startup=True)


@cache
def _kept() -> tuple["psycopg.Connection[Any]", Redis]:
    """One connection each for the life of the process that runs tasks."""
    database = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    return database, Redis.from_url(os.environ["REDIS_URL"])


@app.task(name="bench.start")
def start() -> None:
    database, broker = _kept()
    database.execute("INSERT INTO bench_floor (body) VALUES (repeat('x', 100))")
    broker.lpush(DONE, repr(time.monotonic()))
