"""Locks: one process at a time works in a folder, on any disk, and a crash leaves nothing in the way.

A lock is a small file that tells who holds it. Only one process can make a file that must not be there yet:
this holds on every file system, also on network disks without file locks (Lustre, some NFS) or with locks
that reach one machine only. Whether the holder is still alive is asked of the system where it runs on this
machine. Where it runs on another one, the file's age tells: its holder touches it every few seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from tfmetareg.errors import UserError
from tfmetareg.files import StrPath

RUN_LOCK = "run.lock"
# Seconds between two signs of life, and after how many a holder on another machine counts as gone.
_BEAT_SECONDS, _SILENT_SECONDS = 10.0, 60.0
# Seconds between two looks at a lock that is waited for, and until a line says so.
_LOOK_SECONDS, _PATIENT_SECONDS = 0.1, 2.0
# Seconds within which the holder of an empty lock file writes its name into it.
_WRITING_SECONDS = 1.0
# How often a folder may be gone just after it was made; in some places none can be made.
_MOST_MISSING = 100
# Tokens of the locks that this process holds: one that it failed to remove, it does not hold.
_held: set[str] = set()


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        host: name of its machine.
        pid: its number there.
        began: when it began, in the system's ticks: another process of that number began at another time.
        boot: identifier of the machine's last start.
        namespace: identifier of the container whose process numbers it has.
        since: when it took the lock.
        token: different for each lock that is taken.
    """

    host: str
    pid: int
    began: str
    boot: str
    namespace: str
    since: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class _LockFile(NamedTuple):
    """A lock file as it was read: its text, who that names if it can be read, and when it was touched."""

    text: str
    holder: Optional[Holder]
    touched: float


class Lock:
    """A lock of a folder, or of a part of its content.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, second = (Lock(Path(folder, "run.lock"), "works here", "wait") for _ in range(2))
    ...     with first.held():
    ...         with contextlib.suppress(UserError):
    ...             second.acquire()
    ...         os.listdir(folder)
    ...     os.listdir(folder)
    ['run.lock']
    []
    """

    def __init__(self, path: StrPath, what: str, remedy: str):
        """
        Args:
            path: the lock's file; its folder is made where it is missing.
            what: what the holder does, for the error that names it: "works here".
            remedy: what to do, for the same error.
        """
        self._path = Path(path)
        self._what, self._remedy = what, remedy
        self._released = threading.Event()
        self._made: list[Path] = []

    def acquire(self, *, wait: bool = False) -> None:
        """Takes the lock, for as long as this process lives or until it is released.

        Args:
            wait: waits for another holder to end.

        Raises:
            UserError: another process holds it; names it.
            OSError: the folder cannot be written.
        """
        self._made = [path for path in self._path.parents if not path.exists()]
        holder = _this_process()
        self._own, self._token = json.dumps(dataclasses.asdict(holder)), holder.token
        _held.add(self._token)
        try:
            self._take(wait)
        except BaseException:
            _held.discard(self._token)
            self._remove_made_folders()
            raise
        self._released = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def release(self) -> None:
        """Gives the lock back, and removes the folders that were made for it if they are empty."""
        self._released.set()
        self._keeper.join()
        try:
            with contextlib.suppress(OSError):  # The next process finds that this one has gone.
                kept = _read(self._path)
                if kept and kept.text == self._own:
                    self._path.unlink()
        finally:
            _held.discard(self._token)  # Not before: another thread would take the lock for left behind.
        self._remove_made_folders()

    @contextlib.contextmanager
    def held(self, *, wait: bool = False) -> Iterator[None]:
        """Context in which this process holds the lock; arguments and errors as `acquire`."""
        self.acquire(wait=wait)
        try:
            yield
        finally:
            self.release()

    def _take(self, wait: bool) -> None:
        began, told = time.monotonic(), False
        while other := self._other_holder():
            if not wait:
                raise UserError(f"{self._describe(other)}; {self._remedy}.{_outlook(other)}")
            if not told and time.monotonic() - began > _PATIENT_SECONDS:
                print(f"note: {self._describe(other)}; waiting for it to end.", file=sys.stderr)
                told = True
            time.sleep(_LOOK_SECONDS)

    def _other_holder(self) -> Optional[_LockFile]:
        """The lock of a process that is alive; None once this process has taken the lock."""
        missing = 0
        while True:
            try:
                _make_folder(self._path.parent)
                if _create(self._path, self._own):
                    return None
                found = _read(self._path)
                if found and _is_alive(found, self._path.parent):
                    return found
                if found:
                    _remove(self._path, found)
            except FileNotFoundError:  # A holder that wrote nothing has removed the folder.
                missing += 1
                if missing == _MOST_MISSING:
                    raise

    def _keep(self) -> None:
        """Gives signs of life; stops the program where another process has taken the lock over."""
        while not self._released.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):  # A network disk that is away for a while.
                kept = _read(self._path)
                if kept is None:
                    _create(self._path, self._own)
                elif kept.text == self._own:
                    os.utime(self._path)
                else:
                    print(f"error: {self._describe(kept)}, too; this run stops.", file=sys.stderr)
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

    def _describe(self, lock: _LockFile) -> str:
        since = f" since {lock.holder.since}" if lock.holder else ""
        return f"{self._path.parent}: {lock.holder or 'another process'} {self._what}{since}"

    def _remove_made_folders(self) -> None:
        for path in self._made:
            with contextlib.suppress(OSError):  # Not empty: something has been written.
                path.rmdir()


