"""What a check has found, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hsw.errors import EnvError
from hsw.output import one_line

Subject = Literal["environment", "agent"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        code: Its kind, a name that stays.
        message: What is wrong: where it shows, what was expected, what came.
        advice: What to do.
        place: file:line of the class or method, where it can be told; else empty.
        subject: Whose it is.
        note: It is worth knowing, and nothing is wrong: it does not count.
    """

    code: str
    message: str
    advice: str
    place: str = ""
    subject: Subject = "environment"
    note: bool = False


@dataclass
class Report:
    """All that was found.

    Attributes:
        findings: In the order in which they were found; of one kind at one place the first.
        passed: The names of the checks that found nothing.
        skipped: Why a check was not made, by its name.
        figures: Measured numbers by name.
    """

    findings: list[Finding] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def add(self, found: Iterable[Finding]) -> bool:
        """Take findings up; whether any of them is one that was not known."""
        known = {(one.code, one.place) for one in self.findings}
        new = [one for one in found if (one.code, one.place) not in known]
        unique = {(one.code, one.place): one for one in reversed(new)}
        self.findings += [one for one in new if unique[one.code, one.place] is one]
        return bool(new)

    def checked(self, name: str, found: Iterable[Finding]) -> None:
        """Take up what one check has found."""
        found = list(found)
        self.add(found)
        if not any(not one.note for one in found):
            self.passed.append(name)

    def merge(self, other: Report) -> None:
        """Take up another report."""
        self.add(other.findings)
        self.passed += other.passed
        self.skipped.update(other.skipped)
        self.figures.update(other.figures)

    @property
    def faults(self) -> list[Finding]:
        """The findings that count."""
        return [one for one in self.findings if not one.note]

    @property
    def exit_code(self) -> int:
        """0 where nothing is wrong, the code of a broken contract for an environment's faults, else 1."""
        if any(one.subject == "environment" for one in self.faults):
            return EnvError.exit_code
        return 1 if self.faults else 0

    def as_json(self, seconds: float) -> dict[str, Any]:
        """For machines."""
        return {
            "findings": [asdict(one) for one in self.faults],
            "notes": [asdict(one) for one in self.findings if one.note],
            "passed": self.passed,
            "skipped": self.skipped,
            "figures": self.figures,
            "seconds": round(seconds, 1),
            "exit_code": self.exit_code,
        }

    def as_text(self, seconds: float) -> str:
        """For people: a paragraph for each finding."""
        lines = [line for one in sorted(self.findings, key=lambda one: one.note) for line in _paragraph(one)]
        lines += [f"skipped  {name}: {one_line(why)}" for name, why in self.skipped.items()]
        if self.figures:
            lines.append("figures  " + " · ".join(f"{name} {value:,.4g}" for name, value in self.figures.items()))
        if self.passed:
            lines.append(f"passed   {', '.join(self.passed)}")
        count = len(self.faults)
        lines.append(f"{count or 'nothing'} found in {seconds:.0f} s")
        return "\n".join(lines)


def _paragraph(one: Finding) -> list[str]:
    head = f"{'note' if one.note else 'FOUND':8} {one.code}{f'  {one.place}' if one.place else ''}"
    return [head, f"         {one_line(one.message)}", f"         {one_line(one.advice)}"]
