"""Classical baselines on the same pixels, as in the paper's Figure 12: kNN, SVR, random forest.

All are scikit-learn's, from grey levels in 0…1 to pitch and yaw. Adaptive linear regression (Lu et
al., TPAMI 2014) is left out: it chooses among a person's own calibration images by their eye-corner
aligned features, which none of these data sets has, and without them it would be another method.
"""

from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from simgan_core.data.histogram_matching import Pixels
from simgan_core.gaze import gaze_from_pitchyaw, pitchyaw_from_gaze
from tasks.comparison.arms import MethodName

NUM_NEIGHBOURS = 10
NUM_TREES = 100
MAX_SVR_ROWS = 5000
"""Its cost grows with the square of the rows: more are drawn from by the seed."""
MAX_FOREST_ROWS = 20_000
NUM_SVR_COMPONENTS = 100
TITLES: dict[MethodName, str] = {
    "knn": f"{NUM_NEIGHBOURS} nearest neighbours",
    "forest": "random forest",
    "svr": "support vector regression",
    "ridge": "ridge regression",
}
_MAX_ROWS = {"svr": MAX_SVR_ROWS, "forest": MAX_FOREST_ROWS}
_ROWS_AT_ONCE = 1000


class _Regressor(Protocol):
    def fit(self, pixels: NDArray[np.float32], angles: NDArray[Any]) -> Any: ...

    def predict(self, pixels: NDArray[np.float32]) -> NDArray[Any]: ...


def predict_by(
    method: MethodName,
    images: Pixels,
    gaze: NDArray[np.floating[Any]],
    test_images: Pixels,
    seed: int,
) -> NDArray[np.float32]:
    """Fit a method to images [N, H, W, C] and their gaze [N, 3]; return that in others, [M, 3].

    `seed` decides what is random: the trees, and the rows of methods that take only so many.
    """
    limit = _MAX_ROWS.get(method, len(images))
    if len(images) > limit:
        rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:limit])
        images, gaze = images[rows], gaze[rows]
    features = _features(images)
    regressor = _regressor(method, seed, *features.shape)
    regressor.fit(features, pitchyaw_from_gaze(gaze))
    angles = [
        regressor.predict(_features(test_images[first : first + _ROWS_AT_ONCE]))
        for first in range(0, len(test_images), _ROWS_AT_ONCE)
    ]
    return gaze_from_pitchyaw(np.concatenate(angles)).astype(np.float32)


def _features(images: Pixels) -> NDArray[np.float32]:
    white = np.float32(np.iinfo(images.dtype).max)
    return images.reshape(len(images), -1).astype(np.float32) / white


def _regressor(method: MethodName, seed: int, num_rows: int, num_pixels: int) -> _Regressor:
    # scikit-learn takes more than a second to import, and only its own arms need it.
    from sklearn.decomposition import PCA  # noqa: PLC0415
    from sklearn.ensemble import RandomForestRegressor  # noqa: PLC0415
    from sklearn.linear_model import Ridge  # noqa: PLC0415
    from sklearn.multioutput import MultiOutputRegressor  # noqa: PLC0415
    from sklearn.neighbors import KNeighborsRegressor  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.svm import SVR  # noqa: PLC0415

    # Both give the same components; the eigenvectors of all pixels cost more than a few rows do.
    solver = "full" if 2 * num_rows < num_pixels else "covariance_eigh"
    regressors = {
        "knn": lambda: KNeighborsRegressor(min(NUM_NEIGHBOURS, num_rows), algorithm="brute"),
        "forest": lambda: RandomForestRegressor(
            NUM_TREES, max_features="sqrt", min_samples_leaf=2, n_jobs=-1, random_state=seed
        ),
        # Kernels of a hundred components cost a twentieth of those of all pixels.
        "svr": lambda: make_pipeline(
            PCA(min(NUM_SVR_COMPONENTS, num_rows), svd_solver=solver),
            MultiOutputRegressor(SVR(C=1.0, epsilon=0.02)),
        ),
        "ridge": lambda: Ridge(alpha=100.0),
    }
    return cast("_Regressor", regressors[method]())
