"""An output on a disk that is full or cannot be written: a small one, which only root may mount."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.unit.tfrecords_builder.conftest import error_lines


@pytest.fixture
def mount(tmp_path):
    """Mounts a file system in memory with these options; the test is skipped where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(options):
        if os.geteuid() != 0:
            pytest.skip("only root may mount a small file system")
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        return folder

    yield mounted
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def command(root, output):
    words = ["build", "--source", "pairs", "--input", root, "--output", output, "--image-size", 64, 64]
    return [*words, "--workers", 1]


# The 6 pairs take 50 KiB: their spool fills the first disk, their shards, written beside it, the second.
@pytest.mark.parametrize("size", [32, 84])
def test_a_full_disk_is_told_in_one_line_and_nothing_is_left_on_it(pairs_folder, run, mount, listing, size):
    output = mount(f"size={size}k") / "records"
    status, _, err = run(*command(pairs_folder.table(), output))
    assert (status, len(error_lines(err))) == (2, 1)
    assert error_lines(err)[0].startswith(
        f"error: {output}: cannot be written (No space left on device); free space, or choose"
    )
    assert listing(output.parent) == {}


def test_records_on_a_full_disk_stay_as_they_are(pairs_folder, run, mount, listing):
    output = mount("size=96k") / "records"
    rows = pairs_folder.rows
    pairs_folder.rows = rows[:2]
    assert run(*command(pairs_folder.table(), output), "--task", "first")[0] == 0
    before = listing(output)
    pairs_folder.rows = rows
    status, _, err = run(*command(pairs_folder.table(), output), "--task", "first", "--overwrite")
    assert (status, len(error_lines(err))) == (2, 1)
    assert "No space left on device" in err
    assert listing(output) == before


def test_a_read_only_disk_is_told_in_one_line(pairs_folder, run, mount):
    output = mount("ro") / "records"
    status, _, err = run(*command(pairs_folder.table(), output))
    expected = f"error: {output}: cannot be written (Read-only file system); choose another `--output`."
    assert (status, error_lines(err)) == (2, [expected])
