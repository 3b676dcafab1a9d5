"""UnityEyes' eyes in whole batches, in torch, on a GPU."""
