"""`simgan simulate unityeyes`: UnityEyes' eyes, without Unity.

Everything heavy is imported inside the command, so that help answers at once.
"""

# ruff: noqa: PLC0415

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.cli.ingest import height_and_width
from flows.cli.outcome import Outcome, dataset_outcome
from simgan_core.simulator.unityeyes.config import UnityEyesConfig
from storage.schema import Preprocess


def simulate_unityeyes(
    *,
    assets: Path,
    out: Path | None = None,
    to: str | None = None,
    count: int = 10000,
    seed: int = 1,
    size: str | None = None,
    samples: int | None = None,
    channels: Literal[1, 3] = 1,
    framing: Literal["crop", "corners"] = "crop",
    eye_widths: float = 1.5,
    preprocess: Preprocess = "none",
    rows_per_shard: int = 2048,
    overwrite: bool = False,
    match: str | None = None,
    workers: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    config: Annotated[UnityEyesConfig, Parameter(name="*")] = UnityEyesConfig(),
) -> Outcome:
    """Render UnityEyes' eyes from its public assets, without Unity, with exact labels.

    Parameters
    ----------
    assets
        Folder of UnityEyes2's repository, or of its Assets.
    out
        Folder for N.jpg + N.json in UnityEyes' layout; `ingest unityeyes` reads them.
    to
        Dataset to render into instead, path or URL: crops as `ingest unityeyes` makes them.
    count
        Number of images.
    seed
        The same seed gives the same images.
    size
        Height x width in pixels; by default 480x640 for files, 35x55 for a dataset.
    samples
        Samples of a pixel along each axis (antialiasing); by default 1 for files, 3 for a dataset.
    channels
        With --to: 1 grey, 3 colour.
    framing
        With --to: crop as `ingest unityeyes` does, or corners: midway between the eye's corners.
    eye_widths
        With --to: width of the images, in widths of the eye.
    preprocess
        With --to: histogram equalisation, as MPIIGaze's images have it, or none.
    rows_per_shard
        With --to: number of images in a shard, the unit of resuming.
    overwrite
        With --to: replace an existing dataset.
    match
        Dataset from whose gaze labels gazes are drawn, with a little spread, instead of the ranges.
    workers
        With --to: number of Dask processes that render; by default this process alone.
    device
        cpu: compiled loops; cuda: batches on a GPU, whose images can differ by a grey level or two.
    """
    from flows.simulate import simulate_unityeyes as flow
    from tasks.runtime.policies import Runner
    from tasks.simulation.unityeyes import CropConfig, FrameConfig, Simulation

    height, width = (None, None) if size is None else height_and_width(size)
    looks = {"height": height, "width": width, "samples": samples}
    given = {name: value for name, value in looks.items() if value is not None}
    frame, crop = FrameConfig(), CropConfig()
    if out is not None:
        frame = FrameConfig.model_validate(given)
    else:
        crop = CropConfig.model_validate(
            {**given, "channels": channels, "preprocess": preprocess, "framing": framing,
             "eye_widths": eye_widths,
             "rows_per_shard": rows_per_shard}
        )  # fmt: skip
    info = flow(
        Simulation(assets=str(assets), seed=seed, config=config, match=match, device=device),
        count,
        None if out is None else str(out),
        to,
        frame,
        crop,
        overwrite,
        Runner() if workers is None else Runner(kind="dask", workers=workers),
    )
    if info is not None:
        return dataset_outcome(info)
    return Outcome(
        {"out": str(out), "count": count, "seed": seed},
        f"{count} rendered eyes are in {out}; read them with: simgan ingest unityeyes {out} "
        "--to DATASET",
    )
