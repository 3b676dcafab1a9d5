"""Eye landmarks: a small network that finds the corners, the pupil and the iris in an image."""
