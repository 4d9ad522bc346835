"""Configuration of a project and of its experiments."""

from gss.config.experiment import Experiment, NamedFile
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
)
from gss.config.names import results_name, run_parts
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

__all__ = [
    "RECIPES",
    "Cluster",
    "Data",
    "Experiment",
    "NamedFile",
    "Project",
    "Published",
    "Recipe",
    "Resources",
    "Stage",
    "all_models",
    "all_stages",
    "data_folder",
    "data_set_folder",
    "experiment_class",
    "experiment_name",
    "experiment_path",
    "find_recipe",
    "imported",
    "json_schema",
    "leaves",
    "list_experiments",
    "load_cluster",
    "load_experiment",
    "load_project",
    "origins",
    "recipe_of_model",
    "recipes",
    "reference",
    "require_data",
    "results_name",
    "run_parts",
]
