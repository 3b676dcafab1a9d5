"""MLflow: runs, experiments, client and database."""
