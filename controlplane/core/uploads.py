"""Files of multipart forms: from who may send one, on disk while they arrive, never more than the limit.

Django bounds a form's fields and leaves its files unbounded; and it reads a form for its CSRF token before it asks
who is there. So no form has a file until a view that knows who asks has said so. The announced length is judged
before the first byte is written, the arrived one while it is. Refused: a limit in the view, which would see the
file when the disk is already full of it.
"""

import errno
from typing import Any

from django.conf import settings
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http import HttpRequest

from controlplane.core.errors import InvalidInput, StorageFull, TooLarge

FORM_BYTES = 1024**2
"""What fields and boundaries of a form may add to its file."""


def accept_file(request: HttpRequest) -> None:
    """From here on the form that was sent may have a file: its sender may send one."""
    request._slipway_takes_file = True  # type: ignore[attr-defined]


class BoundedUpload(TemporaryFileUploadHandler):
    """Raises InvalidInput where no file was accepted, TooLarge, and StorageFull where the disk has no room; what had
    arrived is removed."""

    _size_bytes = 0

    def handle_raw_input(
        self, input_data: Any, META: Any, content_length: int, boundary: Any, encoding: Any = None
    ) -> None:
        if content_length > _limit() + FORM_BYTES:
            raise _too_large()

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        if not getattr(self.request, "_slipway_takes_file", False):
            raise InvalidInput("no_file_taken", "No file is taken here.", "Send the form without a file.")
        super().new_file(*args, **kwargs)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self._size_bytes += len(raw_data)
        try:
            if self._size_bytes > _limit():
                raise _too_large()
            super().receive_data_chunk(raw_data, start)
        except (TooLarge, OSError) as error:
            self.file.close()
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StorageFull(
                    "storage_full",
                    "There is no room for the upload.",
                    "Nothing of it was kept. An operator has to make room.",
                ) from error
            raise


def _limit() -> int:
    return int(settings.ENVIRONMENT.max_upload_bytes)


def _too_large() -> TooLarge:
    return TooLarge("upload_too_large", "The file is too large.", f"At most {_limit():,} bytes are accepted.")
