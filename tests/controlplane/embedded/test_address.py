"""Where the product is asked, where it listens, and the names under which it answers."""

import pytest

from controlplane.embedded.preflight import wanted
from controlplane.settings.environment import read_environment


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
