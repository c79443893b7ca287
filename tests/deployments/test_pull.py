"""How pods get their variants: the real fetcher, as a process, against the product's own addresses."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from controlplane.core import storage
from controlplane.registry.models import Artifact
from deployments import pulls, services
from deployments.models import Deployment
from deployments.stacks import fetch as fetcher
from deployments.targets.kubernetes.opening import pull_token
from tests.deployments.world import World

pytestmark = pytest.mark.django_db(transaction=True)
BYTES = b"a whole variant, " * 40_000
SHA256 = hashlib.sha256(BYTES).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Ended:
    code: int
    lines: list[dict[str, Any]]
    text: str

    @property
    def sentence(self) -> str:
        return str(self.lines[-1]["error"])


def fetch(address: str, path: Path, *, token: str = "t", **environment: str) -> Ended:
    """The process that the init container runs, without site-packages."""
    file = path.parent / "the-token"
    file.write_text(token)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "deployments.stacks.fetch", address, str(path)],
        cwd=settings.BASE_DIR,
        env={"PATH": os.environ["PATH"], "SLIPWAY_PULL_TOKEN_FILE": str(file)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stdout
    return Ended(
        code=done.returncode,
        lines=[json.loads(line) for line in done.stderr.splitlines()],
        text=done.stderr,
    )


def body(answer: Any) -> bytes:
    found = b"".join(answer)
    answer.close()
    return found


@pytest.fixture
def sha256(world: World) -> str:
    """Of the variant that the world's deployment has a revision of."""
    return world.revision().variant.artifact.sha256


@pytest.fixture
def token(world: World) -> str:
    return pull_token(world.row.key)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models" / "the-variant"


def left(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir() if one.name != "the-token")


