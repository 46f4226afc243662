"""Mutual TLS between the processes of a mesh: what one shows and whom it trusts, from files that may be replaced."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from shared.log import log

# As cert-manager names them in a secret.
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
AUTHORITY: Final = "ca.crt"
_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Material:
    """PEM: a chain, its private key, and the authorities a peer's chain must end in."""

    certificate: bytes
    key: bytes
    authority: bytes

    @classmethod
    def read(cls, folder: Path) -> Material:
        """Raises OSError, and ValueError when the key is not the certificate's."""
        found = cls(*((folder / name).read_bytes() for name in (CERTIFICATE, KEY, AUTHORITY)))
        load_pem_x509_certificate(found.authority)
        ours = load_pem_x509_certificate(found.certificate).public_key()
        if load_pem_private_key(found.key, password=None).public_key() != ours:
            raise ValueError(f"{folder / KEY} is not the key of {folder / CERTIFICATE}")
        return found


class Certificates:
    """The files of a folder, read anew when they were replaced. Half a replacement is waited out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._marks()
        self._looked = time.monotonic()
        self.material = Material.read(folder)

    def renewed(self) -> bool:
        """Whether `material` is another than before the call; the files are looked at once a second at most."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        try:
            marks = self._marks()
            if marks == self._seen:
                return False
            self.material = Material.read(self._folder)
        except (OSError, ValueError) as error:
            log.warning("tls.unreadable", folder=str(self._folder), error=str(error))
            return False
        self._seen = marks
        log.info("tls.renewed", folder=str(self._folder))
        return True

    def _marks(self) -> tuple[tuple[int, int], ...]:
        stats = [(self._folder / name).stat() for name in (CERTIFICATE, KEY, AUTHORITY)]
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)


def server_credentials(folder: Path) -> grpc.ServerCredentials:
    """Only peers that show a certificate of the same authority are served; each handshake has the newest files.

    Raises OSError and ValueError when the files are not there or not a pair.
    """
    certificates = Certificates(folder)

    def newest() -> grpc.ServerCertificateConfiguration | None:
        return _configuration(certificates.material) if certificates.renewed() else None

    first = _configuration(certificates.material)
    # None means that what was last given still holds; its types do not know.
    return grpc.dynamic_ssl_server_credentials(first, newest, require_client_authentication=True)  # type: ignore[arg-type]


def server_context(folder: Path) -> ssl.SSLContext:
    """The same for servers of asyncio: each handshake has the newest files. Raises OSError and ValueError."""
    certificates, newest = Certificates(folder), [_context(folder)]

    def replaced(connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        if certificates.renewed():
            newest[0] = _context(folder)
        connection.context = newest[0]

    newest[0].sni_callback = replaced
    return newest[0]


def channel(address: str, folder: Path | None, **more: Any) -> grpc.aio.Channel:
    """To a peer: over mutual TLS with the folder's files as they are now, in the clear without one."""
    if folder is None:
        return grpc.aio.insecure_channel(address, **more)
    return grpc.aio.secure_channel(address, channel_credentials(folder), **more)


def channel_credentials(folder: Path) -> grpc.ChannelCredentials:
    """The folder's files as they are now. Raises OSError and ValueError."""
    own = Material.read(folder)
    return grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)


def renewal(folder: Path) -> Callable[[], bool]:
    """Tells, each time it is asked, whether new channels would show or trust something new."""
    return Certificates(folder).renewed


def _context(folder: Path) -> ssl.SSLContext:
    found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / AUTHORITY))
    found.minimum_version, found.verify_mode = ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED
    found.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    return found


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.authority
    )
