"""Keys of simulated peers: real ed25519 ones, or ones that sign quicker, for thousands of runs."""

from __future__ import annotations

import hashlib

from orderbook.signing.identity import Identity, Signer, verify


class QuickSigner:
    """Signs with a keyed hash: only the world, which knows all secrets, can verify that."""

    def __init__(self, seed: bytes):
        self._seed = seed
        self.key = hashlib.sha256(seed).hexdigest()

    def sign(self, data: bytes) -> str:
        return hashlib.blake2b(data, key=self._seed).hexdigest()


class KeyCeremony:
    """Hands out a key for each name, always the same one, and verifies what they sign."""

    def __init__(self, seed: int, ed25519: bool):
        self._seed = seed
        self._ed25519 = ed25519
        self._signers: dict[str, Signer] = {}
        self._quick: dict[str, QuickSigner] = {}

    def signer(self, name: str) -> Signer:
        """The key of ``name``."""
        if name not in self._signers:
            seed = hashlib.sha256(f"{self._seed} {name}".encode()).digest()
            if self._ed25519:
                self._signers[name] = Identity.from_seed(seed)
            else:
                quick = self._signers[name] = QuickSigner(seed)
                self._quick[quick.key] = quick
        return self._signers[name]

    def verify(self, key: str, data: bytes, signature: str) -> bool:
        """Whether ``signature`` is that of ``data`` under ``key``."""
        if self._ed25519:
            return verify(key, data, signature)
        quick = self._quick.get(key)
        return quick is not None and quick.sign(data) == signature
