"""A page of figures in the text format of Prometheus (version 0.0.4). No IO.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labelled = tuple[Mapping[str, str], float]
"""Labels and the value that they are for."""


class Page:
    """Metrics are added one after the other; ``bytes(page)`` is what a scraper gets."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def gauge(self, name: str, text: str, value: float) -> None:
        """What can go up and down, without labels."""
        self.metric(name, "gauge", text, [({}, value)])

    def counter(self, name: str, text: str, value: float) -> None:
        """What only grows, without labels."""
        self.metric(name, "counter", text, [({}, value)])

    def metric(self, name: str, kind: str, text: str, values: Iterable[Labelled]) -> None:
        """One metric with all its values; ``kind`` is ``"gauge"`` or ``"counter"``."""
        self._lines.append(f"# HELP {name} {text}")
        self._lines.append(f"# TYPE {name} {kind}")
        for labels, value in values:
            said = ",".join(f'{label}="{escaped(of)}"' for label, of in labels.items())
            braces = f"{{{said}}}" if said else ""
            self._lines.append(f"{name}{braces} {value:.12g}")

    def __bytes__(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()


def escaped(label: str) -> str:
    """The value of a label, as it stands between quotes."""
    return label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
