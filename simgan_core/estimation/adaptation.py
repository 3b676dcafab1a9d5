"""Unsupervised adaptation: pseudo-labels for unlabelled real images, centred among look-alikes.

Estimators trained on another domain err by an offset that is constant for a look: a person, a head
turn, a crop. People of every look are assumed to look in the same directions on average; so what
the predictions on images that look alike have in common beyond the overall mean is that offset, and
is subtracted. A student is then trained on the real images with the centred predictions as labels.

Both eyes of a photograph look the same way and show how the head is turned: where partners are
known, look-alikes are alike in both eyes (`simgan_core.estimation.eye_pairs`).

Landmarks teach beside the estimators: the gaze that follows from where the iris lies between the
corners errs otherwise than theirs, so that the average is better than either, and its mean pitch
rests on anatomy instead of a simulator's eyes. They also weigh estimators of synthetic and of
refined images against each other.

Estimators of two simulators have offsets of their own, so that their centred predictions agree the
better, the less of those is left: what needs no label to choose how far look-alikes reach.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from simgan_core.stats.correlation import correlation

_GRID = (12, 18)
"""Blocks of an image, rows and columns, whose means describe its look."""
_IRIS = (slice(3, 9), slice(3, 15))
"""Blocks in the middle that are left out: they show where the eye looks."""
_EDGE_WEIGHT = 3.0
"""Weight of the mean absolute vertical difference of a block against its mean grey level."""
_LEVELS_PER_DEGREE = 30.0
"""Difference of looks by a degree of difference of head poses: images whose heads are turned
otherwise by some degrees are no look-alikes."""
_ASYMMETRY_WEIGHT = 1.5
"""Weight of how the two eyes of a photograph differ against their mean look: the difference shows
how the head is turned."""
_MAX_REFERENCES = 4000
"""Images among which all distances are taken; others have the mean offset of some of them."""
_NUM_NEAREST_REFERENCES = 20


_MIN_SHARE_FOUND = 0.5
"""Share of the images in which landmarks must be found for them to teach."""
_MIN_AGREEMENT = 0.3
"""Correlation of landmarks' and estimators' angles, pitch and yaw each, below which one of them is
of no use, and nothing tells which. On real people it is 0.45 and more."""
_MAX_PITCH_DIFFERENCE_DEG = 10.0
"""Difference of the mean pitch by landmarks and by estimators beyond which the former is not used:
heads are turned up or down, or the eyes are no human ones."""


class LandmarkAverage(NamedTuple):
    """Predictions of estimators, averaged with gaze from landmarks where that teaches."""

    predictions_deg: NDArray[np.float64]
    """Pitch and yaw [N, 2] in degrees."""
    share: float
    """Share of the images in which landmarks were found."""
    agreement: float
    """Correlation of landmarks' and estimators' angles there, the lesser of pitch and yaw; 0 where
    there is none."""
    teaches: bool
    """Whether predictions are averaged; else they are the estimators' alone."""
    pitch_difference_deg: float
    """Mean pitch by landmarks less that by estimators; NaN without landmarks."""
    sets_mean_pitch: bool
    """Whether the mean pitch is the landmarks'; else the estimators'."""


class Centring(NamedTuple):
    """Reach of look-alikes: parameters of the random walk that averages predictions."""

    num_neighbours: int
    """Nearest images by look among which neighbours are mutual."""
    num_steps: int
    """Steps of the walk; 0: predictions stay as they are."""


DEFAULT_CENTRING = Centring(num_neighbours=20, num_steps=10)
_NO_CENTRING = Centring(num_neighbours=0, num_steps=0)
_NEIGHBOURS = (10, 20, 40, 80)
_STEPS = (2, 6, 10, 20)
"""Candidates among which the agreement of two simulators' estimators chooses."""


class ChosenCentring(NamedTuple):
    """Centring chosen by agreement, without labels."""

    centring: Centring
    agreement: float
    """Correlation of the simulators' centred predictions, mean of pitch and yaw and of pairs."""
    agreement_uncentred: float
    """The same of predictions as they are."""


