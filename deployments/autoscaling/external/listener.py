"""A TLS port whose certificates may be replaced while it serves.

Certificates in a cluster live for days, and a server that must be started anew for each would be an outage of
discovery. New files are taken up by a new listener on the same socket; connections that are open go on as they
are. Refused: changing the context in use, to which trusted authorities can be added but never taken away.
"""

import asyncio
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

log = structlog.get_logger(__name__)

LOOK_S: Final = 10.0

type Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Files in PEM. `client_ca` signs the certificates of clients; without it, none has one that counts."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises OSError (of which ssl.SSLError is one) where a file cannot be read or used.

        A client need not show a certificate, because health is asked without; one that is shown must be good. What
        Python 3.13 checks beyond that is what kube-apiserver does not ask of its own certificates.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_cert_chain(self.certificate, self.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def stamp(self) -> Stamp:
        """Differs once a file was replaced. Raises OSError."""
        files = [path for path in (self.certificate, self.key, self.client_ca) if path is not None]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in (path.stat() for path in files))


@dataclass(kw_only=True, eq=False)
class Listener:
    """Serves what `runner` runs. Close it before the runner."""

    runner: web.AppRunner
    certificates: Certificates
    host: str
    port: int
    """0 takes a free one, and says which once it is open."""
    look_s: float = LOOK_S
    _socket: socket.socket | None = field(default=None, init=False, repr=False)
    _site: web.SockSite | None = field(default=None, init=False, repr=False)
    _stamp: Stamp = field(default=(), init=False, repr=False)

    async def open(self) -> None:
        """Raises OSError where the address is taken or the certificates cannot be used."""
        stamp, context = self.certificates.stamp(), self.certificates.context()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._socket = socket.create_server((self.host, self.port), family=family)
        self.port = self._socket.getsockname()[1]
        await self._serve(context)
        self._stamp = stamp

    async def watch(self) -> None:
        """Looks for new files until it is cancelled."""
        while True:
            await asyncio.sleep(self.look_s)
            await self.renew()

    async def renew(self) -> bool:
        """Takes up files that were replaced; True if so. Those that cannot be used leave everything as it is."""
        try:
            stamp = self.certificates.stamp()
            if stamp == self._stamp:
                return False
            context = self.certificates.context()
        except OSError as error:  # half of them is written; the next look may find all
            log.warning("certificates_not_renewed", cause=str(error))
            return False
        before = self._site
        await self._serve(context)
        if before is not None:
            await before.stop()
        self._stamp = stamp
        log.info("certificates_renewed")
        return True

    async def close(self) -> None:
        """Takes no new connections."""
        if self._site is not None:
            await self._site.stop()
        if self._socket is not None:
            self._socket.close()

    async def _serve(self, context: ssl.SSLContext) -> None:
        assert self._socket is not None
        self._site = web.SockSite(self.runner, self._socket.dup(), ssl_context=context)
        await self._site.start()
