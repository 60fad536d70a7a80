"""Keys, signatures, and the files that keep them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from orderbook.errors import IdentityError, InvalidFieldError
from orderbook.signing.identity import Identity, verify
from orderbook.signing.keyfile import allowed_keys, create_key, kept_key, load_key, new_identity

ALICE = Identity.from_seed(b"a" * 32)
BOB = Identity.from_seed(b"b" * 32)


# -- signatures ------------------------------------------------------------------------------------------


def test_the_second_vector_of_rfc_8032() -> None:
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    identity = Identity.from_seed(seed)
    assert identity.key == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = identity.sign(b"\x72")
    assert signature == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert verify(identity.key, b"\x72", signature)


def test_only_the_same_key_data_and_signature_verify() -> None:
    signature = ALICE.sign(b"data")
    assert verify(ALICE.key, b"data", signature)
    assert not verify(ALICE.key, b"Data", signature)
    assert not verify(BOB.key, b"data", signature)
    assert not verify(ALICE.key, b"data", BOB.sign(b"data"))
    assert not verify(ALICE.key, b"data", signature[:-2])
    assert not verify(ALICE.key, b"data", "not hexadecimal")
    assert not verify("", b"data", signature)


def test_keys_survive_pem_and_other_keys_are_refused() -> None:
    assert Identity.from_pem(ALICE.to_pem()).key == ALICE.key
    other = rsa.generate_private_key(65537, 2048)
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(IdentityError, match="ed25519"):
        Identity.from_pem(pem)
    for junk in (b"", b"no key", ALICE.to_pem()[:60]):
        with pytest.raises(IdentityError, match="PEM"):
            Identity.from_pem(junk)
    with pytest.raises(ValueError, match="32"):
        Identity.from_seed(b"short")
    assert new_identity().key != new_identity().key


# -- files of private keys -------------------------------------------------------------------------------


@pytest.fixture
def careless_umask() -> Iterator[None]:
    """A process whose new files anybody may read and write."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless_umask")
def test_a_new_key_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    identity = create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path).key == identity.key


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    path.write_text("precious")
    with pytest.raises(IdentityError, match="exists already"):
        create_key(path)
    assert path.read_text() == "precious"
    with pytest.raises(IdentityError, match="can't be written: No such file"):
        create_key(tmp_path / "nowhere" / "peer.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o666, 0o601])
def test_a_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "peer.key"
    create_key(path)
    path.chmod(mode)
    with pytest.raises(IdentityError, match=f"mode 0{mode:o}.*run chmod 600 {path}"):
        load_key(path)


def test_what_is_no_key_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    with pytest.raises(IdentityError, match="can't be read: No such file"):
        load_key(path)
    with pytest.raises(IdentityError, match="can't be read: Is a directory"):
        load_key(tmp_path)
    path.write_bytes(b"\xff" * 100_000)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match=f"{path}: no private key in PEM"):
        load_key(path)


def test_a_kept_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "journals" / "peer.key"
    first = kept_key(path)
    assert kept_key(path).key == first.key
    path.chmod(0o644)
    with pytest.raises(IdentityError, match="chmod"):
        kept_key(path)
    with pytest.raises(IdentityError, match="can't hold a key"):
        kept_key(path / "peer.key")


# -- who is allowed --------------------------------------------------------------------------------------


def test_allowed_keys_from_arguments_and_files(tmp_path: Path) -> None:
    path = tmp_path / "friends"
    path.write_text(f"# who may trade\n\n  bob={BOB.key}  # since May\n")
    assert allowed_keys([ALICE.key, str(path)]) == {ALICE.key: None, BOB.key: "bob"}
    assert allowed_keys([ALICE.key, ALICE.key]) == {ALICE.key: None}


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        (["nowhere"], r"a file of those: nowhere: No such file"),
        ([ALICE.key[:-1]], r"must be a key \(64 hexadecimal digits\)"),
        ([ALICE.key.upper()], r"must be a key \(64 hexadecimal digits\)"),
        ([f"a b={ALICE.key}"], r"the name must be 1 to 64 letters"),
        ([f"={ALICE.key}"], r"the name must be 1 to 64 letters"),
        ([f"alice={ALICE.key}", f"al={ALICE.key}"], r"gives key af0.* two names"),
        ([f"alice={ALICE.key}", ALICE.key], r"two names"),
        ([f"alice={ALICE.key}", f"alice={BOB.key}"], r"gives the name alice to two keys"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(entries: list[str], rule: str) -> None:
    with pytest.raises(InvalidFieldError, match=rule) as caught:
        allowed_keys(entries)
    assert caught.value.field == "allow"


def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "friends"
    path.write_text(f"{ALICE.key}\nbob\n")
    with pytest.raises(InvalidFieldError, match=f"{path}, line 2: must be a key"):
        allowed_keys([str(path)])
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidFieldError, match="must be a key"):
        allowed_keys([str(path)])
