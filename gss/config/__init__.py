"""Configuration of a project and of its experiments."""

from gss.config.load import (
    data_folder,
    data_set_folder,
    experiment_name,
    experiment_path,
    list_experiments,
    load_cluster,
    load_experiment,
    load_project,
    named_files,
    require_data,
)
from gss.config.origins import leaves, origins
from gss.config.reference import json_schema, reference
from gss.config.schema import STAGES, Cluster, Data, Experiment, Project, Published, Resources, Stage, run_parts

__all__ = [
    "STAGES",
    "Cluster",
    "Data",
    "Experiment",
    "Project",
    "Published",
    "Resources",
    "Stage",
    "data_folder",
    "data_set_folder",
    "experiment_name",
    "experiment_path",
    "json_schema",
    "leaves",
    "list_experiments",
    "load_cluster",
    "load_experiment",
    "load_project",
    "named_files",
    "origins",
    "reference",
    "require_data",
    "run_parts",
]
