"""MLflow tracking: resumable runs, batched metrics, artifacts, the model registry."""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import mlflow.pytorch
import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LifecycleStage,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from numpy.typing import NDArray
from torch import nn

from simgan_core.errors import InputError, UnavailableError
from storage.schema import DatasetInfo
from tasks.runtime.code_version import code_version
from tasks.runtime.paths import home, mlflow_database
from tasks.runtime.tracking.experiments import DATASETS
from tasks.runtime.tracking.mlflow_client import connect

logger = logging.getLogger(__name__)

# MLflow on SQLite takes about 8 ms a call of any size, so points are sent in batches.
POINTS_PER_BATCH = 500

KEY_TAG = "simgan.key"
REGISTERED_REFINER = "refiner"
REFINER_TAG = "simgan.refiner"
"""Tag of a model version, and of a training's run: the refiner's id."""
_WARNING_TAG = "simgan.worse_than_synthetic."
"""Prefix of a tag of a refiner's model version, followed by a comparison's id."""
_ALIAS_DUE_TAG = "simgan.alias_due"
"""Tag of a model version whose alias is not set yet: the alias, and the version that has it."""
_LOGGED_TAG = "simgan.logged."
"""Prefix of a tag of a run, followed by a file's name: the digest of what was logged."""
_TABLES_TAG = "mlflow.loggedArtifacts"
"""Tag by which MLflow's UI and `load_table` find a run's tables."""
RUN_TAGS = {"mlflow.source.type": "LOCAL", "mlflow.source.name": "simgan"}


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, by default a SQLite file under SIMGAN_HOME."""
    return os.environ.get("MLFLOW_TRACKING_URI") or mlflow_database(home())


class KeptRun(NamedTuple):
    """Run read from MLflow."""

    run_id: str
    status: str
    tags: dict[str, str]
    metrics: dict[str, float]


class UnknownExperimentError(ValueError):
    """Experiment that MLflow does not have."""


class MissingArtifactError(ValueError):
    """Artifact that a run does not have."""


class UnknownModelError(ValueError):
    """Model URI under which MLflow has no refiner."""


@dataclass
class TrackedRun:
    """Open MLflow run; made by `tracked_run`."""

    client: MlflowClient
    run_id: str
    experiment_id: str
    _points: list[Metric] = field(default_factory=list)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log hyperparameters, nested ones under dotted names; those of a repetition as tags.

        MLflow refuses to change a parameter. A repetition can have another path of the same file,
        or be computed otherwise, and the first values fit the metrics that are there.
        """
        named = {name: str(value) for name, value in _flatten(values)}
        known = self.client.get_run(self.run_id).data.params
        new = [Param(name, value) for name, value in named.items() if name not in known]
        for start in range(0, len(new), 100):
            self.client.log_batch(self.run_id, params=new[start : start + 100])
        differing = {n: value for n, value in named.items() if known.get(n, value) != value}
        if differing:
            self.tags({f"simgan.repeated.{name}": value for name, value in differing.items()})

    def computed_by(self, values: Mapping[str, str]) -> None:
        """Log compute settings as parameters `compute.…`."""
        self.params({f"compute.{name}": value for name, value in values.items()})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, replacing former values."""
        self.client.log_batch(self.run_id, tags=[RunTag(k, v) for k, v in values.items()])

    def datasets(self, infos: Mapping[str, DatasetInfo]) -> None:
        """Log datasets as the run's inputs, by role."""
        inputs = [
            DatasetInput(
                Dataset(
                    name=Path(info.url).name,
                    digest=info.digest[:32],  # MLflow keeps at most 36 characters
                    source_type="zarr",
                    source=info.url,
                ),
                tags=[InputTag("mlflow.data.context", part)],
            )
            for part, info in infos.items()
        ]
        self.client.log_inputs(self.run_id, inputs)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log a point of each metric; points are sent in batches and when the run ends."""
        now = int(time.time() * 1000)
        self._points += [Metric(name, float(value), now, step) for name, value in values.items()]
        if len(self._points) >= POINTS_PER_BATCH:
            self.flush()

    def flush(self) -> None:
        """Send the buffered points."""
        for start in range(0, len(self._points), POINTS_PER_BATCH):
            batch = self._points[start : start + POINTS_PER_BATCH]
            self.client.log_batch(self.run_id, metrics=batch)
        self._points.clear()

    def image(self, name: str, pixels: NDArray[np.uint8], step: int | None = None) -> None:
        """Log a picture, uint8 [H,W] or [H,W,3]; with a step, as one of a series."""
        if step is None:
            self.client.log_image(self.run_id, pixels, artifact_file=f"{name}.png")
        else:
            self.client.log_image(self.run_id, pixels, key=name, step=step)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or a folder and its content."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def artifact_once(self, path: Path) -> None:
        """Log a file, unless the run has the same content under its name.

        The tag comes after the file, so that a file whose upload was cut off is logged again.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        tag = f"{_LOGGED_TAG}{path.name}"
        if self.client.get_run(self.run_id).data.tags.get(tag) == digest:
            kept = {each.path: each.file_size for each in self.client.list_artifacts(self.run_id)}
            if kept.get(path.name) == path.stat().st_size:
                return
        self.artifact(path)
        self.tags({tag: digest})

    def text(self, name: str, content: str) -> None:
        """Log a small text file."""
        self.client.log_text(self.run_id, content, name)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows of the same columns as a table that MLflow shows, name.json; replaced if known.

        `MlflowClient.log_table` adds rows to a table of an earlier try.
        """
        columns = list(rows[0]) if rows else []
        split = {"columns": columns, "data": [list(row.values()) for row in rows]}
        self.text(name, json.dumps(split))
        known = json.loads(self.client.get_run(self.run_id).data.tags.get(_TABLES_TAG, "[]"))
        entry = {"path": name, "type": "table"}
        if entry not in known:
            self.tags({_TABLES_TAG: json.dumps([*known, entry])})

    def pytorch_model(
        self, folder: str, module: nn.Module, example: Mapping[str, NDArray[Any]]
    ) -> None:
        """Log a model for MLflow's own loader, exported by torch.export, without pickled code.

        `example` holds the inputs by name, in order, each of at least two rows, so that the
        exporter keeps the batch axis dynamic.
        """
        arrays = tuple(example.values())
        inputs = arrays[0] if len(arrays) == 1 else dict(example)
        output = module(*map(torch.from_numpy, arrays)).numpy()
        with tempfile.TemporaryDirectory() as made:
            mlflow.pytorch.save_model(
                module,
                f"{made}/{folder}",
                input_example=arrays[0] if len(arrays) == 1 else arrays,
                signature=infer_signature(inputs, output),
                serialization_format="pt2",
                pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "numpy", "mlflow"],
            )
            self.client.log_artifacts(self.run_id, f"{made}/{folder}", folder)

    def registered_version(self, name: str) -> str | None:
        """Return the version of `name` that was made from this run, None where there is none."""
        known = self._registered(name)
        return None if known is None else str(known.version)

    def register_model(
        self, name: str, folder: str, tags: Mapping[str, str], alias: str | None = None
    ) -> str:
        """Register the model logged under `folder` as the next version of `name`.

        Returns the version. A model that is registered already keeps its version, and the alias
        may have moved to another since; one that was killed before its alias was set gets it,
        unless another has moved the alias meanwhile.
        """
        if (known := self._registered(name)) is not None:
            self._set_alias_due(known)
            return str(known.version)
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self.client.get_run(self.run_id).info.artifact_uri}/{folder}"
        all_tags = dict(tags)
        if alias is not None:
            all_tags[_ALIAS_DUE_TAG] = json.dumps([alias, self._version_with(name, alias)])
        made = self.client.create_model_version(name, source, self.run_id, tags=all_tags)
        self._set_alias_due(made)
        return str(made.version)

    def _registered(self, name: str) -> ModelVersion | None:
        versions = self.client.search_model_versions(f"name='{name}'")
        return next((each for each in versions if each.run_id == self.run_id), None)

    def _set_alias_due(self, version: ModelVersion) -> None:
        """Set the alias that this version was registered for, if that is still to be done."""
        if (due := version.tags.get(_ALIAS_DUE_TAG)) is None:
            return
        alias, held_by = json.loads(due)
        if self._version_with(version.name, alias) == held_by:
            self.client.set_registered_model_alias(version.name, alias, version.version)
        self.client.delete_model_version_tag(version.name, version.version, _ALIAS_DUE_TAG)

    def _version_with(self, name: str, alias: str) -> str | None:
        found = self.client.get_registered_model(name).aliases.get(alias)
        return None if found is None else str(found)


def begin_run(
    experiment: str,
    name: str,
    key: str,
    tags: Mapping[str, str] | None = None,
    parent_run_id: str | None = None,
) -> TrackedRun:
    """Open the experiment's run with this key, or create it.

    A killed training that is started again thus continues its own MLflow run.
    """
    home().mkdir(parents=True, exist_ok=True)
    client = connect(tracking_uri())
    experiment_id = _experiment_id(client, experiment)
    all_tags = {**RUN_TAGS, KEY_TAG: key, **(tags or {})}
    if parent_run_id:
        all_tags["mlflow.parentRunId"] = parent_run_id
    found = find_run(client, experiment_id, key)
    if found is None:
        # A finished run that is opened again keeps the code version that made its results.
        all_tags |= code_version().tags()
        found = client.create_run(experiment_id, run_name=name, tags=all_tags)
    else:
        client.update_run(found.info.run_id, status="RUNNING")
        client.log_batch(found.info.run_id, tags=[RunTag(k, v) for k, v in all_tags.items()])
    return TrackedRun(client, found.info.run_id, experiment_id)


@contextmanager
def tracked_run(
    experiment: str,
    name: str,
    key: str,
    tags: Mapping[str, str] | None = None,
    parent_run_id: str | None = None,
) -> Iterator[TrackedRun]:
    """Open a run for a `with` block.

    The run ends FINISHED, FAILED when the block raises, KILLED when it is interrupted.
    """
    run = begin_run(experiment, name, key, tags, parent_run_id)
    try:
        yield run
    except BaseException as error:
        _record_failure(run, error)
        raise
    run.flush()
    run.client.set_terminated(run.run_id, "FINISHED")


def _record_failure(run: TrackedRun, error: BaseException) -> None:
    """End the run as failed or killed; it stays RUNNING where MLflow itself failed."""
    if isinstance(error, UnavailableError):
        # Each further call would wait for the same server.
        return
    try:
        run.flush()
        run.client.set_terminated(
            run.run_id, "FAILED" if isinstance(error, Exception) else "KILLED"
        )
    except (MlflowException, InputError, UnavailableError) as failure:
        logger.warning(
            "MLflow run %s stays marked as running, its end could not be recorded: %s",
            run.run_id,
            failure,
        )


def runs_with(experiment: str, tags: Mapping[str, str]) -> list[KeptRun]:
    """Return all runs of an experiment with these tags, oldest first.

    Raises UnknownExperimentError where MLflow has no such experiment.
    """
    client = connect(tracking_uri())
    found = client.get_experiment_by_name(experiment)
    if found is None:
        names = sorted(one.name for one in client.search_experiments())
        raise UnknownExperimentError(
            f"MLflow at {tracking_uri()} has no experiment {experiment} (it has: "
            f"{', '.join(names) or 'none'})"
        )
    condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    runs: list[KeptRun] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [found.experiment_id],
            filter_string=condition,
            max_results=1000,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs += [
            KeptRun(run.info.run_id, run.info.status, dict(run.data.tags), dict(run.data.metrics))
            for run in page
        ]
        token = page.token
        if not token:
            return runs


def fetch(run_id: str, path: str, to: Path) -> Path:
    """Download a file or folder of a run's artifacts; returns its path.

    Raises MissingArtifactError where the run has no such artifact.
    """
    try:
        return Path(connect(tracking_uri()).download_artifacts(run_id, path, str(to)))
    except (MlflowException, OSError) as error:
        raise MissingArtifactError(f"MLflow run {run_id} has no {path}: {error}") from error


def metric_curves(run_id: str, prefix: str) -> dict[str, list[tuple[int, float]]]:
    """Return a run's metrics whose names begin with `prefix`, as (step, value) by step."""
    client = connect(tracking_uri())
    names = [name for name in client.get_run(run_id).data.metrics if name.startswith(prefix)]
    return {
        name: sorted((m.step, m.value) for m in client.get_metric_history(run_id, name))
        for name in sorted(names)
    }


