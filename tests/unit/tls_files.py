"""A throw-away certificate authority with one server and one client certificate, for tests."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class TlsFiles:
    """PEM files."""

    ca_file: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


def make_ca(folder: Path) -> TlsFiles:
    """Write a new authority, and its certificates for the server 127.0.0.1 and a client, into ``folder``."""
    now = datetime.datetime.now(datetime.timezone.utc)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("test ca")

    def certificate(
        common_name: str, key: ec.EllipticCurvePrivateKey, extensions: list[tuple[x509.ExtensionType, bool]]
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(ca_key, hashes.SHA256())

    def write(name: str, data: bytes) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    def write_pair(name: str, extensions: list[tuple[x509.ExtensionType, bool]]) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        signed = certificate(name, key, extensions)
        return (
            write(f"{name}-crt.pem", signed.public_bytes(serialization.Encoding.PEM)),
            write(
                f"{name}-key.pem",
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ),
            ),
        )

    signing = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    authority = (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), False)
    ca = certificate(
        "test ca",
        ca_key,
        [(x509.BasicConstraints(ca=True, path_length=0), True), (signing, True), (ca_id, False)],
    )
    server_cert, server_key = write_pair(
        "server",
        [
            (x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            authority,
        ],
    )
    client_cert, client_key = write_pair(
        "client", [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False), authority]
    )
    return TlsFiles(
        write("ca-crt.pem", ca.public_bytes(serialization.Encoding.PEM)),
        server_cert,
        server_key,
        client_cert,
        client_key,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
