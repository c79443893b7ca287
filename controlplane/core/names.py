"""What may be a name: RFC 1123 labels, so that a name is the same in a path, a label and a page."""

import re

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