def has_pages() -> bool:
    """Return true where MLflow is a server with a UI, and not a file."""
    return tracking_uri().startswith("http")


def page_of_run(run_id: str) -> str | None:
    """Return the URL of a run in MLflow's UI, None where MLflow is a file."""
    if not has_pages():
        return None
    run = connect(tracking_uri()).get_run(run_id)
    return f"{tracking_uri().rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run_id}"


def remember_dataset(info: DatasetInfo, tags: Mapping[str, str]) -> str:
    """Set tags on a dataset, on the run of experiment `datasets` that represents it.

    Returns that run's id. MLflow's own dataset entity has no tags that can be changed later.
    """
    known = {"digest": info.digest, "url": info.url, "domain": info.spec.domain}
    run = begin_run(DATASETS, Path(info.url).name, info.digest, {**known, **tags})
    run.datasets({info.spec.domain: info})
    run.client.set_terminated(run.run_id, "FINISHED")
    return run.run_id


def warn_of_refiner(refiner_id: str, comparison_id: str, warning: str) -> None:
    """Tag a refiner's model versions with a warning from a comparison on real images."""
    client = MlflowClient(tracking_uri())
    for version in versions_of(client, refiner_id):
        client.set_model_version_tag(
            version.name, version.version, f"{_WARNING_TAG}{comparison_id}", warning
        )


