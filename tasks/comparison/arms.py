"""Comparison protocol and arms.

Free of torch and Prefect, since the command line draws its options from these models.
"""

from typing import Literal, get_args

from pydantic import Field

from simgan_core.config import Config

ArmName = Literal[
    "synthetic_unmatched",
    "synthetic",
    "tone_matched",
    "fourier",
    "synthetic_augmented",
    "refined",
    "refined_augmented",
    "synthetic_refined",
    "adapted",
    "adapted_refined",
    "real",
    "real_synthetic",
    "real_refined",
]
MethodName = Literal["knn", "forest", "svr", "ridge"]
ProtocolName = Literal["cross-domain", "leave-one-person-out", "fine-tuning"]

ARMS: tuple[ArmName, ...] = get_args(ArmName)
METHODS: tuple[MethodName, ...] = get_args(MethodName)


class Protocol(Config):
    """The rules of a test. Errors under one protocol say nothing about those under another."""

    name: ProtocolName = "cross-domain"
    """cross-domain: train on a training set, test on all of the test set. leave-one-person-out:
    each person of the test set is tested by an estimator that learnt from all others of it.
    fine-tuning: as cross-domain, then trained on with a few samples of each person in turn, and
    tested on that person's others."""
    samples_per_person: int = Field(default=20, ge=1, le=1000)
    """Labelled real samples of each person in fine-tuning; the other protocols have none."""

    @property
    def title(self) -> str:
        """The protocol with all that makes it another one: what runs are told apart by."""
        if self.name == "fine-tuning":
            return f"fine-tuning on {self.samples_per_person} samples a person"
        return self.name

    @property
    def by_person(self) -> bool:
        """Whether people are tested one by one."""
        return self.name != "cross-domain"


class ComparisonConfig(Config):
    """Which training sets, methods and sizes take part, and by which rules."""

    protocol: Protocol = Protocol()
    """The rules of the test."""
    arms: tuple[ArmName, ...] = ARMS
    """Training sets. synthetic_unmatched: synthetic with its labels as they are, where those of
    the others are matched; tone_matched, fourier: synthetic with the histograms, or the
    low-frequency amplitudes, of real images; …_augmented: with random blur, noise, gamma and
    occlusion; synthetic_refined, real_…: mixtures; adapted, adapted_refined: unlabelled real images
    with what estimators trained on synthetic, or on refined, images predict on them, less what
    images that look alike share. Those of real images take part where labelled
    real images are given (--real, or the other people under leave-one-person-out)."""
    match_labels: Literal["auto", "always", "never"] = "auto"
    """Draw the rows of every synthetic and refined training set as often as their gaze occurs
    among unlabelled real images, by an estimate that reads no real label; never those of real
    images. auto: unless the estimate is doubtful, which the report says. Not under
    leave-one-person-out, whose training sets have the real labels."""
    methods: tuple[MethodName, ...] = METHODS
    """Other methods than networks, on the pixels of synthetic and of refined images (cross-domain
    alone): k nearest neighbours, random forest, support vector and ridge regression."""
    pseudo_label_error: bool = True
    """Measure how far estimators of synthetic and refined images are from pseudo-labels of the
    unlabelled real images: what orders refiners without real labels."""
    shares: tuple[float, ...] = (0.25,)
    """Shares of the synthetic and refined rows to train on, beside all of them (cross-domain
    alone): the points of the learning curve. 0.25 makes all rows the article's "4×"."""


DEMO = ComparisonConfig(
    arms=("synthetic", "tone_matched", "synthetic_augmented", "refined", "real"),
    methods=(),
    shares=(),
    match_labels="never",
    pseudo_label_error=False,
)
"""What fits in the few minutes of a demo. Its shaded eyes shrink the angles that estimators predict
on "real" images, so that matched labels would be too narrow, and errors on pseudo-labels order
refiners wrongly (docs/decisions.md)."""
