"""Results of comparisons: analysis of predictions, verdict, tables, charts, page and report."""
