import pickle
from pathlib import Path

import pytest

from wmtp.errors import SettingsError
from wmtp.settings.config import Config, Models, Paths, config_json_schema, load_config

SMALL = "paths: {models: {base: ./m}}\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refused(tmp_path: Path, text: str, overrides: tuple[str, ...] = ()) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load_config(write(tmp_path / "c.yaml", text), overrides)
    return caught.value


def test_the_example_of_the_format_is_read_in_full(tmp_path: Path) -> None:
    text = f"""
paths:
  models:
    base: [s3://lab/models/llama-7b-mtp, ./models/gpt2-mtp]
    ref: ./models/sheared-llama-2.7b
    rm: /models/starling-rm/
  output_dir: ./runs
  cache_dir: null
devices: {{device: auto, dtype: bfloat16}}
tracking: {{report_to: [tensorboard], experiment: wmtp}}
trust: {{allow_code: {{"modeling.py": "sha256:{"0" * 64}"}}}}
"""
    config = load_config(write(tmp_path / "config.yaml", text))
    assert config.paths.models == Models(
        base=["s3://lab/models/llama-7b-mtp", f"{tmp_path}/models/gpt2-mtp"],
        ref=[f"{tmp_path}/models/sheared-llama-2.7b"],
        rm=["/models/starling-rm"],
    )
    assert config.paths.output_dir == f"{tmp_path}/runs"
    assert config.devices.dtype == "bfloat16"
    assert config.trust.allow_code == {"modeling.py": "sha256:" + "0" * 64}


def test_a_base_model_is_all_that_must_be_given(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "config.yaml", SMALL))
    assert (config.paths.models.ref, config.paths.models.rm) == ([], [])
    assert config.paths.output_dir == f"{tmp_path}/runs"
    assert config.tracking.report_to == ["tensorboard"]
    assert pickle.loads(pickle.dumps(config)) == config


def test_relative_paths_are_seen_from_the_file_whatever_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    write(tmp_path / "conf" / "c.yaml", SMALL)
    monkeypatch.chdir(tmp_path)
    config = load_config("conf/c.yaml", ["paths.models.rm=~/rm"])
    assert config.paths.models.base == [f"{tmp_path}/conf/m"]
    assert config.paths.models.rm == [f"{Path.home()}/rm"]


def test_a_config_built_in_python_keeps_its_paths_as_they_are() -> None:
    assert Config(paths=Paths(models=Models(base=["m"]))).paths.models.base == ["m"]


def test_every_fault_is_named_with_file_line_and_path(tmp_path: Path) -> None:
    error = refused(
        tmp_path,
        """paths:
  models: {base: htp://x, rf: ./ref}
  output_dir: 3
devices:
  device: gpu
  dtype: bf16
tracing: {}
trust:
  allow_code: {modeling.py: true}
""",
    )
    where = tmp_path / "c.yaml"
    assert error.problem == f"{where}: 7 faults"
    lines = "\n".join(error.faults)
    assert f"{where}:2: paths.models.base.0 is no address: 'htp://x' has the unknown scheme 'htp'" in lines
    assert f"{where}:2: paths.models.rf is not a known field (did you mean 'ref'?)" in lines
    assert f"{where}:3: paths.output_dir is 3: input should be a valid string" in lines
    assert f"{where}:5: devices.device is 'gpu'; use auto, cpu, mps, cuda or cuda:0" in lines
    assert f"{where}:6: devices.dtype is 'bf16'; use one of 'auto', 'float32', 'bfloat16', 'float16'" in lines
    assert f"{where}:7: tracing is not a known field (did you mean 'tracking'?)" in lines
    assert f"{where}:9: trust.allow_code.modeling.py is true" in lines


def test_one_fault_stands_in_the_first_line_with_its_own_hint(tmp_path: Path) -> None:
    error = refused(tmp_path, SMALL + "devices:\n  dtype: half\n")
    assert str(error) == (
        f"{tmp_path}/c.yaml:3: devices.dtype is 'half'\nhint: use one of 'auto', 'float32', 'bfloat16', 'float16'"
    )


def test_a_missing_section_is_placed_at_the_section_around_it(tmp_path: Path) -> None:
    assert refused(tmp_path, "\n\npaths:\n  output_dir: x\n").problem == f"{tmp_path}/c.yaml:3: paths.models is missing"


