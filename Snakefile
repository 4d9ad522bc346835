# Generative Semantic Segmentation, from a folder of photographs to an evaluated model.
#
#   snakemake all                          what config/config.yaml lists
#   snakemake results/NAME/gss_ft.pth      the model of config/experiments/NAME.yaml
#   snakemake -n all                       what would run, and why
#
# Rules call the verbs of `python -m gss`, which a person can type as well; the logic is in the package.
from gss.collector import spare_modules
from gss.tracking.follower import Follower
from gss.watch.status import Status
from snakemake.utils import min_version

min_version("9.27")
spare_modules()


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/mseg.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/compare.smk"


for recipe in RECIPES:

    include: f"rules/{recipe}.smk"


localrules:
    toy_data,
    compare,
    report,
    seeds,
    summary,
    merge, # seconds: a job of its own would mostly wait


# Brings the numbers of all jobs to MLflow, wherever they run; the Snakemakes within SLURM jobs run no handlers.
follower = Follower()
# What runs, how far it is and when all is done, below the lines of Snakemake.
status = Status()


onstart:
    follower.start()
    status.start(workflow)


onsuccess:
    status.end()
    follower.end()


onerror:
    status.end()
    follower.end()


rule all:
    default_target: True
    input:
        workflow_of.targets,
