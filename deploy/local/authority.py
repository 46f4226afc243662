"""The certificate authority of a mesh without one: it gives every process a certificate, and a new one in time."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.local.state import State, write_private
from shared.rpc.tls import AUTHORITY, CERTIFICATE, KEY
from shared.settings import SERVICES

# Who has a certificate beside the services: Envoy towards them, the edge towards clients, the supervisor that probes.
PARTIES: Final = (*SERVICES, "envoy", "edge", "supervisor")
_OWN: Final = timedelta(days=3650)
_ISSUED: Final = timedelta(days=90)
_RENEWED_BEFORE: Final = timedelta(days=30)
_SKEW: Final = timedelta(minutes=5)
_HOSTS: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Authority:
    """A key and its certificate in a folder, and beside them a folder for each party, as cert-manager would fill it."""

    folder: Path

    @classmethod
    def of(cls, state: State) -> Authority:
        return cls(state.folder / "tls")

    @property
    def certificate(self) -> Path:
        """What clients of the edge must trust."""
        return self.folder / AUTHORITY

    def of_party(self, name: str) -> Path:
        """The folder with its tls.crt, tls.key and ca.crt."""
        return self.folder / name

    def renew(self, now: datetime | None = None) -> list[str]:
        """Issues what is missing or ends within 30 days; says for whom. Files are replaced, each in one step."""
        now = now or datetime.now(UTC)
        if not self.certificate.exists():
            self._begin(now)
        due = [name for name in PARTIES if self._due(name, now)]
        for name in due:
            self.issue(name, (name, *_HOSTS), now=now)
        return due

    def issue(self, name: str, hosts: Sequence[str], *, now: datetime | None = None) -> Path:
        """A certificate for 90 days, for `hosts`, both to serve with and to call with. Returns its folder."""
        now = now or datetime.now(UTC)
        folder, key = self.of_party(name), ec.generate_private_key(ec.SECP256R1())
        folder.mkdir(exist_ok=True)
        ours = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        signer = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), password=None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self.folder / 'ca.key'} is not a key of ours")
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = (
            _described(name, key, issuer=ours.subject, begins=now, ends=now + _ISSUED)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
            .sign(signer, hashes.SHA256())
        )
        write_private(folder / AUTHORITY, self.certificate.read_text())
        write_private(folder / KEY, _pem(key))
        write_private(folder / CERTIFICATE, made.public_bytes(serialization.Encoding.PEM).decode())
        return folder

    def _begin(self, now: datetime) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        name, key = "agentnet's own authority", ec.generate_private_key(ec.SECP256R1())
        made = (
            _described(name, key, issuer=_name(name), begins=now, ends=now + _OWN)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS, critical=True)
            .sign(key, hashes.SHA256())
        )
        write_private(self.folder / "ca.key", _pem(key))
        write_private(self.certificate, made.public_bytes(serialization.Encoding.PEM).decode())

    def _due(self, name: str, now: datetime) -> bool:
        file = self.of_party(name) / CERTIFICATE
        if not file.exists():
            return True
        return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc - now < _RENEWED_BEFORE


_SIGNS: Final = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


def _described(
    name: str, key: ec.EllipticCurvePrivateKey, *, issuer: x509.Name, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, _name(name), key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(begins - _SKEW).not_valid_after(ends)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
