"""A pasted kubeconfig is read or refused with a sentence; nothing it names is run, opened, or said again."""

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import InvalidInput
from deployments.targets.kubernetes import kubeconfig
from deployments.targets.kubernetes.api import Api
from tests.deployments.targets.kubernetes import kubeconfigs
from tests.deployments.targets.kubernetes.kubeconfigs import BAD, SERVER, TOKEN


def test_the_current_context_is_taken_unless_another_is_named() -> None:
    found = kubeconfig.read(kubeconfigs.text())
    assert (found.server, found.token, found.namespace, found.context) == (SERVER, TOKEN, "risk", "main")
    several = kubeconfigs.with_contexts("a", "b", "main")
    assert kubeconfig.contexts(several) == ("main", "a", "b")
    assert kubeconfig.read(several).context == "main"
    assert kubeconfig.read(several, context="b").context == "b"


def test_a_certificate_and_its_key_are_taken_and_can_be_loaded(tmp_path: Path) -> None:
    found = kubeconfig.read(kubeconfigs.with_certificate(tmp_path))
    assert not found.token
    Api(found)


def test_a_key_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="do not belong together"):
        kubeconfig.read(kubeconfigs.with_certificate(tmp_path, key_of="other"))


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_is_a_sentence_about_the_field(text: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        kubeconfig.read(text)
    assert sentence in refused.value.detail
    assert refused.value.fields == {"kubeconfig": [refused.value.detail]}
    for secret in (TOKEN, "hunter2", "two words"):
        assert secret not in str(refused.value.problem())


def test_neither_token_nor_key_is_in_what_a_log_would_show(tmp_path: Path) -> None:
    assert TOKEN not in repr(kubeconfig.read(kubeconfigs.text()))
    assert "PRIVATE KEY" not in repr(kubeconfig.read(kubeconfigs.with_certificate(tmp_path)))


def _reads_or_refuses(text: str) -> None:
    with suppress(InvalidInput):
        kubeconfig.contexts(text)
    with suppress(InvalidInput):
        found = kubeconfig.read(text)
        assert found.server.startswith("https://")
        Api(found)


@given(st.text())
def test_no_text_is_more_than_refused(text: str) -> None:
    _reads_or_refuses(text)


@given(st.text(alphabet="{}[]&*!|>-:,#'\"%@` \nabc01clusters"))
def test_nothing_that_looks_like_yaml_is_more_than_refused(text: str) -> None:
    _reads_or_refuses(text)
    _reads_or_refuses(f"clusters: {text}\n{kubeconfigs.text()}")


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates(), st.binary(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        found += _places(one, (*path, key))
    return found


@given(st.sampled_from(_places(kubeconfigs.document())), VALUES)
def test_a_document_with_anything_anywhere_is_read_or_refused(path: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(kubeconfigs.document())
    place: Any = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    try:
        text = yaml.safe_dump(changed)
    except (yaml.YAMLError, UnicodeEncodeError):
        return
    _reads_or_refuses(text)


@given(st.data())
def test_a_good_document_cut_and_pasted_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    text = kubeconfigs.text()
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, len(text)))
    _reads_or_refuses(text[:begin] + data.draw(st.text(max_size=5)) + text[end:])
