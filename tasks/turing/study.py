"""Set up a visual Turing test from datasets: study, image pool, results file."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from simgan_core.errors import InputError
from simgan_core.stats.turing import draw_pool, num_trials_of_control
from storage.answers import AnswerBook, Part, Study, StudyDataset, StudyImage
from storage.answers import create_or_open_answers as open_book
from storage.reader import Dataset, open_dataset
from storage.schema import Domain
from tasks.runtime.compatibility import require_same_images
from tasks.runtime.content_ids import content_id
from tasks.runtime.paths import home
from tasks.runtime.pictures import as_8_bits
from tasks.runtime.styles import base_ids

MAX_TRIALS = 2000

# Images a pool holds for each that a session shows: subjects see much the same images, so that it
# shows which of them fool people, and yet not all the same, so that a study is not of a few images.
POOL_FACTOR = 2

Drawn = tuple[Domain, int, Dataset, int]


def open_study(
    real: str, refined: str, synthetic: str | None, num_trials: int, seed: int, results: Path | None
) -> AnswerBook:
    """Begin or resume the study of these datasets in its results file.

    The file is named by the study under SIMGAN_HOME unless another is given.
    """
    if not (2 <= num_trials <= MAX_TRIALS and num_trials % 2 == 0):
        raise InputError(
            f"--trials {num_trials}: expected an even number from 2 to {MAX_TRIALS}, half of them "
            "real images"
        )
    datasets: dict[Domain, Dataset] = {"real": open_dataset(real), "refined": open_dataset(refined)}
    if synthetic is not None:
        datasets["synthetic"] = open_dataset(synthetic)
    _require_comparable(datasets)
    study = _study(datasets, num_trials, seed)
    path = results or home() / "turing" / f"{study.id}.sqlite"
    return open_book(path, study, lambda: _draw_images(study, datasets))


def entropy_of(study: Study) -> int:
    """Return the entropy that seeds all random draws of a study.

    The digests take part, so that a subject who reads this program and guesses the seed still
    cannot work out the order.
    """
    digests = {domain: dataset.digest for domain, dataset in study.datasets.items()}
    text = json.dumps([study.seed, study.num_trials, digests], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest())


def _require_comparable(datasets: dict[Domain, Dataset]) -> None:
    real = datasets["real"].info
    for domain, dataset in datasets.items():
        found = dataset.info.spec.domain
        if found != domain:
            raise InputError(
                f"--{domain} {dataset.info.url}: expected a dataset of {domain} images, found one "
                f"of {found} ones; give each dataset under its own name"
            )
        # A difference in size or tone would give the answer away without a look at the eyes.
        require_same_images(real, dataset.info, "real", domain)


def _study(datasets: dict[Domain, Dataset], num_trials: int, seed: int) -> Study:
    spec = datasets["real"].info.spec
    parts = [Part(made="refined", num_trials=num_trials)]
    if "synthetic" in datasets:
        # After the refined ones, so that seeing plain renders does not teach what to look for.
        parts.append(Part(made="synthetic", num_trials=num_trials_of_control(num_trials)))
    digests = {domain: dataset.info.digest for domain, dataset in datasets.items()}
    return Study(
        id=content_id("turing", {"datasets": digests, "trials": num_trials, "seed": seed}),
        seed=seed,
        parts=tuple(parts),
        datasets={domain: _described(dataset) for domain, dataset in datasets.items()},
        height=spec.height,
        width=spec.width,
        channels=spec.channels,
    )


def _described(dataset: Dataset) -> StudyDataset:
    refiner = dataset.info.spec.provenance.get("refiner")
    return StudyDataset(
        url=dataset.info.url,
        digest=dataset.info.digest,
        refiner=None if refiner is None else str(refiner),
    )


def _draw_images(study: Study, datasets: dict[Domain, Dataset]) -> list[StudyImage]:
    """Draw the pools of all parts; an image, and what it was refined from, is in one pool only."""
    entropy = entropy_of(study)
    drawn = _draw_real(study, datasets["real"], entropy)
    used: set[str] = set()
    for part, asked in enumerate(study.parts):
        dataset = datasets[asked.made]
        num_shown = asked.num_trials // 2
        rows = _draw_rows(dataset, entropy, POOL_FACTOR * num_shown, used)
        _require_enough(dataset, len(rows), num_shown)
        drawn += [(asked.made, part, dataset, row) for row in rows]
    return _numbered(drawn, entropy)


def _draw_real(study: Study, dataset: Dataset, entropy: int) -> list[Drawn]:
    """Draw real images and deal them out to the parts in proportion to their trials."""
    num_shown = study.num_trials // 2
    rows = _draw_rows(dataset, entropy, POOL_FACTOR * num_shown, set())
    _require_enough(dataset, len(rows), num_shown)
    drawn: list[Drawn] = []
    begin = 0
    for part, asked in enumerate(study.parts):
        end = begin + len(rows) * asked.num_trials // study.num_trials
        drawn += [("real", part, dataset, row) for row in rows[begin:end]]
        begin = end
    return drawn


def _draw_rows(dataset: Dataset, entropy: int, num: int, used: set[str]) -> list[int]:
    """Draw valid rows whose ids are not used yet, and mark them used."""
    ids = base_ids(dataset)
    free = [row for row in np.flatnonzero(dataset.read_valid()).tolist() if ids[row] not in used]
    purpose = dataset.info.spec.domain
    rows = [free[index] for index in draw_pool(entropy, purpose, len(free), num)]
    used.update(ids[row] for row in rows)
    return rows


def _require_enough(dataset: Dataset, num_found: int, num_needed: int) -> None:
    if num_found < num_needed:
        raise InputError(
            f"dataset {dataset.info.url} has {num_found} images left to draw from, the study shows "
            f"{num_needed} of it to each subject; lower --trials, or give a larger dataset"
        )


def _numbered(drawn: Sequence[Drawn], entropy: int) -> list[StudyImage]:
    """Read the drawn rows and number them in an order that tells nothing of what they are."""
    order = draw_pool(entropy, "numbers", len(drawn), len(drawn))
    shuffled = [drawn[index] for index in order]
    # Rows lie far apart; on S3 nearly all the time would be waiting for one after the other.
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(_read_image, range(len(shuffled)), shuffled))


def _read_image(number: int, drawn: Drawn) -> StudyImage:
    domain, part, dataset, row = drawn
    block = dataset.read(row, row + 1)
    pixels = as_8_bits(block.images)[0]
    return StudyImage(number, domain, part, block.ids[0], pixels)
