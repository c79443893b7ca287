"""A variant's bytes as an answer: what the API hands to people and what replicas fetch are the same bytes, checked the
same way."""

import re

from django.http import FileResponse

from controlplane.registry import artifacts
from controlplane.registry.models import Variant

_FROM = re.compile(r"bytes=([0-9]{1,18})-")


def content(variant: Variant, *, filename: str, asked: str = "") -> FileResponse:
    """The artifact's bytes, hashed before the first one is sent; from the middle where `asked`, a Range header, wants
    the rest. Other ranges are answered whole. Raises Conflict for damaged bytes."""
    path = artifacts.intact(variant)
    size, found = path.stat().st_size, _FROM.fullmatch(asked)
    start = int(found[1]) if found and int(found[1]) < size else 0
    file = path.open("rb")
    file.seek(start)
    answer = FileResponse(
        file, as_attachment=True, filename=filename, content_type="application/octet-stream"
    )
    answer["Accept-Ranges"] = "bytes"
    if start:
        answer.status_code = 206
        answer["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    return answer
