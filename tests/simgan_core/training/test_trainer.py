from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from simgan_core.compute.non_finite import NonFiniteLossError
from simgan_core.config import (
    PRESETS,
    RefinerConfig,
    RegularizationConfig,
    StoppingConfig,
    TrainingConfig,
)
from simgan_core.errors import InputError
from simgan_core.models.checkpoint import load_checkpoint
from simgan_core.training.collapse import CollapsedError
from simgan_core.training.trainer import NUM_SAMPLES, Trainer

SMALL = TrainingConfig(
    refiner=RefinerConfig(num_features=4, num_blocks=1),
    steps=6,
    refiner_steps_per_round=3,
    discriminator_steps_per_round=2,
    refiner_pretraining_steps=2,
    discriminator_pretraining_steps=4,
    batch_size=4,
    history_size=8,
    stopping=StoppingConfig(evaluate_every=0),
    log_every=3,
    sample_every=5,
)


class RecordingSink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.metrics_at: dict[int, dict[str, float]] = {}
        self.samples_at: dict[int, torch.Tensor] = {}
        self.progress_at: list[tuple[int, int]] = []

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.metrics_at.setdefault(step, {}).update(values)

    def samples(self, step: int, images: torch.Tensor) -> None:
        self.samples_at[step] = images.clone()

    def progress(self, step: int, total: int) -> None:
        self.progress_at.append((step, total))


def shapes(count: int, seed: int, finish: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Bright boxes on a grey ground with some noise, 16 × 20, one an image, then `finish`ed."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.full((count, 16, 20, 1), 120.0)
    for image, (top, left) in zip(
        images, torch.randint(1, 9, (count, 2), generator=generator).tolist(), strict=True
    ):
        image[top : top + 6, left : left + 8] = 200.0
    images += torch.randn(images.shape, generator=generator) * 10
    return finish(images).clamp(0, 255).to(torch.uint8)


def clean(images: torch.Tensor) -> torch.Tensor:
    return images


def images(count: int, seed: int) -> torch.Tensor:
    return shapes(count, seed, clean)


def darkened(images: torch.Tensor) -> torch.Tensor:
    return images * 0.6


def train(config: TrainingConfig, sink: RecordingSink | None = None) -> Trainer:
    trainer = Trainer(config, shapes(30, 0, clean), shapes(20, 1, darkened), sink=sink)
    trainer.run()
    return trainer


def test_learning_rates_rise_stay_and_fall_to_nothing_in_the_adversarial_phase() -> None:
    config = SMALL.model_copy(update={"steps": 8, "warmup_steps": 3, "cooling": 0.25})
    trainer = Trainer(config, shapes(30, 0, clean), shapes(20, 1, darkened))
    rates: list[float] = []

    def note_rate() -> bool:
        group = trainer._state.refiner_optimizer.param_groups[0]
        rates.append(group["lr"] / config.learning_rate)
        return False

    trainer.run(should_stop=note_rate)
    # Asked before every step, so a step's rate is seen when the next one is asked for.
    adversarial = rates[config.refiner_pretraining_steps + 4 + 1 :]
    assert adversarial == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1])
    assert trainer._state.refiner_optimizer.param_groups[0]["lr"] == pytest.approx(
        config.learning_rate / 2
    )


