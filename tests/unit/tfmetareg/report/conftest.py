"""The work directory that the report's tests share."""

from __future__ import annotations

import json

import pytest

from tests.unit.tfmetareg.report.workdirs import evaluation_line, training_line, write_metrics, write_result


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
    """Three methods with landmarks, two stages, a run card and a configuration. Read only."""
    folder = tmp_path_factory.mktemp("run")
    write_result(folder, "ours_10", distance=1.25, epochs=10)
    write_result(folder, "not_deformed", distance=6.0)
    write_result(folder, "transfer", distance=2.5)
    write_metrics(folder, "reptile", [training_line(step, -0.01 * step) for step in range(50)])
    lines = [training_line(step, -0.3) for step in range(1, 5)]
    lines += [evaluation_line(0, 0, 4.0), evaluation_line(4, 10, 1.25)]
    write_metrics(folder, "ours_10", lines)
    (folder / "run.json").write_text(json.dumps({"revision": "3f2c1ab", "versions": {"python": "3.11"}}))
    (folder / "config.yaml").write_text("seed: 0\ndata:\n  target: <octa> & co\n")
    return folder
