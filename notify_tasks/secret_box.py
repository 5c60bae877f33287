"""Encrypts what is secret before it is stored: Fernet (github.com/fernet/spec), under the setting `secret_key`.

The first key encrypts, and all of them decrypt, so that a key can be changed while the fleet runs.
"""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class CannotOpen(Exception):
    """What is stored was encrypted under a key that is not set here."""


class SecretBox:
    """Encrypts and decrypts.

    Args:
        keys: of the setting `secret_key`, with a space between, checked there.
    """

    def __init__(self, keys: str) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys.split()])

    def __repr__(self) -> str:
        return "<SecretBox>"

    def close(self, secret: str) -> bytes:
        """Encrypt."""
        return self._fernet.encrypt(secret.encode())

    def open(self, stored: bytes) -> str:
        """Decrypt.

        Raises:
            CannotOpen: no key fits.
        """
        try:
            return self._fernet.decrypt(stored).decode()
        except InvalidToken:
            raise CannotOpen from None

    def again(self, stored: bytes) -> bytes:
        """Encrypt under the first key what any of them has encrypted.

        Raises:
            CannotOpen: no key fits.
        """
        try:
            return self._fernet.rotate(stored)
        except InvalidToken:
            raise CannotOpen from None
