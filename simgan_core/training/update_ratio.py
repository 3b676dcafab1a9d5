"""Update ratio: refiner updates per discriminator update, fixed or adaptive."""

import math

from simgan_core.config import TrainingConfig

_UNDECIDED = {"cross-entropy": math.log(2), "least-squares": 1.0, "hinge": 1.0}
"""Loss of a discriminator that cannot tell the domains apart."""
_WINNING = 0.7
"""Share of that loss below which it wins clearly, and the refiner needs more steps."""


class UpdateRatio:
    """Counter of a round: K_g refiner updates, then the discriminator's.

    The paper's authors found K_g by starting small and raising it by the discriminator's loss; the
    adaptive ratio does that while it trains.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._adaptive = config.schedule == "adaptive"
        self._most = config.refiner_steps_per_round
        self._winning_loss = _WINNING * _UNDECIDED[config.discriminator.loss]
        self.refiner_steps_per_round = 1 if self._adaptive else self._most
        self._steps_taken = 0

    def count_refiner_step(self) -> bool:
        """Count a refiner update; returns true when it ends the refiner's part of the round."""
        self._steps_taken = (self._steps_taken + 1) % self.refiner_steps_per_round
        return self._steps_taken == 0

    @property
    def wants_loss(self) -> bool:
        """True where `adapt` uses the loss, for which the host has to wait for the device."""
        return self._adaptive and self.refiner_steps_per_round < self._most

    def adapt(self, discriminator_loss: float) -> None:
        """Raise K_g by one where the discriminator wins clearly by its loss."""
        if discriminator_loss < self._winning_loss:
            self.refiner_steps_per_round += 1

    def state_dict(self) -> dict[str, int]:
        """Return K_g and the position in the round."""
        return {
            "refiner_steps_per_round": self.refiner_steps_per_round,
            "steps_taken": self._steps_taken,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore what `state_dict` returned."""
        self.refiner_steps_per_round = state["refiner_steps_per_round"]
        self._steps_taken = state["steps_taken"]
