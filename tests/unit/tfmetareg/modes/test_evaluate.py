"""What the words of `evaluate.weights` measure."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tfmetareg.cli import main
from tfmetareg.config import Config, DataOptions, EvaluateOptions
from tfmetareg.data.records import examples
from tfmetareg.errors import UserError
from tfmetareg.evaluation.alignments import measured_alignments
from tfmetareg.files import write_json
from tfmetareg.imaging.preprocessing_file import write_preprocessing
from tfmetareg.models.weights import save_weights
from tfmetareg.modes import evaluate as evaluate_mode
from tfmetareg.modes.evaluate import evaluate, show
from tfmetareg.modes.workdir import Workdir, open_workdir
from tfmetareg.report.page import write_report
from tfmetareg.report.results import read_results, read_scores
from tfmetareg.training.losses import local_ncc
from tfrecords_builder.__main__ import main as build_main


@pytest.fixture
def opened(turned_roots, tmp_path):
    """Opens a work directory on the turned pairs, with their alignments or without."""

    def open_(align: str) -> Workdir:
        workdir = open_workdir(
            Config(data=DataOptions(root=str(turned_roots[align])), deterministic=False), tmp_path
        )
        workdir.begin()
        return workdir

    return open_


def measured(workdir: Workdir, weights: str) -> tuple[dict, list[dict]]:
    path = evaluate(workdir, EvaluateOptions(weights=weights))
    result = json.loads(path.read_text())
    with open(path.with_name(result["per_pair"]), newline="", encoding="utf-8") as stream:
        return result, list(csv.DictReader(stream))


@pytest.mark.parametrize("align", ["none", "affine"])
def test_rows_without_a_network(opened, align):
    """Not deformed is the raw pair, affine the alignment alone, on records with alignments and without."""
    workdir = opened(align)
    raw, raw_pairs = measured(workdir, "none")
    aligned, aligned_pairs = measured(workdir, "affine")
    assert (raw["method"], aligned["method"]) == ("not_deformed", "affine")
    assert raw["distance_px"]["mean"] == raw["distance_px"]["before_mean"] > 8
    assert aligned["distance_px"]["before_mean"] == raw["distance_px"]["mean"]
    assert aligned["distance_px"]["mean"] < 0.5
    assert [float(pair["seconds_alignment"]) for pair in raw_pairs] == [0, 0, 0]
    for pair in aligned_pairs:
        assert 0 < float(pair["seconds_alignment"]) < float(pair["seconds"])
    shown = [np.load(workdir.path / "results" / f"{row}.examples.npz") for row in ("not_deformed", "affine")]
    for moving, other in zip(*(by_key["moving"][np.argsort(by_key["key"])] for by_key in shown)):
        np.testing.assert_array_equal(moving, other)


def test_a_networks_row_holds_the_alignment_and_its_time(opened):
    workdir = opened("affine")
    path = workdir.path / "mine.h5"
    save_weights(workdir.model(), path)
    network, pairs = measured(workdir, str(path))
    # Fresh weights hardly deform: what is left is the alignment.
    assert network["distance_px"]["mean"] < 0.5 < 8 < network["distance_px"]["before_mean"]
    assert all(0 < float(pair["seconds_alignment"]) < float(pair["seconds"]) for pair in pairs)


def test_each_pair_is_adapted_to_alone_from_the_same_weights(opened):
    workdir = opened("affine")
    path = workdir.path / "mine.h5"
    save_weights(workdir.model(), path)
    plain, before = measured(workdir, str(path))
    options = EvaluateOptions(weights=str(path), adapt_steps=10, adapt_learning_rate=1e-3)
    result = json.loads(evaluate(workdir, options).read_text())
    with open(workdir.path / "results" / "mine_pair.csv", newline="", encoding="utf-8") as stream:
        after = list(csv.DictReader(stream))
    for one, other in zip(before, after):
        assert float(other["loss"]) < float(one["loss"])
    assert result["seconds_per_pair"]["median"] > plain["seconds_per_pair"]["median"]
    # The examples are registered once more after the last pair: nothing of it is left in the weights.
    shown = np.load(workdir.path / "results" / "mine_pair.examples.npz")
    (worst,) = (row for row in after if row["key"] == shown["key"][0])
    warped, fixed = (shown[name][:1, ..., None] for name in ("warped", "fixed"))
    assert float(local_ncc(fixed, warped)[0]) == pytest.approx(float(worst["local_ncc"]), abs=1e-5)


@pytest.fixture
def two_weights(opened) -> list[str]:
    """Files of one name in two folders, with different weights of one network."""
    workdir = opened("affine")
    model = workdir.model()
    paths = [workdir.path / seed / "reptile" / "model.h5" for seed in ("seed-0", "seed-1")]
    for seed, path in enumerate(paths):
        rng = np.random.default_rng(seed)
        for variable in model.trainable_variables:
            variable.assign_add(rng.normal(0, 0.05, variable.shape).astype(np.float32))
        path.parent.mkdir(parents=True)
        save_weights(model, path)
    return [str(path) for path in paths]


def content(folder: Path, method: str) -> tuple[list[dict], dict[str, np.ndarray]]:
    """What is measured of every pair, but for the time, and the arrays of the first ones."""
    with open(folder / f"{method}.csv", newline="", encoding="utf-8") as stream:
        pairs = [
            {name: value for name, value in row.items() if "seconds" not in name}
            for row in csv.DictReader(stream)
        ]
    with np.load(folder / f"{method}.examples.npz") as arrays:
        return pairs, dict(arrays)


def evaluated(opened, **options) -> Path:
    """Runs the mode; returns the folder of its work directory."""
    workdir = opened("affine")
    config = dataclasses.replace(workdir.config, evaluate=EvaluateOptions(**options))
    evaluate_mode.run(config, workdir.path)
    return workdir.path


@pytest.mark.long
def test_rows_of_one_process_are_those_of_a_process_each(opened, two_weights, monkeypatch, capsys):
    """To the last bit, though the network is built and traced only once."""
    alone = {}
    for weights, method in zip([*two_weights, "affine"], ("reptile-seed-0", "reptile-seed-1", "affine")):
        evaluate_mode._ready_network.cache_clear()
        folder = evaluated(opened, weights=weights, method=method) / "results"
        alone[method] = content(folder, method)
        for file in folder.glob(f"{method}.*"):
            file.unlink()
    built = []
    build = evaluate_mode.build_configured
    monkeypatch.setattr(evaluate_mode, "build_configured", lambda *a: built.append(a) or build(*a))
    evaluate_mode._ready_network.cache_clear()
    folder = evaluated(opened, weights=[*two_weights, "affine"]) / "results"
    assert len(built) == 1
    assert {path.stem for path in folder.glob("*.json")} == {*alone}
    for method, (pairs, arrays) in alone.items():
        together, shown = content(folder, method)
        assert together == pairs
        assert shown.keys() == arrays.keys()
        assert all(np.array_equal(shown[name], arrays[name]) for name in arrays)
    assert alone["reptile-seed-0"][0] != alone["reptile-seed-1"][0]


def test_the_results_of_each_task_of_a_list_are_in_its_own_folder(opened, two_weights, capsys):
    path = evaluated(opened, weights=two_weights[0], task=["turned"])
    folder = path / "tasks" / "turned"
    assert {file.name for file in folder.iterdir()} >= {"config.yaml", "run.json", "report.html", "results"}
    assert json.loads((folder / "results" / "reptile.json").read_text())["task"] == "turned"
    assert not (path / "results").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": []}, r"`evaluate.weights` \(\[\]\) must name one at least"),
        ({"task": []}, r"`evaluate.task` \(\[\]\) must name one at least"),
        ({"weights": ["none", "affine"], "method": "x"}, "would be called x; measure those one at a time"),
        ({"weights": ["none", "none"]}, "would be called not_deformed"),
        ({"weights": "none", "task": ["turned", "turned"]}, "must name each task once"),
        ({"weights": ["none", "nowhere"]}, "`nowhere` must be an .h5 file"),
        ({"weights": ["none", "affine"], "adapt_steps": 1}, "must be 0"),
        ({"weights": "none", "task": ["turned", "nothing"]}, "nothing"),
        ({"weights": "none", "split": "train"}, "has no pairs in split `train`"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(opened, options, message):
    with pytest.raises(UserError, match=message):
        evaluated(opened, **options)
    assert not [*opened("affine").path.rglob("*.json.*"), *opened("affine").path.rglob("results")]


def test_what_has_no_weights_is_not_adapted(opened):
    with pytest.raises(UserError, match=r"`evaluate.adapt_steps` \(3\) must be 0: .* \(affine\)"):
        evaluate(opened("none"), EvaluateOptions(weights="affine", adapt_steps=3))


def test_a_pair_whose_adaptation_diverges_is_left_as_the_weights_have_it(opened, capsys):
    workdir = opened("affine")
    path = workdir.path / "mine.h5"
    save_weights(workdir.model(), path)
    plain, _ = measured(workdir, str(path))
    options = EvaluateOptions(weights=str(path), adapt_steps=30, adapt_learning_rate=1.0)
    result = json.loads(evaluate(workdir, options).read_text())
    assert (result["method"], result["adapt_steps"]) == ("mine_pair", 30)
    assert result["local_ncc"]["mean"] == pytest.approx(plain["local_ncc"]["mean"], abs=1e-5)
    assert "left as the weights have it: the adaptation diverged" in capsys.readouterr().err


def alignments_of(workdir):
    return measured_alignments(workdir.records, "turned", "test", workdir.path / "results")


def test_alignments_are_found_once_for_the_pairs_that_are_there(opened):
    first = alignments_of(opened("affine"))
    kept = opened("affine").path / "results" / "turned-test.alignments.npz"
    before = kept.stat().st_mtime_ns
    second = alignments_of(opened("affine"))
    assert kept.stat().st_mtime_ns == before
    np.testing.assert_array_equal(first.seconds, second.seconds)
    np.testing.assert_array_equal(first.alignments, second.alignments)
    alignments_of(opened("none"))  # Other records: the kept ones are not theirs.
    assert kept.stat().st_mtime_ns > before


def test_stored_alignments_are_those_that_are_timed(opened):
    workdir = opened("affine")
    stored = np.stack([pair["alignment"] for pair in examples(workdir.records, "turned", "test")])
    np.testing.assert_array_equal(alignments_of(workdir).alignments, stored)


def test_a_missing_peer_is_said_before_anything_is_done(opened, monkeypatch):
    monkeypatch.setitem(sys.modules, "itk", None)
    workdir = opened("none")
    with pytest.raises(UserError, match="needs the package itk-elastix"):
        evaluate(workdir, EvaluateOptions(weights="elastix"))
    assert not (workdir.path / "results").exists()


def test_records_prepared_otherwise_than_the_weights_are_told(opened, capsys):
    """On stderr, in the result and in the report; nothing where they were prepared alike."""
    workdir = opened("affine")
    path = workdir.path / "mine.h5"
    save_weights(workdir.model(), path)
    manifest = workdir.records.manifest
    write_preprocessing(path, (32, 64), {**manifest.preprocessing, "intensity": "clahe", "align": "none"})
    result, _ = measured(workdir, str(path))
    assert result["preprocessing_differs"] == {
        "image size": {"weights": [32, 64], "records": [64, 64]},
        "intensity": {"weights": "clahe", "records": "none"},
        "align": {"weights": "none", "records": "affine"},
    }
    told = (
        "trained on images that were prepared otherwise than these records: image size 32 64, here 64 64; "
        "intensity clahe, here none; align none, here affine."
    )
    assert capsys.readouterr().err == f"warning: {path}: {told}\n"
    page = write_report(workdir.path).read_text().replace("<wbr>", "")
    assert f"mine: {told}" in page
    write_preprocessing(path, manifest.image_shape, manifest.preprocessing)
    result, _ = measured(workdir, str(path))
    assert "preprocessing_differs" not in result and capsys.readouterr().err == ""
    assert "prepared otherwise" not in write_report(workdir.path).read_text()


def test_an_evaluation_tells_the_distance_before_as_well(opened, turned_roots, capsys):
    workdir = opened("affine")
    options = [f"--data.root={turned_roots['affine']}", f"--workdir={workdir.path}"]
    assert main(["--mode=evaluate", "--evaluate.weights=affine", *options]) == 0
    result = json.loads((workdir.path / "results" / "affine.json").read_text())
    before, after = (result["distance_px"][name] for name in ("before_mean", "mean"))
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("Affine only, 3 pairs, before -> after registration: landmark distance (px) ")
    assert f" {before:.2f} -> {after:.2f}, NCC {result['ncc']['before_mean']:.3f} -> " in line


def test_affine_alone_brings_real_scans_within_reach(real_data, tmp_path):
    """The 12 test pairs of the retina, at 160 px: 5 px apart before; the best affine leaves 0.6."""
    source = ["--source", "pairs", "--input", real_data / "octa_scp", "--role", "target", "--task", "scp"]
    options = ["--output", tmp_path / "records", "--image-size", 160, 160, "--workers", 1]
    assert build_main([str(word) for word in ["build", *source, *options]]) == 0
    config = Config(data=DataOptions(root=str(tmp_path / "records")), deterministic=False)
    workdir = open_workdir(config, tmp_path / "work")
    workdir.begin()
    affine, pairs = measured(workdir, "affine")
    assert affine["distance_px"]["before_mean"] > 4
    assert affine["distance_px"]["mean"] < 1
    assert len(pairs) == 12 and max(float(pair["distance_px"]) for pair in pairs) < 1.5


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """Three pairs of colour images, each farther apart than the one before, and equalised records of them."""
    root = tmp_path_factory.mktemp("coloured")
    rows = ["moving,fixed,subject,split,moving_landmarks,fixed_landmarks"]
    for number, shift in enumerate((1, 3, 6)):
        smooth = ndimage.gaussian_filter(
            np.random.default_rng(number).random((40, 40, 3)), (2, 2, 0), mode="wrap"
        )
        image = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
        for name, pixels, column in (("m", np.roll(image, shift, axis=1), 12 + shift), ("f", image, 12)):
            Image.fromarray(pixels).save(root / f"{name}{number}.png")
            (root / f"{name}{number}.csv").write_text(f"x,y\n{column},20\n")
        rows.append(f"m{number}.png,f{number}.png,=s{number},test,m{number}.csv,f{number}.csv")
    (root / "pairs.csv").write_text("\n".join(rows) + "\n")
    options = [f"--input={root}", f"--output={root / 'records'}", "--task=t", "--role=target"]
    assert build_main(["build", "--source=pairs", "--image-size", "40", "40", *options]) == 0
    return root


def shown_of(coloured, tmp_path, **options):
    workdir = open_workdir(Config(data=DataOptions(root=str(coloured / "records"))), tmp_path)
    path = evaluate(workdir, EvaluateOptions(weights="none", **options))
    return dict(np.load(path.with_name("not_deformed.examples.npz")))


def test_the_pairs_kept_for_figures_are_the_worst_the_median_and_the_best(coloured, tmp_path):
    assert shown_of(coloured, tmp_path)["key"].tolist() == ["m2.png:f2.png", "m1.png:f1.png", "m0.png:f0.png"]
    assert shown_of(coloured, tmp_path, examples=1)["key"].tolist() == ["m2.png:f2.png"]


def test_figures_can_show_the_images_of_which_the_records_were_made(coloured, tmp_path):
    (coloured / "records" / "origins.json").rename(tmp_path / "origins.json")
    recorded = shown_of(coloured, tmp_path)
    assert str(recorded["intensity"]) == "equalize" and "original_moving_0" not in recorded
    arrays = shown_of(coloured, tmp_path, images=str(coloured), comparison="overlay")
    original = np.asarray(Image.open(coloured / "m2.png"))
    np.testing.assert_array_equal(arrays["original_moving_0"], original)
    np.testing.assert_array_equal(arrays["original_warped_0"], original)
    np.testing.assert_array_equal(
        arrays["moving"], recorded["moving"]
    )  # The network's input stays what it is.
    assert str(arrays["comparison"]) == "overlay"
    # The builder has noted their folder, so that they are found without being named.
    (tmp_path / "origins.json").rename(coloured / "records" / "origins.json")
    np.testing.assert_array_equal(shown_of(coloured, tmp_path)["original_moving_0"], original)
    page = write_report(tmp_path).read_text()
    assert "The images are the originals, brought to the records&#39; size." in page


def test_images_that_are_not_the_records_own_are_not_shown(coloured, tmp_path, capsys):
    for name in ("m0", "f0", "m1", "f1", "m2"):
        shutil.copy(coloured / f"{name}.png", tmp_path / f"{name}.png")
    Image.fromarray(np.asarray(Image.open(coloured / "f2.png"))[::-1]).save(tmp_path / "f2.png")
    arrays = shown_of(coloured, tmp_path / "run", images=str(tmp_path))
    assert [f"original_fixed_{index}" in arrays for index in range(3)] == [False, True, True]
    assert "records' own images of 1 pair (m2.png:f2.png): " in capsys.readouterr().err
    # Nor are those of a folder that is no longer what it was.
    moved = tmp_path / "moved"
    shutil.copytree(coloured / "records", moved / "records")
    for place in ("gone", ["no", "text"], "../run"):
        write_json(moved / "records" / "origins.json", {"t": place})
        assert "original_fixed_0" not in shown_of(moved, tmp_path / "run")
    with pytest.raises(UserError, match=r"`evaluate.images` \(.*gone\): no such folder"):
        shown_of(coloured, tmp_path, images=str(tmp_path / "gone"))


def test_names_that_begin_like_a_formula_are_none_in_a_spreadsheet(coloured, tmp_path):
    shown_of(coloured, tmp_path)
    rows = list(csv.DictReader(open(tmp_path / "results" / "not_deformed.csv", encoding="utf-8")))
    assert rows[0]["subject"].startswith("'=s")
    (result,) = read_results(tmp_path)
    assert read_scores(result)[0].subject.startswith("=s")


def test_what_not_to_trust_is_said_on_the_terminal(coloured, tmp_path, capsys):
    shown_of(coloured, tmp_path)
    path = tmp_path / "results" / "not_deformed.csv"
    rows = list(csv.DictReader(open(path, encoding="utf-8")))
    for row in rows:
        row.update(ncc=0.9, ncc_before=0.1, distance_px=float(row["distance_before_px"]) + 5)
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    show(tmp_path)
    said = capsys.readouterr().out
    assert "warning: Not deformed: on average the images became more alike (NCC 0.100 → 0.900)" in said
