"""One work directory, one run; and disks that have no file locks."""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.test_train import SMALL, command, lines
from tfmetareg.cli import main
from tfmetareg.data.embedded import embedded_records
from tfmetareg.lock import RUN_LOCK

ROOT = Path(__file__).resolve().parents[2]
# File locks as on Lustre without `-o flock`, on NFS without its lock manager; hard links as on FAT.
WITHOUT_LOCKS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
static int refused(int number) { errno = number; return -1; }
int flock(int file, int operation) { return refused(ENOLCK); }
int lockf(int file, int command, off_t length) { return refused(ENOLCK); }
int link(const char *from, const char *to) { return refused(EPERM); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return refused(EPERM); }
#define FCNTL(name) int name(int file, int command, ...) { \\
    va_list more; va_start(more, command); void *argument = va_arg(more, void *); va_end(more); \\
    if (command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW) \\
        return refused(ENOLCK); \\
    return ((int (*)(int, int, void *))dlsym(RTLD_NEXT, #name))(file, command, argument); }
FCNTL(fcntl)
FCNTL(fcntl64)
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "train.py", *arguments], text=True, cwd=ROOT, **pipes)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_of_two_runs_started_at_once_one_goes_on(records_root, tmp_path):
    arguments = command("pretrain", records_root, tmp_path / "run", "--pretrain.steps=40")
    started = [start(*arguments) for _ in range(2)]
    errors = [process.communicate()[1] for process in started]
    assert sorted(process.returncode for process in started) == [0, 2], errors
    first, second = sorted(zip(started, errors), key=lambda pair: pair[0].returncode)
    (line,) = second[1].splitlines()
    assert line.startswith(
        f"error: {tmp_path / 'run'}: process {first[0].pid} on {socket.gethostname()} works in it since "
    )
    assert [one["step"] for one in lines(tmp_path / "run" / "pretrain" / "metrics.jsonl")] == [*range(1, 41)]
    assert not (tmp_path / "run" / RUN_LOCK).exists()


def test_what_only_reads_goes_on_beside_a_run_and_a_crash_leaves_nothing_in_the_way(
    records_root, tmp_path, capsys
):
    workdir, image = tmp_path / "run", np.random.default_rng(0).integers(0, 255, (40, 48)).astype(np.uint8)
    for name in ("m.png", "f.png"):
        Image.fromarray(image).save(tmp_path / name)
    assert main(command("pretrain", records_root, workdir)) == 0
    endless = ["--finetune.init=pretrain", "--finetune.epochs=9999"]
    first = start(*command("finetune", records_root, workdir, *endless))
    wait_for(workdir / "finetune" / "metrics.jsonl", first)
    capsys.readouterr()
    for mode in ("finetune", "evaluate", "reproduce"):
        assert main(command(mode, records_root, workdir)) == 2
        assert f"process {first.pid} on {socket.gethostname()} works in it" in capsys.readouterr().err
    weights = workdir / "pretrain" / "model.h5"
    beside = command("evaluate", records_root, tmp_path / "beside", f"--evaluate.weights={weights}")
    assert main(beside) == 0
    pair = [f"--register.moving={tmp_path / 'm.png'}", f"--register.fixed={tmp_path / 'f.png'}"]
    options = ["--register.weights=pretrain", "--register.figures=false", "--register.formats=[npz]"]
    assert main([*command("register", records_root, workdir), *pair, *options]) == 0
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (workdir / RUN_LOCK).is_file()
    assert main(command("evaluate", records_root, workdir, "--evaluate.weights=pretrain")) == 0
    assert not (workdir / RUN_LOCK).exists()


def test_two_runs_that_need_the_embedded_tasks_build_them_once(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    few = "--image-size 64 64 --source-pairs 2 --source-test-pairs 1 --target-finetune 2 --target-test 1"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        roots = list(pool.map(embedded_records, [few, few]))
    assert roots[0] == roots[1] and (roots[0] / "manifest.json").is_file()
    assert capfd.readouterr().err.count("building the embedded tasks") == 1
    assert os.listdir("data") == [roots[0].name]


@pytest.fixture
def without_locks(tmp_path) -> dict[str, str]:
    """The environment of a process whose disk has no file locks and no hard links."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler, which this test's disk needs")
    (tmp_path / "without_locks.c").write_text(WITHOUT_LOCKS)
    library = tmp_path / "without_locks.so"
    build = [compiler, "-shared", "-fPIC", "-w", tmp_path / "without_locks.c", "-o", library, "-ldl"]
    subprocess.run(build, check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HDF5_")}
    return {**environment, "LD_PRELOAD": str(library), "TF_CPP_MIN_LOG_LEVEL": "3"}


def test_everything_works_on_a_disk_without_locks(without_locks, tmp_path):
    """Building, training, evaluating, registering into HDF5 files and reading them back."""
    script = f"""
        import sys, os, fcntl, h5py
        import numpy as np
        from pathlib import Path
        from PIL import Image
        try:  # This disk is one without locks.
            fcntl.flock(os.open(".", os.O_RDONLY), fcntl.LOCK_EX)
            sys.exit("flock works")
        except OSError:
            pass
        from tfmetareg.cli import main
        from tfmetareg.imaging.field_files import read_field
        from tfmetareg.imaging.grid import Grid
        from tfrecords_builder.__main__ import main as build
        rng = np.random.default_rng(0)
        lines = ["moving,fixed,split"]
        os.mkdir("pairs")
        for number in range(4):
            for name in "mf":
                noise = rng.integers(0, 255, (32, 32)).astype("u1")
                Image.fromarray(noise).save(f"pairs/{{name}}{{number}}.png")
            lines.append(f"m{{number}}.png,f{{number}}.png,{{'test' if number > 2 else 'finetune'}}")
        Path("pairs/pairs.csv").write_text("\\n".join(lines))
        for task in "ab":
            options = f"--role target --task {{task}} --output records --image-size 32 32 --workers 1"
            assert not build(["build", "--source", "pairs", "--input", "pairs", *options.split()])
        common = ["--data.root=records", "--data.target=b", "--workdir=run", *{SMALL!r}]
        assert not main(["--mode=finetune", "--finetune.init=scratch", *common])
        assert not main(["--mode=evaluate", *common])
        assert not main(["--mode=register", "--register.moving=pairs/m0.png", "--register.fixed=pairs/f0.png",
                         "--register.formats=[h5,tfm,nii.gz,npz]", *common])
        read_field("run/register/m0-to-f0/displacement.h5", Grid((32, 32)))
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**without_locks, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads((tmp_path / "run" / "results" / "finetune.json").read_text())["pairs"] == 1
