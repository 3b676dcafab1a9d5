"""A preset with single hyperparameters overridden by command options."""

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from simgan_core.config import DEFAULT_PRESET, PRESETS, TrainingConfig

Preset = Annotated[
    Literal["demo", "stable", "paper", "hand", "colour", "bilateral"] | None,
    Parameter(
        help="Named training configuration; options override single settings of it. By default "
        "bilateral, or stable with family convolutional or a setting of its refiner."
    ),
]


def with_preset(preset: Preset, options: TrainingConfig) -> TrainingConfig:
    """Override a preset by the given options; None: the default preset of the options' family."""
    base = PRESETS[preset or _preset_for(options)].model_dump()
    return TrainingConfig.model_validate(_overlaid(base, options.model_dump(exclude_unset=True)))


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
