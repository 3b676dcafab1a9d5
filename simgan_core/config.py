"""Hyperparameters: frozen pydantic models and presets, free of torch.

Prefect draws its forms and the command line its options from these models, and both must answer
before torch is loaded; that is why they live here and not beside the classes that they configure.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
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
"""Parts of the method that an ablation can do without."""


class Config(BaseModel):
    """Base of all configurations: frozen, no unknown fields, field docstrings as help texts.

    Whatever a configuration accepts can be written as JSON and read again. So numbers are finite,
    and text is Unicode: a result that is saved with its configuration can be opened.
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
    """The refiner's network: convolution, residual blocks, 1×1 convolution; no stride."""

    num_features: int = Field(default=32, ge=1, le=512)
    """Feature maps of every block (the paper has 64)."""
    num_blocks: int = Field(default=3, ge=1, le=32)
    """Residual blocks of two 3×3 convolutions (the paper has 4 for eyes, 10 for hands)."""
    kernel_size: Literal[3, 5, 7] = 3
    """Side of the first convolution's kernel, in pixels (3 for eyes, 7 for hands)."""
    mirrored: bool = False
    """Refine a mirrored image to the mirrored result: every map of features has a twin that sees
    the mirrored image. A camera knows no left and right; a refiner that does turns every gaze."""
    residual: bool = True
    """Output x + Δ(x) with Δ zero at the start, instead of the image itself through a tanh."""

    @model_validator(mode="after")
    def _maps_have_twins(self) -> Self:
        if self.mirrored and self.num_features % 2:
            raise ValueError(
                f"num_features should be even where mirrored, found {self.num_features}"
            )
        return self


class DiscriminatorConfig(Config):
    """The discriminator: its network, its loss, and what keeps it from winning too easily."""

    architecture: Literal["eyes", "hand"] = "eyes"
    """The paper's layers for 55×35 eyes or for 224×224 hands."""
    scope: Literal["local", "global"] = "local"
    """A decision for each patch, or one for the whole image (the paper's ablation)."""
    normalization: Literal["none", "batch", "spectral"] = "none"
    """Batch normalisation after the inner convolutions, or every convolution's weights divided by
    their largest singular value (Miyato et al., ICLR 2018)."""
    loss: Literal["cross-entropy", "least-squares", "hinge"] = "cross-entropy"
    """What the two networks play for; the paper's is cross-entropy."""
    gradient_penalty: float = Field(default=0.0, ge=0)
    """R1: weight of the squared gradient of the decisions on real images, a mean per pixel
    (Mescheder et al., ICML 2018); 0: none."""
    max_shift_px: float = Field(default=0.0, ge=0, le=16)
    """Largest random shift, either way on each axis, of all that the discriminator sees, in pixels
    (Zhao et al., NeurIPS 2020); 0: none."""
    max_tone: float = Field(default=0.0, ge=0, lt=1)
    """Largest random change of brightness and contrast of all that the discriminator sees, as a
    share of the range; 0: none."""


class RegularizationConfig(Config):
    """Self-regularization ψ: λ of each term, all per pixel (means, never sums)."""

    identity: float = Field(default=2.0, ge=0)
    """λ of the mean absolute difference of pixels."""
    gradient: float = Field(default=6.0, ge=0)
    """λ of the mean absolute difference of horizontal and vertical image derivatives."""
    low_pass: float = Field(default=0.0, ge=0)
    """λ of the mean absolute difference of blurred images: holds broad shades, frees texture."""
    channel_mean: float = Field(default=0.0, ge=0)
    """λ of the mean absolute difference of the mean of the colour channels."""
    features: float = Field(default=0.0, ge=0)
    """λ of the mean absolute difference of a network's feature maps; needs features_from."""
    features_from: str | None = None
    """Path of that network: an exported program (.pt2), or one of our own trained estimators."""
    label_region: float = Field(default=1.0, ge=1)
    """How many times more than others the pixels count in which the label is, those of the iris:
    within 8 pixels (of an image 55 wide) of the pupil's centre; above 1 it needs the centres."""

    @model_validator(mode="after")
    def _features_come_from_somewhere(self) -> Self:
        if (self.features > 0) != (self.features_from is not None):
            raise ValueError(
                f"features (found {self.features}) and features_from (found {self.features_from}) "
                "should be given together"
            )
        return self


