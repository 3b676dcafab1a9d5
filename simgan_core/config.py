"""Hyperparameters: frozen pydantic models and presets, free of torch.

Prefect's forms and the options of the command line are made from these models. Both must answer
before torch is loaded, so the models are here and not beside the classes that they configure.
"""

from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import from_json, to_json

Part = Literal["history", "local-adversary", "psi", "label-matching", "averaging", "residual"]
MAX_SEED = 2**32 - 1
"""Largest seed: what every generator of random numbers takes."""

PARTS: tuple[Part, ...] = (
    "history",
    "local-adversary",
    "psi",
    "label-matching",
    "averaging",
    "residual",
)
"""Parts of the method that an ablation can leave out."""


class Config(BaseModel):
    """Base of all configurations: frozen, no unknown fields, field docstrings as help texts.

    Every valid configuration can be written as JSON and read again: numbers are finite and text is
    Unicode, so that a result saved with its configuration can be loaded.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _require_json(cls, value: Any) -> Any:
        try:
            from_json(to_json(value))
        except ValueError as error:
            raise ValueError(
                f"should be something that JSON can hold, found {ascii(value)[:80]} ({error})"
            ) from error
        return value


class RefinerConfig(Config):
    """Refiner network: convolution, residual blocks, 1×1 convolution; no stride."""

    num_features: int = Field(default=32, ge=1, le=512)
    """Feature maps of every block (the paper has 64)."""
    num_blocks: int = Field(default=3, ge=1, le=32)
    """Residual blocks of two 3×3 convolutions (the paper has 4 for eyes, 10 for hands)."""
    kernel_size: Literal[3, 5, 7] = 3
    """Side of the first convolution's kernel, in pixels (3 for eyes, 7 for hands)."""
    mirrored: bool = False
    """Mirror equivariance: a mirrored image is refined to the mirrored result. Without it a refiner
    can turn every gaze to one side."""
    residual: bool = True
    """Output x + Δ(x) with Δ zero at the start, instead of the image itself through a tanh."""

    @field_validator("kernel_size", mode="before")
    @classmethod
    def _read_number(cls, value: object) -> object:
        """Read text of a command line as a number, which pydantic does for int but not Literal."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @model_validator(mode="after")
    def _maps_have_twins(self) -> Self:
        if self.mirrored and self.num_features % 2:
            raise ValueError(
                f"num_features should be even where mirrored, found {self.num_features}"
            )
        return self


class BilateralConfig(Config):
    """Bilateral refiner: local monotone tone curves, blur and noise, from image and random style.

    A network at low resolution predicts a grid of tone curves by place and grey level, which is
    sliced at full resolution (HDRnet: Gharbi et al., SIGGRAPH 2017).
    """

    grid_height: int = Field(default=4, ge=1, le=32)
    """Cells of the grid from top to bottom."""
    grid_width: int = Field(default=6, ge=1, le=32)
    """Cells of the grid from left to right."""
    grey_segments: int = Field(default=2, ge=1, le=16)
    """Segments of a tone curve, each of an equal part of the grey levels with a gain of its own."""
    num_features: int = Field(default=16, ge=4, le=256)
    """Feature maps of the low-resolution network's first layer; later ones have two and four times
    as many."""
    sees_image: bool = True
    """Curves, blur and noise follow the image and the style. Without it the style alone: light that
    follows an image can follow its gaze, a cue for estimators that real light does not give."""
    max_log_gain: float = Field(default=2.0, gt=0, le=5)
    """Largest magnitude of the logarithm of a gain: 2 bounds gains to 0.14 … 7.4."""
    max_blur_px: float = Field(default=2.0, ge=0, le=10)
    """Largest standard deviation of the Gaussian blur, in pixels; 0: no blur."""
    max_noise_levels: float = Field(default=20.0, ge=0, le=100)
    """Largest standard deviation of the noise, in grey levels of 255; 0: no noise."""
    min_style_change_levels: float = Field(default=8.0, ge=0, le=100)
    """Mean absolute difference that two styles of one image should have at least, in grey levels
    of 255, noise averaged out; a smaller one adds to the refiner's loss. 0: no such term."""


