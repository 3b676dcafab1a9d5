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
    "adapted_both",
    "real",
    "real_synthetic",
    "real_refined",
]
MethodName = Literal["knn", "forest", "svr", "ridge"]
ProtocolName = Literal["cross-domain", "leave-one-person-out", "fine-tuning"]

ARMS: tuple[ArmName, ...] = get_args(ArmName)
METHODS: tuple[MethodName, ...] = get_args(MethodName)


class Protocol(Config):
    """Test protocol; errors under different protocols are not comparable."""

    name: ProtocolName = "cross-domain"
    """cross-domain: train on a training set, test on the whole test set. leave-one-person-out: test
    each person of the test set by an estimator trained on all the others. fine-tuning: as
    cross-domain, then fine-tune to a few samples of each person, and test on that person's other
    samples."""
    samples_per_person: int = Field(default=20, ge=1, le=1000)
    """Number of labelled real samples of each person in fine-tuning."""

    @property
    def title(self) -> str:
        """Name with the settings that distinguish protocols, which tags runs."""
        if self.name == "fine-tuning":
            return f"fine-tuning on {self.samples_per_person} samples a person"
        return self.name

    @property
    def by_person(self) -> bool:
        """True where people are tested one by one."""
        return self.name != "cross-domain"


class ComparisonConfig(Config):
    """Training sets, classical baselines and protocol of a comparison."""

    protocol: Protocol = Protocol()
    """Test protocol."""
    arms: tuple[ArmName, ...] = ARMS
    """Training sets. tone_matched: synthetic with the histograms of real images; fourier: with
    their low-frequency amplitudes (FDA); augmented: with random blur, noise, gamma and occlusion;
    unmatched: without label matching; adapted: unlabelled real images with pseudo-labels, the
    predictions of estimators trained on synthetic images (adapted_refined: on refined ones;
    adapted_both: of both, weighted by eye landmarks), centred among images that look alike; two
    domains: mixtures of both. Labelled real images are those of --real, or the other people under
    leave-one-person-out."""
    match_labels: Literal["auto", "always", "never"] = "auto"
    """Label matching: resample the rows of synthetic and refined training sets to the gaze
    distribution of unlabelled real images, estimated without real labels. auto: unless the estimate
    is doubtful, which the report says. Never under leave-one-person-out."""
    methods: tuple[MethodName, ...] = METHODS
    """Classical baselines on the pixels of synthetic and of refined images (cross-domain only): k
    nearest neighbours, random forest, support vector and ridge regression."""
    pseudo_label_error: bool = True
    """Measure the error on pseudo-labels of unlabelled real images, which orders refiners without
    real labels."""
    shares: tuple[float, ...] = (0.25,)
    """Learning curve: shares of the synthetic and refined rows to train on, besides all of them
    (cross-domain only). With 0.25 all rows are the article's "4×"."""


DEMO = ComparisonConfig(
    arms=("synthetic", "tone_matched", "synthetic_augmented", "refined", "real"),
    methods=(),
    shares=(),
    match_labels="never",
    pseudo_label_error=False,
)
"""Comparison of the demo: arms that fit in a few minutes. Its shaded eyes shrink the angles that
estimators predict on "real" images, so that matched labels would be too narrow, and errors on
pseudo-labels order refiners wrongly (docs/decisions.md)."""
