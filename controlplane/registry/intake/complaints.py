"""What onnx and ONNX Runtime say about a model, made fit for a reader.

Their messages carry our paths and the model's own strings; their exceptions are of many unrelated types, and a
failed allocation is only told by its text.
"""

import re

from controlplane.core.errors import Unprocessable

_PATHS = re.compile(r"(?:/[\w.+@-]+){2,}")
_ALLOCATION = ("bad_alloc", "Failed to allocate memory", "std::length_error")


def invalid(error: Exception) -> Unprocessable:
    """`invalid_onnx` with the library's reason. Raises MemoryError if it was out of memory."""
    return Unprocessable("invalid_onnx", "The model is not valid.", reason(error))


def reason(error: Exception) -> str:
    """The first lines, without our paths and control characters. Raises MemoryError if it was out of memory."""
    text = str(error)
    if isinstance(error, MemoryError) or any(word in text for word in _ALLOCATION):
        raise MemoryError from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = " ".join(lines[:3]).encode("unicode_escape").decode()
    return _PATHS.sub("the file", first)[:500] or "No reason was given."
