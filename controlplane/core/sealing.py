"""Secrets of users at rest: sealed with the installation's key, opened only where they are used.

Fernet (AES-128-CBC with HMAC-SHA256) under a key derived from SLIPWAY_SECRET_KEY; a copy of the database alone opens
nothing. Refused: storing them as they are because “the database is private”: backups travel.
"""

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from controlplane.core.errors import Conflict


def seal(text: str) -> bytes:
    return _box().encrypt(text.encode())


def opened(sealed: bytes) -> str:
    """Raises Conflict("secret_unreadable") where it was sealed under a key that is no longer known."""
    try:
        return _box().decrypt(sealed).decode()
    except InvalidToken as error:
        raise Conflict(
            "secret_unreadable",
            "A stored secret cannot be opened any more.",
            "SLIPWAY_SECRET_KEY is another one than when it was stored. Enter the secret again.",
        ) from error


def _box() -> MultiFernet:
    """The first key seals; earlier ones still open."""
    return MultiFernet(
        [_fernet(key) for key in (settings.SECRET_KEY, *getattr(settings, "SECRET_KEY_FALLBACKS", []))]
    )


def _fernet(key: str) -> Fernet:
    derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"slipway sealing").derive(
        key.encode()
    )
    return Fernet(base64.urlsafe_b64encode(derived))