def test_a_pod_gets_its_variant_and_the_second_start_finds_it_there(
    live_server: Any, sha256: str, token: str, path: Path
) -> None:
    address = f"{live_server.url}/pull/{sha256}/"
    first = fetch(address, path, token=token)
    assert first.code == 0, first.text
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert [line["event"] for line in first.lines] == ["fetched"]
    assert left(path) == [path.name]
    again = fetch(address, path, token="not asked for any more")
    assert (again.code, [line["event"] for line in again.lines]) == (0, ["already there"])
    path.write_bytes(b"something else")
    mended = fetch(address, path, token=token)
    assert [line["event"] for line in mended.lines] == ["other bytes are there", "fetched"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def test_neither_token_nor_signature_is_ever_logged(
    live_server: Any, sha256: str, token: str, path: Path
) -> None:
    for address in (f"{live_server.url}/pull/{sha256}/", f"{live_server.url}/pull/{'0' * 64}/"):
        assert token not in (said := fetch(address, path, token=token).text)
        assert "signature" not in said


@pytest.mark.parametrize(
    "whose", ["nobody's", "another deployment's", "of one that is being removed", "stale"]
)
def test_a_stranger_is_told_the_same_whatever_is_there(
    live_server: Any, world: World, sha256: str, token: str, path: Path, whose: str
) -> None:
    other, _ = services.create_deployment(world.owner, name="other", target=world.row.target)
    match whose:
        case "nobody's":
            token = f"{world.row.key}:made-up"
        case "another deployment's":
            token = pull_token(other.key)
        case "of one that is being removed":
            Deployment.objects.filter(pk=world.row.pk).update(removing=True)
        case "stale":
            token = pull_token("d999999999")
    ended = fetch(f"{live_server.url}/pull/{sha256}/", path, token=token)
    assert ended.code == fetcher.REFUSED
    assert "answered 404: There is nothing here." in ended.sentence
    unknown = fetch(f"{live_server.url}/pull/{'0' * 64}/", path, token=token)
    assert ended.sentence.replace(sha256, "") == unknown.sentence.replace("0" * 64, "")
    assert left(path) == []


def test_a_pull_needs_a_token_and_is_a_problem_document_without(world: World, sha256: str) -> None:
    answer = Client().get(f"/pull/{sha256}/")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    person = world.browser(world.owner).get(f"/pull/{sha256}/")
    assert person.status_code == 404, "who is logged in is no deployment"


def test_a_signed_address_is_good_for_minutes_and_for_its_own_bytes(
    world: World, sha256: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = world.revision().variant.artifact.sha256
    answer = Client().get(f"/pull/{sha256}/", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer["Cache-Control"]) == (302, "no-store")
    address = answer["Location"]
    assert body(Client().get(address)) == storage.path(sha256).read_bytes()
    assert Client().get(address.replace(sha256, other)).status_code == 403
    assert Client().get(address.partition("?")[0]).status_code == 403
    monkeypatch.setattr(pulls, "GOOD_FOR_S", -1)
    expired = Client().get(address)
    assert (expired.status_code, expired.json()["code"]) == (403, "signature_expired")


@pytest.mark.parametrize("known", [True, False])
def test_damaged_bytes_are_never_served(
    live_server: Any, world: World, sha256: str, token: str, path: Path, known: bool
) -> None:
    """Whether it was known before, or is seen only when somebody fetches them."""
    if known:
        Artifact.objects.filter(sha256=sha256).update(state=Artifact.State.DAMAGED)
    else:
        stored = storage.path(sha256)
        stored.chmod(0o600)
        stored.write_bytes(b"rotten")
    ended = fetch(f"{live_server.url}/pull/{sha256}/", path, token=token)
    assert ended.code == fetcher.REFUSED
    assert "answered 409: The stored bytes of" in ended.sentence
    assert "no longer have their digest. Upload the file again" in ended.sentence
    assert Artifact.objects.get(sha256=sha256).state == Artifact.State.DAMAGED
    assert left(path) == []


def test_the_rest_can_be_had_from_the_middle(world: World, sha256: str, token: str) -> None:
    address = Client().get(f"/pull/{sha256}/", headers={"Authorization": f"Bearer {token}"})["Location"]
    whole = body(Client().get(address))
    rest = Client().get(address, headers={"Range": "bytes=3-"})
    assert (rest.status_code, body(rest)) == (206, whole[3:])
    assert rest["Content-Range"] == f"bytes 3-{len(whole) - 1}/{len(whole)}"
    assert rest["Content-Length"] == str(len(whole) - 3)
    for odd in ("bytes=0-1", f"bytes={len(whole)}-", "bytes=-5", "lines=1-"):
        answer = Client().get(address, headers={"Range": odd})
        assert (answer.status_code, body(answer)) == (200, whole), odd


# What lies between a pod and Slipway


@dataclass
class Between:
    """A server that answers what it is told; `asked` are path, Range and Authorization of what it was asked."""

    url: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    pull: Callable[[int], tuple[int, dict[str, str]]] = lambda number: (302, {})
    content: Callable[[int, int], tuple[int, dict[str, str], bytes]] = lambda number, start: (
        206 if start else 200,
        {"Content-Range": f"bytes {start}-{len(BYTES) - 1}/{len(BYTES)}"} if start else {},
        BYTES[start:],
    )

    def count(self, path: str) -> int:
        return sum(one[0].startswith(path) for one in self.asked)


@contextmanager
def between() -> Iterator[Between]:
    told = Between()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            begin = self.headers.get("Range", "")
            told.asked.append((self.path, begin, self.headers.get("Authorization", "")))
            if self.path.startswith("/pull/"):
                status, headers = told.pull(told.count("/pull/"))
                body = b""
            else:
                start = int(begin.removeprefix("bytes=").removesuffix("-") or 0)
                status, headers, body = told.content(told.count("/bytes"), start)
            self.send_response(status)
            length = {"Content-Length": str(len(body))}
            location = {"Location": f"{told.url}/bytes?signature=s"} if status == 302 else {}
            for name, value in (length | location | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield told
        server.shutdown()
        thread.join()


@pytest.fixture
def told() -> Iterator[Between]:
    with between() as one:
        yield one


@pytest.mark.django_db(transaction=False)
class TestBetween:
    def test_a_connection_that_drops_is_taken_up_where_it_ended(self, told: Between, path: Path) -> None:
        whole = told.content

        def cut(number: int, start: int) -> tuple[int, dict[str, str], bytes]:
            status, headers, body = whole(number, start)
            return (
                status,
                headers | {"Content-Length": str(len(body))},
                body[: 100_000 if number < 3 else None],
            )

        told.content = cut
        ended = fetch(f"{told.url}/pull/{SHA256}/", path)
        assert ended.code == 0, ended.text
        assert path.read_bytes() == BYTES
        assert [one[1] for one in told.asked if one[0].startswith("/bytes")] == [
            "", "bytes=100000-", "bytes=200000-",
        ]  # fmt: skip
        assert [line["event"] for line in ended.lines] == ["will try again", "will try again", "fetched"]

    def test_the_token_goes_to_slipway_alone(self, told: Between, path: Path) -> None:
        with between() as elsewhere:
            told.pull = lambda number: (302, {"Location": f"{elsewhere.url}/bytes?signature=s"})
            assert fetch(f"{told.url}/pull/{SHA256}/", path, token="secret").code == 0
        assert [one[2] for one in told.asked] == ["Bearer secret"]
        assert [one[2] for one in elsewhere.asked] == [""]

    def test_other_bytes_are_not_kept(self, told: Between, path: Path) -> None:
        told.content = lambda number, start: (200, {}, b"tampered")
        ended = fetch(f"{told.url}/pull/{SHA256}/", path)
        assert (ended.code, left(path)) == (fetcher.OTHER_BYTES, [])
        assert f"not {SHA256}. Nothing was kept." in ended.sentence

    def test_a_server_that_has_no_time_is_asked_again_when_it_said(self, told: Between, path: Path) -> None:
        told.pull = lambda number: (302, {}) if number == 2 else (429, {"Retry-After": "1"})
        ended = fetch(f"{told.url}/pull/{SHA256}/", path)
        assert (ended.code, told.count("/pull/")) == (0, 2)
        assert [line["in_s"] for line in ended.lines if "in_s" in line] == [1.0]

    def test_it_follows_one_redirect_and_no_more(self, told: Between, path: Path) -> None:
        told.content = lambda number, start: (302, {"Location": "/bytes?again"}, b"")
        ended = fetch(f"{told.url}/pull/{SHA256}/", path)
        assert (ended.code, told.count("/bytes")) == (fetcher.REFUSED, 1)
        assert "leads on to another address" in ended.sentence

    def test_bytes_go_over_https_only(self, told: Between, path: Path) -> None:
        assert "is not https" in fetch(f"http://slipway.example.com/pull/{SHA256}/", path).sentence
        told.pull = lambda number: (302, {"Location": "http://bytes.example.com/?signature=s"})
        ended = fetch(f"{told.url}/pull/{SHA256}/", path)
        assert (ended.code, "http://bytes.example.com/ is not https" in ended.sentence) == (2, True)

    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_a_refusal_ends_it_at_once(self, told: Between, path: Path, status: int) -> None:
        told.pull = lambda number: (status, {})
        ended = fetch(f"{told.url}/pull/{SHA256}/", path)
        assert (ended.code, len(told.asked), len(ended.lines)) == (fetcher.REFUSED, 1, 1)
        assert f"/pull/{SHA256}/ answered {status}." in ended.sentence

    def test_it_gives_up_when_nothing_came_for_minutes(self, told: Between, path: Path) -> None:
        told.pull = lambda number: (503, {})
        now = [0.0]
        pauses: list[float] = []

        def sleep(pause_s: float) -> None:
            pauses.append(pause_s)
            now[0] += pause_s

        wanted = fetcher.Wanted(address=f"{told.url}/pull/{SHA256}/", path=path, sha256=SHA256, token="t")
        with pytest.raises(fetcher.Ended, match=r"answered 503.* Gave up after") as ended:
            fetcher.fetch(wanted, fetcher.opener(), sleep=sleep, clock=lambda: now[0])
        assert ended.value.code == fetcher.GAVE_UP
        assert fetcher.PATIENCE_S - fetcher.LONGEST_WAIT_S < now[0] <= fetcher.PATIENCE_S
        assert max(pauses) <= fetcher.LONGEST_WAIT_S
        assert left(path) == []

    def test_a_full_volume_is_a_sentence(self, told: Between, path: Path) -> None:
        """The system refuses the bytes beyond a limit of the process as it refuses those beyond a disk."""
        token = path.parent / "the-token"
        token.write_text("t")
        code = (
            "import resource, signal, sys, os\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "from deployments.stacks.fetch import main\n"
            "sys.exit(main(sys.argv[1:], os.environ))\n"
        )
        done = subprocess.run(
            [sys.executable, "-S", "-c", code, f"{told.url}/pull/{SHA256}/", str(path)],
            cwd=settings.BASE_DIR,
            env={"SLIPWAY_PULL_TOKEN_FILE": str(token)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == fetcher.NO_ROOM, done.stderr
        assert "There is no room for the variant." in json.loads(done.stderr)["error"]
        assert left(path) == []

    def test_what_pods_that_died_left_on_a_claim_goes_and_what_is_being_written_stays(
        self, told: Between, path: Path
    ) -> None:
        old, new = (path.with_name(f"other.{name}.partial") for name in ("old", "new"))
        old.write_bytes(b"x")
        new.write_bytes(b"x")
        os.utime(old, (1, 1))
        assert fetch(f"{told.url}/pull/{SHA256}/", path).code == 0
        assert left(path) == sorted([path.name, new.name])

    def test_what_it_was_started_with_wrongly_is_said(self, path: Path) -> None:
        assert "There is no token" in fetch("https://slipway.example.com/pull/", path, token=" ").sentence
        assert "is no address to fetch from" in fetch("https://slipway.example.com/pull/x/", path).sentence
        ended = fetch(f"https://127.0.0.1:1/pull/{SHA256}/", path, SLIPWAY_PULL_CA="/nowhere.pem")
        assert (ended.code, ended.sentence[:20]) == (2, "SLIPWAY_PULL_CA name")