@contextlib.contextmanager
def run_in(workdir: StrPath, *, wait: bool = False) -> Iterator[None]:
    """Context of the only run in a work directory. Reading what lies there needs no lock.

    Args:
        workdir: the work directory; made where it is missing, and removed again if nothing is written.
        wait: waits for another run to end.

    Raises:
        UserError: another run works there, or the folder cannot be written.
    """
    lock = Lock(
        Path(workdir, RUN_LOCK), "works in it", "wait for it to end, or stop it, or name another --workdir"
    )
    try:
        lock.acquire(wait=wait)
    except OSError as error:
        raise UserError(f"{workdir}: cannot be written ({error.strerror}); name another --workdir.") from None
    try:
        yield
    finally:
        lock.release()


def _this_process() -> Holder:
    began = _began(os.getpid())
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return Holder(
        socket.gethostname(), os.getpid(), began or "", _boot(), _namespace(), since, uuid.uuid4().hex
    )


def _began(pid: int) -> Optional[str]:
    """When a process of this machine began; None where none of that number runs."""
    try:
        # The name, in brackets, may hold anything; behind it the fields from the state, the third, on.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _namespace() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _make_folder(folder: Path) -> None:
    """Makes the folder where it is missing; it may be gone again at the end.

    Raises:
        FileExistsError: something else has its name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise


def _create(path: Path, text: str) -> bool:
    """Makes the lock's file; False where it is there already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError:  # The disk is full.
        path.unlink(missing_ok=True)
        raise
    return True


def _read(path: Path) -> Optional[_LockFile]:
    """The lock's file; None where there is none."""
    until = time.monotonic() + _WRITING_SECONDS
    while True:
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                text, touched = stream.read(), os.fstat(stream.fileno()).st_mtime
        except FileNotFoundError:
            return None
        if text or time.monotonic() > until:
            break
        time.sleep(_LOOK_SECONDS / 10)
    try:
        return _LockFile(text, Holder(**json.loads(text)), touched)
    except (ValueError, TypeError):  # Cut short by a power cut.
        return _LockFile(text, None, touched)


def _is_alive(lock: _LockFile, folder: Path) -> bool:
    holder = lock.holder
    if holder and _can_be_asked(holder):
        alive = _began(holder.pid) == holder.began
        return alive and (holder.pid != os.getpid() or holder.token in _held)
    if holder and holder.host == socket.gethostname() and holder.boot != _boot():
        return False  # This machine was started anew.
    return _age(lock.touched, folder) < _SILENT_SECONDS


def _can_be_asked(holder: Holder) -> bool:
    """Whether this process sees the holder's, if it runs: same machine, same container, no other user's."""
    if not holder.began or (holder.boot, holder.namespace) != (_boot(), _namespace()):
        return False
    try:
        os.kill(holder.pid, 0)
    except PermissionError:
        return _began(holder.pid) is not None  # The system may hide the processes of other users.
    except OSError:
        pass
    return True


def _outlook(lock: _LockFile) -> str:
    """When the lock of a holder that cannot be asked is free; empty for others."""
    if lock.holder and _can_be_asked(lock.holder):
        return ""
    return f" If it has crashed, it is out of the way {_SILENT_SECONDS:.0f} s after its last sign of life."


def _remove(path: Path, found: _LockFile) -> None:
    """Removes the file of a holder that is gone, unless another process was quicker and has the lock now.

    Only the process that has made a second file, the remover's, looks again and removes: else the lock that
    another process has just taken could be removed in place of the one that was left behind.
    """
    remover = path.with_name(f"{path.name}.remover")
    if _create(remover, ""):
        try:
            again = _read(path)
            if again and again.text == found.text and again.touched == found.touched:
                path.unlink()
        finally:
            remover.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        if _age(remover.stat().st_mtime, path.parent) > _SILENT_SECONDS:  # It crashed in between.
            remover.unlink()
    time.sleep(_LOOK_SECONDS / 10)


def _age(touched: float, folder: Path) -> float:
    """Seconds since a file was touched, by the disk's clock: that of another machine may be wrong."""
    with tempfile.TemporaryFile(dir=folder) as stream:
        return os.fstat(stream.fileno()).st_mtime - touched
