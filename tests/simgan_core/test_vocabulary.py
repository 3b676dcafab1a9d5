"""A search for the field's words finds the code that does it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("adversarial loss", "simgan_core/training/losses.py"),
        ("bootstrap confidence interval", "simgan_core/stats/bootstrap.py"),
        ("checkpoint", "simgan_core/training/checkpointing.py"),
        ("CUDA graph", "simgan_core/compute/cuda_graph.py"),
        ("data augmentation", "simgan_core/data/augmentation.py"),
        ("early stopping", "simgan_core/training/early_stopping.py"),
        ("environment variable", "flows/cli/environment.py"),
        ("exponential moving average (EMA)", "simgan_core/training/ema.py"),
        ("gradient accumulation", "simgan_core/training/steps.py"),
        ("gradient penalty", "simgan_core/training/losses.py"),
        ("history (replay) buffer", "simgan_core/training/history.py"),
        ("hyperparameter", "simgan_core/config.py"),
        ("label gate", "simgan_core/quality/gate.py"),
        ("learning-rate schedule", "simgan_core/training/learning_rate_schedule.py"),
        ("mini-batch", "simgan_core/training/batches.py"),
        ("mixed precision", "simgan_core/compute/settings.py"),
        ("mode-collapse", "simgan_core/training/collapse.py"),
        ("patch discriminator", "simgan_core/models/discriminator.py"),
        ("process group", "simgan_core/compute/distributed.py"),
        ("sampler without replacement", "simgan_core/data/sampler.py"),
        ("self-regularization", "simgan_core/training/self_regularization.py"),
        ("validation set", "simgan_core/training/validation.py"),
        ("warm-up", "simgan_core/training/learning_rate_schedule.py"),
    ],
)
def test_the_fields_words_lead_to_the_code(words: str, file: str) -> None:
    text = " ".join((ROOT / file).read_text("utf-8").split())
    assert words.casefold() in text.casefold()
