"""Objects as YAML that every reader takes for the same thing.

YAML 1.1 and 1.2, and each library in its own way, make numbers and truth values of plain words: `1e3`, `0o7`, `on`,
`y`. So a text stands plain only where it can be nothing else. Refused: templates, and the library's own judgement of
what is safe to write plain, which is about its own reader.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]+")
_SAID_OTHERWISE = {"true", "false", "yes", "no", "on", "off", "null"}
_BLOCK = re.compile(r"(?:[\x20-\x7e]*\n)+")


class _Writer(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Each object stands for itself."""
        return True


def _text(writer: _Writer, text: str) -> yaml.ScalarNode:
    tag = "tag:yaml.org,2002:str"
    if _PLAIN.fullmatch(text) and text.lower() not in _SAID_OTHERWISE:
        return writer.represent_scalar(tag, text)
    lines = text if text.endswith("\n") else f"{text}\n"
    is_block = "\n" in text and _BLOCK.fullmatch(lines) and not re.search(r" \n|\n\n$|^[ \n]", lines)
    return writer.represent_scalar(tag, text, style="|" if is_block else '"')


_Writer.add_representer(str, _text)


def document(one: Mapping[str, Any]) -> str:
    """In the order of its fields; the same document is the same text."""
    return yaml.dump(one, Dumper=_Writer, sort_keys=False, width=10**9, allow_unicode=True)


def documents(many: Iterable[Mapping[str, Any]]) -> str:
    """In one file, as kubectl takes them."""
    return "---\n".join(document(one) for one in many)


def file_name(one: Mapping[str, Any]) -> str:
    return f"{one['kind'].lower()}-{one['metadata']['name']}.yaml"
