"""Configuration of a project and of its experiments."""

from gss.config.load import (
    data_folder,
    experiment_path,
    find_data,
    list_experiments,
    load_experiment,
    load_project,
)
from gss.config.reference import json_schema, reference
from gss.config.schema import STAGES, Experiment, Project, Resources, Stage

__all__ = [
    "STAGES",
    "Experiment",
    "Project",
    "Resources",
    "Stage",
    "data_folder",
    "experiment_path",
    "find_data",
    "json_schema",
    "list_experiments",
    "load_experiment",
    "load_project",
    "reference",
]
