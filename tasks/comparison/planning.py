"""Plan a comparison or an evaluation: check its datasets, choose its arms, name it by content."""

import logging
from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
from prefect import task

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from storage.errors import StorageError
from storage.schema import DatasetInfo
from tasks.comparison.arm_choice import choose_arms
from tasks.comparison.arms import ArmName, ComparisonConfig, Protocol
from tasks.comparison.criterion import is_judged
from tasks.comparison.error_metrics import error_metric_of
from tasks.comparison.estimators import (
    content_of,
    with_number_format,
)
from tasks.comparison.people import caution_of_people, people_in, people_in_common
from tasks.comparison.plan import Arm, Comparison
from tasks.runtime.compatibility import (
    HeldOutImages,
    require_distinct,
    require_domain,
    require_gaze,
    require_same_images,
    require_valid_rows,
)
from tasks.runtime.content_ids import content_id
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.policies import CACHE
from tasks.runtime.recipes import recipe_version
from tasks.runtime.refiners import open_refiner
from tasks.runtime.styles import base_ids, num_styles
from tasks.runtime.tracking.experiments import COMPARISONS
from tasks.runtime.tracking.runs import begin_run

logger = logging.getLogger(__name__)

_TESTED_ON_SEEN = (
    "CAUTION: the refiner was trained on images of the test set, without their labels, so that "
    "refined images may do better here than for people whom it never saw."
)


@task(name="plan-comparison", cache_policy=CACHE)
def plan_comparison(
    datasets: DatasetCache,
    synthetic: str,
    refined: str,
    real: str | None,
    test: str,
    seeds: int,
    estimator: EstimatorConfig,
    config: ComparisonConfig,
    unlabelled: str | None = None,
    teachers: tuple[str, ...] = (),
) -> Comparison:
    """Check that the datasets may be compared, and name the comparison by their content.

    A number format that was left open is decided here, for all estimators, whichever machine
    trains them: bf16 and fp32 give other estimators, so that their ids differ.
    """
    inputs = _Inputs.find(datasets, test, synthetic, refined, real, unlabelled, *teachers)
    _require_roles(inputs, synthetic, refined, real)
    _require_refined_from(inputs, synthetic, refined)
    _require_teachers(inputs, teachers, synthetic, refined)
    _require_unlabelled(inputs, unlabelled, {"synthetic": synthetic, "refined": refined}, teachers)
    real_of_refiner = _real_images_of_refiner(inputs, refined)
    seen, caveat = _untested(inputs, real_of_refiner)
    reference = unlabelled or real
    if reference is None and isinstance(seen, DatasetInfo):
        inputs.infos[seen.url] = seen
        reference = seen.url
    elif reference is None:
        logger.warning(
            "no label matching and no tone-matched, Fourier or adapted arms, which need unlabelled "
            "real images: %s; give --unlabelled",
            seen,
        )
    else:
        inputs.held_out.require_none_in(inputs.infos[reference])
    info = inputs.infos[synthetic]
    if "gaze" not in {label.name for label in info.spec.labels}:
        logger.info("no label matching and no classical baselines: gaze is not labelled")
        config = config.model_copy(
            update={"methods": (), "match_labels": "never", "arms": _without_adapted(config)}
        )
    if estimator.head_pose:
        # Unlabelled images have no head pose for a teacher.
        config = config.model_copy(update={"arms": _without_adapted(config)})
    matched = (
        config.match_labels != "never"
        and reference is not None
        and config.protocol.name != "leave-one-person-out"
    )
    arms = choose_arms(
        config,
        *(synthetic, refined, real, reference),
        info.num_valid,
        matched=matched,
        teachers=teachers,
    )
    judging = None
    if reference is not None and _can_be_judged(config, arms, info, estimator):
        judging = _Judging(reference, (synthetic, *teachers))
    if teachers and judging is None and not any(arm.teachers for arm in arms):
        raise InputError(
            "--teachers cannot be used: it needs --unlabelled, gaze labels, no protocol "
            "leave-one-person-out and no --head-pose; or leave --teachers out"
        )
    matching = (synthetic, reference) if matched and reference is not None else None
    return _begin(
        "comparison",
        *(arms, inputs, seeds, estimator, config.protocol, matching, judging),
        match_doubtful=config.match_labels == "always",
        caveat=caveat,
        real_of_refiner=real_of_refiner,
    )


