"""A list on a page, as its address asks for it: filters, order, place, and the parts that load apart.

    if part := lists.part(request, rows, csv=tables.jobs_csv, sorts=SORTS):
        return part
    listing = Listing(request, rows, noun="job", sorts=SORTS)

`?part=total` answers the capped number of rows, `?part=csv` the whole list. The templates' `{% column %}` and
components/pagination.html draw the rest. Refused: class-based list views; two calls say the same.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, QueryDict

from controlplane.core.pagination import PLACE, Order, capped_count, paginate

UNSORTED: Mapping[str, str] = MappingProxyType({})


def part[M: Model](
    request: HttpRequest,
    rows: QuerySet[M],
    *,
    csv: Callable[[QuerySet[M]], HttpResponseBase],
    sorts: Mapping[str, str] = UNSORTED,
    default: str = "",
) -> HttpResponseBase | None:
    """What `?part=` asks for; None for the page itself. `csv` gets the rows in the order of the page."""
    match request.GET.get("part"):
        case "total":
            return HttpResponse(f"of {capped_count(rows)}")
        case "csv":
            order = _order(request, sorts, default)
            return csv(order.sorted(rows) if order else rows.order_by("-pk"))
    return None


def _order(request: HttpRequest, sorts: Mapping[str, str], default: str) -> Order | None:
    return Order.of({"sort": request.GET.get("sort") or default}, sorts)


class Listing[M: Model]:
    """One page of `rows` and its neighbours' addresses, which keep the filters.

    `sorts` names the field behind each word of `?sort=`; `default` is such a word, without one the newest come
    first. Raises InvalidInput for an order, a place or a size that cannot be.
    """

    def __init__(
        self,
        request: HttpRequest,
        rows: QuerySet[M],
        *,
        noun: str,
        sorts: Mapping[str, str] = UNSORTED,
        default: str = "",
    ) -> None:
        self._page = paginate(rows, request.GET.dict(), order=_order(request, sorts, default))
        self._kept = request.GET.copy()
        for name in (*PLACE, "part"):
            self._kept.pop(name, None)
        self.rows = self._page.rows
        self.sort = request.GET.get("sort") or default
        self.newest_first = not self.sort
        self.later = "cursor" in request.GET
        """Not the first page: rows that come in meanwhile do not belong on it."""
        self.shown = f"{len(self.rows):,} {noun}{'' if len(self.rows) == 1 else 's'}"

    def _url(self, **more: object) -> str:
        query: QueryDict = self._kept.copy()
        for name, value in more.items():
            query[name] = str(value)
        return f"?{query.urlencode()}"

    @property
    def first_url(self) -> str:
        """Empty on the first page."""
        return self._url() if self.later else ""

    @property
    def next_url(self) -> str:
        """Empty on the last page."""
        place = self._page.next_place()
        return "" if place is None else self._url(**place)

    @property
    def total_url(self) -> str:
        """Empty where the page shows all there is."""
        return self._url(part="total") if self.later or self._page.next_cursor else ""

    @property
    def csv_url(self) -> str:
        return self._url(part="csv")

    def sort_url(self, sort: str) -> str:
        return self._url(sort=sort)
