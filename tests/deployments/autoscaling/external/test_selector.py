"""Label selectors are read as Kubernetes reads them, and match what they say."""

import string
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.autoscaling.external.selector import (
    InvalidSelector,
    Operator,
    Requirement,
    Selector,
    parse,
)

WORDS = st.sampled_from(
    ["in", "notin", "exists", "a", "B", "x-1", "v1.2_3", "0", "7", "42", "bert", "resnet"]
)
KEYS = WORDS | st.builds("{}/{}".format, st.sampled_from(["slipway.dev", "a.b-c"]), WORDS)
VALUES = WORDS | st.just("")
NUMBERS = st.integers(min_value=0, max_value=2**63 - 1).map(str)
LABELS = st.dictionaries(KEYS, VALUES | NUMBERS | st.just("-3"), max_size=5)


def _requirement(operator: Operator) -> st.SearchStrategy[Requirement]:
    match operator:
        case Operator.EXISTS | Operator.ABSENT:
            values: st.SearchStrategy[tuple[str, ...]] = st.just(())
        case Operator.GREATER | Operator.LESS:
            values = st.tuples(NUMBERS)
        case _:
            values = st.frozensets(VALUES, min_size=1, max_size=4).map(lambda found: tuple(sorted(found)))
    return st.builds(Requirement, key=KEYS, operator=st.just(operator), values=values)


REQUIREMENTS = st.sampled_from(Operator).flatmap(_requirement)
SELECTORS = st.lists(REQUIREMENTS, max_size=4).map(lambda found: Selector(tuple(found)))


@given(selector=SELECTORS)
def test_what_is_written_is_read_back(selector: Selector) -> None:
    assert parse(str(selector)) == selector


@given(selector=SELECTORS, blanks=st.data())
def test_blanks_between_words_mean_nothing(selector: Selector, blanks: st.DataObject) -> None:
    def blank() -> str:
        return blanks.draw(st.text(" \t\r\n", max_size=2))

    symbols = ("==", "!=", "=", "!", "(", ")", ",", "<", ">")
    text, at = "", 0
    written = str(selector)
    while at < len(written):
        symbol = next((one for one in symbols if written.startswith(one, at)), "")
        text += blank() + symbol + blank() if symbol else written[at]
        at += len(symbol) or 1
    assert parse(blank() + text + blank()) == selector


def reference(selector: Selector, labels: Mapping[str, str]) -> bool:
    """By sets of the whole numbers and words that each requirement allows, the missing label being one of them."""
    for one in selector.requirements:
        has = {labels[one.key]} if one.key in labels else set()
        named = set(one.values)
        allowed = {
            Operator.IN: bool(has & named),
            Operator.NOT_IN: not (has & named),
            Operator.EXISTS: has != set(),
            Operator.ABSENT: has == set(),
        }
        if one.operator in allowed:
            if not allowed[one.operator]:
                return False
            continue
        numbers = [int(value) for value in has if value and set(value.lstrip("-")) <= set(string.digits)]
        bound = int(one.values[0])
        above = any(number > bound for number in numbers)
        below = any(number < bound for number in numbers)
        if not (above if one.operator is Operator.GREATER else below):
            return False
    return True


@given(selector=SELECTORS, labels=LABELS)
def test_it_matches_what_a_plain_reading_of_it_matches(selector: Selector, labels: dict[str, str]) -> None:
    assert selector.matches(labels) is reference(selector, labels)


@given(text=st.text(max_size=30) | st.text("abin ot=!()<>,1/", max_size=20))
def test_whatever_is_sent_is_read_or_refused_with_a_sentence(text: str) -> None:
    try:
        read = parse(text)
    except InvalidSelector as refused:
        sentence = str(refused)
    else:
        sentence = "."
        assert parse(str(read)) == read
    assert sentence.endswith(".")
    assert sentence.isprintable()


BERT = {"deployment": "bert", "team": "search", "tier": "3"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        (" ", True),
        ("deployment=bert", True),
        ("deployment==bert", True),
        ("deployment=resnet", False),
        ("deployment in (bert,resnet)", True),
        ("deployment in (bert, resnet)", True),
        ("deployment notin (bert)", False),
        ("deployment!=resnet", True),
        ("canary!=yes", True),
        ("canary notin (yes,no)", True),
        ("canary", False),
        ("!canary", True),
        ("! canary", True),
        ("team,!canary,tier>2,tier<4", True),
        ("tier>3", False),
        ("deployment>1", False),
        ("deployment=", False),
        ("canary=", False),
        ("team=search,deployment in (resnet)", False),
        ("deployment in (,bert)", True),
    ],
)
def test_selectors_as_autoscalers_send_them(text: str, matches: bool) -> None:
    assert parse(text).matches(BERT) is matches


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("x in (in,notin)", {"in", "notin"}),
        ("in in (in)", {"in"}),
        ("notin=in", {"in"}),
        ("x=", {""}),
        ("x=,y", {""}),
        ("x in (,)", {""}),
        ("x in (,a)", {"", "a"}),
        ("x in (a,)", {"a", ""}),
        ("x in (a,,b)", {"a", "", "b"}),
        ("x in (a,a)", {"a"}),
    ],
)
def test_words_of_the_grammar_and_empty_places_are_values(text: str, values: set[str]) -> None:
    assert set(parse(text).requirements[0].values) == values


@pytest.mark.parametrize(
    "text",
    [
        *(",", "a,", "a,,b", "=b", "a=b=c", "a!", "!", "!!a", "!a=b", "a b", "a=b c", "a=(b)", "(a)"),
        *("a in", "a in b", "a in ()", "a in (b", "a in (b c)", "a in (b))", "a in (=)", "a in (b,,)"),
        *("a in (,,)", "a notin", "a>", "a>b", "a>=1", "a<<1", "a>9223372036854775808", "a===b"),
        *(
            "-a=b",
            "a-=b",
            "a/b/c",
            "/a",
            "A.B/c=d",
            "a=-b",
            "a=b/c",
            "a=é",
            "é",
            f"{'a' * 64}",
            f"a={'b' * 64}",
        ),
        f"{'a' * 254}/b",
    ],
)
def test_what_kubernetes_refuses_is_refused(text: str) -> None:
    with pytest.raises(InvalidSelector, match=r"^The label selector “"):
        parse(text)


def test_a_refusal_says_where_the_selector_stops_making_sense() -> None:
    with pytest.raises(InvalidSelector, match=r"it has the end where “\(” is expected"):
        parse("deployment in")
    with pytest.raises(InvalidSelector, match="“tier>” needs a whole number"):
        parse("tier>high")
