"""Fetches a variant by its digest: `python -m deployments.stacks.fetch ADDRESS PATH`, before a replica starts.

The address is Slipway's, `https://…/pull/<sha256>/`. It is asked with the deployment's own token, and answers with a
short-lived signed address of the bytes, which is asked without it. The bytes are hashed while they come and appear
under PATH whole and verified, or not at all. Exit codes: 0 there, 1 gave up, 2 refused, 3 other bytes, 4 no room.
Refused: anything beyond the standard library, because whatever image a stack brings has to be able to run this; and
the library's own following of redirects, which takes the token along.
"""

import errno
import hashlib
import json
import os
import random
import re
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

GAVE_UP, REFUSED, OTHER_BYTES, NO_ROOM = 1, 2, 3, 4
TOKEN_FILE, CA_FILE = "SLIPWAY_PULL_TOKEN_FILE", "SLIPWAY_PULL_CA"
PATIENCE_S = 300.0
"""Without a byte for so long, it gives up; the cluster starts it again later."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
ANSWER_WITHIN_S = 60.0
STALE_AFTER_S = 3600.0
_CHUNK = 1024**2
_LONGEST_REASON = 64 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ADDRESS = re.compile(r"/pull/([0-9a-f]{64})/$")
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class Ended(Exception):
    """Nothing that waiting would change; the sentence says what would."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Later(Exception):
    """May succeed in a while; `after_s` is what the other side asked for."""

    def __init__(self, sentence: str, *, after_s: float = 0) -> None:
        super().__init__(sentence)
        self.after_s = after_s


@dataclass(frozen=True, kw_only=True)
class Wanted:
    address: str
    path: Path
    sha256: str
    token: str = field(repr=False)


