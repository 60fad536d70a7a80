"""Fixtures for all tests."""

from tests.flavours import flavour
from tests.node_grapes import node_grape, node_grapes, node_script

__all__ = ["flavour", "node_grape", "node_grapes", "node_script"]
