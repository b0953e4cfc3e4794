"""What the words of `evaluate.weights` measure."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest

from tfmetareg.config import Config, DataOptions, EvaluateOptions
from tfmetareg.data.records import examples
from tfmetareg.errors import UserError
from tfmetareg.evaluation.alignments import measured_alignments
from tfmetareg.models.weights import save_weights
from tfmetareg.modes.evaluate import evaluate
from tfmetareg.modes.workdir import Workdir, open_workdir
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
    arrays = np.load(workdir.path / "results" / "affine.examples.npz")
    np.testing.assert_array_equal(
        arrays["moving"], np.load(workdir.path / "results" / "not_deformed.examples.npz")["moving"]
    )


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
    warped, fixed = (shown[name][:1, ..., None] for name in ("warped", "fixed"))
    assert float(local_ncc(fixed, warped)[0]) == pytest.approx(float(after[0]["local_ncc"]), abs=1e-5)


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
