"""The command line: what it accepts, what it refuses and how it says so."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tfmetareg import __version__, config
from tfmetareg.cli import MODE_FUNCTIONS, main
from tfmetareg.command_help import MOST_USED
from tfmetareg.command_line import build_parser, flat_keys, parse_command, preset_names
from tfmetareg.config import MODES, Config
from tfmetareg.errors import UserError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SECTIONS = {
    field.name: getattr(config, field.type)
    for field in dataclasses.fields(Config)
    if dataclasses.is_dataclass(getattr(config, field.type, None))
}
PARTS = {"": Config, **SECTIONS}
SHARED = {"data", "model", "loss"}


def parse(*arguments: str, mode: str = "pretrain") -> Config:
    return parse_command(["--mode", mode, *map(str, arguments)]).config


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
    assert refusal("--zzzzz=1") == "`zzzzz` is not an option; `--help_all` lists them."


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
        ("loss.similarity", "mse", "'ncc', 'voxelmorph', 'mind'"),
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
        parse_command([])


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
    assert parse("--pretrain.steps=7", "--config", tmp_path / "a.yaml").pretrain == found
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


def commented_paper_values(text: str) -> dict[str, object]:
    """`section.key: value` of the comments "paper: value" in a configuration file."""
    values, section = {}, ""
    for line in text.splitlines():
        indent, key = re.match(r"( *)([\w]*)", line).groups()
        section = section if indent else key
        if paper := re.search(r"# (?:[\w()]+; )?paper: (.+)$", line):
            values[f"{section}.{key}"] = yaml.safe_load(paper[1])
    return values


def test_the_reference_lists_every_key_at_its_default():
    assert yaml.safe_load((CONFIGS / "reference.yaml").read_text()) == Config().to_dict()
    assert parse("--config=reference") == Config() == parse()


def test_the_reference_tells_every_value_of_the_paper_that_differs():
    sections = [*SECTIONS, ""]
    paper, default = parse("--config=reproduce_paper").flat(*sections), Config().flat(*sections)
    own = {"data.root", "model.name", "model.features"}  # The folder of the records; the network is the same.
    differing = {key: value for key, value in paper.items() if value != default[key] and key not in own}
    assert len(differing) > 10
    assert commented_paper_values((CONFIGS / "reference.yaml").read_text()) == differing


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_is_the_same_by_name_and_by_path(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_path = parse("--config", path)
    assert parse(f"--config={path.stem}") == parse("--config", path.name) == by_path
    assert by_path != Config() or path.stem == "reference"
    assert path.stem in preset_names()


def test_a_file_wins_over_the_preset_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded.yaml").write_text("pretrain:\n  steps: 3\n")
    assert parse("--config=embedded.yaml").pretrain.steps == 3
    assert parse("--config=embedded").pretrain.steps == 1500


def test_of_two_files_the_last_wins_and_an_argument_over_both(tmp_path):
    (tmp_path / "a.yaml").write_text("pretrain:\n  steps: 3\n")
    both = ["--config", "embedded", f"--config={tmp_path / 'a.yaml'}"]
    assert parse(*both).pretrain.steps == 3
    assert parse(*reversed(both[2:]), "--config=embedded").pretrain.steps == 1500
    assert parse("--pretrain.steps=7", *both).pretrain.steps == 7


@pytest.mark.parametrize("name", ["configs/reptile.yaml", "reptile.yaml", "reptile", "/none/reptile.yaml"])
def test_the_defaults_of_a_mode_are_no_file_any_more(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refusal(f"--config={name}")
    assert line.startswith(f"`config` ({name}) is not needed any more")
    assert "`--mode reptile`" in line and "`--config reference`" in line


def test_an_unknown_preset_is_refused_with_those_that_exist():
    line = refusal("--config=reproduce_smke")
    assert "(reproduce_smke)" in line and all(path.stem in line for path in CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("key", ["embedded_size", "embedded_align", "embedded_share"])
def test_a_key_that_became_a_builders_option_is_refused_with_the_new_one(key):
    line = refusal(f"--data.{key}=affine")
    assert line.startswith(f"`data.{key}` is now one of the options in `data.embedded`")
    given = re.search(r'`--data.embedded "(.+)"`', line)[1]
    assert parse("--data.embedded", given).data.embedded == given


def test_every_mode_has_its_function():
    assert [*MODE_FUNCTIONS] == [*MODES]
    for place in MODE_FUNCTIONS.values():
        module, function = place.split(":")
        assert (CONFIGS.parent / (module.replace(".", "/") + ".py")).is_file()
        assert callable(getattr(importlib.import_module(module), function))


def helped(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("asked", [["--help"], ["-h"], ["--mode=unknown", "--help"], ["--help", "--seed=1"]])
def test_the_help_is_one_screen(capsys, asked):
    shown = helped(capsys, *asked)
    assert len(shown.splitlines()) <= 40 and max(map(len, shown.splitlines())) <= 86
    assert all(re.search(rf"^  {mode} ", shown, re.MULTILINE) for mode in MODES)
    assert all(name in shown for name in (*preset_names(), "--help_all", "--mode MODE --help"))


def test_the_options_in_the_short_help_are_there():
    named = {option.split()[0].removeprefix("--") for option, _ in MOST_USED} - {"workdir", "config"}
    assert len(named) > 5 and named <= {*flat_keys()}


@pytest.mark.parametrize("asked", [["--mode", "finetune", "--help"], ["-h", "--mode=finetune"]])
def test_the_help_of_a_mode_lists_its_options_and_no_others(capsys, asked):
    shown = helped(capsys, *asked)
    options = {key for key in flat_keys() if f"--{key} " in shown}
    assert options == {
        key for key in flat_keys() if key.split(".")[0] not in SECTIONS.keys() - SHARED - {"finetune"}
    }


def test_the_help_of_the_short_form_is_that_of_register(capsys):
    assert helped(capsys, "register", "--help") == helped(capsys, "--mode=register", "--help")


def test_help_all_lists_every_option(capsys):
    shown = helped(capsys, "--help_all")
    assert all(f"--{key} " in shown for key in flat_keys())


def test_every_section_belongs_to_a_mode_or_to_all():
    assert {section for mode in MODES.values() for section in mode.sections} == SECTIONS.keys() - SHARED


def test_version_prints_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out == f"tfmetareg {__version__}\n"


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
        "import sys; from tfmetareg.command_line import parse_command\n"
        "parse_command(['--mode', 'pretrain', '--config', 'embedded'])\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=CONFIGS.parent, check=True, timeout=60)