def student_config(config: EstimatorConfig) -> EstimatorConfig:
    """Return the recipe of a student: wide random crops, no part kept out of noisy labels."""
    return config.model_copy(
        update={"max_shift_px": 4.0, "max_scale": 0.15, "validation_share": 0.0}
    )


def average_with_landmarks(
    predictions_deg: NDArray[np.floating], landmark_gaze_deg: NDArray[np.floating]
) -> LandmarkAverage:
    """Average predictions [N, 2] (pitch, yaw in degrees) with gaze from landmarks [N, 2].

    Rows of NaN are images without landmarks, whose predictions stay. The mean yaw stays the
    estimators': the iris' place between the corners follows the head's turn as well. The mean pitch
    becomes the landmarks', unless the two differ by more than 10°. Where landmarks were found in
    less than half of the images, or correlate with the predictions by less than 0.3, all
    predictions stay.

    Raises InputError where the arrays do not belong together.
    """
    predicted = _checked(predictions_deg, len(landmark_gaze_deg)).numpy()
    is_found = np.isfinite(landmark_gaze_deg).all(axis=1)
    share = float(is_found.mean()) if len(is_found) else 0.0
    if not is_found.any():
        return LandmarkAverage(predicted, share, 0.0, False, np.nan, False)
    estimated, geometric = predicted[is_found], np.asarray(landmark_gaze_deg)[is_found]
    agreement = min(correlation(estimated[:, axis], geometric[:, axis]) for axis in (0, 1))
    difference = geometric.mean(axis=0) - estimated.mean(axis=0)
    pitch_difference = float(difference[0])
    if share < _MIN_SHARE_FOUND or agreement < _MIN_AGREEMENT:
        return LandmarkAverage(predicted, share, agreement, False, pitch_difference, False)
    averaged = predicted.copy()
    averaged[is_found] = (estimated + geometric - difference) / 2
    sets_mean = abs(pitch_difference) <= _MAX_PITCH_DIFFERENCE_DEG
    if sets_mean:
        averaged[:, 0] += pitch_difference
    return LandmarkAverage(averaged, share, agreement, True, pitch_difference, sets_mean)


def stacking_weight(
    first_deg: NDArray[np.floating],
    second_deg: NDArray[np.floating],
    landmark_gaze_deg: NDArray[np.floating],
) -> float:
    """Return the weight, 0 to 1, of the second of two teachers' predictions [N, 2] in their mean.

    It is stacking (Wolpert, 1992; Breiman, 1996) with gaze from landmarks [N, 2] as the target: the
    weighted mean of least squared distance. Landmarks err independently of the estimators, so that
    the true gaze would choose about the same. Mean yaws are left out, since the iris' place follows
    the head's turn as well; mean pitches count where landmarks set them. The weight is a half where
    landmarks do not teach, and where the two predict the same.

    Raises InputError where the arrays do not belong together.
    """
    first = _checked(first_deg, len(landmark_gaze_deg)).numpy()
    second = _checked(second_deg, len(landmark_gaze_deg)).numpy()
    average = average_with_landmarks((first + second) / 2, landmark_gaze_deg)
    if not average.teaches:
        return 0.5
    is_found = np.isfinite(landmark_gaze_deg).all(axis=1)
    target = np.asarray(landmark_gaze_deg, np.float64)[is_found] - first[is_found]
    step = second[is_found] - first[is_found]
    without_mean = slice(1, 2) if average.sets_mean_pitch else slice(2)
    for differences in (target, step):
        differences[:, without_mean] -= differences[:, without_mean].mean(axis=0)
    length = float(np.sum(step * step))
    return float(np.clip(np.sum(step * target) / length, 0, 1)) if length > 0 else 0.5


