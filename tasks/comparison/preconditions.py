"""Preconditions of a comparison, checked before the training that it is to measure."""

from prefect import task

from tasks.comparison.arm_choice import choose_arms
from tasks.comparison.arms import ComparisonConfig
from tasks.comparison.error_metrics import error_metric_of
from tasks.comparison.people import people_in
from tasks.comparison.planning import require_people
from tasks.runtime.compatibility import (
    HeldOutImages,
    require_distinct,
    require_domain,
    require_same_images,
    require_valid_rows,
)
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.policies import CACHE


@task(name="check-comparison", cache_policy=CACHE)
def require_comparable(
    synthetic: str, real: str, test: str, config: ComparisonConfig = ComparisonConfig()
) -> None:
    """Raise InputError for datasets that a comparison would refuse once a refiner is trained.

    So where test images are among the others, images differ in size, depth or preprocessing, labels
    are missing, or a size of the learning curve is none.
    """
    datasets = DatasetCache()
    places = {"synthetic": synthetic, "real": real, "test": test}
    infos = {role: datasets.find(place) for role, place in places.items()}
    require_distinct(infos)
    require_domain(infos["synthetic"], "synthetic", "synthetic")
    require_domain(infos["real"], "real", "real")
    require_domain(infos["test"], "test", "real", "synthetic")
    for info in infos.values():
        require_valid_rows(info)
    # The refined dataset will have the rows and labels of the synthetic one.
    num_rows = infos["synthetic"].num_valid
    arms = choose_arms(config, synthetic, synthetic, real, real, num_rows, matched=True)
    used = {test, *(place for arm in arms for place in arm.datasets)}
    error_metric_of({role: info for role, info in infos.items() if places[role] in used})
    held_out = HeldOutImages(infos["test"], datasets)
    require_people(
        config.protocol, people_in(datasets.open(infos["test"]).read_ids()), infos["test"]
    )
    for role in ("synthetic", "real"):
        require_same_images(infos[role], infos["test"], role, "test")
        held_out.require_none_in(infos[role])
