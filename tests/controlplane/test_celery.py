"""What a worker's process does between two tasks."""

from types import SimpleNamespace

import pytest
from celery.fixups.django import DjangoWorkerFixup
from django.db import connection

from controlplane.celery import app, look_at_connections

pytestmark = pytest.mark.django_db(transaction=True)
TASK = SimpleNamespace(request=SimpleNamespace(is_eager=False))


def between_two_tasks() -> None:
    """As a worker does it: Celery's own part, then ours."""
    celery = DjangoWorkerFixup(app)
    for hook in (celery.on_task_postrun, celery.on_task_prerun):
        hook(sender=TASK)
        look_at_connections(sender=TASK)


def test_a_task_goes_on_with_the_connection_of_the_one_before() -> None:
    connection.ensure_connection()
    held = connection.connection
    between_two_tasks()
    assert connection.connection is held
    assert held is not None


def test_a_connection_that_was_cut_in_between_is_replaced_before_it_is_used() -> None:
    connection.ensure_connection()
    assert connection.connection is not None
    connection.connection.close()
    between_two_tasks()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
