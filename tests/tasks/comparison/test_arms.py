"""Every protocol, in this process: planned, trained, joined and judged, without Prefect."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from simgan_core.models.checkpoint import load_refiner, save_refiner
from storage.reader import open_dataset
from storage.schema import GAZE
from storage.writer import DatasetWriter
from tasks.comparison.arms import ComparisonConfig, Protocol
from tasks.comparison.estimate import estimate
from tasks.comparison.label_prior import match_labels
from tasks.comparison.people import caution_of_people, people_in
from tasks.comparison.plan import Comparison, Estimate
from tasks.comparison.planning import plan_comparison, plan_evaluation
from tasks.comparison.predictions import read_predictions
from tasks.comparison.reporting.analysis import results_from_predictions
from tasks.comparison.reporting.report import summarize
from tasks.comparison.reporting.results import Results
from tasks.comparison.reporting.tables import table, table_of_many
from tasks.runtime.dataset_cache import DatasetCache
from tests.refinement_inputs import make_refiner
from tests.tasks.comparison.conftest import write_dataset

QUICK = EstimatorConfig(steps=6, batch_size=8, fine_tuning_steps=3)
PAIR = ("synthetic", "refined")


def plan(
    eyes: dict[str, str], seeds: int = 2, estimator: EstimatorConfig = QUICK, **config: Any
) -> Comparison:
    chosen = ComparisonConfig(**{"methods": (), "shares": (), "match_labels": "never", **config})
    real = eyes.get("real")
    return plan_comparison.fn(
        DatasetCache(),
        eyes["synthetic"],
        eyes["refined"],
        real,
        eyes["test"],
        seeds,
        estimator,
        chosen,
    )


def run(comparison: Comparison) -> list[Estimate]:
    datasets = DatasetCache()
    return [estimate.fn(job, comparison, datasets) for job in comparison.jobs]


def results_of(comparison: Comparison, estimates: list[Estimate]) -> Results:
    return results_from_predictions(
        comparison, read_predictions(estimates, comparison.measure), None
    )


def test_the_same_seeds_give_the_same_table_when_all_is_computed_anew(
    eyes: dict[str, str], home: Path
) -> None:
    comparison = plan(eyes, arms=("tone_matched", "fourier", "refined_augmented"))
    first = results_of(comparison, run(comparison))
    for kept in ("estimates", "estimators", "mlartifacts"):
        shutil.rmtree(home / kept)
    again = results_of(comparison, run(comparison))
    assert table(again) == table(first)
    assert again == first


def test_what_is_there_is_found_and_not_computed_again(eyes: dict[str, str], home: Path) -> None:
    comparison = plan(eyes, seeds=1, arms=PAIR)
    written = {each.path: Path(each.path).stat().st_mtime_ns for each in run(comparison)}
    assert {each.path: Path(each.path).stat().st_mtime_ns for each in run(comparison)} == written


def test_leaving_one_person_out_asks_each_person_of_those_who_never_saw_them(
    eyes: dict[str, str], home: Path
) -> None:
    comparison = plan(
        eyes,
        seeds=1,
        arms=("real", "real_refined"),
        protocol=Protocol(name="leave-one-person-out"),
    )
    assert comparison.people == ("p10", "p11", "p12", "p13", "p14")
    assert [job.person for job in comparison.jobs] == [*comparison.people] * 2
    estimates = run(comparison)
    for each in estimates:
        with np.load(each.path) as kept:
            assert {sample.split("/")[0] for sample in kept["id"]} == {each.person}
    results = results_of(comparison, estimates)
    assert results.num_test == 40
    assert set(results.differences) == {"real_refined_minus_real"}
    assert "leave-one-person-out" in results.verdict.split(". ")[0]


def test_fine_tuning_tests_no_image_that_it_learnt_from(eyes: dict[str, str], home: Path) -> None:
    rules = Protocol(name="fine-tuning", samples_per_person=3)
    comparison = plan(eyes, seeds=1, arms=PAIR, protocol=rules)
    estimates = run(comparison)
    predictions = read_predictions(estimates, "gaze")
    assert len(predictions["refined"].ids) == 40 - 5 * 3
    assert predictions["synthetic"].ids == predictions["refined"].ids
    assert results_of(comparison, estimates).protocol.title == "fine-tuning on 3 samples a person"


def test_protocols_share_what_is_trained_alike(eyes: dict[str, str], home: Path) -> None:
    run(plan(eyes, seeds=1, arms=("synthetic",)))
    rules = Protocol(name="fine-tuning", samples_per_person=3)
    run(plan(eyes, seeds=1, arms=("synthetic",), protocol=rules))
    assert len(list((home / "estimators").iterdir())) == 1
    assert len(list((home / "estimates").iterdir())) == 2


def test_fine_tuning_on_more_than_a_person_has_is_refused(eyes: dict[str, str], home: Path) -> None:
    rules = Protocol(name="fine-tuning", samples_per_person=8)
    with pytest.raises(InputError, match="person p10 has 8 test images"):
        run(plan(eyes, seeds=1, arms=("synthetic",), protocol=rules))


def test_protocols_by_person_want_people(eyes: dict[str, str], home: Path, tmp_path: Path) -> None:
    test_set = open_dataset(eyes["test"])
    block = test_set.load()
    writer = DatasetWriter.open(str(tmp_path / "one.zarr"), test_set.info.spec)
    writer.write_shard(0, replace(block, ids=[f"p10/{row}" for row in range(len(block.ids))]))
    with pytest.raises(InputError, match=r"needs a test set of at least 2 people.* has 1$"):
        plan(eyes | {"test": writer.finish().url}, protocol=Protocol(name="leave-one-person-out"))


def test_only_ids_that_name_a_person_make_people() -> None:
    assert people_in(["p00/day01/0005/left", "p14/3", "person-anna/day01/2"]) == (
        *("p00", "p14", "person-anna"),
    )
    assert people_in(["day01/0001", "day02/0001"]) == ()
    assert people_in(["p00/1", "set7/1"]) == ()
    assert people_in(["p00", "p01"]) == ()


def test_days_are_not_taken_for_people(eyes: dict[str, str], home: Path, tmp_path: Path) -> None:
    block = open_dataset(eyes["test"]).load()
    spec = open_dataset(eyes["test"]).info.spec
    writer = DatasetWriter.open(str(tmp_path / "days.zarr"), spec)
    days = [f"day{row % 3:02d}/{row}" for row in range(len(block.ids))]
    writer.write_shard(0, replace(block, ids=days))
    comparison = plan(eyes | {"test": writer.finish().url}, seeds=1, arms=PAIR)
    assert comparison.people == ()
    found = results_of(comparison, run(comparison))
    assert found.num_people is None
    assert "people" not in found.verdict
    with pytest.raises(InputError, match="--person KEY"):
        plan(eyes | {"test": comparison.test}, protocol=Protocol(name="leave-one-person-out"))


def test_a_size_is_a_part_of_the_next_larger_one_and_the_same_in_both_domains(
    eyes: dict[str, str], home: Path
) -> None:
    comparison = plan(eyes, seeds=1, arms=PAIR, shares=(0.5, 0.25))
    assert [arm.name for arm in comparison.arms] == [
        *PAIR, "synthetic_20", "synthetic_40", "refined_20", "refined_40",
    ]  # fmt: skip
    results = results_of(comparison, run(comparison))
    assert "refined_minus_refined_20" in results.differences
    assert "refined_40_minus_refined_20" in results.differences
    with pytest.raises(InputError, match=r"between 0 and 1, found 1\.5"):
        plan(eyes, shares=(1.5,))


def test_mixtures_hold_both_and_the_full_set_of_arms_is_the_default(
    eyes: dict[str, str], home: Path
) -> None:
    arms = {arm.name: arm for arm in plan(eyes).arms}
    assert list(arms) == [
        *("synthetic", "tone_matched", "fourier", "synthetic_augmented", "refined"),
        *("refined_augmented", "synthetic_refined", "adapted", "adapted_refined"),
        *("adapted_both", "real", "real_synthetic", "real_refined"),
    ]
    assert arms["synthetic_refined"].datasets == (eyes["synthetic"], eyes["refined"])
    assert arms["real_refined"].datasets == (eyes["real"], eyes["refined"])


def test_refined_images_of_another_dataset_are_refused(
    eyes: dict[str, str], home: Path, tmp_path: Path
) -> None:
    block = open_dataset(eyes["refined"]).load()
    labels = {"gaze": (GAZE, block.labels["gaze"])}
    made = {"parent_digest": "0123456789ab", "refiner": "refiner-1"}
    ids = [f"another/{row}" for row in range(len(block.ids))]
    foreign, twice = (
        write_dataset(tmp_path / f"{n}.zarr", "refined", block.images, names, labels, made)
        for n, names in enumerate((ids, block.ids))
    )
    with pytest.raises(InputError, match=r"refined from another dataset than .*give that one"):
        plan(eyes | {"refined": foreign}, arms=PAIR)
    # What is refined twice has the rows of the first dataset, each in all its styles.
    assert plan(eyes | {"refined": twice}, arms=PAIR).arms
    styled = write_dataset(
        tmp_path / "styled.zarr",
        "refined",
        np.repeat(block.images, 2, axis=0),
        [f"{each}#{style}" for each in block.ids for style in (1, 2)],
        {"gaze": (GAZE, np.repeat(block.labels["gaze"], 2, axis=0))},
        made | {"styles": 2},
    )
    assert plan(eyes | {"refined": styled}, arms=PAIR).arms


def test_what_the_refiner_saw_of_the_test_set_is_said(
    eyes: dict[str, str], home: Path, tmp_path: Path, familiar: str
) -> None:
    block = open_dataset(eyes["refined"]).load()
    labels = {"gaze": (GAZE, block.labels["gaze"])}
    plans = {}
    for seen in ("real", "familiar", "test"):
        refiner = f"refiner-{seen}"
        loaded = load_refiner(make_refiner(tmp_path / "refiner.pt"))
        url = {**eyes, "familiar": familiar}[seen]
        real = {"real_url": url, "real_digest": open_dataset(url).info.digest}
        folder = home / "refiners" / refiner
        folder.mkdir(parents=True)
        save_refiner(folder / "refiner.pt", loaded.refiner, loaded.config, loaded.metadata | real)
        made = {"refiner": refiner, "real_digest": real["real_digest"]}
        place = tmp_path / f"{seen}.zarr"
        images = block.images
        refined = write_dataset(place, "refined", images, block.ids, labels, made)
        plans[seen] = plan(eyes | {"refined": refined}, 1, arms=PAIR)
    assert plans["real"].caveat == plans["familiar"].caveat == ""
    assert plans["real"].people_in_common == {}
    assert plans["familiar"].people_in_common == {
        "real images of the refiner's training": ("p10", "p11")
    }
    verdict = results_of(plans["test"], run(plans["test"])).verdict
    assert "the refiner was trained on images of the test set" in verdict


@pytest.fixture
def familiar(eyes: dict[str, str], tmp_path: Path) -> str:
    """Other real images, some of people of the test set."""
    block = open_dataset(eyes["real"]).load()
    ids = [f"p{row % 12:02d}/again-{row}" for row in range(len(block.ids))]
    labels = {"gaze": (GAZE, block.labels["gaze"])}
    return write_dataset(tmp_path / "familiar-real.zarr", "real", 255 - block.images, ids, labels)


def test_people_who_are_tested_and_learnt_from_are_named(
    eyes: dict[str, str], home: Path, familiar: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = (
        "the test set shares 2 people (by id: p10, p11) with the real training images and the "
        "unlabelled real images: its errors say nothing about new people."
    )
    comparison = plan(eyes | {"real": familiar}, 1, arms=("real", "tone_matched"))
    assert said in caplog.text
    results = results_of(comparison, run(comparison))
    assert f"40 real test images. CAUTION: {said}" in table(results)
    assert results.model_dump()["people_in_common"]["real training images"] == ("p10", "p11")


def test_strangers_and_protocols_that_intend_people_in_common_have_no_warning(
    eyes: dict[str, str], home: Path, familiar: str, caplog: pytest.LogCaptureFixture
) -> None:
    strangers = plan(eyes, 1, arms=("real", "tone_matched"))
    by_person = plan(
        eyes | {"real": familiar}, 1, arms=("real",), protocol=Protocol(name="leave-one-person-out")
    )
    assert strangers.people_in_common == by_person.people_in_common == {}
    assert "shares" not in caplog.text


def test_an_evaluation_names_people_in_common(
    eyes: dict[str, str], home: Path, familiar: str
) -> None:
    comparison = plan_evaluation.fn(DatasetCache(), familiar, eyes["test"], 1, QUICK)
    assert "shares 2 people (by id: p10, p11)" in str(summarize.fn(comparison, run(comparison)))


def test_many_people_in_common_are_counted_and_the_first_named() -> None:
    many = tuple(f"p{number:02d}" for number in range(7))
    words = caution_of_people({"a": many, "b": many[:1]})
    assert "7 people (by id: p00, p01, p02, p03, p04, …) with the a and 1 person (by id" in words
    assert caution_of_people({}) == ""


def test_runs_of_different_protocols_meet_in_no_table_that_does_not_say_so(
    eyes: dict[str, str], home: Path
) -> None:
    rules = Protocol(name="fine-tuning", samples_per_person=3)
    kinds = [plan(eyes, seeds=1, arms=PAIR), plan(eyes, seeds=1, arms=PAIR, protocol=rules)]
    found = [results_of(each, run(each)) for each in kinds]
    assert table_of_many(found).startswith("These runs follow 2 different rules")
    assert "MUST NOT be compared" in table_of_many(found)
    assert "MUST NOT" not in table_of_many(found[:1] * 2)
    estimates = [each for one in kinds for each in run(one)]
    with pytest.raises(InputError, match="not of one comparison"):
        read_predictions([estimates[0], estimates[3]], "gaze")


def test_hands_are_compared_by_the_share_of_joints_within_5_px(
    hands: dict[str, str], home: Path
) -> None:
    hourglass = EstimatorConfig(
        architecture="hourglass", num_features=4, steps=2, batch_size=4, validation_share=0
    )
    comparison = plan(hands, seeds=1, estimator=hourglass, arms=PAIR)
    results = results_of(comparison, run(comparison))
    shown = results.arms["refined"].model_dump()
    assert 0 <= shown["joints_within_5px"] <= 1
    assert shown["error_px"] > 0
    assert "px" in results.verdict


def test_a_network_that_does_not_estimate_what_the_labels_say_is_refused(
    eyes: dict[str, str], hands: dict[str, str], home: Path
) -> None:
    with pytest.raises(InputError, match="use --architecture hourglass"):
        plan(hands)
    with pytest.raises(InputError, match="use --architecture pooled"):
        plan(eyes, estimator=EstimatorConfig(architecture="hourglass"))
    with pytest.raises(InputError, match=r"synthetic\.zarr \(synthetic\) has no 'gaze' label"):
        plan(eyes | {"synthetic": hands["synthetic"]})


def test_mlflow_answers_without_our_code(eyes: dict[str, str], home: Path) -> None:
    comparison = plan(eyes, arms=PAIR)
    run(comparison)
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    found = client.get_experiment_by_name("comparisons")
    assert found is not None
    runs = client.search_runs(
        [found.experiment_id], "metrics.error_deg < 180 and tags.domain = 'refined'"
    )
    assert len(runs) == 2
    digests = {open_dataset(eyes[name]).info.digest[:32] for name in ("refined", "test")}
    for one in runs:
        assert one.data.tags["mlflow.parentRunId"] == comparison.mlflow_run_id
        assert one.data.tags["protocol"] == "cross-domain"
        assert {given.dataset.digest for given in one.inputs.dataset_inputs} == digests


def test_an_evaluation_is_a_comparison_of_one_arm(eyes: dict[str, str], home: Path) -> None:
    comparison = plan_evaluation.fn(DatasetCache(), eyes["synthetic"], eyes["test"], 1, QUICK)
    assert [job.arm.name for job in comparison.jobs] == ["synthetic"]


def test_an_evaluation_on_unlabelled_real_images_stands_beside_the_unmatched_one(
    eyes: dict[str, str], home: Path
) -> None:
    comparison = match_labels.fn(
        plan_evaluation.fn(DatasetCache(), eyes["refined"], eyes["test"], 1, QUICK, eyes["real"]),
        DatasetCache(),
    )
    result = summarize.fn(comparison, run(comparison))
    assert result.unmatched is not None
    assert result.unmatched.error != result.arm.error
    assert len(result.answers) == len(result.estimators) == 1
    assert "labels unmatched:" in str(result)
    assert result.model_dump(mode="json")["label_matching"]["test"]
    with pytest.raises(InputError, match="never matched"):
        plan_evaluation.fn(DatasetCache(), eyes["real"], eyes["test"], 1, QUICK, eyes["synthetic"])
