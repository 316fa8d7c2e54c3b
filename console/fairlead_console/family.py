"""Spans of one trace as parents and children: always a forest, whatever was sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fairlead_console.spans import Span


class Family:
    """Who is whose child.

    Attributes:
        spans: by id; of equal ids (an exporter that sent twice) the longest.
        roots: those without a parent here, in the order of their start. One that is its own
            ancestor is a root, too, or a circle would hang in the air.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans: dict[str, Span] = {}
        for span in spans:
            known = self.spans.get(span.id)
            if known is None or known.end - known.start < span.end - span.start:
                self.spans[span.id] = span
        self.roots: list[Span] = []
        self._children: dict[str, list[Span]] = {}
        for span in sorted(self.spans.values(), key=_order):
            if span.parent in self.spans and span.parent != span.id:
                self._children.setdefault(span.parent, []).append(span)
            else:
                self.roots.append(span)
        self._open_circles()
        self.roots.sort(key=_order)

    def children(self, span: Span) -> list[Span]:
        """In the order of their start."""
        return self._children.get(span.id, [])

    def ordered(self, roots: Iterable[Span] | None = None) -> Iterator[Span]:
        """All spans, or those below some roots; parents before their children."""
        for root in self.roots if roots is None else roots:
            yield from self._below(root)

    def _below(self, root: Span) -> Iterator[Span]:
        left = [root]
        while left:
            span = left.pop()
            yield span
            left += reversed(self.children(span))

    def _open_circles(self) -> None:
        reached = {span.id for span in self.ordered()}
        for span in sorted(self.spans.values(), key=_order):
            if span.id not in reached:
                self._children[span.parent].remove(span)
                self.roots.append(span)
                reached.update(each.id for each in self._below(span))


def _order(span: Span) -> tuple[int, str, str]:
    return span.start, span.name, span.id
