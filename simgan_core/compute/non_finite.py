"""Guard against losses that are infinite or not a number, without waiting for the device."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class NonFiniteLossError(ArithmeticError):
    """Non-finite loss or weights (infinite or NaN); from such a loss on no weight has changed."""


class NonFiniteGuard:
    """Stops all optimiser updates from the first non-finite loss on.

    The check is on the device, so that no step waits for it; call `require_finite` where the host
    reads metrics anyway.
    """

    def __init__(self, device: torch.device) -> None:
        self._tripped = torch.zeros((), device=device)

    def step(self, optimizer: Optimizer, loss: Tensor) -> None:
        """Take a step of the (fused) optimiser if this loss and all before it are finite."""
        self._tripped.copy_(torch.maximum(self._tripped, 1.0 - loss.isfinite().float()))
        # The switch that torch.amp.GradScaler uses: where it is 1, a fused optimiser leaves the
        # weights and its own moments as they are.
        optimizer.found_inf = self._tripped  # type: ignore[attr-defined]
        optimizer.step()

    def require_finite(self, step: int) -> None:
        """Wait for the device; raise `NonFiniteLossError` if a loss so far was not finite."""
        if self._tripped.item():
            raise NonFiniteLossError(
                f"a loss was infinite or not a number at step {step} or shortly before; no weight "
                "was changed by it; lower learning_rate, or use precision fp32"
            )


def require_finite_weights(step: int, *networks: nn.Module) -> None:
    """Raise `NonFiniteLossError` where a weight is infinite or NaN; waits for the device once.

    A finite loss can have gradients that are not: the next loss would tell, but training may end
    here, or a checkpoint be saved.
    """
    finite = [weight.isfinite().all() for network in networks for weight in network.parameters()]
    if not torch.stack(finite).all().item():
        raise NonFiniteLossError(
            f"weights became infinite or not a number at step {step} or shortly before; lower "
            "learning_rate, or use precision fp32"
        )
