"""Charts of a comparison, each with title, caption and alternative text.

Drawn narrow, so that a telephone shows them at their size and a wide page two in a row; two pixels
for each of the page's, so that they stay sharp on fine screens.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from simgan_core.gaze import pitchyaw_from_gaze
from simgan_core.stats.bootstrap import cell_means, cumulative_shares
from tasks.comparison.error_metrics import ERROR_METRICS, ErrorMetric
from tasks.comparison.people import people_in
from tasks.comparison.plan import Comparison
from tasks.comparison.predictions import ArmPredictions
from tasks.comparison.reporting.results import Results

WIDTH_IN = 4.8
DPI = 200
FONT_PT = 9
MIN_FONT_PT = 8
"""A page shows a chart 480 px wide: 11 px is as small as letters get there."""
CURVES_END = {"gaze": 30.0, "joints": 20.0}
NUM_WORST = 12
NUM_CELLS = 6
MAX_SCATTER = 1500

# Okabe and Ito's colours, which most who see few colours can tell apart.
COLOURS = {
    "synthetic_unmatched": "#9A9A9A",
    "synthetic": "#D55E00",
    "tone_matched": "#E69F00",
    "fourier": "#F0C808",
    "synthetic_augmented": "#CC79A7",
    "refined": "#0072B2",
    "refined_augmented": "#56B4E9",
    "synthetic_refined": "#5E3C99",
    "adapted": "#A6611A",
    "adapted_refined": "#01665E",
    "adapted_both": "#35978F",
    "real": "#009E73",
    "real_synthetic": "#8C6D1F",
    "real_refined": "#1B1B1B",
}
PUBLISHED_GREY = "#B5B5B5"
PUBLISHED_DEG = {
    "CNN, UT Multiview": 13.9,
    "CNN, UnityEyes": 11.2,
    "k-NN, UnityEyes": 9.9,
    "CNN, refined UnityEyes": 7.8,
}
"""Mean errors on MPIIGaze that SimGAN's authors report (CVPR 2017)."""


@dataclass(frozen=True)
class Chart:
    """A picture with its words."""

    name: str
    title: str
    caption: str
    alt: str
    png: bytes


def draw_charts(
    comparison: Comparison,
    results: Results,
    predictions: Mapping[str, ArmPredictions],
    test_images: Mapping[str, NDArray[np.uint8]],
    pupils_px: tuple[NDArray[Any], NDArray[Any]] | None,
    realism: Mapping[str, Sequence[tuple[int, float]]],
    sizes: Mapping[str, int],
) -> list[Chart]:
    """Draw every chart for which there are data.

    `test_images` are by id; `pupils_px` are centres [N, 2] before and after refinement, in pixels;
    `realism` holds curves over the refiner's training steps, `sizes` the images that each arm
    trains on.
    """
    measure = ERROR_METRICS[results.measure]
    candidate = next(
        (n for n in ("refined", "real_refined") if n in predictions), next(iter(predictions))
    )
    charts = [_curves(comparison, predictions, measure), _bars(comparison, results, measure)]
    if any(arm.num_rows for arm in comparison.arms):
        charts.append(_learning_curve(comparison, results, sizes, measure))
    if results.num_people is not None:
        charts.append(_by_person(comparison, predictions, measure))
    if measure.name == "gaze":
        charts.append(_by_direction(results, predictions, candidate, measure))
        charts.append(_worst(results, predictions[candidate], candidate, test_images))
    if pupils_px is not None and len(pupils_px[0]):
        charts.append(_pupils(*pupils_px))
    if realism:
        charts.append(_realism(realism))
    return charts


def _curves(
    comparison: Comparison, predictions: Mapping[str, ArmPredictions], measure: ErrorMetric
) -> Chart:
    end = CURVES_END[measure.name]
    limits = np.linspace(0, end, 121)
    shown = [arm for arm in comparison.arms if arm.method is None]

    def draw(axes: Axes) -> None:
        for arm in shown:
            shares = cumulative_shares(predictions[arm.name].errors, limits)
            axes.plot(
                limits,
                100 * shares,
                color=COLOURS[arm.training_set],
                linestyle="--" if arm.num_rows else "-",
                linewidth=1.6,
                label=arm.title,
            )
        axes.axvline(measure.limit, color="#888", linewidth=0.8, linestyle=":")
        axes.set(xlim=(0, end), ylim=(0, 100))
        axes.set_xlabel(f"error ({measure.unit.strip()})")
        axes.set_ylabel("test images within it (%)")
        axes.legend(loc="lower right", fontsize=FONT_PT - 2, frameon=False)

    within = "; ".join(
        f"{arm.title} {100 * np.mean(predictions[arm.name].errors <= measure.limit):.0f}%"
        for arm in shown
    )
    return Chart(
        "cumulative",
        "How many images are within an error",
        "The article's Figure 11. Dashed: smaller training sets. Dotted line: "
        f"{measure.limit:g}{measure.unit}.",
        f"Curves of the share of test images within an error. Within {measure.limit:g}"
        f"{measure.unit}: {within}.",
        _png(draw, height_in=3.6),
    )


