"""The visual Turing test: server, study, report."""
