"""`manage.py hpa_replay FILE...`: do we decide what a recorded HorizontalPodAutoscaler decided?

Exists so that anyone can put their own cluster's recording against the formula that the product explains
decisions with. Refused: a summary that hides a sync; one that differs is printed with its inputs, and the
exit status is 1.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from deployments.domain.hpa import InvalidHpa
from deployments.domain.hpa.replay import Disagreement, NotATrace, Result, read_recording, replay

type Write = Callable[[str], object]


class Command(BaseCommand):
    help = "Replays recorded HPA decisions through the autoscaler's formula and says where they differ."
    # Reads files and nothing else: a broken database or setting must not be in the way.
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "files", nargs="+", metavar="FILE", help="a recording: hpa_spec and syncs as JSON"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not replay_files([Path(name) for name in options["files"]], write=self.stdout.write):
            raise SystemExit(1)


def replay_files(paths: Sequence[Path], *, write: Write) -> bool:
    """Replays every file, prints what came out, and says whether all of it agreed.

    A JSON list (a log of events beside the recordings) is skipped and named. A file that cannot be read or
    is no recording is named too and makes the answer False, as does having replayed nothing.
    """
    results: list[Result] = []
    refused = 0
    for path in paths:
        try:
            document = _load(path)
            if isinstance(document, list):
                write(f"{path}: skipped, it holds a list (events?), not a recorded HPA.")
                continue
            result = replay(read_recording(document))
        except (NotATrace, InvalidHpa) as unusable:
            write(f"{path}: not replayed: {unusable}")
            refused += 1
            continue
        results.append(result)
        for line in _lines(path, result):
            write(line)
    decisions = sum(result.decisions for result in results)
    agreeing = sum(result.agreeing for result in results)
    write(f"{agreeing} of {decisions} decisions agree")
    return decisions > 0 and agreeing == decisions and not refused


def _load(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except OSError as failed:
        raise NotATrace(f"it cannot be read ({failed.strerror or failed}).") from None
    except ValueError as failed:
        raise NotATrace(f"it is not JSON ({failed}).") from None
    except RecursionError:
        raise NotATrace("it is nested too deeply to be a recording.") from None


def _lines(path: Path, result: Result) -> Iterator[str]:
    late = f" ({result.read_late} recorded after the controller's write)" if result.read_late else ""
    yield f"{path}: {result.agreeing} of {result.decisions} decisions agree{late}"
    for differing in result.disagreements:
        yield from _differing_lines(differing)


def _differing_lines(differing: Disagreement) -> Iterator[str]:
    yield f"  t={differing.t_s:g} s"
    yield f"    expected {_words(differing.expected)}"
    yield f"    got      {_words(differing.got)}"
    yield f"    inputs   {_words(differing.inputs)}"
    yield f"    we say   {differing.sentence}"


def _words(values: object) -> str:
    return json.dumps(values, ensure_ascii=False, default=str)
