"""Checks of arguments before a command sees them."""

from pathlib import Path

import pytest
from cyclopts import App
from pydantic import ValidationError

from flows.cli.arguments import (
    in_a_sentence,
    require_not_empty,
    require_usable,
    require_whole_numbers,
)
from simgan_core.config import TrainingConfig
from simgan_core.errors import InputError

app = App(name="any")


@app.command
def render(*, count: int = 1, width: float = 1.0, seeds: tuple[int, ...] = ()) -> None:
    """Take whole numbers, a fraction and a list."""


@pytest.mark.parametrize(
    "words", [["--count", "3.5"], ["--count=3.5"], ["--seeds", ".5"], ["--count", "9" * 5000]]
)
def test_what_is_no_whole_number_is_refused_by_the_options_name(words: list[str]) -> None:
    with pytest.raises(
        InputError, match=rf"{words[0].split('=')[0]} is .{{1,63}}: expected a whole"
    ):
        require_whole_numbers(app, ("render", *words))


@pytest.mark.parametrize("words", [["--count", "3.0"], ["--width", "3.5"], ["--seeds", "1"], []])
def test_whole_numbers_and_fractions_in_their_places_pass(words: list[str]) -> None:
    require_whole_numbers(app, ("render", *words))


@pytest.mark.parametrize(
    ("words", "named"),
    [(["a", ""], "an argument"), (["--to", ""], "--to"), (["--to="], "--to")],
)
def test_an_empty_value_is_refused_by_what_it_is_the_value_of(words: list[str], named: str) -> None:
    with pytest.raises(InputError, match=f"^{named} is '': expected a value"):
        require_not_empty(words)
    require_not_empty(["--", "=", "a="])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2**63, "within 64 bits"),
        (float("inf"), "a finite number"),
        (float("nan"), "a finite number"),
        ("a\0b", "without a null character"),
        ("\udcff", "expected UTF-8"),
        (Path("https://x/y.jpg"), "and no URL"),
        ([Path("a"), Path("s3://b/c")], "and no URL"),
    ],
)
def test_a_value_that_no_option_means_is_refused_with_its_name(value: object, said: str) -> None:
    with pytest.raises(InputError, match=rf"^--max-bad is .*{said}"):
        require_usable({"max_bad": value})


def test_settings_inside_a_configuration_are_named_with_dots() -> None:
    config = TrainingConfig.model_construct(steps=2**70)
    with pytest.raises(InputError, match=r"^--training\.steps is "):
        require_usable({"training": config})
    require_usable(
        {"training": TrainingConfig(), "out": "s3://bucket/d.zarr", "folder": Path("a:b")}
    )


def test_a_refused_configuration_is_one_sentence_with_what_was_found() -> None:
    with pytest.raises(ValidationError) as refused:
        TrainingConfig.model_validate({"steps": -1, "refiner": {"num_blocks": "many"}})
    said = in_a_sentence(refused.value)
    assert "steps: Input should be greater than" in said
    assert "found -1" in said
    assert "refiner.num_blocks: " in said
    assert "found 'many'" in said
    assert "\n" not in said


def test_a_rule_about_several_settings_is_said_without_its_validators_name() -> None:
    with pytest.raises(ValidationError) as refused:
        TrainingConfig.model_validate({"family": "convolutional", "bilateral": {"num_features": 8}})
    assert in_a_sentence(refused.value) == (
        "bilateral should be left out where family is convolutional, or family should be bilateral"
    )
