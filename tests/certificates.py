"""A throw-away certificate authority for one test run: of a cluster, of its front proxy, of what serves it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVING = "slipway-metrics.slipway.svc"
FRONT_PROXY = "front-proxy-client"
_CLIENT, _SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
_PEM = serialization.Encoding.PEM
_MAY_SIGN = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=True, content_commitment=False,
    key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
    decipher_only=False,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, kw_only=True)
class Authority:
    """What it signs lies in the folder as NAME.crt and NAME.key, beside its own ca.crt."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    folder: Path

    @classmethod
    def make(cls, folder: Path, *, called: str) -> Self:
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(called)
        own = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_MAY_SIGN, critical=True)
        )
        (folder / "ca.crt").write_bytes(own.sign(key, hashes.SHA256()).public_bytes(_PEM))
        return cls(name=name, key=key, folder=folder)

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def serving(self, name: str = SERVING, *, file: str = "tls") -> Pair:
        """As Python's own clients want it."""
        return self._sign(_name(name), [_SERVER], self._hosts([name]), self._signer(), file=file)

    def client(self, name: str) -> Pair:
        """With nothing but what kube-apiserver asks of its front proxy."""
        return self._sign(_name(name), [_CLIENT], file=name)

    def both(self, name: str, *, hosts: tuple[str, ...] = ()) -> Pair:
        """One that serves under `hosts`, names or addresses, and shows itself as `name`."""
        named = [self._hosts(hosts)] if hosts else []
        return self._sign(_name(name), [_CLIENT, _SERVER], self._signer(), *named, file=name)

    def _hosts(self, hosts: Iterable[str]) -> x509.SubjectAlternativeName:
        return x509.SubjectAlternativeName([_host(host) for host in hosts])

    def _signer(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())

    def _sign(
        self,
        subject: x509.Name,
        usages: list[x509.ObjectIdentifier],
        *extensions: x509.ExtensionType,
        file: str,
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(subject, self.name, key.public_key())
        for extension in (x509.ExtendedKeyUsage(usages), *extensions):
            made = made.add_extension(extension, critical=False)
        pair = Pair(certificate=self.folder / f"{file}.crt", key=self.folder / f"{file}.key")
        pair.certificate.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(_PEM))
        # kube-apiserver reads a service account's key in the traditional form alone.
        pair.key.write_bytes(
            key.private_bytes(
                _PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
        return pair


def _name(called: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
    )
