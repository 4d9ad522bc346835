# Names the rules share. Every function is plain Python in gss/workflow.py (`workflow` itself is Snakemake's own name).
import gss.snakemake_patches
import gss.workflow as workflow_of
from gss.config import RECIPES, all_models

workflow_of.prefer_this_python()
gss.snakemake_patches.trust_records()
gss.snakemake_patches.look_at_data()
gss.snakemake_patches.show_last_lines()
ask = workflow_of.Requests(config)


def shown(output, category, **labels):
    """An output that `snakemake --report` shows; of a folder, its pictures MODEL/SPLIT/IMAGE.png."""
    patterns = ["{model}/{split}/{image}.png"] if category == "Pictures" else []
    return report(output, category=category, subcategory="{experiment}", labels=labels, patterns=patterns)


def kept(files):
    """Outputs that stay as they were where their job fails: a broken photograph must not cost what was trained."""
    return [update(file) for file in files]


wildcard_constraints:
    folder=workflow_of.generated_folders(),
    experiment=workflow_of.EXPERIMENT,
    comparison="[^/]+",
    step=r"\d+",
    model="|".join(all_models()),
    split=workflow_of.split_names(),
