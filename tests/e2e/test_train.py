"""The command line from records to report, on small records and a small network."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

from tests.conftest import FEATURES, SIZE
from tfmetareg._compat import vxm
from tfmetareg.cli import main
from tfmetareg.data.records import Records, examples
from tfmetareg.models.registry import build_model
from tfmetareg.models.weights import load_weights

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    f"--model.features={FEATURES}".replace(" ", ""),
    "--pretrain.steps=4",
    "--reptile.meta_steps=3",
    "--reptile.meta_batch_size=2",
    "--reptile.inner_steps=2",
    "--finetune.epochs=2",
    "--log_every=1",
]


def command(mode: str, records_root: Path, workdir: Path, *options: str) -> list[str]:
    return [f"--mode={mode}", f"--data.root={records_root}", f"--workdir={workdir}", *SMALL, *options]


def run(mode: str, records_root: Path, workdir: Path, *options: str) -> int:
    return main(command(mode, records_root, workdir, *options))


def weights(path: Path) -> list[np.ndarray]:
    model = build_model("vxm_dense", (SIZE, SIZE), features=FEATURES)
    load_weights(model, path)
    return model.get_weights()


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def workdir(records_root, tmp_path_factory):
    """Reptile (which pretrains first), fine-tuning and evaluation, one command after the other."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    for mode in ("reptile", "finetune", "evaluate"):
        assert run(mode, records_root, folder) == 0
    return folder


def test_reptile_pretrains_first_and_voxelmorph_reads_its_weights(workdir, records_root):
    assert (workdir / "pretrain" / "model.h5").is_file()
    theirs = vxm.networks.VxmDense.load(str(workdir / "reptile" / "model.h5"))
    ours = build_model("vxm_dense", (SIZE, SIZE), features=FEATURES)
    load_weights(ours, workdir / "reptile" / "model.h5")
    example = next(iter(examples(Records(records_root), "target", "test")))
    pair = [example["moving"][None], example["fixed"][None]]
    for one, other in zip(theirs(pair), ours(pair)):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_training_goes_from_stage_to_stage(workdir):
    stages = [weights(workdir / name / "model.h5") for name in ("pretrain", "reptile", "finetune")]
    for earlier, later in zip(stages, stages[1:]):
        assert not all(np.array_equal(a, b) for a, b in zip(earlier, later))


def test_the_log_holds_every_step_its_loss_terms_and_the_epochs_of_fine_tuning(workdir):
    pretrain = lines(workdir / "pretrain" / "metrics.jsonl")
    assert [line["step"] for line in pretrain] == [1, 2, 3, 4]
    for line in pretrain:
        assert line["total"] == pytest.approx(line["similarity"] + line["smoothness"], abs=1e-5)
        assert line["steps_per_second"] > 0
    finetune = lines(workdir / "finetune" / "metrics.jsonl")
    measured = [line for line in finetune if "test/ncc" in line]
    assert [line["epoch"] for line in measured] == [0, 1, 2]
    assert all(line["test/distance_px"] > 0 for line in measured)
    assert measured[-1]["step"] == 16  # 2 epochs of 8 pairs.


def test_tensorboard_holds_the_same_scalars_and_an_image(workdir):
    (events,) = (workdir / "finetune" / "tensorboard").glob("events*")
    tags = {}
    for event in tf.compat.v1.train.summary_iterator(str(events)):
        for value in event.summary.value:
            tags.setdefault(value.tag, []).append((event.step, value.tensor))
    logged = {line["step"]: line for line in lines(workdir / "finetune" / "metrics.jsonl") if "total" in line}
    scalars = {step: float(tf.make_ndarray(tensor)) for step, tensor in tags["total"]}
    assert scalars == pytest.approx({step: line["total"] for step, line in logged.items()})
    assert "moving, fixed, warped" in tags


