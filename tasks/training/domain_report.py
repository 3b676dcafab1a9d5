"""Domain alignment report: mean images and label statistics, before a training begins."""

import json
import logging

import numpy as np
import torch
from numpy.typing import NDArray

from simgan_core.gaze import pitchyaw_from_gaze
from simgan_core.quality.alignment import align, mean_image
from storage.reader import Dataset
from tasks.runtime.pairing import check_dataset_pairing
from tasks.runtime.pictures import columns
from tasks.runtime.tracking.runs import TrackedRun

logger = logging.getLogger(__name__)

MAX_IMAGES = 4096
"""Images of a domain in its mean image: its noise is then below a grey level."""
MIN_IMAGES_TO_WARN = 200
"""With fewer images the position of the mean eye says little about the crops."""


def report_domains(run: TrackedRun, synthetic: Dataset, real: Dataset) -> None:
    """Log the report to the MLflow run; warn where the crops do not match."""
    means = [
        mean_image(torch.from_numpy(dataset.load(max_rows=MAX_IMAGES).images))
        for dataset in (synthetic, real)
    ]
    alignment = align(*means)
    figures = {
        "domains/shift_x_px": alignment.shift_x_px,
        "domains/shift_y_px": alignment.shift_y_px,
        "domains/scale": alignment.scale,
        "domains/correlation": alignment.correlation,
        **_label_figures(synthetic, "synthetic"),
        **_label_figures(real, "real"),
    }
    pairing = check_dataset_pairing(synthetic)
    if pairing is not None:
        figures["domains/synthetic.pupil_labels_missed"] = pairing.share_missed
    run.metrics(figures)
    pixels = [
        ((mean + 1) * 127.5).round().to(torch.uint8).numpy()[None, ..., None] for mean in means
    ]
    run.image("domains_mean_images", columns(pixels, num_columns=1, zoom=4))
    logger.debug(
        "domains: %s", json.dumps({name: round(value, 3) for name, value in figures.items()})
    )
    fewest = min(synthetic.info.num_valid, real.info.num_valid)
    warnings = [alignment.warning()] if fewest >= MIN_IMAGES_TO_WARN else []
    if pairing is not None:
        warnings.append(pairing.warning())
    found = [warning for warning in warnings if warning]
    for warning in found:
        logger.warning("%s", warning)
    if found:
        run.tags({"simgan.warning": "; ".join(found)})


def _label_figures(dataset: Dataset, name: str) -> dict[str, float]:
    """Return mean and standard deviation of gaze and pupil centres, where there are labels."""
    labels = dataset.read_labels()
    valid = dataset.read_valid()
    found: dict[str, NDArray[np.floating]] = {}
    if "gaze" in labels:
        angles_deg = np.degrees(pitchyaw_from_gaze(labels["gaze"][valid]))
        found |= {"pitch_deg": angles_deg[:, 0], "yaw_deg": angles_deg[:, 1]}
    if "pupil_px" in labels:
        found |= {
            "pupil_x_px": labels["pupil_px"][valid, 0],
            "pupil_y_px": labels["pupil_px"][valid, 1],
        }
    return {
        f"domains/{name}.{what}.{statistic}": float(compute(values))
        for what, values in found.items()
        for statistic, compute in (("mean", np.nanmean), ("sd", np.nanstd))
    }