class DiscriminatorConfig(Config):
    """Discriminator: network, loss, normalisation, gradient penalty and data augmentation."""

    architecture: Literal["eyes", "hand"] = "eyes"
    """The paper's layers for 55×35 eyes or for 224×224 hands."""
    scope: Literal["local", "global"] = "local"
    """A decision for each patch, or one for the whole image (the paper's ablation)."""
    normalization: Literal["none", "batch", "spectral"] = "none"
    """Batch normalisation after the inner convolutions, or every convolution's weights divided by
    their largest singular value (Miyato et al., ICLR 2018)."""
    loss: Literal["cross-entropy", "least-squares", "hinge"] = "cross-entropy"
    """Adversarial loss; the paper's is cross-entropy."""
    gradient_penalty: float = Field(default=0.0, ge=0)
    """R1: weight of the squared gradient of the decisions on real images, a mean per pixel
    (Mescheder et al., ICML 2018); 0: none."""
    max_shift_px: float = Field(default=0.0, ge=0, le=16)
    """Differentiable augmentation (Zhao et al., NeurIPS 2020): largest random shift of the
    discriminator's input, either way on each axis, in pixels; 0: none."""
    max_tone: float = Field(default=0.0, ge=0, lt=1)
    """Differentiable augmentation: largest random change of brightness and contrast of the
    discriminator's input, as a share of the range; 0: none."""


class RegularizationConfig(Config):
    """Self-regularization ψ: λ of each term, all per pixel (means, never sums)."""

    identity: float = Field(default=2.0, ge=0)
    """λ of the mean absolute difference of pixels."""
    gradient: float = Field(default=6.0, ge=0)
    """λ of the mean absolute difference of horizontal and vertical image derivatives."""
    low_pass: float = Field(default=0.0, ge=0)
    """λ of the mean absolute difference of blurred images: keeps broad shades, frees texture."""
    channel_mean: float = Field(default=0.0, ge=0)
    """λ of the mean absolute difference of the mean of the colour channels."""
    features: float = Field(default=0.0, ge=0)
    """λ of the mean absolute difference of a network's feature maps; needs features_from."""
    features_from: str | None = None
    """Path of that network: an exported program (.pt2), or one of our own trained estimators."""
    label_region: float = Field(default=1.0, ge=1)
    """Weight of the iris relative to other pixels: within 8 pixels (of an image 55 wide) of the
    pupil's centre. Above 1 it needs the label pupil_px."""

    @model_validator(mode="after")
    def _features_come_from_somewhere(self) -> Self:
        if (self.features > 0) != (self.features_from is not None):
            raise ValueError(
                f"features (found {self.features}) and features_from (found {self.features_from}) "
                "should be given together"
            )
        return self


class StoppingConfig(Config):
    """Early stopping: validation by realism (KID) among refiners that pass the label gate."""

    evaluate_every: int = Field(default=100, ge=0, le=1_000_000_000)
    """Refiner updates between two validations of the averaged refiner; 0: no validation, and the
    refiner of the last step is the result."""
    num_images: int = Field(default=500, ge=8, le=1_000_000_000)
    """Synthetic, and real, images in the validation set; fewer where there are fewer."""
    max_pupil_shift_px: float = Field(default=1.1, gt=0)
    """Label gate: largest mean shift of pupil centres by refinement, in pixels of an image 55
    pixels wide; a refiner beyond it is no candidate. Applied where there are labels of pupil
    centres."""
    estimator: str | None = None
    """Path of a trained estimator: validation also measures the change of its predictions, in
    degrees."""
    min_pupils_kept: float = Field(default=0.9, ge=0, le=1)
    """Label gate: smallest share of the pupils found in synthetic images that must be found in
    refined ones, since a lost pupil makes its label as wrong as a moved one does. Lower it where
    real eyes lie in shadow."""
    patience: int = Field(default=10, ge=1, le=1_000_000_000)
    """Number of validations in a row without a better candidate after which training stops."""


