"""Builds that are really killed: SIGKILL, at any moment, with worker processes at work."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.tfrecords_builder.conftest import error_lines
from tfmetareg.data.schema import Manifest
from tfrecords_builder.__main__ import main
from tfrecords_builder.workers import forked

MOMENTS = 20
SIZE = 8


@pytest.fixture
def folder(pairs_folder):
    """64 pairs of 16 small images: enough for two workers, eight batches."""
    names = [pairs_folder.image(f"{number}.png", number) for number in range(2 * SIZE)]
    pairs_folder.columns = ["moving", "fixed", "split"]
    pairs_folder.rows = [[moving, fixed, "train"] for moving in names[:SIZE] for fixed in names[SIZE:]]
    return pairs_folder.table()


@pytest.fixture
def small_folder(folder, tmp_path):
    """24 of the 64 pairs: three batches, which one worker does."""
    shutil.copytree(folder, tmp_path / "small" / "input")
    lines = (folder / "pairs.csv").read_text().splitlines()
    (tmp_path / "small" / "input" / "pairs.csv").write_text("\n".join(lines[:25]))
    return tmp_path / "small" / "input"


def command(folder, output, workers=2, size=32):
    words = ["build", "--source", "pairs", "--input", folder, "--output", output, "--image-size", size, size]
    return [str(word) for word in (*words, "--workers", workers)]


def descendants(pid: int) -> set[int]:
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):  # it has ended
            for thread in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return set(found) - {pid}


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=120.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)


def killed_after(seconds, arguments):
    """Runs the builder, and kills it after some seconds; whether that found it at work."""
    builder = forked().Process(target=main, args=(arguments,))
    builder.start()
    builder.join(seconds)
    workers = descendants(builder.pid)
    killed = builder.is_alive()
    builder.kill()
    builder.join()
    wait_until(lambda: not any(map(runs, workers)))
    return killed


def seconds_of(arguments):
    begun = time.monotonic()
    killed_after(None, arguments)
    return time.monotonic() - begun


def test_killed_at_random_moments_and_run_again_the_bytes_are_the_same(
    folder, small_folder, tmp_path, listing
):
    moments = random.Random(0)
    roots = {1: small_folder, 2: folder}
    seconds_of(command(small_folder, tmp_path / "first", 1))  # starts the server they are forked from
    whole, expected = {}, {}
    for workers, root in roots.items():
        whole[workers] = seconds_of(command(root, tmp_path / f"expected{workers}", workers))
        expected[workers] = listing(tmp_path / f"expected{workers}")
        assert len(expected[workers]) == 6  # four shards, the manifest, and where the images came from
    kills = left = 0
    while kills < MOMENTS:
        output = tmp_path / f"after{kills}"
        workers = 2 if kills % 10 == 0 else 1
        if not killed_after(moments.uniform(0, whole[workers]), command(roots[workers], output, workers)):
            whole[workers] *= 0.9  # it was slower when it was timed
            shutil.rmtree(output)
            continue
        kills += 1
        left += any(output.rglob("*.spool.json"))
        killed_after(None, command(roots[workers], output, 1))
        assert listing(output) == expected[workers]
    assert left > 0


def run_cli(arguments, **options):
    words = [sys.executable, "-m", "tfrecords_builder", *arguments]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def heed_interrupts():
    """Undoes what a shell does to commands that it runs in the background: there Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_command_goes_on_when_it_is_given_again(folder, tmp_path, listing, stop):
    """The whole process group is hit, as by a batch system or Ctrl-C."""
    output, size = tmp_path / "records", 400  # seconds of work, of which the first batch is a small part
    arguments = command(folder, output, size=size)
    first = run_cli(arguments, start_new_session=True, preexec_fn=heed_interrupts)
    wait_until(lambda: any(output.rglob("*.spool.json")) or first.poll() is not None)
    os.killpg(first.pid, stop)
    _, told = first.communicate()
    if stop == signal.SIGINT:
        assert first.returncode == 130
        assert error_lines(told) == [
            "error: interrupted; nothing was published. Run the same command again to go on."
        ]
    assert not (output / "manifest.json").exists()
    # With another number of workers: the bytes do not depend on it.
    again = run_cli(command(folder, output, 1, size))
    out, err = again.communicate()
    assert (again.returncode, error_lines(err)) == (0, [])
    assert "goes on with a build that was stopped" in out
    assert Manifest.read(output).task("input").splits["train"].pairs == 64
    main(command(folder, tmp_path / "expected", 1, size))
    assert listing(output) == listing(tmp_path / "expected")


def test_a_changed_input_is_built_anew(folder, tmp_path, run, listing, pairs_folder, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    output = tmp_path / "records"
    with monkeypatch.context() as patch:
        patch.setattr("tfrecords_builder.build.publish", interrupt)
        assert run(*command(folder, output, 1))[0] == 130
    left = list(output.iterdir())
    assert len(left) == 1
    pairs_folder.image("0.png", 99)
    status, out, _ = run(*command(folder, output, 1))
    assert status == 0
    assert "goes on" not in out
    assert not left[0].exists()
    run(*command(folder, tmp_path / "expected", 1))
    assert listing(output) == listing(tmp_path / "expected")
