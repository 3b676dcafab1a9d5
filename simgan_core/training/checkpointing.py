"""Checkpoint of a training: identity, save and resume."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from simgan_core.compute.distributed import DistributedContext
from simgan_core.compute.settings import ComputeSettings
from simgan_core.config import NAMED_FILES, TrainingConfig
from simgan_core.errors import InputError
from simgan_core.models.checkpoint import load_checkpoint, save_checkpoint
from simgan_core.training.state import TrainingState


class TrainingCheckpoint:
    """The file that one training is saved to and resumed from.

    The file names its training by configuration, inputs and number of processes; that of another
    training is refused.
    """

    def __init__(
        self,
        path: Path,
        config: TrainingConfig,
        inputs_digest: str,
        distributed: DistributedContext,
    ) -> None:
        """Name the training; `inputs_digest` tells its images, labels and networks from others."""
        self.path = path
        self._distributed = distributed
        self._identity = {
            "config": config.model_dump(mode="json"),
            "images": inputs_digest,
            "num_ranks": distributed.size,
        }

    def save(self, state: TrainingState, compute: ComputeSettings) -> None:
        """Write the state of all processes, and the compute settings, which decide the bits."""
        of_ranks = self._distributed.gather(state.rank_state_dict())
        if not self._distributed.is_first:
            return
        settings = {
            "precision": compute.precision,
            "micro_batch_size": compute.micro_batch_size,
        }
        save_checkpoint(
            self.path,
            {
                **self._identity,
                "arithmetic": settings,
                "state": state.state_dict(),
                "ranks": of_ranks,
            },
        )

    def resume(self, state: TrainingState, compute: ComputeSettings) -> ComputeSettings:
        """Load the file into `state`; returns the compute settings that the training began with.

        Raises `InputError` where the file is damaged or another training's.
        """
        saved = load_checkpoint(self.path)
        self._require_same_training(saved)
        try:
            state.load_state_dict(saved["state"])
            state.load_rank_state_dict(saved["ranks"][self._distributed.rank])
            return replace(compute, **saved["arithmetic"])
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"checkpoint {self.path} is damaged; delete it to start anew"
            ) from error

    def _require_same_training(self, saved: dict[str, Any]) -> None:
        ours, path = self._identity, self.path
        if _without_paths(saved.get("config")) != _without_paths(ours["config"]):
            raise InputError(
                f"checkpoint {path} is of a training with another configuration "
                f"({json.dumps(saved.get('config'))}); give that one, or delete it to start anew"
            )
        if saved.get("images") != ours["images"]:
            raise InputError(
                f"checkpoint {path} is of a training on other images; give those, or delete it to "
                "start anew"
            )
        if saved.get("num_ranks") != ours["num_ranks"]:
            raise InputError(
                f"checkpoint {path} is of a training in {saved.get('num_ranks')} processes, not "
                f"{ours['num_ranks']}; go on with as many, or delete it to start anew"
            )


def _without_paths(config: Any) -> Any:
    """Return a configuration's values without the paths of files, whose content is an input."""
    values = copy.deepcopy(config)
    for field in NAMED_FILES:
        *groups, name = field.split(".")
        group = values
        for each in groups:
            group = group.get(each) if isinstance(group, dict) else None
        if isinstance(group, dict):
            group.pop(name, None)
    return values