def _bars(comparison: Comparison, results: Results, measure: ErrorMetric) -> Chart:
    rows = [
        (arm.title, results.arms[arm.name], COLOURS[arm.training_set], arm.method is not None)
        for arm in comparison.arms
    ]
    published = list(PUBLISHED_DEG.items()) if _is_article_like(comparison, measure) else []

    def draw(axes: Axes) -> None:
        labels = []
        for place, (title, arm, colour, is_method) in enumerate(rows):
            low, high = arm.ci95
            axes.barh(place, arm.error, color=colour, alpha=0.45 if is_method else 1, height=0.72)
            axes.errorbar(
                arm.error,
                place,
                xerr=[[arm.error - low], [high - arm.error]],
                color="#222",
                capsize=2.5,
                linewidth=1,
            )
            axes.text(high, place, f" {arm.error:.1f}", va="center", fontsize=FONT_PT - 1)
            labels.append(title)
        for number, (title, error) in enumerate(published):
            below = len(rows) + 0.5 + number
            axes.barh(below, error, color=PUBLISHED_GREY, height=0.72, hatch="//", edgecolor="w")
            axes.text(
                error, below, f" {error:.1f}", va="center", fontsize=FONT_PT - 1, color="#666"
            )
            labels.append(f"[{title}]")
        places = [*range(len(rows)), *(len(rows) + 0.5 + n for n in range(len(published)))]
        axes.set_yticks(places, labels, fontsize=FONT_PT - 1)
        axes.set_ylim(places[-1] + 0.6, -0.6)
        axes.set_xlabel(f"{measure.noun} ({measure.unit.strip()})")
        axes.set_xlim(
            0, 1.16 * max([arm.ci95[1] for _, arm, _, _ in rows] + [e for _, e in published])
        )

    told = "; ".join(
        f"{title} {arm.error:.2f} ({arm.ci95[0]:.2f} to {arm.ci95[1]:.2f})"
        for title, arm, _, _ in rows
    )
    caption = "Mean error with its 95% interval; pale bars: classical baselines on the same pixels."
    if published:
        caption += (
            " Grey, in brackets: figures that SimGAN's authors published for MPIIGaze, on another "
            "set-up (1.2 million images, other crops): for orientation, not for comparison."
        )
    return Chart(
        "bars",
        "Mean error of every arm",
        caption,
        f"Bars of the {measure.noun} in{measure.unit if measure.unit != '°' else ' degrees'} with "
        f"95% intervals: {told}.",
        _png(draw, height_in=1.0 + 0.24 * (len(rows) + len(published))),
    )


def _is_article_like(comparison: Comparison, measure: ErrorMetric) -> bool:
    return measure.name == "gaze" and comparison.protocol.name == "cross-domain"


def _learning_curve(
    comparison: Comparison, results: Results, sizes: Mapping[str, int], measure: ErrorMetric
) -> Chart:
    curves: dict[str, list[tuple[int, float, float, float]]] = {}
    for arm in comparison.arms:
        if arm.method or arm.augmented or arm.training_set not in {"synthetic", "refined"}:
            continue
        result = results.arms[arm.name]
        curves.setdefault(arm.training_set, []).append(
            (sizes[arm.name], result.error, *result.ci95)
        )

    def draw(axes: Axes) -> None:
        for name, points in curves.items():
            size, error, low, high = np.array(sorted(points)).T
            axes.errorbar(
                size,
                error,
                yerr=[error - low, high - error],
                color=COLOURS[name],
                marker="o",
                capsize=3,
                label=name,
            )
        axes.set_xscale("log")
        ticks = sorted({size for points in curves.values() for size, *_ in points})
        axes.set_xticks(ticks, [f"{size:,}" for size in ticks])
        axes.minorticks_off()
        axes.set(xlabel="training images", ylabel=f"{measure.noun} ({measure.unit.strip()})")
        axes.legend(frameon=False)

    told = "; ".join(
        f"{name}: "
        + ", ".join(f"{size:,} images {error:.2f}" for size, error, *_ in sorted(points))
        for name, points in curves.items()
    )
    return Chart(
        "learning_curve",
        "More images",
        "Mean error over the size of the training set, 95% intervals; the same number of steps.",
        f"Learning curve, {measure.noun} by number of training images. {told}.",
        _png(draw, height_in=3.0),
    )


