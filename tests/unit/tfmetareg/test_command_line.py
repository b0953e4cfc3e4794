"""The command line: what it accepts, what it refuses and how it says so."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tfmetareg import config
from tfmetareg.command_line import build_parser, flat_keys, parse_command
from tfmetareg.config import MODES, Config
from tfmetareg.errors import UserError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SECTIONS = {
    field.name: getattr(config, field.type)
    for field in dataclasses.fields(Config)
    if dataclasses.is_dataclass(getattr(config, field.type, None))
}
PARTS = {"": Config, **SECTIONS}


def parse(*arguments: str, mode: str = "pretrain") -> Config:
    return parse_command(["--mode", mode, *map(str, arguments)], CONFIGS).config


def refusal(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def options(part: type) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(part) if field.name not in SECTIONS]


@pytest.mark.parametrize("section", PARTS)
def test_every_option_has_a_default_and_a_help_line(section):
    shown = re.sub(r"\s", "", build_parser().format_help())
    for field in options(PARTS[section]):
        key = f"{section}.{field.name}".strip(".")
        assert (field.default, field.default_factory) != (dataclasses.MISSING,) * 2, key
        line = re.search(rf"^ +{field.name}: (\S.*)$", PARTS[section].__doc__, re.MULTILINE)
        assert line, f"{key} has no help line"
        assert re.sub(r"\s", "", f"--{key}") in shown and re.sub(r"\s", "", line[1]) in shown, key


@pytest.mark.parametrize("section", PARTS)
def test_every_number_has_a_range(section):
    assert not [field.name for field in options(PARTS[section]) if re.search(r"\b(int|float)\b", field.type)]


@pytest.mark.parametrize(
    ("argument", "unknown", "meant"),
    [
        ("--pretrain.stepz=3", "pretrain.stepz", "pretrain.steps"),
        ("--pretrian.steps=3", "pretrian.steps", "pretrain.steps"),
        ("--reptile.inner_lerning_rate=3", "reptile.inner_lerning_rate", "reptile.inner_learning_rate"),
        ("--sed=3", "sed", "seed"),
        ("--wrkdir=here", "wrkdir", "workdir"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_one_named(argument, unknown, meant):
    assert refusal(argument) == f"`{unknown}` is not an option; did you mean `{meant}`?"


def test_an_unknown_key_that_resembles_nothing_is_sent_to_the_help():
    assert refusal("--zzzzz=1") == "`zzzzz` is not an option; `--help` lists them."


@pytest.mark.parametrize("argument", ["--pretrain.step=3", "--see=3", "--work=here", "--conf=a.yaml"])
def test_an_abbreviation_is_refused(argument):
    assert "is not an option" in refusal(argument)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("pretrain.steps", "many", "NonNegativeInt"),
        ("pretrain.steps", "1.5", "NonNegativeInt"),
        ("pretrain.learning_rate", "fast", "Rate"),
        ("deterministic", "maybe", "bool"),
        ("model.features", "7", "list"),
        ("data.sources", "octa", "list"),
        ("pretrain.steps", "-1", ">=0"),
        ("pretrain.batch_size", "0", ">0"),
        ("pretrain.learning_rate", "0", ">0"),
        ("pretrain.learning_rate", "2", "<=1"),
        ("pretrain.learning_rate", "nan", ">0"),
        ("loss.smoothness_weight", "-0.5", ">=0"),
        ("loss.smoothness_weight", "inf", "<inf"),
        ("loss.window", "1", ">=3"),
        ("loss.window", "101", "<=99"),
        ("loss.window", "8", "odd"),
        ("model.features", "[[4, -4], [4, 4]]", ">0"),
        ("model.features", "[[4, 4]]", "[encoder, decoder]"),
        ("model.features", "[[4, 4], [4]]", "at least as long."),
        ("loss.similarity", "mse", "'ncc', 'voxelmorph'"),
        ("reptile.side_by_side", "true", "`reptile.reset_inner` is task"),
        ("reproduce.rows", "[ours]", "'not_deformed', 'affine'"),
        ("reproduce.seeds", "0", "--help"),
        ("reproduce.shots", "[few]", "--help"),
        ("reptile.inner_steps", "0", ">0"),
        ("finetune.name", "a/b", "plain name"),
        ("export.name", ".hidden", "plain name"),
        ("seed", "2147483648", "<2147483648"),
        ("mode", "reptil", "'pretrain', 'reptile'"),
    ],
)
def test_a_bad_value_is_refused_with_its_key_the_rule_and_the_value(key, value, rule):
    line = refusal(f"--{key}={value}")
    assert f"`{key}`" in line and "must be" in line and rule in line
    assert re.findall(r"[^][ ,]+", value)[0] in line.replace(f"`{key}`", "")


def test_the_mode_is_required():
    with pytest.raises(UserError, match="required: mode"):
        parse_command([], CONFIGS)


def test_a_config_file_with_an_unknown_key_is_refused_like_an_argument(tmp_path):
    (tmp_path / "a.yaml").write_text("pretrain:\n  stepz: 3\n")
    line = refusal("--config", tmp_path / "a.yaml")
    assert line == "`pretrain.stepz` is not an option; did you mean `pretrain.steps`?"


@pytest.mark.parametrize(
    "content",
    [b"pretrain: [1\nb: }", b"- 1\n", b"\xff\xfe\x00", b"just a line"],
    ids=["broken", "list", "binary", "text"],
)
def test_a_damaged_config_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    assert str(tmp_path / "a.yaml") in refusal("--config", tmp_path / "a.yaml")


def test_a_missing_config_file_is_refused_by_name(tmp_path):
    line = refusal("--config", tmp_path / "none.yaml")
    assert "config" in line and str(tmp_path / "none.yaml") in line


def test_an_argument_wins_over_the_config_file(tmp_path):
    (tmp_path / "a.yaml").write_text("pretrain:\n  steps: 3\n  batch_size: 5\n")
    found = parse("--config", tmp_path / "a.yaml", "--pretrain.steps=7").pretrain
    assert (found.steps, found.batch_size) == (7, 5)


CHANGES = [
    "--seed=7",
    "--deterministic=false",
    "--data.root=some/where",
    "--data.sources=[octa_choroid, 'no']",
    "--model.features=[[4, 4], [4, 4, 4]]",
    "--loss.smoothness_weight=0.25",
    "--pretrain.learning_rate=1e-5",
    "--evaluate.method=on",
    "--reproduce.rows=[transfer]",
]


def test_the_written_configuration_reads_back_as_the_same(tmp_path):
    changed = parse(*CHANGES)
    (tmp_path / "config.yaml").write_text(changed.to_yaml())
    assert changed != Config() and changed.data.sources == ["octa_choroid", "no"]
    assert parse("--config", tmp_path / "config.yaml") == changed


def test_print_config_prints_what_reads_back_as_the_same(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*CHANGES, "--print_config")
    assert not ended.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    assert {"mode", "workdir", *PARTS} - {""} <= set(printed) and "config" not in printed
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(printed))
    assert parse("--config", tmp_path / "config.yaml") == parse(*CHANGES)


@pytest.mark.parametrize("mode", MODES)
def test_a_modes_file_holds_its_whole_section_at_the_defaults(mode):
    content = yaml.safe_load((CONFIGS / f"{mode}.yaml").read_text())
    assert set(content[mode]) == {field.name for field in options(SECTIONS[mode])}
    assert parse(mode=mode) == Config()


def test_a_modes_file_is_read_where_no_config_is_named(tmp_path):
    (tmp_path / "pretrain.yaml").write_text("pretrain:\n  steps: 12\n")
    command = parse_command(["--mode", "pretrain"], tmp_path)
    assert command.config.pretrain.steps == 12
    assert command.workdir == Path("runs/pretrain")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_in_configs_parses(path):
    parse("--config", path)


def test_flat_names_every_key_once():
    keys = flat_keys()
    assert len(keys) == len(set(keys)) == sum(len(options(part)) for part in PARTS.values())
    assert Config().flat("loss") == {
        "loss.window": 9,
        "loss.smoothness_weight": 1.0,
        "loss.similarity": "ncc",
    }


def test_the_command_line_is_parsed_without_tensorflow():
    script = (
        "import sys; from tfmetareg.command_line import parse_command; from pathlib import Path\n"
        f"parse_command(['--mode', 'pretrain'], Path({str(CONFIGS)!r}))\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=CONFIGS.parent, check=True, timeout=60)
