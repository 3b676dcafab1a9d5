import subprocess
import sys

PAGES_TOUCHED_AGAIN = """
import resource
import numpy as np
from simgan_core.compute.malloc import keep_freed_memory
keep_freed_memory()
maps = [np.ones(2**21) for _ in range(4)]
del maps
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    maps = [np.ones(2**21) for _ in range(4)]
    del maps
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_touched_again(**environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PAGES_TOUCHED_AGAIN],
        env={"PYTHONPATH": ":".join(sys.path)} | environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout)


def test_freed_memory_is_used_again_without_the_kernel():
    assert pages_touched_again() < 1000


def test_what_the_environment_says_of_memory_holds():
    assert pages_touched_again(MALLOC_TRIM_THRESHOLD_="131072") > 10_000
