# The final figures of the models of all recipes.


rule evaluate:
    input: workflow_of.evaluation_inputs
    output:
        "results/{experiment}/evaluation/{model}/{split}/metrics.json",
        shown("results/{experiment}/evaluation/{model}/{split}/per_class.csv", "Tables", of="{model}, {split}"),
        "results/{experiment}/evaluation/{model}/{split}/confusion.npz",
    params: config=workflow_of.config_slice("evaluate")
    log: "results/{experiment}/logs/evaluate_{model}_{split}.log"
    benchmark: "results/{experiment}/benchmarks/evaluate_{model}_{split}.tsv"
    conda: ask.environment("evaluate")
    threads: ask.threads("evaluate")
    resources: **ask.resources("evaluate")
    retries: 0
    shell:
        workflow_of.launch("evaluate {wildcards.experiment:q} --model {wildcards.model} --split {wildcards.split}",
                           work="evaluate_{wildcards.model}_{wildcards.split}")


rule summary:
    input: workflow_of.summary_inputs
    output:
        "results/{experiment}/evaluation/{model}/summary.json",
        shown("results/{experiment}/evaluation/{model}/summary.csv", "Tables", of="{model}, test sets"),
    params: config=workflow_of.config_slice("summary"), oracles=workflow_of.oracles
    log: "results/{experiment}/logs/summary_{model}.log"
    conda: "../envs/cpu.yaml"
    retries: 0
    shell: "python -m gss summary {wildcards.experiment:q} --model {wildcards.model} > {log:q} 2>&1"
