"""Champion: the refiner with the alias `models:/refiner@champion`, and how it was chosen.

Measurements are tags of model versions, written before the alias moves. Which refiner leads follows
from them alone, so that a comparison that was killed in between decides the same when run again.
"""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import BaseModel, ConfigDict

from tasks.runtime.tracking.mlflow_client import connect
from tasks.runtime.tracking.runs import (
    REFINER_TAG,
    REGISTERED_REFINER,
    tracking_uri,
    versions_of,
)

CHAMPION_RULE = (
    "champion: of all refiners whose labels pass the gate of their training, the one of least "
    "realism/kid, the present champion being measured on the same images, until simgan compare or "
    "choose has measured two or more of one synthetic dataset on the same unlabelled images, by "
    "teachers of two simulators that label matching trusts: then the one of least error on "
    "pseudo-labels, which KID alone does not displace; variants of an ablation take no part"
)
MAY_LEAD_TAG = "simgan.may_lead"
"""Tag of a model version: whether its labels passed the gate, and it is no ablation's variant."""
SYNTHETIC_TAG = "simgan.synthetic_digest"
"""Tag of a model version: the digest of the synthetic dataset that it was trained on."""
_MEASURED_TAG = "simgan.pseudo_label_error."
"""Prefix of a tag of a model version, followed by the id of what measured it."""
_CHOSEN_TAG = "simgan.chosen_by"
"""Tag of a model version that became champion by its error on pseudo-labels: the measurement."""
_CHAMPION, _CANDIDATE = "champion", "candidate"


class Measurement(BaseModel):
    """Error on pseudo-labels of estimators that learnt from a refiner's images."""

    model_config = ConfigDict(frozen=True)

    criterion: str
    """Id of the conditions that comparable measurements share."""
    measured_by: str
    """Comparison or choice."""
    error_deg: float
    sd_deg: float | None
    """Between estimator seeds; None with a single one."""
    synthetic: str
    synthetic_digest: str
    unlabelled: str
    unlabelled_digest: str
    teachers: tuple[str, ...]
    refined: str

    @property
    def compared_with(self) -> str:
        """Command that measures another refined dataset, NEW.zarr, under the same conditions."""
        teachers = "".join(f" --teachers {each}" for each in self.teachers)
        return (
            f"simgan choose --synthetic {self.synthetic} --unlabelled {self.unlabelled}{teachers} "
            f"--refined {self.refined} --refined NEW.zarr"
        )


def remember_measurement(refiner_id: str, measurement: Measurement) -> None:
    """Tag a refiner's model versions with its error on pseudo-labels."""
    client = connect(tracking_uri())
    name = f"{_MEASURED_TAG}{measurement.measured_by}"
    for version in versions_of(client, refiner_id):
        client.set_model_version_tag(
            version.name, version.version, name, measurement.model_dump_json()
        )


def choose_champion(criterion: str) -> str | None:
    """Make the refiner of least error by this criterion the champion; returns the decision.

    None where fewer than two refiners that may lead were measured by it. A champion that was chosen
    by another criterion, or was trained on another synthetic dataset, stays.
    """
    client = connect(tracking_uri())
    aliases = _aliases(client)
    versions = client.search_model_versions(f"name='{REGISTERED_REFINER}'")
    champion = next((v for v in versions if _is(v, aliases.get(_CHAMPION))), None)
    measured = [
        (found, version)
        for version in versions
        if version.tags.get(MAY_LEAD_TAG) == "true" or version is champion
        if (found := _least(version, criterion)) is not None
    ]
    if len(measured) < 2:
        return None
    measured.sort(key=lambda each: (each[0].error_deg, int(each[1].version)))
    (least, best), (second, _), *_ = measured
    if champion is not None and champion not in [version for _, version in measured]:
        chosen = _chosen(champion)
        if chosen is not None or champion.tags.get(SYNTHETIC_TAG) != least.synthetic_digest:
            why = (
                "was trained on another synthetic dataset"
                if chosen is None
                else f"was chosen by other measurements (add --refined {chosen.refined} to these)"
            )
            return (
                f"{_named(champion)} stays, since it {why}; the least error on pseudo-labels here "
                f"has {_named(best)}"
            )
    client.set_model_version_tag(best.name, best.version, _CHOSEN_TAG, least.model_dump_json())
    client.set_registered_model_alias(best.name, _CHAMPION, best.version)
    if _is(best, aliases.get(_CANDIDATE)):
        client.delete_registered_model_alias(best.name, _CANDIDATE)
    return (
        f"{_named(best)}: error on pseudo-labels {least.error_deg:.2f}°, the least of "
        f"{len(measured)} refiners (the next has {second.error_deg:.2f}°)"
    )


def chosen_champion() -> Measurement | None:
    """Return the measurement by which the champion was chosen; None where KID made it, or none."""
    client = connect(tracking_uri())
    number = _aliases(client).get(_CHAMPION)
    if number is None:
        return None
    return _chosen(client.get_model_version(REGISTERED_REFINER, number))


def _aliases(client: MlflowClient) -> Mapping[str, str]:
    """Return the versions by alias, of no model where there is none."""
    found = client.search_registered_models(f"name='{REGISTERED_REFINER}'")
    return {name: str(number) for model in found for name, number in model.aliases.items()}


def _is(version: ModelVersion, number: str | None) -> bool:
    return str(version.version) == number


def _least(version: ModelVersion, criterion: str) -> Measurement | None:
    found = [
        Measurement.model_validate_json(text)
        for name, text in version.tags.items()
        if name.startswith(_MEASURED_TAG)
    ]
    alike = [each for each in found if each.criterion == criterion]
    return min(alike, key=lambda each: (each.error_deg, each.measured_by), default=None)


def _chosen(version: ModelVersion) -> Measurement | None:
    text = version.tags.get(_CHOSEN_TAG)
    return None if text is None else Measurement.model_validate_json(text)


def _named(version: ModelVersion) -> str:
    return f"{version.tags.get(REFINER_TAG)} (version {version.version})"
