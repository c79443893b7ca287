"""Where the node keeps things, and what it is told by its environment.

The node reads its own environment: it runs without Django, so the project's typed settings are out of reach.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
# A Unix socket's address has room for 107 bytes on Linux.
_LONGEST_SOCKET_PATH = 107


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """`url` is "unix:/path" or "http://host:port"; the latter asks for `token` on every request.

    `stop_s` is how long stopping everything may take. `toolchains` is the folder of the environments that some formats
    are served from.
    """

    home: Path
    toolchains: Path = REPOSITORY / ".slipway" / "toolchains"
    data_host: str = "127.0.0.1"
    data_port: int = 8410
    url: str = ""
    token: str = ""
    proxy: str = "envoy"
    stop_s: float = 7

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "NodeSettings":
        """Raises SystemExit with a sentence for a value that cannot be used."""
        home = Path(environ.get("SLIPWAY_HOME") or REPOSITORY / ".slipway").resolve()
        settings = cls(
            home=home,
            toolchains=Path(environ.get("SLIPWAY_TOOLCHAINS") or cls.toolchains).resolve(),
            data_host=environ.get("SLIPWAY_DATA_HOST", "127.0.0.1"),
            data_port=_port(environ.get("SLIPWAY_DATA_PORT", "8410")),
            url=environ.get("SLIPWAY_NODE_URL", ""),
            token=environ.get("SLIPWAY_NODE_TOKEN", ""),
            proxy=environ.get("SLIPWAY_PROXY", "envoy"),
        )
        for path in (settings.socket, settings.admin_socket):
            if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
                raise SystemExit(
                    f"{path} is too long for a socket. Choose a shorter SLIPWAY_HOME, or name a shorter socket in "
                    "SLIPWAY_NODE_URL (unix:/path)."
                )
        if settings.url.startswith("http") and not settings.token:
            raise SystemExit("SLIPWAY_NODE_URL is a network address, so SLIPWAY_NODE_TOKEN must be set too.")
        return settings

    @property
    def socket(self) -> Path:
        return (
            Path(self.url.removeprefix("unix:")) if self.url.startswith("unix:") else self.run / "node.sock"
        )

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def admin_socket(self) -> Path:
        """Beside the node's own, which may lie elsewhere because the home's path is too long for a socket."""
        return self.socket.with_name("node-proxy.sock")

    @property
    def state(self) -> Path:
        return self.home / "node"

    @property
    def asked_host(self) -> str:
        """Where the proxy is asked: all interfaces together are no address."""
        return "127.0.0.1" if self.data_host in ("0.0.0.0", "::") else self.data_host  # noqa: S104

    def address(self, path: str) -> str:
        """The public address of the deployment at `path`."""
        return f"http://{self.asked_host}:{self.data_port}{path}"


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 2**16:
        return int(text)
    raise SystemExit(f"SLIPWAY_DATA_PORT must be a port between 1 and 65535, but is “{text}”.")
