"""Fixtures for all tests."""

from tests.flavours import flavour

__all__ = ["flavour"]
