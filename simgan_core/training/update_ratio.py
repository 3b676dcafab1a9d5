"""Update ratio: refiner updates per discriminator update, fixed or adaptive."""

import math

from simgan_core.config import TrainingConfig

_UNDECIDED = {"cross-entropy": math.log(2), "least-squares": 1.0, "hinge": 1.0}
"""What a discriminator loses that cannot tell the domains apart."""
_WINNING = 0.7
"""Below this share of that it wins clearly, and the refiner needs more steps to catch up."""


class UpdateRatio:
    """K_g refiner steps, then the discriminator's turn.

    The paper's authors found K_g by starting small and raising it by the discriminator's loss; the
    adaptive schedule does that while it trains.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._adaptive = config.schedule == "adaptive"
        self._most = config.refiner_steps_per_round
        self._winning_loss = _WINNING * _UNDECIDED[config.discriminator.loss]
        self.refiner_steps_per_round = 1 if self._adaptive else self._most
        self._steps_taken = 0

    def count_refiner_step(self) -> bool:
        """Take note of a refiner step; say whether it is the discriminator's turn now."""
        self._steps_taken = (self._steps_taken + 1) % self.refiner_steps_per_round
        return self._steps_taken == 0

    @property
    def wants_loss(self) -> bool:
        """Whether `adapt` has a use for the loss, which the device must be waited for."""
        return self._adaptive and self.refiner_steps_per_round < self._most

    def adapt(self, discriminator_loss: float) -> None:
        """Give the refiner a step more in a round where the discriminator wins clearly."""
        if discriminator_loss < self._winning_loss:
            self.refiner_steps_per_round += 1

    def state_dict(self) -> dict[str, int]:
        """Return where the round is, and how long rounds are now."""
        return {
            "refiner_steps_per_round": self.refiner_steps_per_round,
            "steps_taken": self._steps_taken,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Become what `state_dict` returned."""
        self.refiner_steps_per_round = state["refiner_steps_per_round"]
        self._steps_taken = state["steps_taken"]