class _Inputs(NamedTuple):
    """Datasets that a plan is made of."""

    test: str
    infos: dict[str, DatasetInfo]
    """Every dataset by its place."""
    held_out: HeldOutImages
    """The images of the test set."""
    datasets: DatasetCache

    @classmethod
    def find(cls, datasets: DatasetCache, test: str, *others: str | None) -> Self:
        """Open the test set and the others that are given."""
        infos = {url: datasets.find(url) for url in (*others, test) if url is not None}
        for info in infos.values():
            require_valid_rows(info)
        return cls(test, infos, HeldOutImages(infos[test], datasets), datasets)


class _Judging(NamedTuple):
    """Places of the datasets of an error on pseudo-labels."""

    unlabelled: str
    simulators: tuple[str, ...]

    def digests(self, infos: Mapping[str, DatasetInfo]) -> list[str]:
        """Return the digests of these datasets, for content ids."""
        return [infos[url].digest for url in (self.unlabelled, *self.simulators)]


def _can_be_judged(
    config: ComparisonConfig,
    arms: tuple[Arm, ...],
    synthetic: DatasetInfo,
    estimator: EstimatorConfig,
) -> bool:
    """Return whether unlabelled images say anything about an arm; they have no head poses."""
    return (
        config.pseudo_label_error
        and any(is_judged(arm) for arm in arms)
        and "gaze" in {label.name for label in synthetic.spec.labels}
        and not estimator.head_pose
    )


def _without_adapted(config: ComparisonConfig) -> tuple[ArmName, ...]:
    return tuple(name for name in config.arms if not name.startswith("adapted"))


def _require_roles(inputs: "_Inputs", synthetic: str, refined: str, real: str | None) -> None:
    """Refuse datasets in the wrong role; the test set may be of another simulator."""
    given = {"synthetic": synthetic, "refined": refined, "real": real, "test": inputs.test}
    infos = {role: inputs.infos[url] for role, url in given.items() if url is not None}
    require_distinct(infos)
    require_domain(infos["synthetic"], "synthetic", "synthetic")
    # Images that another program refined are ingested as synthetic ones.
    require_domain(infos["refined"], "refined", "refined", "synthetic")
    require_domain(infos["test"], "test", "real", "synthetic")
    if "real" in infos:
        require_domain(infos["real"], "real", "real")


def _require_refined_from(inputs: "_Inputs", synthetic: str, refined: str) -> None:
    """Refuse images that were refined from another dataset: their difference is not refinement's.

    What another program refined is taken on trust, and what was refined twice by its rows.
    """
    info, original = inputs.infos[refined], inputs.infos[synthetic]
    parent = info.spec.provenance.get("parent_digest")
    if parent in {None, original.digest}:
        return
    made, found = (inputs.datasets.open(each) for each in (info, original))
    labels, styles = found.read_labels(), num_styles(info)
    expected = [each for each in found.read_ids() for _ in range(styles)]
    if base_ids(made) != expected or not all(
        name in labels and np.array_equal(np.repeat(labels[name], styles, axis=0), each, True)
        for name, each in made.read_labels().items()
    ):
        raise InputError(
            f"{refined} was refined from another dataset than {synthetic} (digest "
            f"{str(parent)[:12]}, expected {original.digest[:12]}): give that one as --synthetic; "
            "where rows were added to it since, refine again with --append"
        )


def _require_teachers(
    inputs: "_Inputs", teachers: tuple[str, ...], synthetic: str, refined: str
) -> None:
    """Refuse teachers that are not of other simulators, or have no gaze."""
    infos = {f"teachers' number {n}": inputs.infos[url] for n, url in enumerate(teachers, 1)}
    given = {"synthetic": inputs.infos[synthetic], "refined": inputs.infos[refined]}
    require_distinct(given | infos)
    for role, info in infos.items():
        require_domain(info, role, "synthetic", "refined")
        require_gaze(info)


def _require_unlabelled(
    inputs: "_Inputs", unlabelled: str | None, others: dict[str, str], teachers: tuple[str, ...]
) -> None:
    """Refuse rendered images as the unlabelled real ones, unless the test set's are rendered."""
    if unlabelled is None:
        return
    info = inputs.infos[unlabelled]
    named = others | {f"teachers' number {n}": url for n, url in enumerate(teachers, 1)}
    for role, url in named.items():
        require_distinct({role: inputs.infos[url], "unlabelled": info})
    tested = inputs.infos[inputs.test].spec.domain
    require_domain(info, "unlabelled", *dict.fromkeys(("real", tested)))


