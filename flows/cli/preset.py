"""A preset with single hyperparameters overridden by command options."""

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from simgan_core.config import DEFAULT_PRESET, PRESETS, TrainingConfig
from simgan_core.errors import InputError

Preset = Annotated[
    Literal["demo", "stable", "paper", "hand", "colour", "bilateral"] | None,
    Parameter(
        help="Named training configuration; options override single settings of it. By default "
        "bilateral, or stable with family convolutional or a setting of its refiner."
    ),
]


def with_preset(preset: Preset, options: TrainingConfig) -> TrainingConfig:
    """Override a preset by the given options; None: the default preset of the options' family.

    Raises InputError for settings of `refiner` in the bilateral family, which has no such network.
    """
    base = PRESETS[preset or _preset_for(options)].model_dump()
    given = options.model_dump(exclude_unset=True)
    if "family" in options.model_fields_set:  # the dump leaves the convolutional one out
        given["family"] = options.family
    whole = _overlaid(base, given)
    # Settings of the preset's own network mean nothing in another family.
    other = "refiner" if whole.get("family") == "bilateral" else "bilateral"
    if other == "refiner" and other in given:
        raise InputError(
            "--refiner.… settings are of the convolutional family, and this training is of the "
            "bilateral one; leave them out, or add --family convolutional"
        )
    return TrainingConfig.model_validate({k: v for k, v in whole.items() if k != other})


def _preset_for(options: TrainingConfig) -> str:
    """Return the default preset, or `stable` where the convolutional family is asked for."""
    given = options.model_fields_set
    convolutional = options.family == "convolutional" and bool(given & {"family", "refiner"})
    return "stable" if convolutional else DEFAULT_PRESET


def _overlaid(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    nested = {
        name: _overlaid(base.get(name, {}), value)
        for name, value in given.items()
        if isinstance(value, dict)
    }
    return {**base, **given, **nested}
