"""A throw-away authority: what a cluster's front proxy and a serving certificate are signed by."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVING = "slipway-metrics.slipway.svc"
FRONT_PROXY = "front-proxy-client"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, kw_only=True)
class Authority:
    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    folder: Path

    @classmethod
    def make(cls, folder: Path, *, called: str) -> Self:
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called)])
        own = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_may_sign(), critical=True)
        )
        (folder / "ca.crt").write_bytes(own.sign(key, hashes.SHA256()).public_bytes(_PEM))
        return cls(name=name, key=key, folder=folder)

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def serving(self, name: str = SERVING, *, file: str = "tls") -> Pair:
        """As Python's own clients want it."""
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return self._sign(name, ExtendedKeyUsageOID.SERVER_AUTH, names, signer, file=file)

    def client(self, name: str) -> Pair:
        """With nothing but what kube-apiserver asks of its front proxy."""
        return self._sign(name, ExtendedKeyUsageOID.CLIENT_AUTH, file=name)

    def _sign(
        self, name: str, usage: x509.ObjectIdentifier, *extensions: x509.ExtensionType, file: str
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = _builder(subject, self.name, key.public_key()).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        for extension in extensions:
            made = made.add_extension(extension, critical=False)
        pair = Pair(certificate=self.folder / f"{file}.crt", key=self.folder / f"{file}.key")
        pair.certificate.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(_PEM))
        pair.key.write_bytes(
            key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return pair


_PEM = serialization.Encoding.PEM


def _may_sign() -> x509.KeyUsage:
    others = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    never = ("key_agreement", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(key_cert_sign=True, **dict.fromkeys((*others, *never), False))


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
        .not_valid_after(now + timedelta(hours=6))
    )
