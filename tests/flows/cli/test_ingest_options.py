"""Options of `simgan ingest FORMAT`, made from the format's options model."""

from typing import Any

import pytest

from flows.cli import ingest
from flows.cli.ingest import Storing, height_and_width
from simgan_core.errors import InputError

STORING = Storing(to="d.zarr")


@pytest.mark.parametrize(
    ("command", "given", "message"),
    [
        ("ingest_unityeyes", {"size": "4x55"}, "--size: height: .*equal to 8, found 4"),
        ("ingest_folder", {"size": "35x9000"}, "--size: .*equal to 8192, found 9000"),
        ("ingest_unityeyes", {"head_limit_deg": 500.0}, "--head-limit: .*equal to 180, found 500"),
        (
            "ingest_arrays",
            {"images": "i", "gaze": "g", "gaze_pitchyaw": "a"},
            "^give gaze or gaze_pitchyaw, not both$",
        ),
    ],
)
def test_what_the_options_model_refuses_is_named_as_on_the_command_line(
    command: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        getattr(ingest, command)("place", storing=STORING, **given)


def test_a_size_is_height_x_width() -> None:
    assert height_and_width("35X55") == (35, 55)
    with pytest.raises(InputError, match="--size 35: expected height x width in pixels"):
        height_and_width("35")


def test_other_names_are_no_commands() -> None:
    with pytest.raises(AttributeError):
        _ = ingest.nothing
