"""`--mode reproduce`: every row, several seeds, and what a second call leaves alone."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
import yaml

from tests.conftest import source_task
from tfmetareg.cli import main
from tfmetareg.experiments import measurement
from tfmetareg.experiments.shots import shot_counts
from tfmetareg.files import sha256
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.methods import METHOD_NAMES
from tfmetareg.modes import stage
from tfrecords_builder.build import build

SMOKE = Path(__file__).resolve().parents[2] / "configs" / "reproduce_smoke.yaml"
# All but the peers', which take a second or two per pair.
ROWS = [row for row in METHOD_NAMES if row not in ("elastix", "syn")]
UNWATCHED = "--finetune.evaluate_every=0"


def reproduce(records_root: Path, workdir: Path, *options: str, rows: Optional[list[str]] = None) -> int:
    """The smoke preset on the small records; of all rows, or of these without the shots."""
    chosen = [f"--reproduce.rows=[{','.join(rows or ROWS)}]", "--reproduce.long_epochs=12"]
    chosen += ["--reproduce.shots=[]"] if rows else []
    arguments = ["--mode=reproduce", f"--config={SMOKE}", f"--data.root={records_root}", *chosen, *options]
    return main([*arguments, f"--workdir={workdir}"])


def card(workdir: Path) -> dict:
    return json.loads((workdir / "run.json").read_text())


def results(workdir: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in (workdir / "results").glob("*.json")}


def times(workdir: Path) -> dict[str, int]:
    """When each stage's weights and each row's result were written, by their path."""
    files = [*workdir.rglob("model.h5"), *workdir.rglob("results/*.json")]
    return {
        str(path.relative_to(workdir)): path.stat().st_mtime_ns
        for path in files
        if "replaced" not in path.parts
    }


def changed_files(before: dict[str, int], workdir: Path) -> set[str]:
    """Weights and results that were written since."""
    return {path for path, time in times(workdir).items() if before.get(path) != time}


@pytest.fixture(scope="module")
def whole(records_root, tmp_path_factory):
    """What the smoke preset makes, with the rows that it leaves out."""
    folder = tmp_path_factory.mktemp("reproduce") / "whole"
    assert reproduce(records_root, folder) == 0
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of `whole`, with its times, to go on from."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_the_preset_has_rows_of_every_kind():
    rows = yaml.safe_load(SMOKE.read_text())["reproduce"]["rows"]
    assert (
        {"affine", "model_seen", "fine_tune_10", "ours_10", "ours_pair", "matched_10"} < set(rows) < set(ROWS)
    )


def test_every_row_is_measured_on_the_same_pairs(whole):
    found = results(whole)
    assert sorted(found) == sorted(ROWS) and len(ROWS) == 13
    assert {result["pairs"] for result in found.values()} == {3}
    assert {name: result["epochs"] for name, result in found.items() if result["epochs"]} == {
        **dict.fromkeys(["fine_tune_10", "ours_10", "matched_10"], 10),
        **dict.fromkeys(["fine_tune_long", "ours_long", "matched_long"], 12),
    }


def test_ours_and_its_control_took_equally_many_gradient_steps(whole):
    steps = {name: entries["gradient_steps"] for name, entries in card(whole)["stages"].items()}
    assert steps["matched"] == steps["reptile"] == 2 * 3 * 2
    assert steps["model_seen"] == steps["model_unseen"] == steps["pretrain"] + steps["reptile"]
    assert steps["ours_10"] == steps["matched_10"] == steps["fine_tune_10"] == 10 * 4
    assert steps["ours_long"] == steps["matched_long"] == steps["fine_tune_long"] == 12 * 4


def decided(workdir: Path, name: str) -> dict:
    return json.loads((workdir / name / "checkpoints" / "config.json").read_text())


def test_the_control_has_the_start_and_the_rate_of_the_meta_training(whole):
    reptile, matched = decided(whole, "reptile"), decided(whole, "matched")
    same = {
        "init": "init",
        "init (digest)": "init (digest)",
        "batch_size": "inner_batch_size",
        "optimizer": "inner_optimizer",
        "learning_rate": "inner_learning_rate",
        "annealing": "outer_annealing",
        "augment": "augment",
    }
    for key, its in same.items():
        assert matched[f"pretrain.{key}"] == reptile[f"reptile.{its}"], key
    assert matched["data.tasks"] == reptile["data.tasks"]
    assert decided(whole, "model_seen")["data.tasks"] == [*reptile["data.tasks"], "target"]
    assert decided(whole, "model_seen")["pretrain.init"] == "scratch"


def test_a_second_call_trains_and_measures_nothing_wherever_the_folder_lies(copy, records_root):
    before = times(copy)
    assert reproduce(records_root, copy) == 0
    assert changed_files(before, copy) == set()


def test_shots_take_few_pairs_and_equally_many_steps_from_every_start(whole):
    stages = card(whole / "shots")["stages"]
    assert set(stages) == set(results(whole / "shots")) == {"ours-4", "fine_tune-4", "matched-4", "scratch-4"}
    for name, entries in stages.items():
        assert entries["gradient_steps"] == 6, name  # One epoch and a half.
        assert decided(whole / "shots", name)["finetune.pairs"] == 4
    digests = [
        decided(whole / "shots", f"{kind}-4")["finetune.init (digest)"] for kind in ("ours", "matched")
    ]
    assert digests == [sha256(whole / stage / "model.h5")[:16] for stage in ("reptile", "matched")]


def test_the_numbers_of_pairs_are_those_that_the_split_holds():
    assert shot_counts([100, 5, "all", 2, 8], 8) == [2, 5, 8]
    assert shot_counts([], 8) == []


def test_one_changed_key_touches_only_the_rows_that_depend_on_it(copy, records_root):
    before = times(copy)
    changed = "--reptile.reset_inner=task"
    assert reproduce(records_root, copy, changed, rows=["fine_tune_10", "ours_10", "matched_10"]) == 0
    assert changed_files(before, copy) == {
        "reptile/model.h5",
        "ours_10/model.h5",
        "results/ours_10.json",
    }
    assert (copy / "replaced" / "reptile-1" / "model.h5").is_file()
    # What else depends on it was not asked for, and is of another configuration now.
    assert set(ROWS) - set(results(copy)) == {"ours_long", "ours_pair"}
    assert set(results(copy / "shots")) == {"fine_tune-4", "matched-4", "scratch-4"}
    assert (copy / "replaced" / "ours_long-1" / "model.h5").is_file()
    for row in ("ours_long", "ours_pair"):
        assert (copy / "replaced" / "results-1" / f"{row}.csv").is_file()
    assert (copy / "shots" / "replaced" / "ours-4-1" / "model.h5").is_file()
    assert "Ours (long)" not in (copy / "report.html").read_text()


def test_what_was_not_asked_for_is_kept_only_while_it_is_of_this_configuration(copy, records_root, capsys):
    (copy / "ours_10" / "model.h5").unlink()  # Interrupted: it can be finished, its row cannot stand.
    before = times(copy)
    assert reproduce(records_root, copy, rows=["not_deformed"]) == 0
    assert set(ROWS) - set(results(copy)) == {"ours_10"}
    assert (copy / "ours_10" / "checkpoints").is_dir() and changed_files(before, copy) == set()

    assert reproduce(records_root, copy, "--pretrain.steps=9", rows=["not_deformed"]) == 0
    assert set(results(copy)) == {"not_deformed", "affine"}
    assert set(results(copy / "shots")) == {"scratch-4"}
    assert not list(copy.glob("*/model.h5")) and changed_files(before, copy) == set()
    assert "not of this configuration, moved to" in capsys.readouterr().err
    shown = json.loads((copy / "tables" / "shots.json").read_text())
    assert {point["start"] for point in shown["points"]} == {"scratch"} and not shown["comparisons"]
    assert not (copy / "tables" / "statistics.json").exists()


def test_another_seed_leaves_the_first_one_in_its_folder(copy, records_root):
    alone, before = results(copy), times(copy)
    assert reproduce(records_root, copy, "--seed=1", rows=["not_deformed"]) == 0
    assert changed_files(before, copy / "seed-0") == set() and results(copy / "seed-0") == alone
    assert set(results(copy / "seed-1")) == {"not_deformed"}
    assert not list(copy.rglob("replaced"))


def test_an_interrupted_call_is_continued(records_root, tmp_path, monkeypatch, capsys):
    whole_save, saved = stage.save_weights, []

    def save(model, path):
        if path.parent.name == "fine_tune_10":
            raise KeyboardInterrupt
        saved.append(path.parent.name)
        whole_save(model, path)

    monkeypatch.setattr(stage, "save_weights", save)
    few = ["transfer", "fine_tune_10"]
    assert reproduce(records_root, tmp_path, UNWATCHED, rows=few) == 130
    assert saved == ["pretrain"] and set(results(tmp_path)) == {"transfer"}
    monkeypatch.undo()
    before = times(tmp_path)
    assert reproduce(records_root, tmp_path, UNWATCHED, rows=few) == 0
    assert changed_files(before, tmp_path) == {"fine_tune_10/model.h5", "results/fine_tune_10.json"}
    assert capsys.readouterr().err.count("pretrain: finished already") == 1


def test_an_interrupted_measurement_is_made_again(copy, records_root, monkeypatch):
    measured = []

    def evaluate(workdir, options):
        measured.append(options.method)
        if options.method == "matched":
            raise KeyboardInterrupt
        return original(workdir, options)

    original = measurement.evaluate
    changed, few = "--evaluate.examples=2", ["transfer", "matched", "fine_tune_10"]
    monkeypatch.setattr(measurement, "evaluate", evaluate)
    assert reproduce(records_root, copy, changed, rows=few) == 130
    monkeypatch.undo()
    assert measured == ["transfer", "matched"]
    before = times(copy)
    assert reproduce(records_root, copy, changed, rows=few) == 0
    assert changed_files(before, copy) == {"results/matched.json", "results/fine_tune_10.json"}


def test_a_further_seed_trains_that_seed_only(copy, records_root):
    few = ["not_deformed", "transfer", "fine_tune_10"]
    alone, before = results(copy), times(copy)
    assert reproduce(records_root, copy, "--reproduce.seeds=[0,3]", rows=few) == 0
    # What the one seed left was moved to its folder, with its times.
    assert changed_files(before, copy / "seed-0") == set()
    assert results(copy / "seed-0") == alone
    assert set(results(copy / "seed-3")) == set(few)
    assert [card(copy / f"seed-{seed}")["seed"] for seed in (0, 3)] == [0, 3]

    both = [results(copy / f"seed-{seed}") for seed in (0, 3)]
    assert set(results(copy)) == set(few)
    pooled = results(copy)["fine_tune_10"]
    means = [seed["fine_tune_10"]["distance_px"]["mean"] for seed in both]
    assert means[0] != means[1]
    assert (pooled["seeds"], pooled["over_seeds"]["distance_px"]["means"]) == ([0, 3], means)
    assert pooled["distance_px"]["mean"] == pytest.approx(np.mean(means))
    with open(copy / "results" / pooled["per_pair"]) as stream:
        pairs = [float(row["distance_px"]) for row in csv.DictReader(stream)]
    assert np.mean(pairs) == pytest.approx(np.mean(means)) and len(pairs) == 3
    assert "Fine-tune (10)" in (copy / "report.html").read_text()


def test_a_row_whose_package_is_missing_is_left_out_with_a_note(records_root, tmp_path, monkeypatch, capsys):
    from tfmetareg.errors import UserError

    def evaluate(workdir, options):
        if options.weights == "elastix":
            raise UserError("elastix needs the package itk-elastix")
        return original(workdir, options)

    original = measurement.evaluate
    monkeypatch.setattr(measurement, "evaluate", evaluate)
    assert reproduce(records_root, tmp_path, rows=["not_deformed", "elastix"]) == 0
    assert "elastix: elastix needs the package itk-elastix" in capsys.readouterr().out
    assert card(tmp_path)["left_out"] == {"elastix": "elastix needs the package itk-elastix"}
    assert set(results(tmp_path)) == {"not_deformed"}


def test_a_missing_package_is_told_before_the_training(records_root, tmp_path, monkeypatch, capsys):
    def evaluate(workdir, options):
        raise KeyboardInterrupt

    monkeypatch.setattr(measurement, "evaluate", evaluate)
    monkeypatch.setitem(sys.modules, "itk", None)
    assert reproduce(records_root, tmp_path, rows=["not_deformed", "elastix"]) == 130
    assert "note: `elastix` needs the package itk-elastix" in capsys.readouterr().err


def test_the_tables_of_the_report_lie_in_files(whole):
    tables = whole / "tables"
    record = json.loads((tables / "table.json").read_text())
    shown = {row["method"]: row["distance_px_mean"] for row in record["rows"]}
    assert shown == {name: result["distance_px"]["mean"] for name, result in results(whole).items()}
    assert (tables / "table.md").read_text().count("\n") == 2 + len(ROWS)
    assert (tables / "table.csv").read_text().count("\n") == 1 + len(ROWS)
    statistics = json.loads((tables / "statistics.json").read_text())
    assert [(one["method"], one["other"]) for one in statistics["comparisons"]] == [
        ("ours_10", "fine_tune_10"),
        ("ours_10", "matched_10"),
        ("ours_10", "model_seen"),
        ("ours_long", "fine_tune_long"),
        ("ours_long", "matched_long"),
    ]
    of_loss = [(one["method"], one["other"]) for one in statistics["loss_comparisons"]]
    assert of_loss == [(one["method"], one["other"]) for one in statistics["comparisons"]]
    assert len(statistics["goals"]) == 7
    assert {point["pairs"] for point in json.loads((tables / "shots.json").read_text())["points"]} == {4}
    page = (whole / "report.html").read_text()
    for heading in (
        "Goals",
        "Paired differences",
        "Paired differences of the loss",
        "With few pairs",
        "Fine-tuning curves",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert (whole / "figures" / "shots.png").is_file()


def test_the_first_steps_of_the_papers_preset(tmp_path):
    """At 400x400, with the paper's network, rates and meta-optimizer."""
    tasks = [source_task(f"task_{letter}", "source", 2.0, {"train": 1}) for letter in "abc"]
    tasks.append(source_task("target", "target", 2.0, {"finetune": 1, "test": 1}))
    build(tasks, tmp_path / "records", preprocessing=Preprocessing((400, 400)), say=lambda line: None)
    options = ["--pretrain.steps=1", "--reptile.meta_steps=1", "--reptile.inner_steps=1", UNWATCHED]
    options += ["--reproduce.rows=[ours_10]", "--reproduce.shots=[]", f"--workdir={tmp_path / 'run'}"]
    preset = SMOKE.with_name("reproduce_paper.yaml")
    root = f"--data.root={tmp_path / 'records'}"
    assert main(["--mode=reproduce", f"--config={preset}", root, *options]) == 0
    steps = {name: entries["gradient_steps"] for name, entries in card(tmp_path / "run")["stages"].items()}
    assert steps == {"pretrain": 1, "reptile": 3, "ours_10": 10}
    assert decided(tmp_path / "run", "reptile")["reptile.outer_optimizer"] == "adam"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--reproduce.seeds=[1,1]", "`reproduce.seeds` ([1, 1]) must be a number or a list of different"),
        ("--reproduce.shots=[0]", "`reproduce.shots`: must be as `--help_all` says, got 0."),
        ("--reptile.meta_batch_size=9", "`reptile.meta_batch_size` (9) must be at most"),
        ("--data.target=task_a", "task `task_a` has no pairs in split `finetune`"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(records_root, tmp_path, capsys, option, message):
    assert reproduce(records_root, tmp_path / "run", option) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert message in error
    assert not (tmp_path / "run").exists()


def test_the_shots_alone_need_the_meta_training(records_root, tmp_path, capsys):
    options = ["--reproduce.rows=[transfer]", "--reptile.meta_batch_size=9"]
    assert reproduce(records_root, tmp_path / "run", *options) == 2
    assert "`reptile.meta_batch_size` (9) must be at most" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
