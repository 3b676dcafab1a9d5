"""Choice of the arms that can run with the given datasets."""

from typing import Literal

from simgan_core.errors import InputError
from tasks.comparison.arms import ArmName, ComparisonConfig
from tasks.comparison.classical_baselines import TITLES as METHOD_TITLES
from tasks.comparison.plan import Arm

ARM_TITLES: dict[ArmName, str] = {
    "synthetic_unmatched": "synthetic, labels unmatched",
    "synthetic": "synthetic",
    "tone_matched": "synthetic, tone-matched",
    "fourier": "synthetic, Fourier amplitudes",
    "synthetic_augmented": "synthetic, augmented",
    "refined": "refined",
    "refined_augmented": "refined, augmented",
    "synthetic_refined": "synthetic + refined",
    "adapted": "unlabelled real, taught by synthetic",
    "adapted_refined": "unlabelled real, taught by refined",
    "adapted_both": "unlabelled real, taught by both",
    "real": "real (ceiling)",
    "real_synthetic": "real + synthetic",
    "real_refined": "real + refined",
}
_AUGMENTED = ("synthetic_augmented", "refined_augmented")
_SIZED: tuple[ArmName, ...] = ("synthetic", "refined")
_LOOKS: dict[ArmName, Literal["histogram", "fourier"]] = {
    "tone_matched": "histogram",
    "fourier": "fourier",
}
_ADAPTED: tuple[ArmName, ...] = ("adapted", "adapted_refined", "adapted_both")
_WITH_REAL: tuple[ArmName, ...] = ("real", "real_synthetic", "real_refined")


def choose_arms(
    config: ComparisonConfig,
    synthetic: str,
    refined: str,
    real: str | None,
    look_reference: str | None,
    num_rows: int,
    *,
    matched: bool,
    teachers: tuple[str, ...] = (),
) -> tuple[Arm, ...]:
    """Return the selected arms that can run with the given datasets.

    `num_rows` are those of the synthetic dataset; `matched`: labels are matched; `teachers`: other
    simulators' datasets for the adapted arms. Under leave-one-person-out the real images are the
    test set's other people, and every arm has them.
    """
    if config.protocol.name == "leave-one-person-out":
        extra: dict[ArmName, tuple[str, ...]] = {
            "real": (),
            "real_synthetic": (synthetic,),
            "real_refined": (refined,),
        }
        return tuple(_arm(name, extra[name]) for name in _WITH_REAL if name in config.arms)
    datasets: dict[ArmName, tuple[str, ...]] = {
        "synthetic": (synthetic,),
        "synthetic_augmented": (synthetic,),
        "refined": (refined,),
        "refined_augmented": (refined,),
        "synthetic_refined": (synthetic, refined),
    }
    if matched:
        datasets["synthetic_unmatched"] = (synthetic,)
    if look_reference is not None:
        datasets |= dict.fromkeys(_LOOKS, (synthetic,))
        datasets |= {"adapted": (synthetic,), "adapted_refined": (refined,)}
        datasets["adapted_both"] = (synthetic, refined)
    if real is not None:
        datasets |= {"real": (real,), "real_synthetic": (real, synthetic)}
        datasets["real_refined"] = (real, refined)
    arms = [
        _arm(name, datasets[name], look_reference, teachers)
        for name in ARM_TITLES
        if name in config.arms and name in datasets
    ]
    if config.protocol.name == "cross-domain":
        arms += _sized_arms(config, datasets, num_rows)
        arms += [
            Arm(
                name=f"{method}_{name}",
                title=f"{METHOD_TITLES[method]}, {name}",
                training_set=name,
                datasets=datasets[name],
                method=method,
            )
            for method in config.methods
            for name in _SIZED
            if name in config.arms
        ]
    if matched:
        # Teachers have to know the broad distribution: trained on a narrow one they predict its
        # mean too often.
        as_they_are = {"synthetic_unmatched", "real", *_ADAPTED}
        arms = [
            arm.model_copy(update={"matched": arm.training_set not in as_they_are}) for arm in arms
        ]
    return tuple(arms)


def _arm(
    name: ArmName,
    datasets: tuple[str, ...],
    look_reference: str | None = None,
    teachers: tuple[str, ...] = (),
) -> Arm:
    return Arm(
        name=name,
        title=ARM_TITLES[name],
        training_set=name,
        datasets=datasets,
        look=_LOOKS.get(name),
        look_reference=look_reference if name in _LOOKS else None,
        teachers_of=look_reference if name in _ADAPTED else None,
        teachers=teachers if name in _ADAPTED else (),
        augmented=name in _AUGMENTED,
    )


def _sized_arms(
    config: ComparisonConfig, datasets: dict[ArmName, tuple[str, ...]], num_rows: int
) -> list[Arm]:
    wrong = [share for share in config.shares if not 0 < share < 1]
    if wrong:
        raise InputError(
            f"a share of the training set should be between 0 and 1, found {wrong[0]:g}; all rows "
            "take part by themselves"
        )
    sizes = sorted({max(2, round(share * num_rows)) for share in config.shares})
    return [
        Arm(
            name=f"{name}_{size}",
            title=f"{name}, {size:,} images",
            training_set=name,
            datasets=datasets[name],
            num_rows=size,
        )
        for name in _SIZED
        if name in config.arms
        for size in sizes
    ]
