"""Adversarial training of the refiner: Algorithm 1 of the paper and its parts."""