class TrainingConfig(Config):
    """Hyperparameters of refiner training (Algorithm 1 of the paper)."""

    family: Literal["convolutional", "bilateral"] = "convolutional"
    """Family of refiners: the paper's convolutional network (see refiner), or local monotone tone
    curves with a random style, which cannot move an edge (see bilateral)."""
    refiner: RefinerConfig = RefinerConfig()
    """The refiner's network in the convolutional family."""
    bilateral: BilateralConfig = BilateralConfig()
    """The refiner's network in the bilateral family."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The discriminator's network."""
    regularization: RegularizationConfig = RegularizationConfig()
    """The weights of self-regularization."""
    stopping: StoppingConfig = StoppingConfig()
    """Validation and early stopping."""
    steps: int = Field(default=1000, ge=1, le=1_000_000_000)
    """Refiner updates of the adversarial phase, at most: early stopping can end it before."""
    schedule: Literal["fixed", "adaptive"] = "fixed"
    """Update ratio. fixed: K_g is refiner_steps_per_round. adaptive: K_g starts at 1 and rises by 1
    after every round in which the discriminator won clearly, up to refiner_steps_per_round."""
    refiner_steps_per_round: int = Field(default=1, ge=1, le=1_000_000_000)
    """K_g: refiner updates in a round."""
    discriminator_steps_per_round: int = Field(default=1, ge=1, le=1_000_000_000)
    """K_d: discriminator updates in a round."""
    refiner_pretraining_steps: int = Field(default=0, ge=0, le=1_000_000_000)
    """Refiner updates of pretraining on self-regularization alone; a residual refiner needs none,
    since it starts by returning its input (the paper's needs about 1000)."""
    discriminator_pretraining_steps: int = Field(default=50, ge=0, le=1_000_000_000)
    """Discriminator updates of pretraining, after the refiner's."""
    batch_size: int = Field(default=32, ge=2, le=65_536)
    """Images in a batch of either domain; even: half of the refined ones come from the history
    buffer."""
    micro_batch_size: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Number of images computed at once; gradients are accumulated up to the batch. None: as many
    as fit the caches of a CPU, more on a GPU."""
    images_in: Literal["auto", "memory", "shards"] = "auto"
    """Storage of the images during training. memory: loaded into memory (the GPU's, with one);
    shards: read shard by shard. auto: memory for a domain of at most 4 GiB, whatever is free. The
    sampler's order differs between the two, and with it the refiner and its id."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Learning rate of the refiner."""
    discriminator_learning_rate: float | None = Field(default=None, gt=0)
    """Learning rate of the discriminator; None: the refiner's."""
    match_labels_by: str | None = None
    """Path of a label prior (simgan label-prior): synthetic images are resampled in proportion to
    the gaze distribution of the real ones."""
    processes: int | None = Field(default=None, ge=1, le=64)
    """Processes that share every batch, under torchrun; None: one for each GPU, one on CPUs."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser of both networks."""
    adam_betas: tuple[float, float] = (0.5, 0.999)
    """Adam's decay of the averages of gradients and of their squares, both at least 0 and below 1.
    With the usual first one of 0.9 two adversarial networks tend to oscillate."""
    warmup_steps: int = Field(default=50, ge=0, le=1_000_000_000)
    """Learning-rate schedule: steps of linear warm-up at the start of the adversarial phase."""
    cooling: float = Field(default=0.5, ge=0, le=1)
    """Learning-rate schedule: share of the adversarial phase, at its end, of linear cool-down to
    zero."""
    history_size: int = Field(default=2048, ge=0, le=10_000_000)
    """Capacity of the discriminator's history (replay) buffer, in images, at least half a batch; 0:
    no buffer."""
    ema_decay: float = Field(default=0.98, ge=0, lt=1)
    """Decay of the refiner's exponential moving average (EMA), which is the one used for refining;
    0: no averaging."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision: fp32, or mixed precision with bf16 layers and float32 weights and optimisers.
    auto: bf16 on GPUs, on CPUs with AMX and on AMD's with AVX512-bf16, where it is faster, else
    fp32; a resumed training keeps its precision."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of weights, batches and history: the same seed gives the same bits on CPU."""
    log_every: int = Field(default=10, ge=1, le=1_000_000_000)
    """Steps between two points of the loss curves."""
    sample_every: int = Field(default=200, ge=1, le=1_000_000_000)
    """Steps between two pictures of the same synthetic images refined."""
    checkpoint_every: int = Field(default=200, ge=1, le=1_000_000_000)
    """Steps between two checkpoints."""

    @model_validator(mode="before")
    @classmethod
    def _family_of_its_settings(cls, values: Any) -> Any:
        """Take settings of the bilateral family without a family for its choice."""
        if isinstance(values, dict) and "bilateral" in values:
            return {"family": "bilateral"} | values
        return values

    @model_validator(mode="after")
    def _numbers_fit_together(self) -> Self:
        if self.batch_size % 2:
            raise ValueError(f"batch_size should be even, found {self.batch_size}")
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(
                f"adam_betas should be at least 0 and below 1, found {self.adam_betas}"
            )
        if 0 < self.history_size < self.batch_size // 2:
            raise ValueError(
                f"history_size should be 0 or at least half of batch_size "
                f"({self.batch_size // 2}), found {self.history_size}"
            )
        return self

    @model_validator(mode="after")
    def _family_fits(self) -> Self:
        if self.family == "convolutional" and self.bilateral != BilateralConfig():
            raise ValueError(
                "bilateral should be left out where family is convolutional, or family should be "
                "bilateral"
            )
        if self.family == "bilateral" and self.discriminator.architecture == "hand":
            raise ValueError(
                "family bilateral changes grey levels, which in depth images are the distances "
                "that labels hold; refine depth images with family convolutional"
            )
        return self

    @model_serializer(mode="wrap")
    def _leave_out_newer_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave family and bilateral out in the convolutional family, and images_in where auto.

        A refiner's id is a digest of its configuration, and refiners are older than these settings.
        """
        values: dict[str, Any] = handler(self)
        if self.images_in == "auto":
            values.pop("images_in", None)
        if self.family == "convolutional":
            values.pop("family", None)
            values.pop("bilateral", None)
        return values


NAMED_FILES = ("regularization.features_from", "stopping.estimator", "match_labels_by")
"""Fields of a `TrainingConfig` that hold the path of a file: a training is what is in the file,
wherever it lies."""


class EstimatorConfig(Config):
    """Hyperparameters of an estimator and its training, the same for every arm of a comparison."""

    architecture: Literal["pooled", "compact", "paper", "resnet", "hourglass"] = "pooled"
    """Network. pooled: small, with batch normalisation and pooling, the least error on another
    domain; compact: the fastest, with strides only; paper: the paper's; resnet: a pre-activation
    ResNet, as used on MPIIGaze; hourglass: a stacked hourglass, for joints of hands."""
    head_pose: bool = False
    """Give the gaze estimator head pitch and yaw as inputs beside the image."""
    loss: Literal["distance", "angle"] = "distance"
    """Loss of the gaze estimator: mean distance of unit vectors, or mean angle."""
    num_features: int = Field(default=64, ge=4, le=512)
    """Number of feature maps of the hourglass (its authors have 256)."""
    steps: int = Field(default=700, ge=1, le=1_000_000_000)
    """Largest number of updates of the weights; early stopping can end training before."""
    batch_size: int = Field(default=128, ge=2, le=65_536)
    """Images in a batch."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of Adam. Learning-rate schedule: linear warm-up over 50 steps, then cosine
    annealing to zero."""
    validation_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the training set that is held out as the validation set, for early stopping and the
    choice of the best weights; 0: no validation set, all steps."""
    patience: int = Field(default=5, ge=1, le=20)
    """Early stopping: number of validations in a row without a better one after which training
    stops. Validations begin after a third of the steps, one every 20th of them."""
    max_shift_px: float = Field(default=2.0, ge=0, le=10)
    """Data augmentation: largest random shift of the crop along each axis, in pixels."""
    max_scale: float = Field(default=0.08, ge=0, lt=0.5)
    """Data augmentation: largest random change of the crop's scale, as a share of it."""
    degrade: bool = False
    """Data augmentation by random blur, gamma, noise and occlusion. A comparison's augmented arms
    always use it."""
    fine_tuning_steps: int = Field(default=60, ge=1, le=1_000_000_000)
    """Protocol fine-tuning: number of updates on a person's samples, at a tenth of the learning
    rate."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision: fp32, or mixed precision with bf16 layers and float32 weights and optimiser. auto:
    bf16 where it is faster, which is on GPUs, on CPUs with AMX, and on AMD's with AVX512-bf16."""


class LandmarkTraining(Config):
    """Training of the landmark network."""

    steps: int = Field(default=3000, ge=1)
    """Optimiser updates."""
    batch_size: int = Field(default=64, ge=2)
    """Images of an update, taken from all sets of examples alike."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of Adam; linear warm-up over 50 updates, then cosine annealing to 0."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the weights and of the views."""


PRESETS: dict[str, TrainingConfig] = {
    "demo": TrainingConfig(
        family="bilateral",
        bilateral=BilateralConfig(
            num_features=32, sees_image=False, max_blur_px=1.0, min_style_change_levels=24.0
        ),
        discriminator=DiscriminatorConfig(gradient_penalty=0.05, max_shift_px=2.0, max_tone=0.1),
        regularization=RegularizationConfig(identity=0.2, gradient=0.0),
        stopping=StoppingConfig(evaluate_every=300, num_images=250),
        steps=1800,
        batch_size=16,
        learning_rate=1.5e-3,
        discriminator_learning_rate=1e-3,
        ema_decay=0.99,
    ),
    "stable": TrainingConfig(),
    "paper": TrainingConfig(
        refiner=RefinerConfig(num_features=64, num_blocks=4, residual=False),
        regularization=RegularizationConfig(identity=1.0, gradient=0.0),
        steps=100_000,
        refiner_steps_per_round=50,
        discriminator_steps_per_round=1,
        refiner_pretraining_steps=1000,
        discriminator_pretraining_steps=200,
        batch_size=512,
        learning_rate=1e-4,
        adam_betas=(0.9, 0.999),
        warmup_steps=0,
        cooling=0.0,
        history_size=25_600,
        ema_decay=0.0,
        stopping=StoppingConfig(evaluate_every=1000),
    ),
    "hand": TrainingConfig(
        refiner=RefinerConfig(num_features=64, num_blocks=10, kernel_size=7, residual=False),
        discriminator=DiscriminatorConfig(architecture="hand"),
        regularization=RegularizationConfig(identity=1.0, gradient=0.0),
        steps=20_000,
        refiner_steps_per_round=2,
        refiner_pretraining_steps=500,
        discriminator_pretraining_steps=200,
        learning_rate=1e-4,
        ema_decay=0.99,
        stopping=StoppingConfig(evaluate_every=500),
    ),
    "colour": TrainingConfig(
        regularization=RegularizationConfig(identity=0.0, gradient=6.0, channel_mean=2.0),
        steps=10_000,
        ema_decay=0.99,
    ),
    "bilateral": TrainingConfig(
        family="bilateral",
        discriminator=DiscriminatorConfig(gradient_penalty=0.01, max_shift_px=2.0, max_tone=0.1),
        regularization=RegularizationConfig(identity=0.3, gradient=0.0),
        steps=1800,
        batch_size=16,
        learning_rate=1e-3,
        history_size=512,
    ),
}
"""Named training configurations: `demo` (a minute on two cores), `bilateral` (the default),
`stable` (a residual form of the paper's network), `paper` (eyes), `hand` (the paper's networks for
depth images of 224×224), `colour` (three channels: hues may change, their mean is held)."""
DEFAULT_PRESET = "bilateral"
"""Preset of commands and deployments that name none."""
