"""Clocks of hosts that disagree: a span cannot begin before the one that caused it.

Where it does, all spans of its process are moved, by as little as makes every span begin after
its parent. What is moved is measured by a clock that is wrong, so the picture says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairlead_console.spans import Span

Clock = tuple[str, str]
"""Service and instance: processes of one host share a clock, but nobody says which do."""


def clock(span: Span) -> Clock:
    return span.origin.service, span.origin.instance


def corrections(ordered: Iterable[Span], spans: Mapping[str, Span]) -> dict[Clock, int]:
    """By how many ns to move the spans of each process; 0 is left out.

    The process of the first span is right, by definition; each further one, in the order of
    their appearance, is moved as little as those before it allow.

    Args:
        ordered: the spans, parents before their children.
        spans: the same, by id.
    """
    behind: dict[tuple[Clock, Clock], int] = {}  # parent's, child's → at least so much is missing
    moved: dict[Clock, int] = {}
    for span in ordered:
        mine = clock(span)
        moved.setdefault(mine, 0)
        parent = spans.get(span.parent)
        if parent is not None and clock(parent) != mine:
            pair = clock(parent), mine
            missing = parent.start - span.start
            behind[pair] = max(behind.get(pair, missing), missing)
    if all(missing <= 0 for missing in behind.values()):
        return {}
    settled: dict[Clock, int] = {}
    for mine in moved:
        settled[mine] = _least(mine, settled, behind) if settled else 0
    return {mine: by for mine, by in settled.items() if by}


def _least(
    mine: Clock, settled: Mapping[Clock, int], behind: Mapping[tuple[Clock, Clock], int]
) -> int:
    """The smallest move after which this clock's spans agree with those that are settled."""
    pairs = behind.items()
    after = [settled[p] + missing for (p, c), missing in pairs if c == mine and p in settled]
    before = [settled[c] - missing for (p, c), missing in pairs if p == mine and c in settled]
    move = min([0, *before])
    # Last, since a child before its parent is what nobody can read.
    return max([move, *after])
