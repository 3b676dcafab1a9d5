"""SimGAN method: networks, training, quality metrics; needs torch, numpy and pydantic only."""
