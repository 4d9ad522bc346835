"""Configuration of a project and of its experiments."""

from gss.config.experiment import Experiment, Job, NamedFile
from gss.config.load import (
    data_folder,
    data_set_folder,
    experiment_class,
    experiment_name,
    experiment_path,
    list_experiments,
    load_cluster,
    load_experiment,
    load_project,
    require_data,
    runs_of,
    seed_folders,
)
from gss.config.names import SEED_PATTERN, folder_name, results_name, run_parts, seed_parts
from gss.config.origins import leaves, origins
from gss.config.project import Cluster, Project
from gss.config.recipe import (
    RECIPES,
    Recipe,
    Stage,
    all_models,
    all_stages,
    find_recipe,
    imported,
    recipe_of_model,
    recipes,
)
from gss.config.reference import json_schema, reference
from gss.config.schema import Data, Published, Resources
from gss.config.tables import class_file, is_shipped, list_file, prepared_file, shipped, tables_of, taxonomy_file

__all__ = [
    "RECIPES",
    "SEED_PATTERN",
    "Cluster",
    "Data",
    "Experiment",
    "Job",
    "NamedFile",
    "Project",
    "Published",
    "Recipe",
    "Resources",
    "Stage",
    "all_models",
    "all_stages",
    "class_file",
    "data_folder",
    "data_set_folder",
    "experiment_class",
    "experiment_name",
    "experiment_path",
    "find_recipe",
    "folder_name",
    "imported",
    "is_shipped",
    "json_schema",
    "leaves",
    "list_experiments",
    "list_file",
    "load_cluster",
    "load_experiment",
    "load_project",
    "origins",
    "prepared_file",
    "recipe_of_model",
    "recipes",
    "reference",
    "require_data",
    "results_name",
    "run_parts",
    "runs_of",
    "seed_folders",
    "seed_parts",
    "shipped",
    "tables_of",
    "taxonomy_file",
]
