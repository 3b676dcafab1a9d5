"""A preset with single hyperparameters overridden by command options."""

from typing import Any, Literal

from simgan_core.config import PRESETS, TrainingConfig

Preset = Literal["demo", "stable", "paper", "hand", "colour", "bilateral"]


def with_preset(preset: Preset | None, options: TrainingConfig) -> TrainingConfig:
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
