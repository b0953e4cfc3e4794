"""Locks, held by real processes that are really killed."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tfmetareg import lock as module
from tfmetareg.errors import UserError
from tfmetareg.lock import RUN_LOCK, run_in

REPOSITORY = Path(__file__).resolve().parents[3]
HOLD = """
import sys, time
from tfmetareg import lock
from tfmetareg.errors import UserError
try:
    with lock.run_in(sys.argv[1]):
        print("holds", flush=True)
        time.sleep(float(sys.argv[2]))
        print("ends", flush=True)
except UserError as error:
    print(error, flush=True)
    sys.exit(2)
"""


def start(workdir: Path, seconds: float, script: str = HOLD) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, str(workdir), str(seconds)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    )


@pytest.fixture
def holder(tmp_path):
    """A process that works in `tmp_path`."""
    process = start(tmp_path, 600)
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


def refusal(workdir: Path) -> str:
    with pytest.raises(UserError) as caught, run_in(workdir):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def is_free(workdir: Path) -> bool:
    try:
        with run_in(workdir):
            return os.listdir(workdir) == [RUN_LOCK]
    except UserError:
        return False


def rewrite(workdir: Path, *, age: float = 0.0, **changes: str) -> None:
    """Changes what the lock tells, and when its holder gave its last sign of life."""
    path, new = workdir / RUN_LOCK, workdir / "new"
    new.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    os.utime(new, (time.time() - age,) * 2)
    os.replace(new, path)


def leave_a_lock(workdir: Path) -> None:
    """A lock whose holder was killed."""
    process = start(workdir, 600)
    assert process.stdout.readline() == "holds\n"
    process.kill()
    process.communicate()
    assert (workdir / RUN_LOCK).is_file()


def test_a_second_run_is_refused_at_once_with_host_and_process_of_the_first(tmp_path, holder):
    began = time.monotonic()
    line = refusal(tmp_path)
    assert time.monotonic() - began < 1
    assert line.startswith(f"{tmp_path}: process {holder.pid} on {socket.gethostname()} works in it since ")
    assert "wait for it to end" in line and "sign of life" not in line


def test_after_its_end_nothing_is_left(tmp_path):
    assert is_free(tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []
    with run_in(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").touch()
    assert os.listdir(tmp_path / "a" / "b") == ["result"]


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_run_is_not_in_the_way(tmp_path, holder, reaped):
    holder.kill()
    if reaped:
        holder.communicate()
    else:
        while Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    assert is_free(tmp_path)


def test_another_process_of_the_same_number_is_not_the_holder(tmp_path, holder):
    rewrite(tmp_path, began="1")
    assert is_free(tmp_path)


def test_a_machine_that_was_started_anew_does_not_hold_its_locks_any_more(tmp_path, holder):
    rewrite(tmp_path, boot="before", began="1")
    assert is_free(tmp_path)


@pytest.mark.parametrize("other", [{"host": "node7", "boot": "theirs"}, {"namespace": "pid:[1]"}])
def test_what_cannot_be_asked_is_alive_until_it_has_been_silent_for_a_minute(tmp_path, holder, other):
    """On another machine, or in another container of this one, whose process numbers mean others here."""
    rewrite(tmp_path, pid=1, **other)
    line = refusal(tmp_path)
    assert f"process 1 on {other.get('host', socket.gethostname())}" in line
    assert "If it has crashed, it is out of the way 60 s after its last sign of life." in line
    rewrite(tmp_path, age=55)
    assert refusal(tmp_path)
    rewrite(tmp_path, age=65)
    assert is_free(tmp_path)


def test_another_users_process_that_the_system_hides_is_alive(tmp_path, monkeypatch):
    """The system is the real one, but for the two answers that depend on the user who asks."""
    with run_in(tmp_path):
        monkeypatch.setattr(module, "_began", lambda pid: None)
        monkeypatch.setattr(os, "kill", lambda pid, number: (_ for _ in ()).throw(PermissionError()))
        assert refusal(tmp_path)


@pytest.mark.parametrize("text", ["", '{"host": "node7", "pi'])
def test_a_lock_cut_short_by_a_power_cut_is_out_of_the_way_after_a_minute(tmp_path, text):
    (tmp_path / RUN_LOCK).write_text(text)
    assert refusal(tmp_path).startswith(f"{tmp_path}: another process works in it;")
    os.utime(tmp_path / RUN_LOCK, (time.time() - 65,) * 2)
    assert is_free(tmp_path)


@pytest.mark.parametrize("left", [False, True])
def test_of_several_that_start_at_once_exactly_one_goes_on(tmp_path, left):
    """Also where a crashed run has left its lock, which all of them find."""
    for round_ in range(3):
        workdir = tmp_path / str(round_)
        if left:
            leave_a_lock(workdir)
        started = [start(workdir, 600) for _ in range(3)]
        try:
            wait_until(lambda: [process.poll() for process in started].count(2) == 2, 60)  # noqa: B023
            (winner,) = (process for process in started if process.poll() is None)
            assert winner.stdout.readline() == "holds\n"
            lines = [process.communicate()[0] for process in started if process is not winner]
            assert all(f"process {winner.pid} on" in line for line in lines), lines
        finally:
            for process in started:
                process.kill()
                process.communicate()


def test_no_two_are_inside_at_a_time(tmp_path):
    script = HOLD.replace("lock.run_in(sys.argv[1])", "lock.run_in(sys.argv[1], wait=True)").replace(
        'print("holds", flush=True)', "began = time.monotonic()"
    )
    script = script.replace('print("ends", flush=True)', "print(began, time.monotonic())")
    (tmp_path / "work").mkdir()
    started = [start(tmp_path / "work", 0.05, script) for _ in range(6)]
    spans = sorted(tuple(map(float, process.communicate()[0].split())) for process in started)
    assert len(spans) == 6
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:]))


@pytest.mark.parametrize("crash", [False, True])
def test_no_two_threads_are_inside_at_a_time(tmp_path, monkeypatch, crash):
    """Also where the folder goes with each holder, and where each leaves its lock as a crash does."""
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.001)
    inside, most = [], []

    def work(number: int) -> None:
        with run_in(tmp_path / "work", wait=True):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.002)
            inside.remove(number)
            if crash:
                rewrite(tmp_path / "work", began="1")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert most == [1] * 40
    assert os.listdir(tmp_path / "work") == ([RUN_LOCK] if crash else [])


def test_a_remover_that_crashed_is_out_of_the_way_after_a_while(tmp_path):
    leave_a_lock(tmp_path)
    remover = tmp_path / f"{RUN_LOCK}.remover"
    remover.touch()
    os.utime(remover, (time.time() - 100,) * 2)
    with run_in(tmp_path):
        assert os.listdir(tmp_path) == [RUN_LOCK]


def test_one_that_waits_says_so_and_goes_on_when_the_first_ends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "_PATIENT_SECONDS", 0.0)
    first = start(tmp_path, 1)
    assert first.stdout.readline() == "holds\n"
    with run_in(tmp_path, wait=True):
        assert first.communicate()[0] == "ends\n"
    assert f"process {first.pid} on" in (told := capsys.readouterr().err)
    assert told.startswith("note: ") and told.endswith("waiting for it to end.\n") and told.count("\n") == 1


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BEAT_SECONDS", 0.05)
    with run_in(tmp_path):
        rewrite_time = time.time() - 1000
        os.utime(tmp_path / RUN_LOCK, (rewrite_time,) * 2)
        wait_until(lambda: (tmp_path / RUN_LOCK).stat().st_mtime > rewrite_time + 900)
        (tmp_path / RUN_LOCK).unlink()  # By a user who thought it was left over.
        wait_until((tmp_path / RUN_LOCK).is_file)
        refusal(tmp_path)
    assert os.listdir(tmp_path) == []


def wait_until(condition, seconds: float = 10.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)


def test_a_run_whose_lock_another_has_taken_over_stops(tmp_path):
    """A job that was suspended for minutes, while its successor began on another machine."""
    script = HOLD.replace("try:", "lock._BEAT_SECONDS = 0.05\ntry:", 1)
    process = start(tmp_path, 600, script)
    assert process.stdout.readline() == "holds\n"
    rewrite(tmp_path, host="node7", pid=12, token="theirs")
    theirs = (tmp_path / RUN_LOCK).read_text()
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert re.search(
        r"^error: .*: process 12 on node7 works in it since .*, too; this run stops\.$", err, re.M
    )
    assert (tmp_path / RUN_LOCK).read_text() == theirs


def test_a_thread_of_the_same_process_is_refused_too(tmp_path):
    lines = []
    with run_in(tmp_path):
        thread = threading.Thread(target=lambda: lines.append(refusal(tmp_path)))
        thread.start()
        thread.join()
    assert f"process {os.getpid()} on" in lines[0]


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file" / "run") == (
        f"{tmp_path / 'file' / 'run'}: cannot be written (Not a directory); name another --workdir."
    )


def test_a_place_without_folders_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "cannot be written (File exists)" in refusal(tmp_path / "link")
    if os.path.isdir("/proc"):
        assert "cannot be written (No such file or directory)" in refusal(Path("/proc/run"))


def test_sigterm_leaves_the_work_directory_free(tmp_path):
    """As a batch system ends a job that goes on on another machine."""
    script = f"""
import sys, time
from tfmetareg import cli
cli.MODE_FUNCTIONS["study"] = "waiting:run"
module = type(sys)("waiting")
def run(config, workdir):
    print("holds", flush=True)
    time.sleep(600)
module.run = run
sys.modules["waiting"] = module
sys.exit(cli.main(["--mode", "study", "--workdir", {str(tmp_path / "run")!r}]))
"""
    process = start(tmp_path, 0, script)
    assert process.stdout.readline() == "holds\n"
    assert (tmp_path / "run" / RUN_LOCK).is_file()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in err
    assert os.listdir(tmp_path) == []
