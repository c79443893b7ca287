"""What may be a name: RFC 1123 labels, so that it is the same in a path, a label and a page; and what may be a text."""

import re
import unicodedata

from controlplane.core.errors import InvalidInput

MAX_NAME = 63
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
RESERVED = frozenset({"default", "kube-system", "kube-public", "kube-node-lease", "slipway", "new", "upload"})


def check_name(value: str, *, what: str) -> str:
    """Returns the name, or raises InvalidInput that says which rule it breaks."""
    if NAME.fullmatch(value) is None:
        shown = value[:80].encode("unicode_escape").decode()
        raise InvalidInput(
            "invalid_name",
            f"This is not a valid {what} name.",
            f"“{shown}” breaks the rule: 1 to {MAX_NAME} lower-case letters, digits and inner dashes, "
            "such as “fraud-scorer”.",
            fields={"name": ["Use 1 to 63 lower-case letters, digits and inner dashes."]},
        )
    if value in RESERVED:
        raise InvalidInput(
            "reserved_name",
            f"“{value}” is a reserved name.",
            f"Choose another {what} name.",
            fields={"name": ["This name is reserved."]},
        )
    return value


UNREADABLE = "Control characters are not allowed."
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def is_readable(text: str) -> bool:
    """Nothing that a terminal would act on instead of showing it, or a database cannot keep; line breaks and tabs are
    text."""
    return _CONTROL.search(text) is None


def free_text(value: str, *, field: str, most: int) -> str:
    """The text as it is kept: composed (NFC) and without space around. Raises InvalidInput about the field."""
    text = unicodedata.normalize("NFC", value.strip())
    problem = ""
    if not is_readable(text):
        problem = UNREADABLE
    elif len(text) > most:
        problem = f"At most {most:,} characters are kept."
    if problem:
        raise InvalidInput(
            f"invalid_{field}",
            "The request has a value that cannot be used.",
            f"{field}: {problem}",
            fields={field: [problem]},
        )
    return text
