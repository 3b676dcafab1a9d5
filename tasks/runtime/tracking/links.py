"""Links from a Prefect run to its MLflow run."""

from prefect.artifacts import create_link_artifact

from tasks.runtime.tracking.runs import page_of_run


def link_to_mlflow(key: str, mlflow_run_id: str, words: str) -> None:
    """Create a link artifact to a run in MLflow's UI; none where MLflow is a file."""
    page = page_of_run(mlflow_run_id)
    if page is not None:
        create_link_artifact(page, link_text=words, key=key, description=words)
