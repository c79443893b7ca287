"""Lists as CSV: streamed row by row, and safe to open in a spreadsheet.

Refused: building the file first; a list of any length costs the memory of one row.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from django.http import StreamingHttpResponse

from controlplane.core.formats import machine

CHUNK = 500
"""Rows that are read from the database at a time."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class _Echo:
    """A file whose `write` hands back what it is given, so that a row can be yielded instead of kept."""

    def write(self, text: str) -> str:
        return text


def safe_cell(value: object) -> object:
    """Times in UTC; a text that a spreadsheet would run as a formula gets a quote in front and is text again."""
    match value:
        case None:
            return ""
        case datetime():
            return machine(value)
        case bool() | int() | float():
            return value
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(columns)
    for row in rows:
        yield writer.writerow([safe_cell(cell) for cell in row])


def csv_response(
    filename: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> StreamingHttpResponse:
    """`filename` is ours, never a user's."""
    return StreamingHttpResponse(
        lines(columns, rows),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{filename}"'},
    )
