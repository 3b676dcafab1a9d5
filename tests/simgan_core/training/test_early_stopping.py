import torch

from simgan_core.config import RefinerConfig, StoppingConfig
from simgan_core.models.refiner import ConvolutionalRefiner
from simgan_core.training.early_stopping import EarlyStopping
from simgan_core.training.validation import Metrics

CONFIG = StoppingConfig(patience=3, max_pupil_shift_px=1.0)


def validated(kid: float, shift_px: float = 0.5, kept: float = 1.0) -> Metrics:
    return {
        "realism/kid": kid,
        "labels/pupil_shift_px.mean": shift_px,
        "labels/pupils_kept": kept,
    }


def refiner(bias: float) -> ConvolutionalRefiner:
    made = ConvolutionalRefiner(RefinerConfig(num_features=2, num_blocks=1), channels=1)
    torch.nn.init.constant_(made.last.bias, bias)
    return made


def updated(*figures: Metrics, image_width: int = 55) -> EarlyStopping:
    stopping = EarlyStopping(CONFIG, image_width)
    for step, found in enumerate(figures, start=1):
        stopping.update(step, found, refiner(bias=step))
    return stopping


def test_the_candidate_of_least_kid_is_kept_with_its_weights() -> None:
    stopping = updated(validated(3.0), validated(1.0), validated(2.0))
    assert stopping.best_step == 2
    assert stopping.best_weights["last.bias"].item() == 2
    assert "step 2: the least KID, 1.0000" in stopping.verdict()


def test_weights_that_train_on_do_not_change_the_kept_ones() -> None:
    stopping, training = EarlyStopping(CONFIG, 55), refiner(bias=1.0)
    stopping.update(1, validated(1.0), training)
    torch.nn.init.zeros_(training.last.bias)
    assert stopping.best_weights["last.bias"].item() == 1


def test_a_refiner_that_moves_labels_is_no_candidate_however_real() -> None:
    stopping = updated(validated(3.0), validated(0.1, shift_px=1.2))
    assert stopping.best_step == 1


def test_a_refiner_that_hides_pupils_is_no_candidate() -> None:
    stopping = updated(validated(0.1, shift_px=0.0, kept=0.5))
    assert stopping.best_step is None
    assert "no candidate: only 50% of the pupils" in stopping.verdict()


def test_the_gate_is_as_wide_as_the_images() -> None:
    assert updated(validated(1.0, shift_px=1.9), image_width=110).best_step == 1


def test_without_known_pupils_realism_alone_decides() -> None:
    assert updated({"realism/kid": 2.0}, {"realism/kid": 1.0}).best_step == 2


def test_training_ends_when_patience_does() -> None:
    assert not updated(*map(validated, (3.0, 4.0, 4.0, 2.0, 3.0, 3.0))).ended
    ended = updated(*map(validated, (3.0, 2.0, 4.0, 4.0, 4.0)))
    assert ended.ended
    assert ended.verdict().endswith("3 later validations found none better")