def _by_person(
    comparison: Comparison, predictions: Mapping[str, ArmPredictions], measure: ErrorMetric
) -> Chart:
    shown = [arm for arm in comparison.arms if not arm.method and not arm.num_rows]
    some = predictions[shown[0].name]
    people, groups = people_in(some.ids), some.groups
    assert groups is not None
    means = {
        arm.name: np.array(
            [predictions[arm.name].errors[:, groups == g].mean() for g in range(len(people))]
        )
        for arm in shown
    }
    main = [arm for arm in shown if arm.name in {"synthetic", "refined", "real", "real_refined"}]

    def draw(axes: Axes) -> None:
        for arm in shown:
            axes.plot(
                means[arm.name],
                np.arange(len(people)),
                "o" if arm in main else ".",
                color=COLOURS[arm.training_set],
                alpha=1 if arm in main else 0.5,
                label=arm.title,
                markersize=5 if arm in main else 8,
            )
        axes.set_yticks(range(len(people)), people, fontsize=FONT_PT - 1)
        axes.invert_yaxis()
        axes.grid(axis="y", color="#e5e5e5")
        axes.set(xlabel=f"{measure.noun} ({measure.unit.strip()})", xlim=(0, None))
        # The legend is outside, since points can lie anywhere within the axes.
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.legend(fontsize=MIN_FONT_PT, frameon=False, loc="outside lower center", ncols=2)

    told = "; ".join(
        f"{arm.title}: best {people[means[arm.name].argmin()]} {means[arm.name].min():.1f}, worst "
        f"{people[means[arm.name].argmax()]} {means[arm.name].max():.1f}"
        for arm in main
    )
    return Chart(
        "by_person",
        "Error by person",
        "Mean error on each person's images.",
        f"Points of the {measure.noun} of each of {len(people)} people. {told}.",
        _png(draw, height_in=1.3 + 0.2 * (len(people) + len(shown) / 2)),
    )


def _by_direction(
    results: Results,
    predictions: Mapping[str, ArmPredictions],
    candidate: str,
    measure: ErrorMetric,
) -> Chart:
    other = next(
        (n for n in ("synthetic", "real_synthetic", "real") if n in predictions), candidate
    )
    names = [other, candidate] if other != candidate else [candidate]
    pitch, yaw = np.degrees(pitchyaw_from_gaze(predictions[candidate].truth)).T
    edges = [np.linspace(*_middle(angle), NUM_CELLS + 1) for angle in (yaw, pitch)]
    cells = [
        cell_means(predictions[name].errors.mean(axis=0), yaw, pitch, edges[0], edges[1])
        for name in names
    ]
    top = max(float(np.nanmax(each)) for each in cells)

    def draw(figure: Figure) -> None:
        all_axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, name, each in zip(all_axes, names, cells, strict=True):
            mesh = axes.pcolormesh(edges[0], edges[1], each, vmin=0, vmax=top, cmap="viridis")
            axes.set_title(results.arms[name].title, fontsize=FONT_PT)
            axes.invert_xaxis()
            axes.set_xlabel("yaw (°)")
            for (row, column), value in np.ndenumerate(each):
                if np.isfinite(value):
                    axes.text(
                        edges[0][column : column + 2].mean(),
                        edges[1][row : row + 2].mean(),
                        f"{value:.0f}",
                        ha="center",
                        va="center",
                        fontsize=FONT_PT - 2,
                        color="white" if value < 0.6 * top else "black",
                    )
        all_axes[0].set_ylabel("pitch (°)")
        figure.colorbar(mesh, ax=list(all_axes), label=f"error ({measure.unit})", shrink=0.9)

    told = "; ".join(
        f"{results.arms[name].title}: from {np.nanmin(each):.1f} to {np.nanmax(each):.1f} degrees"
        for name, each in zip(names, cells, strict=True)
    )
    return Chart(
        "by_direction",
        "Error by gaze direction",
        "Mean error where people look, as the camera sees it: left is the image's left.",
        f"Maps of the mean error by true yaw and pitch. {told}.",
        _figure_png(draw, height_in=2.6),
    )


def _middle(angles: NDArray[Any]) -> tuple[float, float]:
    """Return the range of angles that contains nearly all."""
    low, high = np.quantile(angles, [0.01, 0.99])
    return float(low), float(high)


