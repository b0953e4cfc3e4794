"""Workers: processes that prepare a piece of work and repeat it on request.

Requests and replies are lines of JSON over the worker's standard input and output:

    {"about": true}                     -> {"versions": {...}, ...} {"prepare": WORK, "options": {...}} -> {}
    {"go": true}                        -> {"seconds": ..., "max_rss_mib": ..., values measured by the work
    itself}

Any reply may also be {"error": "..."}. This module uses only the standard library, so that it runs in the
environment of every contender.
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

# Seconds after which a worker that does not reply is killed.
_TIMEOUT = 900


class WorkerError(Exception):
    """A worker could not be started, failed, or ended; the message is one line."""


def serve(works: Mapping[str, Prepare], about: Callable[[], dict[str, Any]]) -> None:
    """Answers requests until the end of standard input.

    Args:
        works: by name, a function from options to a function that does the work once. Values returned by the
            latter are added to the reply and replace values measured here.
        about: returns the versions and settings of this environment.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Keeps the output of libraries from mixing with the replies.
    repeat: Repeat = _unprepared
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


def _unprepared() -> dict[str, float]:
    raise RuntimeError("no work was prepared.")


def _timed(repeat: Repeat) -> dict[str, float]:
    began = time.perf_counter()
    measured = repeat() or {}
    seconds = time.perf_counter() - began
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "max_rss_mib": peak_kib / 1024, **measured}


class Worker:
    """The client: starts a worker process and sends requests, one at a time. Close it after use."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path):
        """Starts the process.

        Args:
            command: command line.
            environment: all environment variables of the process.
            folder: its working directory.
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
        """Prepares the work; nothing is timed."""
        self._ask({"prepare": work, "options": options})

    def go(self) -> dict[str, float]:
        """Does the work once; returns at least `seconds` and `max_rss_mib`."""
        return self._ask({"go": True})

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise WorkerError("the worker's pipes are not open.")
        watchdog = threading.Timer(_TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
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
