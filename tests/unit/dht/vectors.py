"""What was recorded from Node Grapes: data/node_vectors.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "node_vectors.json").read_text())