def centre_by_look(
    predictions_deg: NDArray[np.floating],
    images: NDArray[np.uint8] | NDArray[np.uint16],
    seed: int,
    centring: Centring = DEFAULT_CENTRING,
    head_pose: NDArray[np.floating] | None = None,
    partner: NDArray[np.integer] | None = None,
) -> NDArray[np.float64]:
    """Subtract from predictions [N, 2] (pitch, yaw in degrees) what images that look alike share.

    `images` are [N, H, W, C]. The offset is the predictions' average over a random walk of a few
    steps on the graph of mutual nearest neighbours by look (block means and vertical edges outside
    the iris), less the overall mean, which stays. Beyond 4,000 images the graph is over so many
    drawn by `seed`, and the others take the mean offset of their nearest ones.

    An estimator's offset differs most by how the head is turned, and an image of one eye shows that
    badly. With `head_pose` [N, 2 or 3] (pitch, yaw and roll in radians; roll is not looked at)
    look-alikes also have like head poses. With `partner` [N], the row of the same photograph's
    other eye, mirrored, or -1 where there is none, look-alikes are alike in both eyes; images
    without a partner are compared by their own look.

    Raises InputError where predictions, head poses, partners and images do not belong together.
    """
    predicted = _checked(predictions_deg, len(images))
    if centring.num_steps == 0:
        return predicted.numpy()
    looks = _Looks.of(images, head_pose, partner)
    centred = predicted.clone()
    if len(looks.paired) < len(images):
        centred = predicted - _offsets(predicted, looks.single, seed, centring)
    if len(looks.paired) > 0:
        of_pairs = predicted[looks.paired]
        centred[looks.paired] = of_pairs - _offsets(of_pairs, looks.pairs, seed, centring)
    return np.asarray(centred.numpy())


def _offsets(predicted: Tensor, looks: Tensor, seed: int, centring: Centring) -> Tensor:
    """Return what predictions [N, 2] of images that look alike share beyond the overall mean."""
    graph = _LookGraph(looks, seed)
    references = predicted[graph.references]
    walk, local = graph.random_walk(centring.num_neighbours), references
    for _ in range(centring.num_steps):
        local = torch.sparse.mm(walk, local)
    return graph.spread_to_all(local - references.mean(dim=0))


def choose_centring(
    predictions_deg: Sequence[NDArray[np.floating]],
    images: NDArray[np.uint8] | NDArray[np.uint16],
    seed: int,
    head_pose: NDArray[np.floating] | None = None,
    partner: NDArray[np.integer] | None = None,
) -> ChosenCentring:
    """Choose the centring after which two or more simulators' predictions agree best.

    `predictions_deg` holds one array [N, 2] a simulator, of `images` [N, H, W, C]; estimators of
    one simulator share its offsets and would agree whatever is subtracted. Beyond 4,000 images so
    many drawn by `seed` decide. `head_pose` and `partner` as for `centre_by_look`; where there are
    pairs, they decide. Raises InputError where predictions, head poses, partners and images do not
    belong together.
    """
    sources = torch.cat([_checked(each, len(images)) for each in predictions_deg], dim=1)
    looks = _Looks.of(images, head_pose, partner)
    if len(looks.paired) > 0:
        graph, sources = _LookGraph(looks.pairs, seed), sources[looks.paired]
    else:
        graph = _LookGraph(looks.single, seed)
    sources = sources[graph.references]
    uncentred = _agreement(sources)
    best = ChosenCentring(_NO_CENTRING, uncentred, uncentred)
    for num_neighbours in _NEIGHBOURS:
        walk, local = graph.random_walk(num_neighbours), sources
        for step in range(1, max(_STEPS) + 1):
            local = torch.sparse.mm(walk, local)
            if step in _STEPS and (agreement := _agreement(sources - local)) > best.agreement:
                best = ChosenCentring(Centring(num_neighbours, step), agreement, uncentred)
    return best


