"""Where the product is asked, where it listens, and the names under which it answers."""

import pytest

from controlplane.embedded.errors import SetupError
from controlplane.embedded.preflight import wanted
from controlplane.settings.environment import METRICS_ADDRESS, read_environment

CERTIFICATE = {"SLIPWAY_METRICS_CERT": "tls.crt", "SLIPWAY_METRICS_KEY": "tls.key"}


@pytest.mark.parametrize(
    ("address", "host", "bind"),
    [
        ("127.0.0.1:8400", "127.0.0.1", {"127.0.0.1"}),
        ("localhost:8400", "localhost", {"127.0.0.1", "::1"}),
        ("0.0.0.0:8400", "127.0.0.1", {"0.0.0.0"}),
        ("[::]:8400", "::1", {"::"}),
    ],
)
def test_it_is_asked_where_the_operator_said_or_on_this_machine(
    address: str, host: str, bind: set[str]
) -> None:
    found = wanted({"SLIPWAY_ADDRESS": address})
    assert found.host == host
    assert found.bind in bind
    assert found.is_everywhere is (bind <= {"0.0.0.0", "::"})


@pytest.mark.parametrize(
    ("address", "host"),
    [("192.0.2.7:8400", "192.0.2.7"), ("[2001:db8::7]:8400", "[2001:db8::7]"), ("gpu-box:8400", "gpu-box")],
)
def test_it_answers_under_its_own_address_and_under_the_further_names(
    monkeypatch: pytest.MonkeyPatch, address: str, host: str
) -> None:
    monkeypatch.setenv("SLIPWAY_ADDRESS", address)
    monkeypatch.setenv("SLIPWAY_HOSTS", "models.example,ml.example")
    hosts = read_environment().hosts
    assert set(hosts) == {"127.0.0.1", "localhost", "[::1]", host, "models.example", "ml.example"}


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, ""),
        (CERTIFICATE, METRICS_ADDRESS),
        (CERTIFICATE | {"SLIPWAY_METRICS_ADDRESS": "0.0.0.0:9443"}, "0.0.0.0:9443"),
        (CERTIFICATE | {"SLIPWAY_METRICS_ADDRESS": ""}, ""),
    ],
)
def test_autoscalers_are_answered_where_there_is_a_certificate_and_an_address(
    environment: dict[str, str], address: str
) -> None:
    assert wanted(environment).metrics == address


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"SLIPWAY_METRICS_CERT": "tls.crt"}, "half_a_certificate"),
        ({"SLIPWAY_METRICS_KEY": "tls.key"}, "half_a_certificate"),
        (CERTIFICATE | {"SLIPWAY_METRICS_ADDRESS": "8443"}, "bad_metrics_address"),
    ],
)
def test_what_autoscalers_cannot_be_answered_with_is_refused(environment: dict[str, str], code: str) -> None:
    with pytest.raises(SetupError) as refused:
        wanted(environment)
    assert refused.value.code == code


def test_names_of_the_front_proxy_may_be_listed_with_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_METRICS_CLIENT_NAMES", "front-proxy-client, system:auth-proxy,")
    assert read_environment().metrics_client_names == ("front-proxy-client", "system:auth-proxy")
    monkeypatch.setenv("SLIPWAY_METRICS_CLIENT_NAMES", "")
    assert read_environment().metrics_client_names == ()


def test_a_bad_metrics_address_stops_every_process_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_METRICS_ADDRESS", "somewhere")
    with pytest.raises(SystemExit, match=r"SLIPWAY_METRICS_ADDRESS.*Must be HOST:PORT"):
        read_environment()
