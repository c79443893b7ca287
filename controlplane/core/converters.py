"""Ids in addresses: ASCII digits of a positive bigint and nothing else, so `٣`, 0 and 10^30 are a plain 404."""


class IdConverter:
    regex = "[1-9][0-9]{0,17}"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


class NameConverter:
    """RFC 1123 labels; see `core.names`."""

    regex = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


class DigestConverter:
    """A SHA-256, as `sha256sum` prints it."""

    regex = "[0-9a-f]{64}"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value
