"""What any configuration accepts it can write as JSON and read again: a property of all of them."""

import json
from collections.abc import Iterator
from inspect import isabstract
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import flows.cli.ingest  # noqa: F401  the configurations of this module and the next one
import tasks.ingestion.inputs
import tasks.nightly  # noqa: F401
from simgan_core.config import Config, TrainingConfig
from storage.sources.options import SourceOptions


def configurations(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Every configuration that the commands and flows have."""
    for model in base.__subclasses__():
        if not isabstract(model):
            yield model
        yield from configurations(model)


MODELS = sorted(
    {*configurations(Config), *configurations(SourceOptions)},
    key=lambda model: (model.__module__, model.__qualname__),
)
TEXT = st.text(st.characters(), max_size=8)  # lone surrogates too, as in names that are not UTF-8
st.register_type_strategy(Path, TEXT.map(Path))
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.integers(),
    st.integers(-(10**5000), 10**5000),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 1e308, 5e-324, -0.0, "inf", "nan", "1e999"]),
    TEXT,
    st.binary(max_size=4),
    st.lists(st.floats(), max_size=3),
    st.lists(st.text(st.characters(), max_size=3), max_size=3),
    st.datetimes(),
)


def documents(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """What somebody might give: fitting values, some of them replaced by odd ones."""
    fields = model.model_fields
    fitting = {name: values(field.annotation) for name, field in fields.items()}
    required = {name: fitting[name] for name, field in fields.items() if field.is_required()}
    optional = {name: strategy | ODD for name, strategy in fitting.items() if name not in required}
    return st.fixed_dictionaries(
        {name: strategy | ODD for name, strategy in required.items()}, optional=optional
    )


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return documents(annotation)
    nested = [each for each in get_args(annotation) if isinstance(each, type)]
    if any(issubclass(each, BaseModel) for each in nested):
        return st.one_of(*map(values, nested))
    return st.from_type(annotation)


def test_all_configurations_are_tried() -> None:
    names = {model.__name__ for model in MODELS}
    assert names >= {"TrainingConfig", "EstimatorConfig", "ComparisonConfig", "Runner", "Storing"}
    assert names >= {"FolderOptions", "UnityEyesOptions", "RetrainRule", "Appearance"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_accepted_is_written_and_read_again(model: type[BaseModel], data: Any) -> None:
    try:
        accepted = model.model_validate(data.draw(documents(model)))
    except ValidationError:
        return
    assert model.model_validate_json(accepted.model_dump_json()) == accepted
    text = json.dumps(accepted.model_dump(mode="json"), allow_nan=False)
    assert model.model_validate(json.loads(text)) == accepted


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "inf", "1e999"])
def test_numbers_without_end_are_refused_by_name(value: object) -> None:
    with pytest.raises(ValidationError, match=r"stopping\.max_pupil_shift_px"):
        TrainingConfig.model_validate({"stopping": {"max_pupil_shift_px": value}})


def test_text_that_is_no_unicode_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match=r"(?s)match_labels_by.*something that JSON can hold"):
        TrainingConfig(match_labels_by="\udcff.pt")
