# Names the rules share. Every function is plain Python in gss/workflow.py (`workflow` itself is Snakemake's own name).
import gss.workflow as workflow_of

workflow_of.prefer_this_python()
ask = workflow_of.Requests(config)


def shown(output, category, of):
    """An output that `snakemake --report` shows; of a folder, every PNG in it."""
    is_folder = category == "Pictures"
    labels = {"of": of, **({"image": "{image}"} if is_folder else {})}
    patterns = ["{image}.png"] if is_folder else []
    return report(output, category=category, subcategory="{experiment}", labels=labels, patterns=patterns)


wildcard_constraints:
    folder=workflow_of.generated_folders(),
    experiment="[^/]+",
    comparison="[^/]+",
    step=r"\d+",
    model="|".join(workflow_of.MODELS),
    split="val|test",