def test_consent_that_is_no_digest_says_where_to_get_one(tmp_path: Path) -> None:
    error = refused(tmp_path, SMALL + "trust: {allow_code: {modeling.py: yes}}\n")
    assert error.problem == f"{tmp_path}/c.yaml:2: trust.allow_code.modeling.py is 'yes'"
    assert error.hint == "write sha256:<64 hexadecimal digits>, as 'wmtp trust URI' prints it"


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "is empty"), ("# nothing\n", "is empty"), ("[1]", "is not a mapping of sections"), ("x", "is not a mapping")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    error = refused(tmp_path, text)
    assert error.problem.startswith(f"{tmp_path}/c.yaml: {problem}")
    assert error.hint == "begin from one of the files in recipes/"


def test_a_missing_file_names_those_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "config.yaml", SMALL)
    with pytest.raises(SettingsError) as caught:
        load_config(tmp_path / "confg.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/confg.yaml: No such file or directory\nhint: check the path; beside it are: config.yaml"
    )


def test_a_directory_and_a_file_that_is_not_utf_8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a directory, not a file"):
        load_config(tmp_path)
    (tmp_path / "c.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(SettingsError, match=r"c\.yaml:2: is not UTF-8"):
        load_config(tmp_path / "c.yaml")


def test_a_dangling_link_and_a_git_lfs_pointer_are_called_that(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.symlink_to("gone.yaml")
    with pytest.raises(SettingsError, match=r"c\.yaml: a dangling symbolic link: 'gone\.yaml', to which it points"):
        load_config(path)
    write(tmp_path / "gone.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(SettingsError, match=r"c\.yaml: this is a Git LFS pointer, not the file itself"):
        load_config(path)


def test_overrides_take_yaml_values_and_the_last_one_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", SMALL + "devices:\n")
    config = load_config(
        path,
        [
            "paths.models.base=[/a, s3://lab/c]",
            "devices.dtype=float32",
            "devices.dtype=float16",
            'trust.allow_code={"modeling.py": "sha256:' + "1" * 64 + '"}',
        ],
    )
    assert config.paths.models.base == ["/a", "s3://lab/c"]
    assert config.devices.dtype == "float16"
    assert list(config.trust.allow_code) == ["modeling.py"]


def test_a_fault_in_an_override_names_the_override_instead_of_a_line(tmp_path: Path) -> None:
    error = refused(tmp_path, SMALL, ("devices.dtyp=float16", "tracking.experiment=7"))
    assert error.faults == (
        "override devices.dtyp=float16: devices.dtyp is not a known field (did you mean 'dtype'?)",
        "override tracking.experiment=7: tracking.experiment is 7: input should be a valid string",
    )


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("devices.dtype", "override 'devices.dtype': not of the form key=value"),
        ("devices..x=1", "override 'devices..x=1': not of the form key=value"),
        ("paths.models.base.first=x", "override paths.models.base.first=x: paths.models.base is not a section"),
        ("paths.models.base=[x", "override paths.models.base=[x: is not YAML: while parsing a flow sequence"),
    ],
)
def test_what_is_no_override_is_refused(tmp_path: Path, override: str, problem: str) -> None:
    assert refused(tmp_path, SMALL, (override,)).problem.startswith(problem)


def test_an_override_mends_a_value_that_could_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "paths: {models: {base: '${NOT_SET_HERE}'}}")
    assert load_config(path, ["paths.models.base=/m"]).paths.models.base == ["/m"]


def test_an_unset_variable_and_a_wrong_field_are_reported_together(tmp_path: Path) -> None:
    error = refused(tmp_path, "paths:\n  models:\n    base: ${NOT_SET_HERE}\ndevice: {}\n")
    assert [fault.partition(";")[0] for fault in error.faults] == [
        f"{tmp_path}/c.yaml:3: paths.models.base names the environment variable NOT_SET_HERE, which is not set",
        f"{tmp_path}/c.yaml:4: device is not a known field (did you mean 'devices'?)",
    ]


def test_the_json_schema_offers_one_address_or_a_list() -> None:
    base = config_json_schema()["$defs"]["Models"]["properties"]["base"]
    assert {"type": "string"} in base["anyOf"]
    assert config_json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
