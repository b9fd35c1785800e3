"""Run big, slow, flaky async jobs from a notebook."""