def test_rounds_take_as_many_steps_of_each_network_as_configured(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    Trainer(SMALL, shapes(30, 0, clean), shapes(20, 1, darkened)).run(path)
    state = load_checkpoint(path)["state"]
    refiner_steps = state["refiner_optimizer"]["state"][0]["step"].item()
    discriminator_steps = state["discriminator_optimizer"]["state"][0]["step"].item()
    assert refiner_steps == 2 + 6  # pretraining, then K_g = 3 in each of two rounds
    assert discriminator_steps == 4 + 2 * 2  # pretraining, then K_d = 2 in each of two rounds


def test_half_of_each_batch_enters_the_history_once_rounds_begin(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    one_round = SMALL.model_copy(update={"steps": 3})
    Trainer(one_round, shapes(30, 0, clean), shapes(20, 1, darkened)).run(path)
    history = load_checkpoint(path)["ranks"][0]["history"]
    assert history.shape == (2 * 2, 16, 20, 1)
    assert history.dtype == torch.uint8


def test_a_refiner_learns_the_look_of_the_real_images_and_keeps_their_content() -> None:
    config = TrainingConfig(
        refiner=RefinerConfig(num_features=8, num_blocks=2),
        regularization=RegularizationConfig(identity=0.5, gradient=1.0),
        steps=400,
        discriminator_pretraining_steps=10,
        batch_size=16,
        learning_rate=1e-3,
        stopping=StoppingConfig(evaluate_every=0),
        log_every=10,
    )
    synthetic, real = shapes(300, 0, clean), shapes(300, 1, darkened)
    sink = RecordingSink()
    Trainer(config, synthetic, real, sink=sink).run()
    before, after = sink.samples_at[0].float(), sink.samples_at[410].float()

    def distance(images: torch.Tensor) -> float:
        return abs(images.mean() - real.float().mean()).item()

    assert distance(after) < 0.2 * distance(before)
    boxes = before > 160
    contrast = after[boxes].mean() - after[~boxes].mean()
    assert contrast == pytest.approx((200 - 120) * 0.6, rel=0.25)
    accuracies = [
        (values["discriminator/accuracy_refined"] + values["discriminator/accuracy_real"]) / 2
        for values in sink.metrics_at.values()
    ]
    assert max(accuracies) > 0.9  # the discriminator knew the two apart,
    assert accuracies[-1] < 0.8  # and hardly does any more


@pytest.mark.parametrize(("num_threads", "precision"), [(1, "fp32"), (1, "bf16"), (2, "fp32")])
def test_the_same_seed_gives_the_same_bits(num_threads: int, precision: str) -> None:
    config = SMALL.model_copy(update={"precision": precision})
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        first, second = RecordingSink(), RecordingSink()
        train(config, first)
        torch.rand(3)  # the caller's own random numbers change nothing
        train(config, second)
    finally:
        torch.set_num_threads(before)
    assert first.metrics_at == second.metrics_at
    assert torch.equal(first.samples_at[12], second.samples_at[12])


def test_another_seed_gives_other_figures() -> None:
    first, second = RecordingSink(), RecordingSink()
    train(SMALL, first)
    train(SMALL.model_copy(update={"seed": 1}), second)
    assert first.metrics_at != second.metrics_at


def test_a_training_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(SMALL)
    assert torch.equal(torch.rand(3), expected)


def test_the_sink_hears_of_losses_samples_and_progress_at_the_steps_set() -> None:
    sink = RecordingSink()
    train(SMALL, sink)
    assert list(sink.metrics_at) == [3, 6, 9, 12]
    assert list(sink.samples_at) == [0, 5, 10, 12]
    assert sink.progress_at[-1] == (12, 12)
    assert {"refiner/adversarial", "refiner/self_regularization", "discriminator/loss"} <= set(
        sink.metrics_at[12]
    )


def test_samples_are_the_same_synthetic_images_at_every_step() -> None:
    sink = RecordingSink()
    train(SMALL.model_copy(update={"learning_rate": 1e-12}), sink)
    assert len(sink.samples_at[0]) == NUM_SAMPLES
    assert torch.equal(sink.samples_at[0], sink.samples_at[12])


def test_without_averaging_the_last_refiner_is_the_one_returned(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    config = SMALL.model_copy(update={"ema_decay": 0.0})
    Trainer(config, shapes(30, 0, clean), shapes(20, 1, darkened)).run(path)
    state = load_checkpoint(path)["state"]
    torch.testing.assert_close(state["averaged_refiner"], state["refiner"], rtol=0, atol=1e-7)


def test_a_training_that_diverges_says_so_and_keeps_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    path = tmp_path / "training.ckpt"
    config = SMALL.model_copy(
        update={"learning_rate": 1e30, "optimizer": "sgd", "steps": 40, "checkpoint_every": 1}
    )
    trainer = Trainer(config, shapes(30, 0, clean), shapes(20, 1, darkened))
    with pytest.raises(NonFiniteLossError, match="lower learning_rate"):
        trainer.run(path)
    assert load_checkpoint(path)["state"]["step"] < trainer.total_steps


def test_weights_that_are_no_numbers_are_never_a_result_nor_a_checkpoint(tmp_path: Path) -> None:
    images = shapes(30, 0, clean)
    # So fast that gradients overflow where the loss is finite, and training ends there.
    config = TrainingConfig(
        family="bilateral", optimizer="sgd", learning_rate=1e8, steps=2, warmup_steps=0, cooling=0,
        discriminator_pretraining_steps=0, batch_size=4, history_size=4,
        stopping=StoppingConfig(evaluate_every=0),
    )  # fmt: skip
    with pytest.raises(NonFiniteLossError, match="lower learning_rate"):
        Trainer(config, images, shapes(20, 1, darkened)).run(tmp_path / "training.ckpt")
    assert not (tmp_path / "training.ckpt").exists()


def test_domains_of_two_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(16, 20, 1\).*\(16, 16, 1\)"):
        Trainer(SMALL, shapes(4, 0, clean), shapes(4, 0, clean)[:, :, :16])


def test_an_empty_domain_is_refused() -> None:
    with pytest.raises(InputError, match="real images: expected uint8 or uint16"):
        Trainer(SMALL, shapes(4, 0, clean), shapes(4, 0, clean)[:0])


def test_colour_images_are_trained_on_too() -> None:
    colour = shapes(8, 0, clean).repeat(1, 1, 1, 3)
    assert Trainer(SMALL, colour, colour // 2).run().refiner.channels == 3


def test_deep_images_are_trained_on_in_their_own_depth(tmp_path: Path) -> None:
    deep = [(images(30, seed).int() * 257).to(torch.uint16) for seed in (0, 1)]
    stopping = StoppingConfig(evaluate_every=6, num_images=8)
    config = SMALL.model_copy(update={"stopping": stopping, "warmup_steps": 0})
    sink = RecordingSink()
    trained = Trainer(config, *deep, sink=sink).run(tmp_path / "training.ckpt")
    assert trained.best_step == 12
    history = load_checkpoint(tmp_path / "training.ckpt")["ranks"][0]["history"]
    assert history.dtype == sink.samples_at[12].dtype == torch.uint16
    levels = history.view(torch.int16).unique()
    assert len(levels) > 256  # none was rounded to eight bits on the way


def test_domains_of_two_depths_are_refused() -> None:
    with pytest.raises(InputError, match=r"uint8 \(type\).*uint16"):
        Trainer(SMALL, images(8, 0), images(8, 1).to(torch.uint16))


class Shards:
    """Images in shards of ten."""

    digest = "shards"

    def __init__(self, images: torch.Tensor) -> None:
        self._parts = images.split(10)
        self.shard_sizes = [len(part) for part in self._parts]

    def read(self, shard: int) -> torch.Tensor:
        return self._parts[shard]


def test_a_training_on_shards_learns_as_one_in_memory_does_and_resumes(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"stopping": StoppingConfig(evaluate_every=3, num_images=8)})

    def trainer() -> Trainer:
        return Trainer(config, Shards(images(45, 0)), Shards(images(25, 1)))

    trainer().run(tmp_path / "undisturbed.ckpt")
    answers = iter([False] * 7 + [True])
    trainer().run(tmp_path / "resumed.ckpt", lambda: next(answers))
    trainer().run(tmp_path / "resumed.ckpt")
    resumed, undisturbed = (
        load_checkpoint(tmp_path / f"{name}.ckpt")["state"] for name in ("resumed", "undisturbed")
    )
    assert resumed["step"] == 12
    torch.testing.assert_close(resumed["refiner"], undisturbed["refiner"], rtol=0, atol=0)


def test_the_best_refiner_is_the_result_and_training_ends_with_its_patience(
    tmp_path: Path,
) -> None:
    config = SMALL.model_copy(
        update={
            "steps": 60,
            "learning_rate": 0.01,
            "stopping": StoppingConfig(evaluate_every=3, num_images=8, patience=2),
        }
    )
    path = tmp_path / "training.ckpt"
    # Where both domains are one, every change is for the worse.
    trained = Trainer(config, images(30, 0), images(30, 0)).run(path)
    assert trained.finished
    assert trained.best_step == 6 + 3
    assert trained.step == 6 + 3 + 2 * 3
    best = load_checkpoint(path)["state"]["stopping"]["best_weights"]
    torch.testing.assert_close(dict(trained.refiner.state_dict()), best, rtol=0, atol=0)


def test_a_collapsed_refiner_ends_the_training_and_keeps_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    path = tmp_path / "training.ckpt"
    config = SMALL.model_copy(
        update={
            "regularization": RegularizationConfig(identity=1000.0, gradient=1000.0),
            "learning_rate": 1e-9,
            "steps": 30,
            "stopping": StoppingConfig(evaluate_every=1, num_images=8, patience=50),
            "checkpoint_every": 1,
        }
    )
    with pytest.raises(CollapsedError, match="refined images were the synthetic ones"):
        Trainer(config, images(30, 0), shapes(20, 1, darkened)).run(path)
    assert load_checkpoint(path)["state"]["step"] == 6 + 9


def test_what_settings_need_and_was_not_given_is_named() -> None:
    held = SMALL.model_copy(update={"regularization": RegularizationConfig(label_region=3.0)})
    with pytest.raises(InputError, match="label_region needs the pupils' centres"):
        Trainer(held, images(8, 0), images(8, 1))
    of_features = RegularizationConfig(features=1.0, features_from="net.pt2")
    with pytest.raises(InputError, match=r"a network for regularization\.features"):
        Trainer(
            SMALL.model_copy(update={"regularization": of_features}), images(8, 0), images(8, 1)
        )
    with pytest.raises(InputError, match=r"pupil centres: expected \[8, 2\]"):
        Trainer(SMALL, images(8, 0), images(8, 1), pupil_px=torch.zeros(7, 2))
    looking = SMALL.model_copy(update={"stopping": StoppingConfig()})
    with pytest.raises(InputError, match="at least 4 images of each domain, found 8 synthetic"):
        Trainer(looking, images(8, 0), images(3, 1))


def test_features_and_label_regions_change_what_is_learnt() -> None:
    network = torch.nn.Conv2d(1, 2, 3).requires_grad_(False)
    pupil_px = torch.full((30, 2), 10.0)
    losses = []
    for weights, given in (
        (RegularizationConfig(), {}),
        (RegularizationConfig(features=1.0, features_from="net.pt2"), {"features": network}),
        (RegularizationConfig(label_region=5.0), {"pupil_px": pupil_px}),
    ):
        sink = RecordingSink()
        config = SMALL.model_copy(
            update={
                "regularization": weights,
                "refiner": RefinerConfig(num_features=4, num_blocks=1, residual=False),
            }
        )
        Trainer(config, images(30, 0), images(20, 1), sink=sink, **given).run()
        losses.append(sink.metrics_at[12]["refiner/self_regularization"])
    assert len(set(losses)) == 3


@pytest.mark.parametrize(
    ("preset", "shape", "dtype"),
    [("hand", (224, 224, 1), torch.uint16), ("colour", (35, 55, 3), torch.uint8)],
)
def test_presets_fit_their_images(preset: str, shape: tuple, dtype: torch.dtype) -> None:
    full = PRESETS[preset]
    config = full.model_copy(
        update={
            # As deep as it is, but thinner and shorter.
            "refiner": full.refiner.model_copy(update={"num_features": 2}),
            "steps": 2,
            "refiner_pretraining_steps": 1,
            "discriminator_pretraining_steps": 1,
            "batch_size": 2,
            "history_size": 2,
            "stopping": StoppingConfig(evaluate_every=0),
            "log_every": 1,
        }
    )
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, torch.iinfo(dtype).max, (4, *shape), generator=generator).to(dtype)
    sink = RecordingSink()
    Trainer(config, pixels, pixels.flip(0), sink=sink).run()
    assert sink.metrics_at[4]["refiner/self_regularization"] >= 0
    assert sink.samples_at[4].dtype == dtype


@pytest.mark.parametrize("black", ["synthetic", "real"])
def test_images_of_one_value_are_refused_and_no_setting_is_blamed(black: str) -> None:
    images = {
        name: torch.randint(0, 255, (8, 16, 16, 1), dtype=torch.uint8)
        for name in ("synthetic", "real")
    }
    images[black] = torch.zeros_like(images[black])
    with pytest.raises(InputError, match=f"{black} images: expected pixels that differ"):
        Trainer(TrainingConfig(), images["synthetic"], images["real"])


def test_images_of_one_pixel_are_refused() -> None:
    images = torch.randint(0, 255, (8, 1, 1, 1), dtype=torch.uint8)
    with pytest.raises(InputError, match="at least 2 pixels a side, found 1×1"):
        Trainer(TrainingConfig(), images, images)