def warnings_of_refiner(refiner_id: str) -> list[str]:
    """Return the warnings of comparisons on real images about a refiner.

    Empty where MLflow does not know it; a missing SQLite file is not created.
    """
    uri = tracking_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return []
    return [
        text
        for version in versions_of(MlflowClient(uri), refiner_id)
        for name, text in sorted(version.tags.items())
        if name.startswith(_WARNING_TAG)
    ]


def versions_of(client: MlflowClient, refiner_id: str) -> list[ModelVersion]:
    """Return the model versions of a refiner in MLflow's registry."""
    found = client.search_model_versions(f"name='{REGISTERED_REFINER}'")
    return [version for version in found if version.tags.get(REFINER_TAG) == refiner_id]


def find_run(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """Return the newest run of the experiment with this key, or None."""
    found: Sequence[Run] = client.search_runs(
        [experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1
    )
    return found[0] if found else None


def download_refiner(uri: str, to: Path) -> Path:
    """Download a refiner's weights by `models:/name@alias`, `models:/name/3` or `runs:/id`.

    Raises UnknownModelError where MLflow has no refiner under the URI.
    """
    client = connect(tracking_uri())
    try:
        run_id = _run_of_model(client, uri) if uri.startswith("models:/") else uri.split("/")[1]
        return Path(client.download_artifacts(run_id, "checkpoint/refiner.pt", str(to)))
    except (MlflowException, OSError, ValueError) as error:
        raise UnknownModelError(str(error)) from error


def version_of_alias(uri: str) -> str:
    """Return `models:/name/3` for `models:/name@alias`: an alias moves, a version stays.

    Raises UnknownModelError where MLflow has no model under the alias.
    """
    name, _, alias = uri.removeprefix("models:/").partition("@")
    try:
        version = connect(tracking_uri()).get_model_version_by_alias(name, alias)
    except MlflowException as error:
        raise UnknownModelError(str(error)) from error
    return f"models:/{name}/{version.version}"


def _run_of_model(client: MlflowClient, uri: str) -> str:
    name = uri.removeprefix("models:/")
    if "@" in name:
        name, alias = name.split("@", 1)
        version = client.get_model_version_by_alias(name, alias)
    else:
        name, number = name.rsplit("/", 1)
        version = client.get_model_version(name, number)
    return str(version.run_id)


def _experiment_id(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == LifecycleStage.DELETED:
            logger.warning(
                "experiment %s was deleted in MLflow and is restored with its runs", name
            )
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    # The default artifact root would be a folder in the current directory.
    local = tracking_uri().startswith("sqlite:")
    location = (home() / "mlartifacts" / name).as_uri() if local else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        # Another process was faster.
        made = client.get_experiment_by_name(name)
        if made is None:
            raise
        return str(made.experiment_id)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
