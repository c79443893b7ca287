"""Keyset pages for lists that are ordered newest first: the same for a page and for the API.

A cursor is the id of the last row shown, so page 200 costs what page 1 costs, and a new row never shifts
what is being read. A total is counted apart, and only up to a cap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from django.db.models import Model, QuerySet

from controlplane.core.errors import InvalidInput

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
COUNT_CAP = 10_000


class Keyed(Protocol):
    """A model's instance, or a named row of values with its `pk`."""

    @property
    def pk(self) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Page[Row: Keyed]:
    """`next_cursor` is None on the last page; `limit` is the size that was asked for."""

    rows: list[Row]
    next_cursor: int | None
    limit: int

    def next_query(self) -> str | None:
        return None if self.next_cursor is None else f"?cursor={self.next_cursor}&limit={self.limit}"


def _number(parameters: Mapping[str, str], name: str, *, default: int | None, highest: int) -> int | None:
    text = parameters.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and 1 <= int(text) <= highest):
        raise InvalidInput(
            f"invalid_{name}",
            f"The {name} cannot be used.",
            f"It is a whole number from 1 to {highest:,}; take it from the previous page's “next”.",
            fields={name: [f"Use a whole number from 1 to {highest:,}."]},
        )
    return int(text)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a request asks for: rows older than `cursor` (None: from the newest), at most `limit` of them."""

    cursor: int | None
    limit: int

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> "Wanted":
        """Reads `?cursor=` and `?limit=`. Raises InvalidInput."""
        limit = _number(parameters, "limit", default=DEFAULT_LIMIT, highest=MAX_LIMIT) or DEFAULT_LIMIT
        return cls(cursor=_number(parameters, "cursor", default=None, highest=2**63 - 1), limit=limit)

    def page[Row: Keyed](self, found: list[Row]) -> Page[Row]:
        """`found` is one row more than the limit if there are more."""
        rows = found[: self.limit]
        more = len(found) > self.limit
        return Page(rows=rows, next_cursor=rows[-1].pk if more else None, limit=self.limit)


def paginate[Row: Keyed](rows: QuerySet[Any, Row], parameters: Mapping[str, str]) -> Page[Row]:
    """The page that `?cursor=` and `?limit=` ask for, newest first. One query; raises InvalidInput."""
    wanted = Wanted.of(parameters)
    if wanted.cursor is not None:
        rows = rows.filter(pk__lt=wanted.cursor)
    return wanted.page(list(rows.order_by("-pk")[: wanted.limit + 1]))


def capped_count(rows: QuerySet[Model]) -> str:
    """The number of rows in words: exact up to the cap, "10,000+" beyond. One bounded query."""
    count = rows.order_by().values("pk")[: COUNT_CAP + 1].count()
    return f"{COUNT_CAP:,}+" if count > COUNT_CAP else f"{count:,}"
