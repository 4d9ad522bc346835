# Names the rules share. Every function is plain Python in gss/workflow.py (`workflow` itself is Snakemake's own name).
import gss.workflow as workflow_of

workflow_of.prefer_this_python()
ask = workflow_of.Requests(config)


wildcard_constraints:
    folder=workflow_of.generated_folders(),
    experiment="[^/]+",
    comparison="[^/]+",
    step=r"\d+",
    model="|".join(workflow_of.MODELS),
    split="val|test",
