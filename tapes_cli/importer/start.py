"""How many processes an import takes, and how they share the memory that one would take."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from tapes_cli.capture.detection import is_divisible
from tapes_cli.capture.sources import Source
from tapes_cli.importer.worker import Task, import_alone

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tapes_cli.capture.reader import Options
    from tapes_cli.capture.sources import SourceProblem
    from tapes_cli.importer.lease import Lease
    from tapes_cli.importer.ledger import Ledger
    from tapes_cli.importer.report import Report
    from tapes_cli.importer.run import ImportOptions
    from tapes_cli.importer.stop import StopRequest

MOST_WORKERS = 8
"""So many help at most on one machine: the database has to keep up."""

WORTH_A_WORKER = 16 << 20
"""Bytes of input that outweigh the start of one more process."""

_WORTH_A_WORKER_COMPRESSED = 2 << 20
_LEAST_BATCH_BYTES = 1 << 20


def divisible(sources: Sequence[Source | SourceProblem], options: Options) -> frozenset[int]:
    """Return the numbers of the sources that several workers can share.

    To be asked once a run: who looks again, later, may not see the same.
    """
    return frozenset(
        source.number
        for source in sources
        if isinstance(source, Source) and is_divisible(source, options.format)
    )


def workers_worth(sources: Sequence[Source | SourceProblem], divided: frozenset[int]) -> int:
    """Return how many workers help with these sources on this machine.

    Args:
        sources: all that is imported.
        divided: the numbers of those that the workers share. Of others that are large, each keeps
            one worker busy.
    """
    plain = archives = 0
    for source in sources:
        if not isinstance(source, Source) or source.size is None:
            continue
        if source.number in divided:
            plain += source.left
        else:
            archives += source.size >= _WORTH_A_WORKER_COMPRESSED
    processors = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(MOST_WORKERS, processors, plain // WORTH_A_WORKER + archives))


def import_all(
    task: Task,
    ledger: Ledger,
    stop: StopRequest,
    workers: int | None,
    lease: Lease | None = None,
) -> Report:
    """Import the task's sources with so many workers, or with as many as help.

    Args:
        task: what to import.
        ledger: enters what becomes of each record.
        stop: whether the run is to end.
        workers: how many; None for as many as help.
        lease: is renewed meanwhile.
    """
    if workers == 1:
        return _alone(task, ledger, stop, lease)
    divided = divisible(task.sources, task.options.reading)
    count = workers or workers_worth(task.sources, divided)
    if count > 1 and all(_can_be_shared(source) for source in task.sources):
        task = replace(task, options=_divided(task.options, count), divided=divided)
        from tapes_cli.importer.parallel import ParallelRun  # noqa: PLC0415  # keeps start-up fast

        return ParallelRun(task, count, ledger, stop, lease).run()
    return _alone(task, ledger, stop, lease)


def _alone(task: Task, ledger: Ledger, stop: StopRequest, lease: Lease | None) -> Report:
    with lease.renewed_by_itself() if lease is not None else nullcontext():
        return import_alone(task, ledger, stop)


def _divided(options: ImportOptions, workers: int) -> ImportOptions:
    """Return the options for each of so many workers, which together take no more memory."""
    histories = options.reading.history_bytes // workers
    reading = replace(options.reading, history_bytes=histories)
    batch_bytes = max(options.batch_bytes // workers, _LEAST_BATCH_BYTES)
    return replace(options, reading=reading, batch_bytes=batch_bytes)


def _can_be_shared(source: Source | SourceProblem) -> bool:
    """Whether workers may read it: what comes through a pipe cannot be read again."""
    return not isinstance(source, Source) or source.size is not None


def numbered(sources: Iterable[Source | SourceProblem]) -> list[Source | SourceProblem]:
    """Return the sources with their places among all."""
    return [replace(source, number=number) for number, source in enumerate(sources)]