def test_the_result_file_agrees_with_the_pairs_of_its_csv(workdir):
    result = json.loads((workdir / "results" / "finetune.json").read_text())
    assert (result["schema"], result["task"], result["split"], result["pairs"]) == (1, "target", "test", 3)
    with open(workdir / "results" / result["per_pair"]) as stream:
        rows = list(csv.DictReader(stream))
    for name, column in (("distance_px", "distance_px"), ("ncc", "ncc"), ("local_ncc", "local_ncc")):
        values = [float(row[column]) for row in rows]
        assert result[name]["mean"] == pytest.approx(np.mean(values))
        assert result[name]["std"] == pytest.approx(np.std(values))
    # The moving landmarks lie (1, 2) away from the fixed ones.
    assert result["distance_px"]["before_mean"] == pytest.approx(np.sqrt(5), rel=1e-5)
    assert result["distance_px"]["landmarks"] == 9


def test_the_run_card_and_the_configuration_say_what_was_run(workdir, records_root):
    card = json.loads((workdir / "run.json").read_text())
    assert card["data"]["digest"] == Records(records_root).manifest.digest()
    assert card["versions"]["voxelmorph"] == "0.2"
    gradient_steps = {name: stage["gradient_steps"] for name, stage in card["stages"].items()}
    assert gradient_steps == {"pretrain": 4, "reptile": 3 * 2 * 2, "finetune": 16}
    config = yaml.safe_load((workdir / "config.yaml").read_text())
    assert config["model"]["features"] == FEATURES


def test_a_finished_stage_is_not_trained_again(workdir, records_root, capsys):
    before = (workdir / "reptile" / "model.h5").stat().st_mtime_ns
    assert run("reptile", records_root, workdir) == 0
    assert (workdir / "reptile" / "model.h5").stat().st_mtime_ns == before
    assert "finished already" in capsys.readouterr().err


def test_a_stage_of_another_configuration_is_refused(workdir, records_root, capsys):
    assert run("reptile", records_root, workdir, "--reptile.inner_steps=5", "--loss.window=7") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "`loss.window` was 9, is 7" in line
    assert "`reptile.inner_steps` was 2, is 5" in line


def test_a_refused_command_leaves_the_record_of_the_run_alone(workdir, records_root):
    before = [(workdir / name).read_bytes() for name in ("config.yaml", "run.json")]
    assert run("pretrain", records_root, workdir, "--pretrain.steps=9", "--seed=7") == 2
    assert run("evaluate", records_root, workdir, "--seed=7") == 0
    assert [(workdir / name).read_bytes() for name in ("config.yaml", "run.json")] == before
    assert json.loads((workdir / "results" / "finetune.json").read_text())["seed"] == 0


@pytest.mark.long
def test_a_stage_is_the_same_whatever_ran_before_it_in_the_process(workdir, records_root, tmp_path):
    assert run("reproduce", records_root, tmp_path, "--reproduce.rows=[transfer,ours_10]") == 0
    alone, after_others = (weights(folder / "reptile" / "model.h5") for folder in (workdir, tmp_path))
    assert all(np.array_equal(one, other) for one, other in zip(alone, after_others))


@pytest.mark.long
def test_tasks_side_by_side_end_with_the_weights_of_one_after_the_other(workdir, records_root, tmp_path):
    options = ["--reptile.inner_optimizer=sgd", "--reptile.inner_learning_rate=0.1"]
    options += ["--reptile.reset_inner=task", f"--reptile.init={workdir / 'pretrain' / 'model.h5'}"]
    assert run("reptile", records_root, tmp_path / "turns", *options) == 0
    assert run("reptile", records_root, tmp_path / "beside", *options, "--reptile.side_by_side=true") == 0
    start, one, other = (
        weights(folder / "model.h5")
        for folder in (workdir / "pretrain", tmp_path / "turns" / "reptile", tmp_path / "beside" / "reptile")
    )
    assert max(np.abs(a - b).max() for a, b in zip(start, one)) > 1e-4
    assert max(np.abs(a - b).max() for a, b in zip(one, other)) < 1e-6