@task(name="plan-evaluation", cache_policy=CACHE)
def plan_evaluation(
    datasets: DatasetCache,
    train: str,
    test: str,
    seeds: int,
    estimator: EstimatorConfig,
    unlabelled: str | None = None,
) -> Comparison:
    """Check that the datasets may be used together: a comparison of one arm.

    With `unlabelled` real images of two: the first with matched labels, the second without.
    """
    inputs = _Inputs.find(datasets, test, train, unlabelled)
    domain = inputs.infos[train].spec.domain
    arm = Arm(name=domain, title=domain, training_set=domain, datasets=(train,))
    real_of_refiner = _real_images_of_refiner(inputs, train) if domain == "refined" else ""
    if unlabelled is None:
        return _begin(
            "evaluation",
            *((arm,), inputs, seeds, estimator, Protocol()),
            real_of_refiner=real_of_refiner,
        )
    if domain == "real":
        raise InputError(
            f"the labels of real images are never matched: leave --unlabelled out, or train on a "
            f"synthetic or refined dataset ({train} is real)"
        )
    _require_unlabelled(inputs, unlabelled, {"training": train}, ())
    names = {"name": f"{domain}_unmatched", "title": f"{domain}, labels unmatched"}
    arms = (arm.model_copy(update={"matched": True}), arm.model_copy(update=names))
    matching = (train, unlabelled)
    return _begin(
        "evaluation",
        *(arms, inputs, seeds, estimator, Protocol(), matching),
        match_doubtful=True,
        real_of_refiner=real_of_refiner,
    )


def _begin(
    kind: str,
    arms: tuple[Arm, ...],
    inputs: _Inputs,
    seeds: int,
    estimator: EstimatorConfig,
    protocol: Protocol,
    matching: tuple[str, str] | None = None,
    judging: _Judging | None = None,
    *,
    match_doubtful: bool = False,
    caveat: str = "",
    real_of_refiner: DatasetInfo | str = "",
) -> Comparison:
    """Make a comparison's run; `matching`: datasets that labels are matched from and to.

    `real_of_refiner`: the real images that a refiner was trained on, or why they are not known.
    """
    estimator = with_number_format(estimator)
    test = inputs.infos[inputs.test]
    infos = {"test": test} | _training_sets(arms, inputs.infos)
    infos |= _other_simulators(judging, infos, inputs)
    measure = error_metric_of(infos)
    _require_fitting_network(estimator, measure.name)
    for role, info in infos.items():
        require_same_images(info, test, role, "test")
        if role != "test":
            inputs.held_out.require_none_in(info)
    if not arms:
        raise InputError(
            "none of the selected arms can run with the given datasets; pass --real, or select "
            "other --arms"
        )
    place = _unlabelled_of(arms, matching, judging)
    unlabelled = None if place is None else inputs.infos[place]
    if unlabelled is not None:
        require_same_images(unlabelled, test, "unlabelled real", "test")
        inputs.held_out.require_none_in(unlabelled)
    people = people_in(inputs.datasets.open(test).read_ids())
    require_people(protocol, people, test)
    common = {}
    if not protocol.by_person:
        common = people_in_common(
            people, _ids_of_real(infos, unlabelled, real_of_refiner, inputs.datasets)
        )
    if caution := caution_of_people(common):
        logger.warning("%s", caution)
    key = content_id(
        kind,
        {
            "arms": [
                content_of(arm, inputs.infos) | {"name": arm.name, "training_set": arm.training_set}
                for arm in arms
            ],
            "match_doubtful_labels": match_doubtful,
            "label_prior": matching and [inputs.infos[url].digest for url in matching],
            "test": test.digest,
            "protocol": protocol.title,
            "seeds": seeds,
            "estimator": estimator.model_dump(mode="json"),
            "recipes": [recipe_version("estimate"), recipe_version("compare")],
        }
        | ({} if judging is None else {"judged": judging.digests(inputs.infos)}),
    )
    tags = {"stage": kind, "protocol": protocol.title, "simgan.test_digest": test.digest}
    run = begin_run(COMPARISONS, key, key, tags)
    run.params(estimator.model_dump() | {"seeds": seeds, "protocol": protocol.title})
    run.datasets(infos | ({} if unlabelled is None else {"unlabelled": unlabelled}))
    comparison = Comparison(
        id=key,
        measure=measure.name,
        protocol=protocol,
        arms=arms,
        test=inputs.test,
        test_digest=test.digest,
        people=people,
        people_in_common=common,
        caveat=caveat,
        seeds=seeds,
        estimator=estimator,
        mlflow_run_id=run.run_id,
        unlabelled=matching and matching[1],
        prior_source=matching and matching[0],
        match_doubtful_labels=match_doubtful,
        judged_on=judging and judging.unlabelled,
        judged_by=() if judging is None else judging.simulators,
        datasets=inputs.infos,
    )
    run.text("comparison.json", comparison.model_dump_json(indent=2))
    return comparison


