"""Names of the MLflow experiments."""

REFINERS = "refiners"
COMPARISONS = "comparisons"
DATASETS = "datasets"
LANDMARKS = "landmarks"