def _worst(
    results: Results,
    predictions: ArmPredictions,
    candidate: str,
    test_images: Mapping[str, NDArray[np.uint8]],
) -> Chart:
    errors = predictions.errors.mean(axis=0)
    worst = [int(row) for row in np.argsort(-errors, kind="stable")[:NUM_WORST]]
    mean_answer = predictions.predicted.mean(axis=0)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(-(-len(worst) // 3), 3, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for axes, row in zip(grid.flat, worst, strict=False):
            image = test_images[predictions.ids[row]]
            height, width = image.shape[:2]
            axes.imshow(
                image.squeeze(-1) if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255
            )
            for gaze, colour in (
                (predictions.truth[row], "#00C08B"),
                (mean_answer[row], "#FF5A36"),
            ):
                axes.annotate(
                    "",
                    xy=(width / 2 + 0.8 * width * gaze[0], height / 2 + 0.8 * width * gaze[1]),
                    xytext=(width / 2, height / 2),
                    arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.6},
                )
            axes.set_title(f"{errors[row]:.0f}°", fontsize=FONT_PT - 1, pad=2)

    listed = ", ".join(f"{predictions.ids[row]} {errors[row]:.0f}°" for row in worst[:5])
    return Chart(
        "worst",
        f"Where {results.arms[candidate].title} is most wrong",
        "The test images of the largest error, mean of the seeds. Green: the true line of sight; "
        "red: the estimated one.",
        f"The {len(worst)} worst test images with true and estimated line of sight. The first: "
        f"{listed}.",
        _figure_png(draw, height_in=0.45 + 1.02 * -(-len(worst) // 3)),
    )


def _pupils(before_px: NDArray[Any], after_px: NDArray[Any]) -> Chart:
    shown = np.random.default_rng(0).permutation(len(before_px))[:MAX_SCATTER]
    correlation = [np.corrcoef(before_px[:, axis], after_px[:, axis])[0, 1] for axis in (0, 1)]

    def draw(figure: Figure) -> None:
        for axis, axes in enumerate(figure.subplots(1, 2)):
            x, y = before_px[shown, axis], after_px[shown, axis]
            ends = [min(x.min(), y.min()) - 1, max(x.max(), y.max()) + 1]
            axes.plot(ends, ends, color="#999", linewidth=0.8)
            axes.plot(x, y, ".", color=COLOURS["refined"], markersize=2, alpha=0.35)
            axes.set(xlim=ends, ylim=ends, aspect="equal")
            axes.set_xlabel(f"synthetic {'xy'[axis]} (px)")
            axes.set_ylabel(f"refined {'xy'[axis]} (px)")

    return Chart(
        "pupils",
        "Pupils before and after refinement",
        "The article's Figure 9: on the line, refinement left the pupil where it was.",
        f"Scatter of pupil centres before and after refinement; correlation {correlation[0]:.3f} "
        f"in x and {correlation[1]:.3f} in y.",
        _figure_png(draw, height_in=2.4),
    )


def _realism(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Chart:
    def draw(figure: Figure) -> None:
        all_axes = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, points) in zip(all_axes, curves.items(), strict=True):
            axes.plot(*zip(*points, strict=True), color=COLOURS["refined"], marker=".")
            axes.set_ylabel(name.removeprefix("realism/").replace("_", " "))
        all_axes[-1].set_xlabel("refiner steps")

    told = "; ".join(
        f"{name.removeprefix('realism/').replace('_', ' ')} from {points[0][1]:.3g} to "
        f"{points[-1][1]:.3g}"
        for name, points in curves.items()
    )
    return Chart(
        "realism",
        "Realism while the refiner trained",
        "Lower is more realistic. Success is measured by the errors above, not by realism.",
        f"Curves of realism over the refiner's steps: {told}.",
        _figure_png(draw, height_in=0.8 + 1.5 * len(curves)),
    )


def _png(draw: Callable[[Axes], None], height_in: float) -> bytes:
    def on_figure(figure: Figure) -> None:
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)

    return _figure_png(on_figure, height_in)


def _figure_png(draw: Callable[[Figure], None], height_in: float) -> bytes:
    """Draw on a figure of its own, without matplotlib's global state, which threads would share."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    for axes in figure.axes:
        axes.tick_params(labelsize=FONT_PT - 1)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_fontsize(FONT_PT)
    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), MIN_FONT_PT))
    buffer = io.BytesIO()
    # Without the version of matplotlib in it, the same figures give the same file.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
