"""A preset with single hyperparameters overridden by command options."""

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from simgan_core.config import PRESETS, TrainingConfig

Preset = Annotated[
    Literal["demo", "stable", "paper", "hand", "colour", "bilateral"] | None,
    Parameter(
        help="Where every training setting comes from that is not given here. Left out: bilateral "
        "for the bilateral family, else stable."
    ),
]


def with_preset(preset: Preset, options: TrainingConfig) -> TrainingConfig:
    """Lay the options that were given over a preset; None: the one of the options' family."""
    if preset is None:
        preset = "bilateral" if options.family == "bilateral" else "stable"
    base = PRESETS[preset].model_dump()
    return TrainingConfig.model_validate(_overlaid(base, options.model_dump(exclude_unset=True)))


def _overlaid(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    nested = {
        name: _overlaid(base.get(name, {}), value)
        for name, value in given.items()
        if isinstance(value, dict)
    }
    return {**base, **given, **nested}
