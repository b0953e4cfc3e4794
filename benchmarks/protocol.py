"""Workers: processes that prepare a piece of work, then repeat it as often as they are told.

Requests and replies are lines of JSON over the worker's standard input and output:

    {"about": true}                     -> {"versions": {...}, ...}
    {"prepare": WORK, "options": {...}} -> {}
    {"go": true}                        -> {"seconds": ..., "max_rss_mib": ..., what the work measures itself}

Any of them may be answered by {"error": "..."}. Only the standard library is used: every environment has it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

Repeat = Callable[[], Optional[dict[str, float]]]
Prepare = Callable[[dict[str, Any]], Repeat]

# Seconds after which a silent worker is taken for hung.
_PATIENCE = 900


class WorkerError(Exception):
    """A worker could not be started, failed at its work, or ended; the message is one line."""


def serve(works: Mapping[str, Prepare], about: Callable[[], dict[str, Any]]) -> None:
    """Answers requests until standard input ends.

    Args:
        works: by name, options -> a function that does the work once. What it
            returns goes into the reply and takes precedence over the time measured here.
        about: what to say of the versions and settings used.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What libraries print must not stand between the replies.
    repeat: Optional[Repeat] = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "about" in request:
                reply = about()
            elif "prepare" in request:
                repeat, reply = works[request["prepare"]](request["options"]), {}
            else:
                reply = _timed(repeat)
        except Exception as error:
            traceback.print_exc()
            reply = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        replies.write(json.dumps(reply) + "\n")


def _timed(repeat: Repeat) -> dict[str, float]:
    began = time.perf_counter()
    measured = repeat() or {}
    seconds = time.perf_counter() - began
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "max_rss_mib": peak_kib / 1024, **measured}


class Worker:
    """The other end: starts a worker and asks it, one request at a time. Close it after use."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path):
        """
        Args:
            command: what to run.
            environment: the whole environment of the process.
            folder: where it runs.
            log: file for its standard error.

        Raises:
            WorkerError: the command cannot be started.
        """
        self._log = log
        try:
            with open(log, "w") as errors:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                    cwd=folder,
                    text=True,
                )
        except OSError as error:
            raise WorkerError(f"{command[0]}: {error.strerror}") from None

    def about(self) -> dict[str, Any]:
        """The worker's versions and settings."""
        return self._ask({"about": True})

    def prepare(self, work: str, options: Mapping[str, Any]) -> None:
        """Builds what the work needs; nothing is timed."""
        self._ask({"prepare": work, "options": options})

    def go(self) -> dict[str, float]:
        """Does the work once: at least `seconds` and `max_rss_mib`."""
        return self._ask({"go": True})

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        hung = threading.Timer(_PATIENCE, self._process.kill)
        hung.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            hung.cancel()
        if not line:
            raise WorkerError(self._last_words())
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def _last_words(self) -> str:
        status = self._process.wait()
        lines = self._log.read_text(errors="replace").splitlines()
        return f"worker ended with status {status}: {lines[-1] if lines else 'it said nothing'}"
