"""torchrun that ends with the process that started it, and its workers with it.

A training goes on under torchrun when its command is killed, and a second command would train the
same refiner beside it.
"""

from torch.distributed.run import main

from tasks.runtime.parent import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    main()
