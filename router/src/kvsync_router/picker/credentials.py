"""The certificate with which the picker serves: a pair of files, or a self-signed one that is made at start.

Gateways do not verify the certificate of a picker by default, so a self-signed one protects against being overheard
and against nothing else.
"""

import datetime as dt
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kvsync_router.errors import RouterConfigError

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
VALID_FOR: Final = dt.timedelta(days=3650)


def self_signed(now: dt.datetime) -> tuple[bytes, bytes]:
    """(key, certificate) in PEM, valid from an hour before `now`, so that clocks may differ."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kvsync-epp")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + VALID_FOR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return secret, certificate.public_bytes(pem)


class CertificateFolder:
    """The files `tls.crt` and `tls.key` of a folder, which are read again when they change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp = self._stamps()

    def _stamps(self) -> tuple[int, ...]:
        return tuple((self._folder / name).stat().st_mtime_ns for name in (CERTIFICATE, KEY))

    def read(self) -> tuple[bytes, bytes]:
        """(key, certificate). Raises OSError."""
        self._stamp = self._stamps()
        return (self._folder / KEY).read_bytes(), (self._folder / CERTIFICATE).read_bytes()

    def changed(self) -> tuple[bytes, bytes] | None:
        """The pair if the files have changed and can be read, else None."""
        try:
            return None if self._stamps() == self._stamp else self.read()
        except OSError:
            return None


def server_credentials(folder: Path | None) -> Any:  # noqa: ANN401
    """Credentials of a gRPC server. Raises RouterConfigError for files that cannot be used."""
    if folder is None:
        pair = self_signed(dt.datetime.now(dt.UTC))
        return grpc.ssl_server_credentials([pair])
    try:
        files = CertificateFolder(folder)
        key, certificate = files.read()
        belongs = _belong_together(key, certificate)
    except OSError as error:
        raise RouterConfigError(f"--cert-path {folder}: {error.filename or folder}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise RouterConfigError(f"--cert-path {folder}: {KEY} or {CERTIFICATE} is not PEM") from None
    if not belongs:
        raise RouterConfigError(f"--cert-path {folder}: {KEY} is not the key of {CERTIFICATE}")

    def renewed() -> Any:  # noqa: ANN401
        pair = files.changed()
        return None if pair is None else grpc.ssl_server_certificate_configuration([pair])

    first = grpc.ssl_server_certificate_configuration([(key, certificate)])
    return grpc.dynamic_ssl_server_credentials(first, renewed, require_client_authentication=False)


def _belong_together(key: bytes, certificate: bytes) -> bool:
    """Whether the key is that of the certificate; gRPC itself would tell nobody. Raises ValueError or TypeError."""
    loaded = serialization.load_pem_private_key(key, password=None)
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    named = x509.load_pem_x509_certificate(certificate).public_key()
    return named.public_bytes(*form) == loaded.public_key().public_bytes(*form)
