"""Keyset pages: the same for a page and for the API.

A cursor is the id of the last row shown, so page 200 costs what page 1 costs, and a new row never shifts
what is being read. A list that is sorted by something else brings that row's value beside its id. A total is
counted apart, and only up to a cap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from django.core.exceptions import ValidationError
from django.db.models import F, Model, Q, QuerySet

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
    """`next_cursor` is None on the last page; `limit` is the size that was asked for.

    `next_after` is what the last row has in the column that the list is sorted by; None where it has nothing
    there, and in a list sorted by id.
    """

    rows: list[Row]
    next_cursor: int | None
    limit: int
    next_after: str | None = None

    def next_place(self) -> dict[str, object] | None:
        """The parameters (see PLACE) that the next page begins with; None on the last page."""
        if self.next_cursor is None:
            return None
        place: dict[str, object] = {"cursor": self.next_cursor}
        return place if self.next_after is None else place | {"after": self.next_after}

    def next_query(self) -> str | None:
        place = self.next_place()
        return None if place is None else "?" + urlencode(place | {"limit": self.limit})


PLACE = ("cursor", "after")
"""The parameters that say where a page begins: what a link to the first page leaves out."""


@dataclass(frozen=True)
class Order:
    """By a field or an annotation of the rows, what has nothing there last; equals by id, newest first."""

    field: str
    descending: bool = False

    def sorted[M: Model](self, rows: QuerySet[M]) -> QuerySet[M]:
        column = F(self.field)
        first = column.desc(nulls_last=True) if self.descending else column.asc(nulls_last=True)
        return rows.order_by(first, "-pk")

    def behind[M: Model](self, rows: QuerySet[M], *, cursor: int, after: str | None) -> QuerySet[M]:
        """The rows that come after the one with this id and, in the column, this value. Raises InvalidInput."""
        nothing = Q(**{f"{self.field}__isnull": True})
        if after is None:
            return rows.filter(nothing, pk__lt=cursor)
        value = self._value(rows, after)
        further = Q(**{f"{self.field}__{'lt' if self.descending else 'gt'}": value})
        return rows.filter(further | nothing | Q(**{self.field: value}, pk__lt=cursor))

    def _value(self, rows: QuerySet[Any], text: str) -> Any:
        try:
            return F(self.field).resolve_expression(rows.query).output_field.to_python(text)
        except (ValueError, OverflowError, ValidationError) as error:
            raise InvalidInput(
                "invalid_after",
                "The place where the page begins cannot be used.",
                "Take it from the previous page's “next”.",
                fields={"after": ["This is no value of the column that the list is sorted by."]},
            ) from error

    @classmethod
    def of(cls, parameters: Mapping[str, str], sorts: Mapping[str, str]) -> "Order | None":
        """What `?sort=` asks for: a word of `sorts`, which names the field; `-` before it turns it round.

        None without one: newest first. Raises InvalidInput.
        """
        text = parameters.get("sort", "")
        if not text:
            return None
        word = text.removeprefix("-")
        if word not in sorts:
            known = ", ".join(sorts) or "nothing"
            raise InvalidInput(
                "invalid_sort",
                "The list cannot be sorted like that.",
                f"Sort by {known}; a “-” in front turns the order round.",
                fields={"sort": [f"Use one of: {known}."]},
            )
        return cls(sorts[word], descending=text.startswith("-"))


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

    def page[Row: Keyed](self, found: list[Row], *, sorted_by: str = "") -> Page[Row]:
        """`found` is one row more than the limit if there are more; `sorted_by` names the attribute, if not the id."""
        rows = found[: self.limit]
        more = len(found) > self.limit
        after = getattr(rows[-1], sorted_by) if more and sorted_by else None
        return Page(
            rows=rows,
            next_cursor=rows[-1].pk if more else None,
            limit=self.limit,
            next_after=None if after is None else str(after),
        )


def paginate[M: Model](
    rows: QuerySet[M], parameters: Mapping[str, str], *, order: Order | None = None
) -> Page[M]:
    """The page that `?cursor=`, `?after=` and `?limit=` ask for, newest first or in `order`.

    One query; raises InvalidInput.
    """
    wanted = Wanted.of(parameters)
    if order is None:
        if wanted.cursor is not None:
            rows = rows.filter(pk__lt=wanted.cursor)
        return wanted.page(list(rows.order_by("-pk")[: wanted.limit + 1]))
    if wanted.cursor is not None:
        rows = order.behind(rows, cursor=wanted.cursor, after=parameters.get("after"))
    valued: QuerySet[Any] = rows.annotate(sorted_by=F(order.field))
    return wanted.page(list(order.sorted(valued)[: wanted.limit + 1]), sorted_by="sorted_by")


def capped_count(rows: QuerySet[Model]) -> str:
    """The number of rows in words: exact up to the cap, "10,000+" beyond. One bounded query."""
    count = rows.order_by().values("pk")[: COUNT_CAP + 1].count()
    return f"{COUNT_CAP:,}+" if count > COUNT_CAP else f"{count:,}"
