"""One segment of a run, between two checkpoints, run again and compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hsw.errors import HswError
from hsw.rerun.again import again, place_of, run_until
from hsw.rerun.compare import differences, digest, figures
from hsw.rerun.history import History, Kept, read_rows
from hsw.run.checkpoint import list_checkpoints, load_newest, read_meta, read_state

_MOST = 20  # differences that are told of each segment
_NOT_COMPARED = ("logger",)  # its sizes and times


@dataclass
class Segment:
    """What lies between two checkpoints, and what came of running it again.

    Attributes:
        begin, end: The checkpoints; None is the run's start, and its last row.
        result: same, different, or not run.
        why: It was not run.
        differences: What is not the same, in the order in which it came about: rows, then the state.
        rows: How many were compared.
        numbers: How many the tensors of the state at its end have.
        saved, rerun: Checksums of both states.
    """

    begin: Kept | None
    end: Kept | None
    result: str = "not run"
    why: str | None = None
    differences: list[str] = field(default_factory=list)
    rows: int = 0
    numbers: int = 0
    saved: str | None = None
    rerun: str | None = None

    def __str__(self) -> str:
        begin = str(self.begin) if self.begin else "the start"
        return f"from {begin} to {self.end or 'the last row'}"

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        ends = {
            "from": self.begin and self.begin.path.name,
            "from_step": self.begin.step if self.begin else 0,
            "to": self.end and self.end.path.name,
            "to_step": self.end and self.end.step,
        }
        return {**ends, **{key: value for key, value in asdict(self).items() if key not in ("begin", "end")}}


def segments_of(history: History) -> list[Segment]:
    """All of a run's, in their order."""
    kept = history.kept
    found = [Segment(begin, end) for begin, end in zip([None, *kept[:-1]], kept, strict=True)]
    if history.rows and history.rows[-1][1]["step"] > kept[-1].step:  # it was killed, or trains on
        found.append(Segment(kept[-1], None))
    return found


def run_segment(history: History, segment: Segment) -> None:
    """Run a segment again, and write into it what came of it."""
    if segment.begin is None and segment.end and (why := history.why_not_from_start(segment.end)):
        segment.why = why
        return
    try:
        found = list(_compared(history, segment))
    except HswError as error:
        found = [f"the rerun ended with: {error}"]
    segment.differences = found[:_MOST] + [f"and {len(found) - _MOST} more"] * (len(found) > _MOST)
    segment.result = "different" if found else "same"


def _compared(history: History, segment: Segment) -> Iterator[str]:
    end = segment.end
    saved = read_state(end.path)[0] if end else None
    with again(history, segment.begin, history.settings(end)) as (agent, folder):
        last = end.step if end else history.rows[-1][1]["step"]
        place = place_of(saved) if saved is not None else None

        def here() -> bool:
            if agent.step < last or (place is None and agent.step == last):
                return False
            return agent.step > last or place_of(agent.state_dict()) == place

        reached = run_until(agent, here)
        rows = [row for _, row in read_rows(folder)[0] if row["step"] <= last]
        rerun = load_newest(folder / "checkpoints").state
        yield from _rows_compared(history, segment, rows)
        if end is None or saved is None:
            return
        yield from _best_compared(history, folder)
        for state in (saved, rerun):
            for key in _NOT_COMPARED:
                state.pop(key, None)
        if end.meta.get("built_from") is None:  # an older hsw saved fewer keys
            rerun = {key: rerun.get(key) for key in saved}
        if place_of(rerun) != place:
            came = "stops at" if reached else "ends at"
            where = f"it {came} step {rerun['step']:,}, in other episodes"
            yield f"the rerun does not come to where {end} was taken: {where}"
        segment.saved, segment.rerun, segment.numbers = digest(saved), digest(rerun), _count(saved)
        for difference in differences(saved, rerun):
            yield f"{end}: {difference}"


def _rows_compared(history: History, segment: Segment, rows: list[dict[str, Any]]) -> Iterator[str]:
    """What differs between the rerun's rows and those of the file that are of the segment."""
    begin, end = segment.begin.step if segment.begin else -1, segment.end.step if segment.end else 2**62
    numbered = [(number, row) for number, row in history.rows if begin <= row["step"] <= end]
    # Rows of the steps at both ends may be of the segments beside this one: the rerun tells how many are its own.
    at_begin = sum(row["step"] == begin for row in rows)
    at_end = sum(row["step"] == end for row in rows) if end > begin else 0
    first = [pair for pair in numbered if pair[1]["step"] == begin]
    last = [pair for pair in numbered if pair[1]["step"] == end and end > begin]
    inner = [pair for pair in numbered if begin < pair[1]["step"] < end]
    saved = [*(first[-at_begin:] if at_begin else []), *inner, *last[:at_end]]
    segment.rows = len(saved)
    rows = rows if segment.end else rows[: len(saved)]  # a killed run may not have logged all of its last step
    while saved or rows:
        if not saved or (rows and saved[0][1]["step"] > rows[0]["step"]):
            yield f"a row of step {rows.pop(0)['step']:,} comes out of the rerun, and metrics.jsonl has none"
            continue
        number, row = saved.pop(0)
        name = f"row {number} of metrics.jsonl (step {row['step']:,})"
        if not rows or row["step"] < rows[0]["step"]:
            yield f"{name} does not come out of the rerun"
            continue
        told = [str(difference) for difference in differences(figures(row), figures(rows.pop(0)))]
        if told:
            yield f"{name}: {', '.join(told[:3])}{f', and {len(told) - 3} more' if len(told) > 3 else ''}"


def _best_compared(history: History, folder: Path) -> Iterator[str]:
    """What differs in the networks of the best evaluation, if it was one of this segment's."""
    places = [history.folder / "best", folder / "best"]
    numbers = [list_checkpoints(place) for place in places]
    if not all(numbers):
        return
    paths = [place / f"{found[-1]:06d}" for place, found in zip(places, numbers, strict=True)]
    metas = [read_meta(path) for path in paths]
    if metas[0].get("step") == metas[1].get("step"):
        pair = [{**read_state(path)[0], "score": meta.get("score")} for path, meta in zip(paths, metas, strict=True)]
        for difference in differences(pair[0], pair[1]):
            yield f"best (step {metas[0]['step']:,}): {difference}"


def _count(state: Any) -> int:
    if isinstance(state, dict):
        return sum(map(_count, state.values()))
    return sum(map(_count, state)) if isinstance(state, list) else state.numel() if hasattr(state, "numel") else 0