def test_the_precision_is_that_of_the_configuration_and_on_the_run_card(records_root, tmp_path):
    trained = {}
    for precision in ("float32", "mixed_bfloat16"):
        folder = tmp_path / precision
        assert run("pretrain", records_root, folder, f"--model.precision={precision}") == 0
        assert json.loads((folder / "run.json").read_text())["precision"] == precision
        trained[precision] = [line["total"] for line in lines(folder / "pretrain" / "metrics.jsonl")]
    difference = np.abs(np.subtract(*trained.values()))
    assert 1e-6 < difference.max() < 0.02


def test_a_damaged_record_stops_the_run_with_its_shard_and_number(records_root, tmp_path, capsys):
    copy = tmp_path / "records"
    shutil.copytree(records_root, copy)
    shard = next(copy.glob("task_b-train*00000-of*"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    of_task_b = ["--evaluate.task=task_b", "--evaluate.split=train"]
    assert run("pretrain", copy, tmp_path / "verified", "--data.verify=true") == 2
    assert run("pretrain", copy, tmp_path / "read", "--pretrain.steps=40") == 2
    assert run("evaluate", copy, tmp_path / "measured", *of_task_b, "--evaluate.weights=none") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 3
    assert f"{shard}: damaged shard (another SHA-256" in errors[0]
    assert all(f"{shard}: record 0 cannot be read" in error for error in errors[1:])
    assert not (tmp_path / "verified").exists()


def test_source_stages_serve_any_target(workdir, records_root, capsys):
    assert run("reptile", records_root, workdir, "--data.target=target") == 0
    assert "finished already" in capsys.readouterr().err


def test_a_damaged_or_missing_checkpoint_is_named(records_root, tmp_path, capsys):
    assert run("pretrain", records_root, tmp_path) == 0
    (tmp_path / "pretrain" / "model.h5").unlink()
    (data,) = (tmp_path / "pretrain" / "checkpoints").glob("*.data*")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 255
    data.write_bytes(content)
    for damage in (lambda: None, data.unlink):
        damage()
        capsys.readouterr()
        assert run("pretrain", records_root, tmp_path) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert len(errors) == 1 and "checkpoints/ckpt-4: damaged checkpoint; remove" in errors[0]


def test_evaluate_takes_any_task_split_and_weights(workdir, records_root, tmp_path):
    weights_file = workdir / "pretrain" / "model.h5"
    options = ["--evaluate.task=task_b", "--evaluate.split=train", "--evaluate.method=pretrained"]
    assert run("evaluate", records_root, tmp_path, f"--evaluate.weights={weights_file}", *options) == 0
    result = json.loads((tmp_path / "results" / "pretrained.json").read_text())
    assert (result["task"], result["pairs"]) == ("task_b", 6)
    assert run("evaluate", records_root, tmp_path, "--evaluate.weights=none") == 0
    undeformed = json.loads((tmp_path / "results" / "not_deformed.json").read_text())
    assert undeformed["distance_px"]["mean"] == undeformed["distance_px"]["before_mean"]


def test_reproduce_makes_the_table_and_the_report(records_root, tmp_path, capsys):
    rows = "--reproduce.rows=[not_deformed,transfer,fine_tune_10,ours_10]"
    assert run("reproduce", records_root, tmp_path, rows) == 0
    table = capsys.readouterr().out
    for label in ("Not deformed", "Transfer", "Fine-tune (10)", "Ours (10)"):
        assert label in table
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 4
    results = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")}
    assert {name: result["epochs"] for name, result in results.items()} == {
        "not_deformed": 0,
        "transfer": 0,
        "fine_tune_10": 10,
        "ours_10": 10,
    }
    started = {
        name: yaml.safe_load((tmp_path / name / "checkpoints" / "config.json").read_text())["finetune.init"]
        for name in ("fine_tune_10", "ours_10")
    }
    assert started == {"fine_tune_10": "pretrain", "ours_10": "reptile"}


FEW = "--image-size 64 64 --source-test-pairs 2 --target-finetune 4 --target-test 2"


@pytest.mark.long
@pytest.mark.parametrize(
    ("builder", "folder", "align", "pairs"),
    [
        (f"{FEW} --source-pairs 8", "image-size-64-64-source-test-pairs-2", "none", 8),
        (f"{FEW} --source-pairs 4 --align rigid", "align-rigid", "rigid", 4),
    ],
)
def test_without_a_data_root_the_embedded_tasks_are_built_once(
    tmp_path, monkeypatch, capsys, builder, folder, align, pairs
):
    monkeypatch.chdir(tmp_path)
    for time_of_run, told in ((1, True), (2, False)):
        assert (
            main(["--mode=pretrain", *SMALL, f"--data.embedded={builder}", f"--workdir=run{time_of_run}"])
            == 0
        )
        assert ("building the embedded tasks into data/embedded-" in capsys.readouterr().err) is told
    (root,) = tmp_path.glob("data/*")
    assert root.name.startswith("embedded-") and folder in root.name
    records = Records(root)
    assert len(records.manifest.names("source")) == 5 and records.manifest.align_of("abdomen_ct") == align
    assert records.pair_count("abdomen_ct", "train") == pairs
    assert records.pair_count("abdomen_ct", "test") == 2


def test_options_that_cannot_be_read_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--mode=pretrain", '--data.embedded=--image-size "64']) == 2
    assert "close its quotes" in capsys.readouterr().err


def test_options_that_the_builder_refuses_are_named(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["--mode=pretrain", "--data.embedded=--image-size 8 8"]) == 2
    error = capfd.readouterr().err
    assert "--image-size" in error and "see `data.embedded` (--image-size 8 8)" in error
    assert not list(tmp_path.glob("data/*"))


MISTAKES = {
    "unknown key": (
        ["--reptile.meta_step=3"],
        "`reptile.meta_step` is not an option; did you mean `reptile.meta_steps`",
    ),
    "value out of range": (["--reptile.inner_steps=0"], "`reptile.inner_steps`: must be"),
    "no such records": (
        ["--data.root=/nowhere"],
        "/nowhere/manifest.json: no such file; `python -m tfrecords_builder",
    ),
    "no such source": (["--data.sources=[tusk]"], "task `tusk` is not in the records; there are: task_a"),
    "a source named twice": (["--data.sources=[task_a,task_a]"], "must name each task once"),
    "a reserved name": (["--finetune.name=results"], "`finetune.name` must not be one of pretrain"),
    "weights that are neither stage nor file": (
        ["--reptile.init=best"],
        "`best` must be an .h5 file or a finished",
    ),
    "no such target": (["--data.target=tusk"], "task `tusk` is not in the records"),
    "m above the number of tasks": (
        ["--reptile.meta_batch_size=4"],
        "`reptile.meta_batch_size` (4) must be at most",
    ),
    "no such network": (["--model.name=unet"], "; got unet."),
    "no such weights": (["--reptile.init=none.h5"], "none.h5: no such weights file"),
    "a folder that cannot be written": (["--workdir=/proc/run"], "/proc/run: cannot be written"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_status_2_and_leaves_nothing_half_written(
    records_root, tmp_path, capsys, mistake
):
    options, message = MISTAKES[mistake]
    assert run("reptile", records_root, tmp_path / "run", "--pretrain.steps=0", *options) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not list(tmp_path.rglob("reptile/model.h5"))
    assert not list(tmp_path.rglob("*.tmp*"))


def test_training_that_diverges_stops_and_says_what_to_do(records_root, tmp_path, capsys):
    options = ["--reptile.inner_optimizer=sgd", "--reptile.inner_learning_rate=1", "--reptile.inner_steps=20"]
    options += ["--loss.smoothness_weight=1e6", "--reptile.init=scratch", "--log_every=10"]
    assert run("reptile", records_root, tmp_path, *options) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "training diverged at step" in error
    assert "lower the learning rate" in error
    assert not (tmp_path / "reptile" / "model.h5").exists()


@pytest.mark.parametrize(
    ("mode", "lacking", "told"),
    [
        ("evaluate", "test", "`target` has no pairs in split `test`; it has: finetune."),
        ("finetune", "finetune", "`target` has no pairs in split `finetune`; it has: test."),
        ("pretrain", "train", "`task_a` has no pairs in split `train`; it has: test."),
        ("study", "train", "`task_a` has no pairs in split `train`; it has: test."),
        ("reproduce", "finetune", "`target` has no pairs in split `finetune`; it has: test."),
    ],
)
def test_a_split_that_is_not_there_is_told_beside_those_that_are(
    records_root, tmp_path, capsys, mode, lacking, told
):
    """Of the first task that would have it, in otherwise sound records."""
    shutil.copytree(records_root, tmp_path / "records")
    manifest = json.loads((tmp_path / "records" / "manifest.json").read_text())
    task = next(task for task in manifest["tasks"] if f"`{task['name']}`" in told)
    del task["splits"][lacking]
    (tmp_path / "records" / "manifest.json").write_text(json.dumps(manifest))
    start = ["--evaluate.weights=none", "--finetune.init=scratch"]
    assert run(mode, tmp_path / "records", tmp_path / "run", *start) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert told in error
    assert not list(tmp_path.glob("run/*/*"))


@pytest.mark.parametrize("mode", ["finetune", "evaluate", "export"])
def test_weights_that_are_not_there_yet_name_the_command_that_makes_them(
    records_root, tmp_path, capsys, mode
):
    assert run(mode, records_root, tmp_path) == 2
    stage = "reptile" if mode == "finetune" else "finetune"
    assert f"run `--mode {stage} --workdir {tmp_path}` first" in capsys.readouterr().err


def start(records_root: Path, workdir: Path) -> subprocess.Popen:
    """Meta-training in a process of its own that saves after every step."""
    options = ["--checkpoint_seconds=0", "--reptile.meta_steps=100", "--reptile.init=scratch"]
    arguments = [sys.executable, str(ROOT / "train.py"), *command("reptile", records_root, workdir, *options)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


def wait_for_steps(workdir: Path, count: int) -> None:
    log = workdir / "reptile" / "metrics.jsonl"
    for _ in range(6000):
        if log.is_file() and log.read_text().count("\n") >= count:
            return
        time.sleep(0.05)
    raise TimeoutError(f"{log} did not reach {count} lines.")


@pytest.mark.long
def test_killed_and_interrupted_runs_end_as_an_undisturbed_one(records_root, tmp_path):
    undisturbed = start(records_root, tmp_path / "whole")
    disturbed = start(records_root, tmp_path / "parts")
    wait_for_steps(tmp_path / "parts", 5)
    disturbed.kill()
    disturbed.wait()
    disturbed = start(records_root, tmp_path / "parts")
    wait_for_steps(tmp_path / "parts", 15)
    disturbed.send_signal(signal.SIGINT)
    assert disturbed.wait() == 130
    assert "continues from the last checkpoint" in disturbed.stderr.read()
    assert not (tmp_path / "parts" / "reptile" / "model.h5").exists()
    assert start(records_root, tmp_path / "parts").wait() == 0
    assert undisturbed.wait() == 0
    whole, parts = (weights(tmp_path / name / "reptile" / "model.h5") for name in ("whole", "parts"))
    assert all(np.array_equal(one, other) for one, other in zip(whole, parts))
    logs = [lines(tmp_path / name / "reptile" / "metrics.jsonl") for name in ("whole", "parts")]
    assert [line["step"] for line in logs[1]] == list(range(1, 101))
    assert [line["total"] for line in logs[0]] == [line["total"] for line in logs[1]]


def test_a_failure_of_ours_shows_where_it_happened_with_status_1(monkeypatch, capsys, tmp_path):
    from tfmetareg.modes import pretrain

    def fail(config, workdir):
        raise RuntimeError("a bug")

    monkeypatch.setattr(pretrain, "run", fail)
    assert main(["--mode=pretrain", f"--workdir={tmp_path}"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_program_starts_from_any_folder(tmp_path):
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--mode", "reptile", "--print_config"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert yaml.safe_load(done.stdout)["reptile"]["meta_batch_size"] == 3
