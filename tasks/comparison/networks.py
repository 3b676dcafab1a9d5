"""Network that a job trains: named by content, trained once."""

from simgan_core.estimation.adaptation import student_config
from simgan_core.models.estimator import Estimator, load_estimator
from storage.samples import SampleBlock
from tasks.comparison.estimators import estimator_id, trained_estimator
from tasks.comparison.kept_files import weights_file
from tasks.comparison.plan import EstimatorPlan, Job
from tasks.comparison.training_samples import training_samples
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.devices import default_device


def network_id(job: Job, plan: EstimatorPlan, test_digest: str | None = None) -> str:
    """Return the content id of the network that a job trains; protocols share networks.

    `test_digest` is of the test set, where the job leaves a person of it out.
    """
    prior = plan.label_prior
    return estimator_id(
        job.arm,
        plan.datasets,
        plan.estimator,
        job.seed,
        prior.id if job.arm.matched and prior is not None else None,
        [test_digest, job.person] if job.person else None,
    )


def trained_network(
    job: Job, plan: EstimatorPlan, test: SampleBlock | None, name: str, datasets: DatasetCache
) -> Estimator:
    """Train the network, or load the one that another protocol or a killed run stored."""
    if weights_file(name).exists():
        return load_estimator(weights_file(name)).to(default_device())
    config = plan.estimator
    config = config.model_copy(update={"degrade": config.degrade or job.arm.augmented})
    if job.arm.teachers_of is not None:
        config = student_config(config)
    samples = training_samples(job, plan, test, datasets)
    return trained_estimator(name, config, samples, job.seed)
