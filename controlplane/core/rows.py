"""Rows that somebody else may have removed since they were read."""

from django.db.models import Model

from controlplane.core.errors import NotFound


def locked[Row: Model](row: Row) -> Row:
    """The row as it is now, held until the transaction ends. Raises NotFound if it is gone. One query."""
    found = type(row)._default_manager.select_for_update().filter(pk=row.pk).first()
    if found is None:
        raise gone(row)
    return found


def gone(row: Model) -> NotFound:
    return NotFound("not_found", f"“{row}” was removed in the meantime.", "Reload to see what there is now.")