def _agreement(sources: Tensor) -> float:
    """Return the mean correlation of pairs of predictions: pitch and yaw of each source [N, 2S]."""
    correlation = torch.corrcoef(sources.T).nan_to_num()
    pairs = combinations(range(sources.shape[1] // 2), 2)
    of_pairs = [correlation[2 * a + axis, 2 * b + axis] for a, b in pairs for axis in (0, 1)]
    return float(torch.stack(of_pairs).mean())


def _checked(
    angles_deg: NDArray[np.floating], num_images: int, whose: str = "predictions"
) -> Tensor:
    if angles_deg.shape != (num_images, 2) or not np.isfinite(angles_deg).all():
        raise InputError(
            f"adaptation needs {whose}' finite pitch and yaw [N, 2] of {num_images} images, found "
            f"{list(angles_deg.shape)}"
        )
    return torch.from_numpy(np.asarray(angles_deg, np.float64))


class _LookGraph:
    """Images by how much they look alike; beyond `_MAX_REFERENCES` so many stand for all."""

    def __init__(self, looks: Tensor, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(looks))
        self.references = np.sort(order[:_MAX_REFERENCES])
        """Rows of the images that the graph is over [R]."""
        self._others = np.setdiff1d(order, self.references)
        self._looks = looks
        own = self._looks[self.references]
        self._distance = torch.cdist(own, own)

    def random_walk(self, num_neighbours: int) -> Tensor:
        """Return the transitions [R, R], sparse, over mutual nearest neighbours and oneself."""
        distance = self._distance
        count = min(num_neighbours, len(distance))
        nearest = distance.topk(count, dim=1, largest=False).indices
        near = torch.zeros(distance.shape, dtype=torch.float64).scatter_(1, nearest, 1.0)
        mutual = torch.minimum(near, near.T).fill_diagonal_(1.0)
        return (mutual / mutual.sum(dim=1, keepdim=True)).to_sparse()

    def spread_to_all(self, values: Tensor) -> Tensor:
        """Return values [R, …] of the references for all images: others take their nearest's."""
        found = values.new_empty(len(self._looks), *values.shape[1:])
        found[self.references] = values
        others = self._others
        for rows in np.array_split(others, -(-len(others) // _MAX_REFERENCES) or 1):
            distance = torch.cdist(self._looks[rows], self._looks[self.references])
            count = min(_NUM_NEAREST_REFERENCES, len(self.references))
            nearest = distance.topk(count, dim=1, largest=False).indices
            found[rows] = values[nearest].mean(dim=1)
        return found


class _Looks(NamedTuple):
    """Descriptions of N images, by which look-alikes are near, and of those with a partner."""

    single: Tensor
    """By each image and its head pose [N, D]."""
    paired: NDArray[np.int64]
    """Rows of the images with a partner [P]."""
    pairs: Tensor
    """Their descriptions by both eyes, and by their own head pose [P, E]."""

    @classmethod
    def of(
        cls,
        images: NDArray[np.uint8] | NDArray[np.uint16],
        head_pose: NDArray[np.floating] | None,
        partner: NDArray[np.integer] | None,
    ) -> Self:
        """Describe images [N, H, W, C]; head poses and partners as for `centre_by_look`."""
        looks, poses = _looks(images), torch.empty(len(images), 0)
        if head_pose is not None:
            poses_deg = _checked(np.degrees(head_pose[:, :2]), len(images), "head poses")
            poses = (_LEVELS_PER_DEGREE * poses_deg).to(looks.dtype)
        partner = np.full(len(images), -1) if partner is None else partner
        if partner.shape != (len(images),) or not np.all(partner < len(images)):
            raise InputError(
                f"partners should be rows of {len(images)} images, or -1, found "
                f"{list(partner.shape)} up to {max(partner, default=-1)}"
            )
        paired = np.flatnonzero(partner >= 0)
        own, other = looks[paired], looks[partner[paired]]
        both = [(own + other) / 2, _ASYMMETRY_WEIGHT * (own - other), poses[paired]]
        return cls(torch.cat([looks, poses], dim=1), paired, torch.cat(both, dim=1))


def _looks(images: NDArray[np.uint8] | NDArray[np.uint16]) -> Tensor:
    """Describe images [N, H, W, C] by what surrounds the iris [N, D], float32, of 0 to 255."""
    keep = torch.ones(_GRID, dtype=torch.bool)
    keep[_IRIS] = False
    scale = 255 / np.iinfo(images.dtype).max
    described = []
    for rows in np.array_split(np.arange(len(images)), -(-len(images) // _MAX_REFERENCES)):
        pixels = torch.from_numpy(images[rows].astype(np.float32) * np.float32(scale))
        planes = pixels.permute(0, 3, 1, 2)
        level, edges = (
            functional.adaptive_avg_pool2d(each, _GRID)[:, :, keep]
            for each in (planes, planes.diff(dim=2).abs())
        )
        described.append(torch.cat([level, _EDGE_WEIGHT * edges], dim=2).flatten(1))
    return torch.cat(described)
