"""Forms of deployments name what exists, once, however often they are brought up to date."""

from pathlib import Path
from typing import Any

from prefect.utilities.callables import parameter_schema

from flows.pipeline import pipeline
from flows.refine import refine
from tasks.ops.forms import MAX_NAMED, datasets_below, with_what_exists
from tests.refinement_inputs import make_synthetic


def form(flow: Any) -> dict[str, Any]:
    return parameter_schema(flow.fn).model_dump_for_openapi()


def test_complete_datasets_of_a_folder_are_named_with_what_they_hold(tmp_path: Path) -> None:
    make_synthetic(str(tmp_path / "data" / "eyes.zarr"), 32, 16)
    (tmp_path / "data" / "unfinished.zarr").mkdir()
    (tmp_path / "data" / "moved-away.zarr").symlink_to(tmp_path / "nowhere")
    found = datasets_below(tmp_path)
    assert found == {"data/eyes.zarr": "synthetic, 32 images"}
    help_text = with_what_exists(form(refine), found)["properties"]["dataset"]["description"]
    assert help_text.endswith("path or URL.\n\nHere: data/eyes.zarr (synthetic, 32 images)")


def test_of_many_datasets_some_are_named_and_the_rest_counted() -> None:
    found = {f"{number}.zarr": "real, 1 images" for number in range(MAX_NAMED + 3)}
    help_text = with_what_exists(form(refine), found)["properties"]["dataset"]["description"]
    assert help_text.endswith("and 3 more")


def test_brought_up_to_date_again_a_form_names_what_exists_by_then() -> None:
    once = with_what_exists(form(refine), {"a.zarr": "real, 1 images"})
    assert with_what_exists(once, {"a.zarr": "real, 1 images"}) == once
    assert with_what_exists(once, {}) == with_what_exists(form(refine), {})


def test_fields_that_belong_together_are_neighbours_and_no_position_is_taken_twice() -> None:
    for flow in (refine, pipeline):
        properties = with_what_exists(form(flow), {})["properties"]
        names = sorted(properties, key=lambda name: properties[name]["position"])
        assert {each["position"] for each in properties.values()} == set(range(len(names)))
        if flow is refine:
            assert names[:5] == ["dataset", "refiner", "to", "append", "overwrite"]
            assert properties["gate_shift"]["title"] == "Gate shift"
        else:
            assert names[names.index("estimator") + 1] == "seeds"
