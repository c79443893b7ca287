"""Label selectors, as Kubernetes reads them: `deployment in (bert,resnet),team!=red,!canary,tier>2`.

Exists because the grammar has corners that matter to who is scaled: `!=` and `notin` also match what has no such
label, `k=` asks for the empty value, and words such as `in` may be keys and values. Grammar and validation follow
`labels.Parse` of apimachinery. Refused: reading the usual forms only, which would take a rare one for "everything".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

_END: Final = ""
_TOKEN = re.compile(r"==|!=|[=!(),<>]|[^ \t\r\n=!(),<>]+")
_SYMBOLS: Final = frozenset({"==", "!=", "=", "!", "(", ")", ",", "<", ">", _END})
_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_LONGEST_PREFIX: Final = 253
_INTEGER = re.compile(r"[+-]?[0-9]+")
_LONGEST_VALUE: Final = 63
_SHOWN: Final = 60


class InvalidSelector(ValueError):
    """With a sentence that says where the selector stops making sense."""


class Operator(StrEnum):
    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "!"
    GREATER = ">"
    LESS = "<"


_OPERATORS: Final = {
    "in": Operator.IN,
    "notin": Operator.NOT_IN,
    "=": Operator.IN,
    "==": Operator.IN,
    "!=": Operator.NOT_IN,
    ">": Operator.GREATER,
    "<": Operator.LESS,
}


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One condition. `k=v` is `k in (v)`, and `k!=v` is `k notin (v)`. `values` are sorted, and each there once."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.ABSENT:
                return value is None
        number = None if value is None else _integer(value)
        bound = _integer(self.values[0])
        if number is None or bound is None:
            return False
        return number > bound if self.operator is Operator.GREATER else number < bound

    def __str__(self) -> str:
        match self.operator:
            case Operator.EXISTS:
                return self.key
            case Operator.ABSENT:
                return f"!{self.key}"
            case Operator.GREATER | Operator.LESS:
                return f"{self.key}{self.operator}{self.values[0]}"
        if len(self.values) == 1:
            return f"{self.key}{'=' if self.operator is Operator.IN else '!='}{self.values[0]}"
        return f"{self.key} {self.operator} ({','.join(self.values)})"


@dataclass(frozen=True)
class Selector:
    """All requirements together; without any, it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(one.matches(labels) for one in self.requirements)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


@lru_cache(maxsize=4096)
def parse(text: str) -> Selector:
    """Raises InvalidSelector."""
    tokens = _Tokens(text)
    requirements = []
    while tokens.next != _END:
        requirements.append(_requirement(tokens))
        if tokens.next == _END:
            break
        tokens.expect(",")
        if not (tokens.has_word or tokens.next == "!"):
            raise tokens.unexpected("a label after “,”")
    return Selector(tuple(requirements))


class _Tokens:
    """The words and symbols of a selector, one after the other; then the end, for ever."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    @property
    def next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    @property
    def has_word(self) -> bool:
        return self.next not in _SYMBOLS

    def take(self) -> str:
        token = self.next
        self._at += 1
        return token

    def word(self, what: str) -> str:
        if not self.has_word:
            raise self.unexpected(what)
        return self.take()

    def expect(self, symbol: str) -> None:
        if self.next != symbol:
            raise self.unexpected(f"“{symbol}”")
        self.take()

    def unexpected(self, what: str) -> InvalidSelector:
        found = f"“{_shown(self.next)}”" if self.next != _END else "the end"
        return self.wrong(f"it has {found} where {what} is expected")

    def wrong(self, reason: str) -> InvalidSelector:
        return InvalidSelector(f"The label selector “{_shown(self._text)}” cannot be read: {reason}.")


def _requirement(tokens: _Tokens) -> Requirement:
    absent = tokens.next == "!"
    if absent:
        tokens.take()
    key = _key(tokens)
    if absent or tokens.next in (_END, ","):
        return Requirement(key=key, operator=Operator.ABSENT if absent else Operator.EXISTS)
    written = tokens.next
    if written not in _OPERATORS:
        raise tokens.unexpected("one of in, notin, =, ==, !=, > and <")
    tokens.take()
    values = _list(tokens) if written in ("in", "notin") else {_one(tokens)}
    for value in values:
        _check_value(tokens, value, of=key)
    operator = _OPERATORS[written]
    if operator in (Operator.GREATER, Operator.LESS) and _integer(*values) is None:
        raise tokens.wrong(f"“{key}{written}” needs a whole number")
    return Requirement(key=key, operator=operator, values=tuple(sorted(values)))


def _key(tokens: _Tokens) -> str:
    key = tokens.word("a label")
    prefix, slash, name = key.rpartition("/")
    named = _NAME.fullmatch(name) is not None
    owned = not slash or (len(prefix) <= _LONGEST_PREFIX and _SUBDOMAIN.fullmatch(prefix) is not None)
    if not (named and owned):
        raise tokens.wrong(f"“{_shown(key)}” cannot be the name of a label")
    return key


def _check_value(tokens: _Tokens, value: str, *, of: str) -> None:
    if value and _NAME.fullmatch(value) is None:
        raise tokens.wrong(f"“{_shown(value)}” cannot be a value of the label “{of}”")


def _one(tokens: _Tokens) -> str:
    """`k=` and `k=,` ask for the empty value."""
    return "" if tokens.next in (_END, ",") else tokens.word("a value")


def _list(tokens: _Tokens) -> set[str]:
    """What stands between parentheses. An empty place before or between commas is the empty value, and so is one
    before the closing parenthesis unless two commas stand there: apimachinery's rule, kept to the letter."""
    tokens.expect("(")
    values: set[str] = set()
    while tokens.next != ")":
        if tokens.next != ",":
            values.add(tokens.word("a value"))
            if tokens.next not in (",", ")"):
                raise tokens.unexpected("“,” or “)”")
            continue
        tokens.take()
        if not values or tokens.next in (",", ")"):
            values.add("")
        if tokens.next == ",":
            tokens.take()
            if tokens.next == ")":
                raise tokens.unexpected("a value")
    tokens.expect(")")
    if not values:
        raise tokens.wrong("the list “()” is empty, and no value is in it")
    return values


def _integer(text: str) -> int | None:
    """As a signed number of 64 bits, or None."""
    if _INTEGER.fullmatch(text) is None or len(text) > _LONGEST_VALUE:
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def _shown(text: str) -> str:
    readable = text.encode("unicode_escape").decode()
    return readable if len(readable) <= _SHOWN else f"{readable[:_SHOWN]}…"
