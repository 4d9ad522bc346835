# Per-pixel networks.


rule pixel:
    input:
        workflow_of.class_counts("pixel"),
        workflow_of.inputs("pixel"),
    output: workflow_of.makes("pixel")
    params: config=workflow_of.config_slice("pixel")
    log: "results/{experiment}/logs/pixel.log"
    benchmark: "results/{experiment}/benchmarks/pixel.tsv"
    conda: ask.environment("pixel")
    threads: ask.threads("pixel")
    resources: **ask.resources("pixel")
    shell: workflow_of.launch("train pixel {wildcards.experiment:q}", work="pixel")
