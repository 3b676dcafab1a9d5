"""How steps are retried and how work is cut for the orchestrator."""

from typing import Any, cast

from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

# Steps are idempotent by content (a finished shard, training or comparison is found and reused),
# so Prefect's own result cache would only add hashing of the inputs.
CACHE = NO_CACHE

# Reading and writing may meet a full disk, a busy file server or a network that drops.
IO_RETRIES = 2
IO_RETRY_DELAYS_S = [1.0, 5.0]

# Prefect's database slows down beyond a few hundred task runs a flow run.
MAX_GROUPS = 200


def retry_on_io(_task: object, _run: object, state: object) -> bool:
    """Whether a failed task is worth another try: only where the operating system failed."""
    try:
        state.result()  # type: ignore[attr-defined]
    except OSError:
        return True
    except Exception:  # noqa: BLE001  any other failure would only be repeated
        return False
    return False


def threads(max_workers: int) -> TaskRunner[PrefectFuture[Any]]:
    """Run a flow's mapped tasks in so many threads of its own process."""
    return cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=max_workers))


def groups_of_shards(shards: list[int]) -> list[list[int]]:
    """Cut the shards to do into at most MAX_GROUPS runs of neighbours of nearly equal length."""
    size = max(1, -(-len(shards) // MAX_GROUPS))
    return [shards[start : start + size] for start in range(0, len(shards), size)]
