"""torchrun that ends with its parent process, and its workers with it.

Without this, a training under torchrun outlives a killed command, and a second command would train
the same refiner beside it.
"""

from torch.distributed.run import main

from tasks.runtime.processes.parent import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    main()
