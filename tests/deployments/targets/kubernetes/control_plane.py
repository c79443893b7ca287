"""A real Kubernetes control plane for the tests, where `KUBEBUILDER_ASSETS` names a folder with `kube-apiserver`.

`etcd` comes from that folder or from the path; `kube-controller-manager` and `kube-scheduler` run where the folder
has them. No kubelet: pods stay pending until a test's hands play their status.
"""

import base64
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import urllib3
import yaml

from tests.certificates import FRONT_PROXY, Authority
from tests.deployments.targets.conftest import free_port

STARTS_WITHIN_S = 60
ADMIN_TOKEN = "admin-of-the-test-control-plane"
FLAGS = ("--leader-elect=false", "--v=1")


def assets() -> Path | None:
    named = os.environ.get("KUBEBUILDER_ASSETS")
    folder = Path(named) if named else None
    return folder if folder and (folder / "kube-apiserver").exists() else None


def why_not() -> str:
    """Why no real control plane can run here; empty where one can."""
    folder = assets()
    if folder is None:
        return "KUBEBUILDER_ASSETS names no folder with kube-apiserver"
    return "" if _etcd(folder) else "no etcd beside kube-apiserver or on the path"


def _etcd(folder: Path) -> str | None:
    beside = folder / "etcd"
    return str(beside) if beside.exists() else shutil.which("etcd")


@dataclass
class ControlPlane:
    """Started and stopped by whoever makes it. `kubeconfig()` is an admin's."""

    home: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        folder = assets()
        assert folder is not None, why_not()
        self.folder = folder
        self.port = free_port()
        self.ca = Authority.make(self.home / "ca", called="test-ca")
        self.front_proxy = Authority.make(self.home / "front-proxy", called="front-proxy-ca")

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def full(self) -> bool:
        """With controllers and a scheduler."""
        return all((self.folder / name).exists() for name in ("kube-controller-manager", "kube-scheduler"))

    def start(self) -> None:
        etcd_port, peer_port = free_port(), free_port()
        etcd = _etcd(self.folder)
        assert etcd is not None
        self._run(
            "etcd", etcd, f"--data-dir={self.home}/etcd", f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd_port}", "--unsafe-no-fsync",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}", "--log-level=error",
        )  # fmt: skip
        self._run("kube-apiserver", str(self.folder / "kube-apiserver"), *self._api_server(etcd_port))
        self._await_ready()
        if self.full:
            config = self.home / "admin.yaml"
            config.write_text(self.kubeconfig())
            key = self.home / "ca" / "service-accounts.key"
            self._run(
                "kube-controller-manager", str(self.folder / "kube-controller-manager"), *FLAGS,
                f"--kubeconfig={config}", f"--service-account-private-key-file={key}", "--secure-port=0",
                f"--root-ca-file={self.ca.certificate}", "--use-service-account-credentials=false",
                "--horizontal-pod-autoscaler-sync-period=2s", "--node-monitor-grace-period=3600s",
            )  # fmt: skip
            self._run(
                "kube-scheduler", str(self.folder / "kube-scheduler"), *FLAGS,
                f"--kubeconfig={config}", "--secure-port=0",
            )  # fmt: skip

    def stop(self) -> None:
        for process in reversed(self.running):
            process.kill()
            process.wait()
        self.running.clear()

    def kubeconfig(self, *, token: str = ADMIN_TOKEN, server: str = "", namespace: str = "default") -> str:
        cluster = {
            "server": server or self.url,
            "certificate-authority-data": base64.b64encode(self.ca.certificate.read_bytes()).decode(),
        }
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "admin", "user": {"token": token}}],
                "contexts": [
                    {"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": namespace}}
                ],
                "current-context": "test",
            }
        )

    def _api_server(self, etcd_port: int) -> list[str]:
        serving = self.ca.both(
            "kube-apiserver", hosts=("127.0.0.1", "localhost", "kubernetes.default.svc", "10.0.0.1")
        )
        proxy = self.front_proxy.both(FRONT_PROXY)
        accounts = self.ca.both("service-accounts").key
        tokens = self.home / "tokens.csv"
        tokens.write_text(f"{ADMIN_TOKEN},admin,admin,system:masters\n")
        return [
            f"--etcd-servers=http://127.0.0.1:{etcd_port}", f"--secure-port={self.port}",
            "--bind-address=127.0.0.1", "--service-cluster-ip-range=10.0.0.0/24",
            f"--tls-cert-file={serving.certificate}", f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={self.ca.certificate}", f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC", "--allow-privileged=true", "--enable-aggregator-routing=false",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}", f"--service-account-signing-key-file={accounts}",
            f"--requestheader-client-ca-file={self.front_proxy.certificate}",
            f"--requestheader-allowed-names={FRONT_PROXY}", "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={proxy.certificate}", f"--proxy-client-key-file={proxy.key}",
        ]  # fmt: skip

    def _run(self, name: str, *argv: str) -> None:
        with (self.home / f"{name}.log").open("wb") as log:
            # Ends with the test process, however that ends.
            self.running.append(
                subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=False, preexec_fn=_die_along)
            )

    def _await_ready(self) -> None:
        pool = urllib3.PoolManager(ca_certs=str(self.ca.certificate), retries=False)
        until = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < until:
            assert self.running[-1].poll() is None, (self.home / "kube-apiserver.log").read_text()[-2000:]
            try:
                answer = pool.request(
                    "GET", f"{self.url}/readyz", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=2
                )
                if answer.status == 200:
                    return
            except urllib3.exceptions.HTTPError:
                pass
            time.sleep(0.2)
        raise AssertionError((self.home / "kube-apiserver.log").read_text()[-2000:])


def _die_along() -> None:
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
