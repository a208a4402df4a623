"""Create the certificate with which a node of a Ray cluster authenticates to the others (ADR 0046).

    ray_cluster_tls.py DIR SECRET_FILE

The secret, which all nodes have, gives the key of the cluster's authority: each node derives it, so
no node has to ask another. Writes DIR/ca.pem, the authority; DIR/key.pem and DIR/cert.pem, this
node's own, mode 0600. What is there stays while it is this authority's, names every address of
this machine and is valid for another year. Runs in Ray's container before Ray starts.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import sys
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID
from ray_tls import RENEWED, VALID, addresses, write

#: The order of P-256: a private key is a number from 1 to one less.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
PURPOSE = b"celray: the key of a Ray cluster's authority"
AUTHORITY, NODE = "celray-ray-cluster", "celray-ray-node"
# What a file that is missing, cut off or another's may raise.
UNUSABLE = (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound)


def authority_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the authority's key: always the same one for a secret."""
    # 128 bits more than the order has, so that every key is as likely as any other.
    derived = HKDF(hashes.SHA256(), 48, None, PURPOSE).derive(secret)
    number = int.from_bytes(derived, "big") % (ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


def named(name: str) -> x509.Name:
    """Return a name of X.509 that has a common name alone."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def sign(
    name: str,
    public: ec.EllipticCurvePublicKey,
    authority: ec.EllipticCurvePrivateKey,
    extension: x509.BasicConstraints | x509.SubjectAlternativeName,
) -> x509.Certificate:
    """Return a certificate that the authority has signed."""
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(AUTHORITY))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # A day in the past, because clocks of several machines differ.
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + VALID)
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .sign(authority, hashes.SHA256())
    )


def remains(certificate: x509.Certificate) -> bool:
    """Return whether a certificate is valid for long enough."""
    return certificate.not_valid_after_utc - dt.datetime.now(dt.UTC) > RENEWED


def is_authority(file: Path, key: ec.EllipticCurvePrivateKey) -> bool:
    """Return whether a file holds the certificate of the authority that has this key."""
    try:
        found = x509.load_pem_x509_certificate(file.read_bytes())
        found.verify_directly_issued_by(found)
    except UNUSABLE:
        return False
    return bool(found.public_key() == key.public_key()) and remains(found)


def is_nodes(cert: Path, key: Path, authority: Path, wanted: set[str]) -> bool:
    """Return whether the existing key and certificate of this node can be used."""
    try:
        found = x509.load_pem_x509_certificate(cert.read_bytes())
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.read_bytes()))
        own = serialization.load_pem_private_key(key.read_bytes(), None)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNUSABLE:
        return False
    held = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return own.public_key() == found.public_key() and wanted <= held and remains(found)


def names_of(wanted: Iterable[str]) -> x509.SubjectAlternativeName:
    """Return the addresses as a certificate names them; gRPC compares them with whom it asks."""
    found: list[x509.GeneralName] = [x509.DNSName("localhost")]
    found += [x509.IPAddress(ipaddress.ip_address(address)) for address in sorted(wanted)]
    return x509.SubjectAlternativeName(found)


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def main(folder: Path, secret: bytes) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    pem = serialization.Encoding.PEM
    ca, cert, key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    authority = authority_key(secret)
    if not is_authority(ca, authority):
        itself = sign(AUTHORITY, authority.public_key(), authority, x509.BasicConstraints(True, 0))
        write(ca, itself.public_bytes(pem))
    wanted = addresses()
    if not is_nodes(cert, key, ca, wanted):
        own = ec.generate_private_key(ec.SECP256R1())
        made = sign(NODE, own.public_key(), authority, names_of(wanted))
        cert.unlink(missing_ok=True)  # never beside another's key
        write(key, pem_of(own))
        write(cert, made.public_bytes(pem))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes().strip())
