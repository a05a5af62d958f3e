"""What is measured: one module for each group of cases, each with ``GROUPS``."""
