"""`simgan landmarks`: train the network that finds the eye's corners in images.

Everything heavy is imported inside the command, so that help answers at once.
"""

# ruff: noqa: PLC0415

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.cli.arguments import Count, Seed
from flows.cli.outcome import Outcome
from simgan_core.config import LandmarkTraining

app = App(name="landmarks", help="Train the landmark network, which finds the corners of eyes.")


@app.command
def train(
    *,
    out: Path,
    dataset: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    simulated: Count = 4000,
    steps: Count = 3000,
    seed: Seed = 0,
) -> Outcome:
    """Train a landmark model, for `ingest --crop landmarks --landmarks FILE`.

    It learns from eyes of the built-in simulator and from datasets with exact landmarks, such as
    those of `simulate unityeyes`. After a stop the same command resumes. `ingest --crop landmarks`
    has a model of its own; train another one for eyes that look different.

    Parameters
    ----------
    out
        File to write.
    dataset
        Dataset with the labels corners_px, pupil_px and iris_px, path or URL; may be repeated.
    simulated
        Number of eyes of the built-in simulator, half of them "synthetic" and half "real".
    steps
        Number of updates of the network, of 64 images each.
    seed
        The same seed gives the same model.
    """
    from flows.landmarks import train_landmarks

    config = LandmarkTraining(steps=steps, seed=seed)
    trained = train_landmarks(str(out), dataset, simulated, config)
    lines = [
        f"{out}: landmark model {trained.digest[:12]}; distances in pixels of an image 55 wide, "
        "median (95% below)",
        *(f"  {each}" for each in trained.errors),
        f"MLflow: run {trained.mlflow_run_id}",
    ]
    return Outcome(trained.model_dump(mode="json"), "\n".join(lines))