class Part:
    """The bytes so far, beside where they will be: another pod may be writing its own on the same volume."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.{os.uname().nodename}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob("*.partial"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > STALE_AFTER_S:
                    left.unlink()
        self._file = self.path.open("wb")
        self.restart()

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.size_bytes, self._digest = 0, hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        with _room():
            self._file.write(chunk)
        self._digest.update(chunk)
        self.size_bytes += len(chunk)

    def keep(self, wanted: Wanted) -> None:
        """Whole, on disk, and only then under its name."""
        found = self._digest.hexdigest()
        if found != wanted.sha256:
            raise Ended(
                OTHER_BYTES,
                f"The bytes that came have the digest {found}, not {wanted.sha256}. Nothing was kept. Something "
                "between here and Slipway changes them.",
            )
        with _room():
            self._file.flush()
            os.fsync(self._file.fileno())
        self.path.replace(wanted.path)
        folder = os.open(wanted.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def close(self) -> None:
        """Takes away what was not kept."""
        with suppress(OSError):  # a full disk refuses the last bytes once more
            self._file.close()
        self.path.unlink(missing_ok=True)


class _room:
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise Ended(
                NO_ROOM,
                "There is no room for the variant. Give the volume, or the node's ephemeral storage, more.",
            ) from error


class _NotFollowed(HTTPRedirectHandler):
    """A redirect is an answer."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        return fp

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def opener(ca_file: str = "") -> OpenerDirector:
    """Trusts the system's authorities, or those of `ca_file` alone."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise Ended(
            REFUSED, f"{CA_FILE} names {ca_file}, which cannot be read: {error.strerror or error}."
        ) from error
    return build_opener(_NotFollowed, HTTPSHandler(context=context))


def fetch(
    wanted: Wanted,
    ask: OpenerDirector,
    *,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """The bytes under `wanted.path`, verified. Raises Ended."""
    if _is_there(wanted):
        say("info", "already there", path=str(wanted.path), sha256=wanted.sha256)
        return
    with _room():
        part = Part(wanted.path)
    try:
        _until_whole(wanted, ask, part, sleep=sleep, clock=clock)
        part.keep(wanted)
    finally:
        part.close()
    say("info", "fetched", path=str(wanted.path), sha256=wanted.sha256, size_bytes=part.size_bytes)


def _until_whole(
    wanted: Wanted,
    ask: OpenerDirector,
    part: Part,
    *,
    sleep: Callable[[float], object],
    clock: Callable[[], float],
) -> None:
    """Every attempt asks for an address anew, and goes on where the last one ended."""
    progressed, wait_s, attempt = clock(), FIRST_WAIT_S, 0
    while True:
        before, attempt = part.size_bytes, attempt + 1
        try:
            return _attempt(wanted, ask, part)
        except Later as error:
            if part.size_bytes > before:
                progressed, wait_s = clock(), FIRST_WAIT_S
            pause_s = max(error.after_s, wait_s * random.uniform(0.5, 1))  # noqa: S311 - spreads, hides nothing
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            if clock() + pause_s - progressed > PATIENCE_S:
                raise Ended(GAVE_UP, f"{error} Gave up after {attempt} attempts.") from error
            say(
                "warning",
                "will try again",
                attempt=attempt,
                reason=str(error),
                in_s=round(pause_s, 1),
                size_bytes=part.size_bytes,
            )
            sleep(pause_s)


def _attempt(wanted: Wanted, ask: OpenerDirector, part: Part) -> None:
    signed = _signed_address(wanted, ask)
    headers = {"Range": f"bytes={part.size_bytes}-"} if part.size_bytes else {}
    with _answer(ask, signed, headers) as answer:
        if answer.status not in (200, 206):
            raise Ended(REFUSED, f"{shown(signed)} leads on to another address, which is not followed.")
        going_on = str(answer.headers.get("Content-Range", "")).startswith(f"bytes {part.size_bytes}-")
        if not (answer.status == 206 and going_on):
            part.restart()
        if answer.status == 206 and not going_on:
            raise Later(f"{shown(signed)} did not go on where the last connection ended.")
        _read(answer, part, signed)


def _read(answer: Any, part: Part, address: str) -> None:
    length, before = answer.headers.get("Content-Length"), part.size_bytes
    while chunk := _chunk(answer, address):
        part.add(chunk)
    if length is not None and part.size_bytes - before < int(length):
        raise Later(f"{shown(address)} ended early.")


def _chunk(answer: Any, address: str) -> bytes:
    try:
        return bytes(answer.read(_CHUNK))
    except (OSError, HTTPException) as error:
        raise Later(f"{shown(address)} broke off: {error or type(error).__name__}.") from error


def _signed_address(wanted: Wanted, ask: OpenerDirector) -> str:
    with _answer(ask, wanted.address, {"Authorization": f"Bearer {wanted.token}"}) as answer:
        location = answer.headers.get("Location")
        if answer.status not in (301, 302, 303, 307, 308) or not location:
            raise Ended(
                REFUSED, f"{shown(wanted.address)} answered {answer.status} and no address of the bytes."
            )
    return urljoin(wanted.address, str(location))


def _answer(ask: OpenerDirector, address: str, headers: Mapping[str, str]) -> Any:
    """The open answer, 2xx or 3xx. Raises Ended or Later."""
    _refuse_unsafe(address)
    try:
        return ask.open(Request(address, headers=dict(headers)), timeout=ANSWER_WITHIN_S)  # noqa: S310 - checked
    except HTTPError as error:
        with error:
            said = f"{shown(address)} answered {error.code}{_reason(error)}"
            if error.code == 429 or error.code >= 500:
                raise Later(said, after_s=_retry_after_s(error)) from error
            raise Ended(REFUSED, said) from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Ended(
                REFUSED,
                f"The certificate of {shown(address)} is not trusted: {reason.verify_message}. {CA_FILE} can name a "
                "file of authorities.",
            ) from error
        raise Later(f"{shown(address)} cannot be reached: {reason or type(reason).__name__}.") from error


def _refuse_unsafe(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise Ended(REFUSED, f"{shown(address)} is not https, and a token is sent to nothing else.")


def _reason(error: HTTPError) -> str:
    """What Slipway says of it, where it does."""
    try:
        problem = json.loads(error.read(_LONGEST_REASON))
        return f": {problem['title']} {problem['detail']}"
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return "."


def _retry_after_s(error: HTTPError) -> float:
    text = str(error.headers.get("Retry-After", ""))
    return float(text) if text.isascii() and text.isdecimal() else 0


def _is_there(wanted: Wanted) -> bool:
    try:
        with wanted.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return False
    if found != wanted.sha256:
        say("warning", "other bytes are there", path=str(wanted.path), sha256=found)
    return found == wanted.sha256


def shown(address: str) -> str:
    """Without its query: that is a signature."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def say(level: str, event: str, **fields: Any) -> None:
    """A line as the replica writes them."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    print(json.dumps({"at": f"{at}Z", "level": level, "event": event} | fields), file=sys.stderr, flush=True)


def _wanted(arguments: list[str], environment: Mapping[str, str]) -> Wanted:
    if len(arguments) != 2:
        raise Ended(REFUSED, "Give the address to fetch from and the path to write to.")
    name = environment.get(TOKEN_FILE, "")
    try:
        token = Path(name).read_text().strip() if name else ""
    except OSError as error:
        raise Ended(REFUSED, f"{TOKEN_FILE} names {name}, which cannot be read: {error.strerror}.") from error
    if not token:
        raise Ended(REFUSED, f"There is no token: {TOKEN_FILE} must name a file that has one.")
    found = _ADDRESS.search(urlsplit(arguments[0]).path)
    if found is None:
        raise Ended(
            REFUSED, f"{shown(arguments[0])} is no address to fetch from: it ends in /pull/<sha256>/."
        )
    return Wanted(address=arguments[0], path=Path(arguments[1]), sha256=found[1], token=token)


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    try:
        wanted = _wanted(arguments, environment)
        fetch(wanted, opener(environment.get(CA_FILE, "")))
    except Ended as error:
        say("error", "cannot fetch", error=str(error))
        return error.code
    except OSError as error:
        say("error", "cannot fetch", error=f"{error.filename or 'A file'}: {error.strerror or error}.")
        return GAVE_UP
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
