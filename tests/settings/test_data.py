"""The data section of a recipe."""

from pathlib import Path

import pytest

from recipe_texts import SMALL, read, refused


def test_validation_takes_what_it_does_not_say_from_train(tmp_path: Path) -> None:
    text = SMALL.replace("a.txt", "a.jsonl, format: prompt_completion, completion: code, max_length: 64")
    recipe = read(tmp_path, text, "data.validation={files: v.txt, format: text}")
    validation = recipe.data.validation
    assert validation is not None
    assert (validation.format, validation.max_length, validation.completion) == ("text", 64, "completion")


def test_a_template_is_inherited_and_may_be_given_on_a_command_line(tmp_path: Path) -> None:
    text = SMALL.replace("a.txt", "a.jsonl, format: prompt_completion")
    override = 'data.train.template="### {prompt}\\n{completion}"'
    recipe = read(tmp_path, text, override, "data.validation={files: v.jsonl, packing: false}")
    assert recipe.data.train.template == "### {prompt}\n{completion}"
    assert recipe.data.validation is not None
    assert recipe.data.validation.template == recipe.data.train.template
    assert read(tmp_path, text).data.train.template == "{prompt}{completion}"
    assert read(tmp_path, text, "data.validation={files: v.txt, format: text}").data.validation is not None


@pytest.mark.parametrize(
    "template",
    ["", "{prompt}", "{completion}", "{completion}{prompt}", "{prompt}{prompt}{completion}", "{promt}{completion}"],
)
def test_a_template_has_each_place_once_and_in_order(tmp_path: Path, template: str) -> None:
    text = refused(
        tmp_path, SMALL.replace("a.txt", "a.jsonl, format: prompt_completion"), f"data.train.template='{template}'"
    )
    assert f"data.train.template is '{template}'" in text
    assert text.endswith('hint: write {prompt} once and {completion} once after it, as in "{prompt}\\n{completion}"')


def test_a_template_is_only_for_prompts_and_completions(tmp_path: Path) -> None:
    for format_ in ("text", "raw_text"):
        text = refused(tmp_path, SMALL, f"data.train.format={format_}", "data.train.template='{prompt} {completion}'")
        assert f"data.train.template is '{{prompt}} {{completion}}', and format '{format_}' does not use it" in text


def test_what_is_held_out_is_read_as_the_training_data(tmp_path: Path) -> None:
    text = SMALL.replace("a.txt", "a.jsonl, format: prompt_completion, prompt: task")
    held = read(tmp_path, text, "data.validation={fraction: 0.1, prompt: task, packing: false, max_length: 8}")
    assert held.data.validation is not None
    assert (held.data.validation.packing, held.data.validation.max_length) == (False, 8)
    given = "{fraction: 0.1, prompt: text, template: '{prompt} {completion}'}"
    refusal = refused(tmp_path, text, f"data.validation={given}")
    assert "data.validation.prompt is 'text', in data.train it is 'task'" in refusal
    assert "data.validation.template is '{prompt} {completion}', in data.train it is '{prompt}{completion}'" in refusal
    assert "name files in the place of fraction" in refusal


def test_validation_is_either_files_or_a_share_of_the_training_documents(tmp_path: Path) -> None:
    held_out = read(tmp_path, SMALL, "data.validation={fraction: 0.05}").data.validation
    assert held_out is not None
    assert (held_out.fraction, held_out.files) == (0.05, [])
    for given in ("{}", "{files: a, fraction: 0.1}"):
        assert "needs either files or fraction" in refused(tmp_path, SMALL, f"data.validation={given}")


def test_a_json_key_that_the_format_does_not_use_is_not_silently_ignored(tmp_path: Path) -> None:
    text = refused(tmp_path, SMALL.replace("a.txt", "a.jsonl, completion: code"))
    assert "r.yaml:3: data.train.completion is 'code', and format 'text' does not use it" in text
    assert "set format: prompt_completion, or remove completion" in text


def test_data_may_stand_in_an_object_store_or_on_the_hub_and_nowhere_else(tmp_path: Path) -> None:
    for address in ("s3://b/a.txt", "hf://datasets/org/name/a*.parquet"):
        assert read(tmp_path, SMALL.replace("a.txt", address)).data.train.files == [address]
    assert "data is read from local files" in refused(tmp_path, SMALL.replace("a.txt", "https://b/a.txt"))


def test_sources_are_read_as_train_says_where_they_do_not_say_otherwise(tmp_path: Path) -> None:
    sources = "sources: [{files: a.jsonl, weight: 3}, {files: b.jsonl, format: chat}]"
    train = read(tmp_path, SMALL.replace("files: a.txt", f"text: body, {sources}")).data.train
    assert [(part.format, part.text, part.weight) for part in train.sources] == [
        ("text", "body", 3),
        ("chat", "text", 1),
    ]
    assert train.parts == train.sources


@pytest.mark.parametrize("given", ["files: a, sources: [{files: b}]", "max_length: 8"])
def test_training_data_is_files_or_sources(tmp_path: Path, given: str) -> None:
    assert "data.train.files needs either files or sources" in refused(tmp_path, SMALL.replace("files: a.txt", given))


def test_brackets_in_the_name_of_the_recipes_directory_are_not_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "runs[1]").mkdir()
    assert read(tmp_path / "runs[1]").data.train.files == [f"{tmp_path}/runs[[]1]/a.txt"]
