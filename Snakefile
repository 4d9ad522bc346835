# Generative Semantic Segmentation, from a folder of photographs to an evaluated model.
#
#   snakemake all                          what config/config.yaml lists
#   snakemake results/NAME/gss_ft.pth      the model of config/experiments/NAME.yaml
#   snakemake -n all                       what would run, and why
#
# Rules call the verbs of `python -m gss`, which a person can type as well; the logic is in the package.
from snakemake.utils import min_version

min_version("9.27")


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/palette.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"


localrules:
    toy_data,


rule all:
    default_target: True
    input:
        workflow_of.targets(),
