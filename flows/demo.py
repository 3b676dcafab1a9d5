"""Demo on the built-in simulator: the whole pipeline without data, in minutes on two cores.

`make demo`, or `simgan demo`. Both domains are rendered; the one called "real" imitates a laptop's
camera.
"""

from prefect import flow

from flows.pipeline import pipeline
from flows.run_names import named
from flows.simulate import simulate
from simgan_core.config import PRESETS, EstimatorConfig
from storage.sources.formats.mpiigaze import MPIIGazeOptions
from storage.sources.formats.unityeyes import UnityEyesOptions
from tasks.comparison.arms import DEMO
from tasks.comparison.reporting.results import ComparisonResult

NUM_SYNTHETIC = 4500
NUM_REAL = 4500
PEOPLE = tuple(f"p{number:02d}" for number in range(30))
REAL_PEOPLE, TEST_PEOPLE = PEOPLE[:18], PEOPLE[18:]
ESTIMATOR = EstimatorConfig(architecture="compact", steps=400)
"""Twelve estimators are nearly half of the demo's time. With 700 steps synthetic and refined are
0.3° better, and their difference is the same; the default architecture takes twice as long."""


@flow(name="demo", flow_run_name=named("demo in {out}, seed {seed}"))
def demo(out: str, seed: int = 0) -> ComparisonResult:
    """Render both domains, then run the pipeline on them.

    Args:
        out: Folder for the rendered files and the datasets.
        seed: Seed of the rendered domains and of the refiner.
    """
    simulate("synthetic", f"{out}/simulated/synthetic", NUM_SYNTHETIC, 2 * seed + 1)
    simulate("real", f"{out}/simulated/real", NUM_REAL, 2 * seed + 2, len(PEOPLE))
    real_folder = f"{out}/simulated/real"
    return pipeline(
        synthetic=UnityEyesOptions(folder=f"{out}/simulated/synthetic"),
        real=MPIIGazeOptions(folder=real_folder, people=REAL_PEOPLE),
        test=MPIIGazeOptions(folder=real_folder, people=TEST_PEOPLE),
        out=out,
        training=PRESETS["demo"].model_copy(update={"seed": seed}),
        estimator=ESTIMATOR,
        comparison=DEMO,
    )
