"""The floor's worker: waits at a Redis list and commits one row for each message. Says when, on the shared clock."""

import os
import time

import psycopg
from redis import Redis


def main() -> None:
    broker = Redis.from_url(os.environ["REDIS_URL"], socket_timeout=None)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as database:
        database.execute("CREATE TABLE bench_floor (id bigserial PRIMARY KEY, body text)")
        print("waiting", flush=True)
        while True:
            broker.brpop("bench:do", timeout=0)
            database.execute("INSERT INTO bench_floor (body) VALUES (repeat('x', 100))")
            broker.lpush("bench:done", repr(time.monotonic()))


if __name__ == "__main__":
    main()
