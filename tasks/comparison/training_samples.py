"""Images and labels that an arm learns from, with the weights of matched labels."""

from dataclasses import replace
from itertools import chain

import numpy as np

from simgan_core.data.fourier import swap_amplitudes
from simgan_core.data.histogram_matching import match_histograms
from simgan_core.data.label_matching import load_label_prior
from storage.samples import SampleBlock
from storage.schema import DatasetInfo
from tasks.comparison.estimators import TrainingSamples, number_images
from tasks.comparison.kept_files import prior_file
from tasks.comparison.label_prior import angles_deg
from tasks.comparison.people import person_of
from tasks.comparison.plan import EstimatorPlan, Job
from tasks.comparison.pseudo_labels import pseudo_labelled
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.styles import image_ids


def training_samples(
    job: Job, comparison: EstimatorPlan, test: SampleBlock | None, datasets: DatasetCache
) -> TrainingSamples:
    """Join the images and labels that one training learns from.

    `test` is the test set, of which a job that leaves a person out learns the others.
    """
    if job.arm.teachers_of is not None:
        return pseudo_labelled(job.arm, comparison, datasets)
    named = [_part(comparison.datasets[url], job, comparison, datasets) for url in job.arm.datasets]
    if job.person:
        assert test is not None, "the person is of a test set"
        others = [row for row, each in enumerate(test.ids) if person_of(each) != job.person]
        samples = TrainingSamples(test.images, test.labels).of_rows(np.array(others))
        named.append((samples, [("real", test.ids[row]) for row in others]))
    parts = [samples for samples, _ in named]
    shared = set.intersection(*(set(part.labels) for part in parts))
    weights = None
    if any(part.weights is not None for part in parts):
        weights = np.concatenate(
            [np.ones(len(part.images)) if part.weights is None else part.weights for part in parts]
        )
    return TrainingSamples(
        np.concatenate([part.images for part in parts]),
        {name: np.concatenate([part.labels[name] for part in parts]) for name in sorted(shared)},
        weights,
        number_images(chain.from_iterable(images for _, images in named)),
    )


def _part(
    info: DatasetInfo, job: Job, comparison: EstimatorPlan, datasets: DatasetCache
) -> tuple[TrainingSamples, list[tuple[str, str]]]:
    """Load the arm's number of valid rows; matches histograms or Fourier amplitudes if it does.

    Synthetic and refined rows of a matched arm have the weights of their own labels under the
    comparison's label prior. Returns the samples, and the name of the image that each row shows:
    an image of the simulator has the same name in the dataset that was refined from it.
    """
    block = datasets.load(info)
    samples = TrainingSamples(block.images, block.labels)
    domain = "real" if info.spec.domain == "real" else "simulated"
    images = [(domain, each) for each in image_ids(block.ids, info)]
    if job.arm.num_rows is not None:
        # Sizes are nested: a smaller set is part of a larger one of the same seed.
        order = np.random.default_rng([job.seed, len(block.ids)]).permutation(len(block.ids))
        rows = np.sort(order[: job.arm.num_rows])
        samples, images = samples.of_rows(rows), [images[row] for row in rows]
    if job.arm.look_reference is not None:
        real = datasets.load(comparison.datasets[job.arm.look_reference]).images
        give_look = match_histograms if job.arm.look == "histogram" else swap_amplitudes
        samples = replace(samples, images=give_look(samples.images, real, job.seed))
    if job.arm.matched and info.spec.domain != "real":
        prior = comparison.label_prior
        assert prior is not None, "match_labels comes before estimate"
        gaze_deg = angles_deg(samples.labels["gaze"])
        weights = load_label_prior(prior_file(prior)).weights(gaze_deg)
        samples = replace(samples, weights=weights)
    return samples, images