def _training_sets(
    arms: tuple[Arm, ...], by_url: Mapping[str, DatasetInfo]
) -> dict[str, DatasetInfo]:
    """Return every training dataset, once, by role."""
    found: dict[str, DatasetInfo] = {}
    for arm in arms:
        for info in (by_url[url] for url in (*arm.datasets, *arm.teachers)):
            if info.url not in {known.url for known in found.values()}:
                role = arm.training_set if len(arm.datasets) == 1 else info.spec.domain
                # One arm can have several datasets, and two of one domain: each is checked.
                found[role if role not in found else f"{role} {len(found)}"] = info
    return found


def _unlabelled_of(
    arms: tuple[Arm, ...], matching: tuple[str, str] | None, judging: _Judging | None
) -> str | None:
    """Return the place of the unlabelled real images in use; None if none are."""
    used = [arm.look_reference or arm.teachers_of for arm in arms]
    used += [matching and matching[1], judging and judging.unlabelled]
    return next((place for place in used if place is not None), None)


def _ids_of_real(
    training_sets: Mapping[str, DatasetInfo],
    unlabelled: DatasetInfo | None,
    real_of_refiner: DatasetInfo | str,
    datasets: DatasetCache,
) -> dict[str, list[str]]:
    """Return the ids of the real images that take part beside the test set's, by their role."""
    found: dict[str, DatasetInfo] = {}
    for role, info in training_sets.items():
        if role != "test" and info.spec.domain == "real":
            found["real training images"] = info
    if unlabelled is not None:
        found["unlabelled real images"] = unlabelled
    if isinstance(real_of_refiner, DatasetInfo):
        found["real images of the refiner's training"] = real_of_refiner
    return {role: datasets.open(info).read_ids() for role, info in found.items()}


def _other_simulators(
    judging: _Judging | None, known: Mapping[str, DatasetInfo], inputs: _Inputs
) -> dict[str, DatasetInfo]:
    """Return the datasets that teach for the error on pseudo-labels alone, by role."""
    if judging is None:
        return {}
    urls = {info.url for info in known.values()}
    teaching = enumerate(inputs.infos[url] for url in judging.simulators)
    return {f"teachers {number}": info for number, info in teaching if info.url not in urls}


def _require_fitting_network(estimator: EstimatorConfig, measure: str) -> None:
    if (estimator.architecture == "hourglass") != (measure == "joints"):
        wanted = "hourglass" if measure == "joints" else "pooled, compact, paper or resnet"
        raise InputError(
            f"the datasets' labels are of {measure}, architecture {estimator.architecture} does "
            f"not estimate that: use --architecture {wanted}"
        )


def require_people(protocol: Protocol, people: tuple[str, ...], test: DatasetInfo) -> None:
    """Raise InputError where a protocol by person lacks people in the ids of the test set."""
    least = 2 if protocol.name == "leave-one-person-out" else 1
    if protocol.by_person and len(people) < least:
        raise InputError(
            f"{protocol.title} needs a test set of at least {least} people, with whose image it is "
            "as the first part of every id (p00/day01/0005/left or person-anna/3; simgan ingest "
            f"arrays --person KEY writes such ids); {test.url} has {len(people)}"
        )
    if protocol.name == "fine-tuning" and "gaze" not in {one.name for one in test.spec.labels}:
        raise InputError("fine-tuning is for gaze: joints have no recipe for it")


def _real_images_of_refiner(inputs: _Inputs, refined: str) -> DatasetInfo | str:
    """Return the real images that the refiner of a dataset saw, or why they are not at hand."""
    provenance = inputs.infos[refined].spec.provenance
    if provenance.get("real_digest", "") is None:
        return f"{refined} was refined by another program, whose real images are not known"
    try:
        trained = open_refiner(str(provenance["refiner"])).metadata
        found = inputs.datasets.find(trained["real_url"])
    except (KeyError, InputError, StorageError, OSError) as error:
        return f"the refiner's real dataset is not at hand: {error}"
    if found.digest != provenance["real_digest"]:
        return f"{found.url} changed after the refiner's training"
    return found


def _untested(inputs: _Inputs, seen: DatasetInfo | str) -> tuple[DatasetInfo | str, str]:
    """Return the refiner's real images if none is in the test set, and a caveat if some are."""
    if isinstance(seen, str):
        return seen, ""
    try:
        inputs.held_out.require_none_in(seen)
    except InputError as error:
        logger.warning("the refiner was trained on images of the test set: %s", error)
        return str(error), _TESTED_ON_SEEN
    return seen, ""
