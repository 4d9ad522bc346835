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
from gss.config.schema import (
    GPU_STAGES,
    STAGES,
    Cluster,
    Data,
    Experiment,
    Project,
    Published,
    Resources,
    Stage,
    read_settings,
    results_name,
    run_parts,
)

__all__ = [
    "GPU_STAGES",
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
    "read_settings",
    "reference",
    "require_data",
    "results_name",
    "run_parts",
]
