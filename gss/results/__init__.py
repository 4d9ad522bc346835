"""The results folder of an experiment: what stages leave there, and reading it."""