class StoppingConfig(Config):
    """When a training has got where it can: realism under the condition that labels hold."""

    evaluate_every: int = Field(default=100, ge=0, le=1_000_000_000)
    """Refiner updates between two looks at the averaged refiner; 0: none, and the refiner of the
    last step is the result."""
    num_images: int = Field(default=500, ge=8, le=1_000_000_000)
    """Synthetic, and real, images that every look is at; fewer where there are fewer."""
    max_pupil_shift_px: float = Field(default=1.1, gt=0)
    """Mean distance that refinement may move pupil centres, in pixels of an image 55 pixels wide;
    a refiner beyond it is no candidate. Asked where labels say where pupils are."""
    estimator: str | None = None
    """Path of a trained estimator: by how many degrees its answers change is looked at too."""
    min_pupils_kept: float = Field(default=0.9, ge=0, le=1)
    """Share of the pupils found in synthetic images that must be found in refined ones: a pupil
    that is gone has not moved, but its label is as wrong. Less where real eyes lie in shadow."""
    patience: int = Field(default=10, ge=1, le=1_000_000_000)
    """Looks without a better candidate after which training ends."""


class TrainingConfig(Config):
    """Algorithm 1 of the paper: pretraining of both networks, then the two in turn."""

    refiner: RefinerConfig = RefinerConfig()
    """The refiner's network."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The discriminator's network."""
    regularization: RegularizationConfig = RegularizationConfig()
    """The weights of self-regularization."""
    stopping: StoppingConfig = StoppingConfig()
    """How candidates are looked at, and when training ends by itself."""
    steps: int = Field(default=1000, ge=1, le=1_000_000_000)
    """Refiner updates of the adversarial phase, at most: it ends earlier when it has got where it
    can (see stopping)."""
    schedule: Literal["fixed", "adaptive"] = "fixed"
    """adaptive: K_g starts at 1 and rises by 1 after every round in which the discriminator still
    won clearly, up to refiner_steps_per_round."""
    refiner_steps_per_round: int = Field(default=1, ge=1, le=1_000_000_000)
    """K_g: refiner updates in a round."""
    discriminator_steps_per_round: int = Field(default=1, ge=1, le=1_000_000_000)
    """K_d: discriminator updates in a round."""
    refiner_pretraining_steps: int = Field(default=0, ge=0, le=1_000_000_000)
    """Refiner updates on self-regularization alone, before all else; a residual refiner needs none,
    since it starts by returning its input (the paper's needs about 1000)."""
    discriminator_pretraining_steps: int = Field(default=50, ge=0, le=1_000_000_000)
    """Discriminator updates alone, after the refiner's pretraining."""
    batch_size: int = Field(default=32, ge=2, le=65_536)
    """Images in a batch of either domain; even: half of the refined ones come from history."""
    micro_batch_size: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Images computed at once; gradients are accumulated up to the batch. None: what suits the
    device (what fits the caches of a CPU, more on a GPU)."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Learning rate of the refiner."""
    discriminator_learning_rate: float | None = Field(default=None, gt=0)
    """Learning rate of the discriminator; None: the refiner's."""
    match_labels_by: str | None = None
    """Path of a label prior (simgan label-prior): synthetic images are drawn as often as their
    gaze occurs among the real ones."""
    processes: int | None = Field(default=None, ge=1, le=64)
    """Processes that share every batch, under torchrun; None: one for each GPU, one on CPUs."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser of both networks."""
    adam_betas: tuple[float, float] = (0.5, 0.999)
    """Memory of Adam's averages of gradients and of their squares, both at least 0 and below 1.
    With the usual first one of 0.9 two networks that play against each other tend to go round."""
    warmup_steps: int = Field(default=50, ge=0, le=1_000_000_000)
    """Steps of the adversarial phase, its first, over which learning rates rise from zero."""
    cooling: float = Field(default=0.5, ge=0, le=1)
    """Share of the adversarial phase, its end, in which learning rates fall linearly to zero."""
    history_size: int = Field(default=2048, ge=0, le=10_000_000)
    """Refined images kept to show the discriminator again, at least half a batch; 0: no history."""
    ema_decay: float = Field(default=0.98, ge=0, lt=1)
    """Decay a step of the averaged refiner, which is the one used for refining; 0: the last one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the networks; weights and optimisers stay in float32. auto: bf16 on GPUs, on
    CPUs with AMX and on AMD's with AVX512-bf16, where it is faster, else fp32; a resumed training
    keeps what it began with."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of weights, batches and history: the same seed gives the same bits on CPU."""
    log_every: int = Field(default=10, ge=1, le=1_000_000_000)
    """Steps between two points of the loss curves."""
    sample_every: int = Field(default=200, ge=1, le=1_000_000_000)
    """Steps between two pictures of the same synthetic images refined."""
    checkpoint_every: int = Field(default=200, ge=1, le=1_000_000_000)
    """Steps between two checkpoints."""

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


