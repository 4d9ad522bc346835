"""Configuration of a project and of its experiments."""

from gss.config.experiment import Experiment
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
from gss.config.names import results_name, run_parts
from gss.config.origins import leaves, origins
from gss.config.project import Cluster, Project
from gss.config.reference import json_schema, reference
from gss.config.schema import Data, Published, Resources
from gss.config.stages import GPU_STAGES, READS, STAGE_VERSIONS, STAGES, Stage

__all__ = [
    "GPU_STAGES",
    "READS",
    "STAGES",
    "STAGE_VERSIONS",
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
    "results_name",
    "run_parts",
]
