"""Write bootstrap files: which records of which volumes a restore job is to read.

Covers: elements for chosen FileIndex ranges of chosen jobs, from the catalog's spans.
Does not cover: choosing the files (receipts), running the restore (director).

What the Storage Daemon does with such a file was measured, and it decides the shape: one element
for each span, since it seeks to the span's start; ranges ascend, or it skips some silently; at most
RANGES_MAX ranges in an element, since it searches them one by one; no Count, since it cuts a
plugin's last record off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bacula_bridge.catalog import JobRow, Span
from bacula_bridge.errors import BootstrapImpossible

RANGES_MAX = 3_000


@dataclass(frozen=True, slots=True)
class Ranges:
    """FileIndexes as inclusive ranges, ascending, apart by more than one."""

    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, indexes: Iterable[int]) -> Ranges:
        """Make ranges of single FileIndexes, in any order."""
        return cls.merged((index, index) for index in indexes)

    @classmethod
    def merged(cls, pairs: Iterable[tuple[int, int]]) -> Ranges:
        """Make ranges of inclusive pairs in any order, joining those that touch."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted(pairs):
            assert 1 <= first <= last, f"not a range of FileIndexes: {first}-{last}"
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(joined[-1][1], last))
            else:
                joined.append((first, last))
        return cls(tuple(joined))

    def count(self) -> int:
        """Return the number of FileIndexes."""
        return sum(last - first + 1 for first, last in self.pairs)


def bootstrap(
    selection: Mapping[int, Ranges],
    jobs: Mapping[int, JobRow],
    spans: Mapping[int, Sequence[Span]],
) -> Iterator[str]:
    """Yield the text of a bootstrap file, piece by piece, in the order of the selection.

    Every FileIndex of the selection is covered, or BootstrapImpossible is raised: a restore would
    say OK without it.
    """
    for job_id, ranges in selection.items():
        if not ranges.pairs:
            continue
        job = jobs.get(job_id)
        if job is None or not job.session_time:
            raise BootstrapImpossible(job_id, "the catalog does not know the job")
        own = spans.get(job_id, ())
        _require_covered(job_id, ranges, own)
        for span in own:
            inside = _clip(ranges.pairs, span.first_index, span.last_index)
            for start in range(0, len(inside), RANGES_MAX):
                yield _element(job, span, inside[start : start + RANGES_MAX])


def _clip(pairs: Sequence[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
    return [
        (max(low, first), min(high, last)) for low, high in pairs if low <= last and high >= first
    ]


def _require_covered(job_id: int, ranges: Ranges, spans: Sequence[Span]) -> None:
    written = Ranges.merged(
        (span.first_index, span.last_index) for span in spans if span.first_index > 0
    )
    held = 0
    for first, last in ranges.pairs:
        held += sum(high - low + 1 for low, high in _clip(written.pairs, first, last))
    if held != ranges.count():
        missing = ranges.count() - held
        raise BootstrapImpossible(job_id, f"{missing} of its files lie on no volume it lists")


def _element(job: JobRow, span: Span, ranges: Sequence[tuple[int, int]]) -> str:
    lines = [
        f'Volume="{span.volume}"',
        f'MediaType="{span.media_type}"',
        f"VolSessionId={job.session_id}",
        f"VolSessionTime={job.session_time}",
        f"VolAddr={span.start_address}-{span.end_address}",
    ]
    lines += [
        f"FileIndex={first}" if first == last else f"FileIndex={first}-{last}"
        for first, last in ranges
    ]
    return "\n".join(lines) + "\n"
