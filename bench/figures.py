"""What is measured, what is wanted of it, and how runs become one figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Target:
    """What the figure is to be: `>=` or `<=` a value in the figure's unit."""

    relation: Literal[">=", "<="]
    value: float

    def reached(self, found: float) -> bool:
        return found >= self.value if self.relation == ">=" else found <= self.value


@dataclass(frozen=True)
class Spec:
    """A figure before it is measured.

    Attributes:
        key: its name in a `Sample` and in the JSON.
        unit: of its value and of its target.
        target: None where it is only reported.
    """

    key: str
    unit: str
    target: Target | None = None


@dataclass
class Sample:
    """What one run of a benchmark found.

    Attributes:
        values, ceilings: by the key of a `Spec`; a ceiling is the generator's own figure
            against a trivial peer, and not every figure has one.
        problems: what was not delivered, or not in order; empty if the run is complete.
    """

    values: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Figure:
    """A figure after all runs."""

    spec: Spec
    values: tuple[float, ...]
    ceilings: tuple[float, ...]

    @property
    def median(self) -> float | None:
        """None if no run has it."""
        return statistics.median(self.values) if self.values else None

    @property
    def ceiling(self) -> float | None:
        return statistics.median(self.ceilings) if self.ceilings else None

    @property
    def reached(self) -> bool | None:
        """None if nothing was wanted, or nothing found."""
        if self.spec.target is None or self.median is None:
            return None
        return self.spec.target.reached(self.median)


@dataclass(frozen=True)
class Outcome:
    """A benchmark after all runs."""

    name: str
    figures: tuple[Figure, ...]
    problems: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every run delivered everything, in order, and gave every figure."""
        return not self.problems and all(figure.values for figure in self.figures)


def outcome(name: str, specs: Sequence[Spec], samples: Sequence[Sample]) -> Outcome:
    """Put the runs of a benchmark together."""
    figures = tuple(
        Figure(
            spec,
            tuple(each.values[spec.key] for each in samples if spec.key in each.values),
            tuple(each.ceilings[spec.key] for each in samples if spec.key in each.ceilings),
        )
        for spec in specs
    )
    return Outcome(name, figures, tuple(problem for each in samples for problem in each.problems))
