"""Certificates as people paste them."""

from cryptography.x509 import load_pem_x509_certificates


def trouble(text: str) -> str:
    """Why these are no certificates in PEM, as a sentence; empty where they are."""
    if "PRIVATE KEY" in text:
        return "This has a private key in it. Give the certificate alone."
    try:
        load_pem_x509_certificates(text.encode())
    except ValueError:
        return "This is no certificate in PEM (-----BEGIN CERTIFICATE-----)."
    return ""