class EstimatorConfig(Config):
    """The estimator and its training: one recipe for every arm of a comparison."""

    architecture: Literal["pooled", "compact", "paper", "resnet", "hourglass"] = "pooled"
    """Of gaze: a small network with normalisation and pooling, which errs least on images of
    another domain; the fastest one, with strides alone; the paper's; or a pre-activation ResNet as
    people use on MPIIGaze. Of hands' joints: a stacked hourglass."""
    head_pose: bool = False
    """Give the estimator of gaze the head's pitch and yaw beside the image."""
    loss: Literal["distance", "angle"] = "distance"
    """What the estimator of gaze minimises: mean distance of unit vectors, or mean angle."""
    num_features: int = Field(default=64, ge=4, le=512)
    """Feature maps of the hourglass (its authors have 256)."""
    steps: int = Field(default=700, ge=1, le=1_000_000_000)
    """Updates of the weights, at most."""
    batch_size: int = Field(default=128, ge=2, le=65_536)
    """Images in a batch."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of Adam, reached in 50 steps, then annealed to zero along a cosine."""
    validation_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the training set that is kept out to stop by and to take the best weights by. It is
    synthetic or refined where the training set is; 0: all images train, for all steps."""
    patience: int = Field(default=5, ge=1, le=20)
    """Looks at the validation part, one each 20th of the steps after a third of them, without a
    better one before training stops."""
    max_shift_px: float = Field(default=2.0, ge=0, le=10)
    """Largest random shift of the crop, in pixels, either way on each axis; gaze labels hold."""
    max_scale: float = Field(default=0.08, ge=0, lt=0.5)
    """Largest random change of the crop's scale, as a share of it."""
    degrade: bool = False
    """Random blur, gamma, noise and occlusion in training too. A comparison trains its augmented
    arms with it whatever is set here."""
    fine_tuning_steps: int = Field(default=60, ge=1, le=1_000_000_000)
    """Updates on a person's own samples where a protocol has them, at a tenth of the rate."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the layers; weights and optimiser stay in float32. auto: bf16 where it is
    faster, which is on GPUs, on CPUs with AMX, and on AMD's with AVX512-bf16."""


PRESETS: dict[str, TrainingConfig] = {
    "demo": TrainingConfig(
        refiner=RefinerConfig(num_features=16, mirrored=True),
        discriminator=DiscriminatorConfig(gradient_penalty=0.01),
        regularization=RegularizationConfig(identity=0.2, gradient=0.4),
        stopping=StoppingConfig(evaluate_every=450, num_images=250, min_pupils_kept=0.6),
        steps=900,
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
}
"""Named trainings: `demo` for two cores and a minute, `stable` (the default), `paper` (eyes),
`hand` (the paper's networks for depth images of 224×224), `colour` (three channels: hues may
change, their mean is held)."""
