"""The larger parts: what they say, how they are tied together, and that hostile text stays text."""

import json
import shlex
import subprocess
import sys

import pytest
from django import forms
from django.http import HttpRequest
from django.template import Context, Template
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from controlplane.ui.templatetags import components

HOSTILE = '"><script>alert(1)</script>'


def render(source: str, /, **values: object) -> str:
    return Template("{% load presentation components %}" + source).render(Context(values))


def request(path: str = "/", host: str = "slipway.test:8400") -> HttpRequest:
    return RequestFactory().get(path, headers={"host": host})


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=12) | st.integers() | st.none(), max_size=4))
def test_the_curl_line_says_exactly_the_body_after_a_shell_has_read_it(body: dict[str, object]) -> None:
    line = components.curl(method="POST", url="http://h/api/v1/jobs/", body=body)
    words = shlex.split(line.replace("\\\n", " "))
    assert words[:3] == ["curl", "-X", "POST"]
    assert words[3] == "http://h/api/v1/jobs/"
    assert json.loads(words[words.index("-d") + 1]) == body


def test_the_curl_line_takes_the_token_from_the_environment() -> None:
    assert '"Authorization: Bearer $SLIPWAY_TOKEN"' in components.curl(method="GET", url="http://h/")


def test_an_upload_is_streamed_by_both_snippets() -> None:
    line = components.curl(method="PUT", url="http://h/v", upload="my model.onnx")
    assert shlex.split(line.replace("\\\n", " "))[-2:] == ["-T", "my model.onnx"]
    assert "open('my model.onnx', 'rb')" in components.python(
        method="PUT", url="http://h/v", upload="my model.onnx"
    )


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=3))
def test_the_python_snippet_is_python(body: dict[str, str]) -> None:
    compile(components.python(method="POST", url="http://h/", body=body), "snippet", "exec")


def test_both_snippets_carry_what_was_seen_and_read_only_what_is_answered() -> None:
    line = components.curl(method="POST", url="http://h/", body={}, etag="a1")
    assert 'If-Match: "a1"' in shlex.split(line.replace("\\\n", " "))
    source = components.python(method="POST", url="http://h/", body={}, etag="a1")
    compile(source, "snippet", "exec")
    assert """"If-Match": '"a1"'""" in source
    assert "json.load(" not in components.python(method="DELETE", url="http://h/"), "204 has no body"


def test_the_python_snippet_needs_only_the_standard_library() -> None:
    source = components.python(method="GET", url="http://h/").replace("print(", "(lambda _: None)(") + "\n"
    head = source.split("request = ")[0]
    subprocess.run([sys.executable, "-I", "-S", "-c", head], check=True, timeout=20)


def test_the_panel_speaks_with_the_readers_own_address() -> None:
    page = render(
        '{% api_panel "POST" "/api/v1/jobs/" body=body %}', request=request(host="127.0.0.1:8400"), body={}
    )
    assert "http://127.0.0.1:8400/api/v1/jobs/" in page


def test_a_live_part_asks_again_on_its_ticks_and_after_a_gap() -> None:
    html = components.live("job:12, jobs", "/jobs/12/", select="job")
    assert (
        'hx-trigger="live:job:12 from:document throttle:300ms, live:jobs from:document throttle:300ms, '
        in html
    )
    assert 'live:resync from:document"' in html
    assert 'hx-swap="outerMorph"' in html
    assert 'hx-select="#job"' in html
    assert 'live:resync from:document, every 15s"' in components.live("job:12", every="15s")


def test_hostile_text_cannot_leave_an_attribute() -> None:
    assert HOSTILE not in components.live("job:1", HOSTILE)
    assert HOSTILE not in render("{% confirm_name name %}", name=HOSTILE)
    assert HOSTILE not in render("{% snippet text title=text %}", text=HOSTILE)
    assert HOSTILE not in render("{% panel title=text %}{{ text }}{% endpanel %}", text=HOSTILE)
    assert HOSTILE not in render('{% dialog "d" title=text %}{{ text }}{% enddialog %}', text=HOSTILE)


class NameForm(forms.Form):
    name = forms.CharField(help_text="Small letters.", max_length=5)
    notes = forms.CharField(required=False)
    secret = forms.CharField(widget=forms.HiddenInput, required=False)

    def clean(self) -> None:
        if self.data.get("notes") == "both":
            raise forms.ValidationError("These two do not go together.")


def test_a_field_is_tied_to_its_label_help_and_error() -> None:
    page = render("{% fields form %}", form=NameForm({"name": "too long a name"}))
    assert '<label for="id_name">' in page
    assert 'aria-describedby="id_name_helptext id_name_error"' in page
    assert 'id="id_name_helptext"' in page
    assert 'id="id_name_error"' in page
    assert 'aria-invalid="true"' in page
    assert page.count(">optional<") == 1


def test_errors_are_summarised_with_links_to_their_fields() -> None:
    page = render("{% error_summary form %}", form=NameForm({"name": "too long a name", "notes": "both"}))
    assert '<a href="#id_name">Name</a>' in page
    assert "These two do not go together." in page
    assert 'role="alert"' in page


def test_without_errors_there_is_no_summary() -> None:
    assert render("{% error_summary form %}", form=NameForm()).strip() == ""


@pytest.mark.parametrize(
    ("path", "label"),
    [("/models/magika/3/", "Models"), ("/jobs/12/", "Jobs"), ("/", "Overview"), ("/account/login/", "")],
)
def test_the_rail_marks_where_the_reader_is(path: str, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"ui:overview": "/", "registry:models": "/models/", "optimizer:jobs": "/jobs/"}
    monkeypatch.setattr(components, "_address", lambda name: addresses.get(name, ""))
    places = components.rail(Context({"request": request(path)}))["places"]
    assert [place["label"] for place in places if place["current"]] == ([label] if label else [])


def test_a_missing_address_does_not_take_the_frame_down() -> None:
    assert components.link("nowhere:at-all") == ""
