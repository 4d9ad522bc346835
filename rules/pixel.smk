# Per-pixel networks.


rule pixel:
    input:
        workflow_of.training_inputs("pixel"),
        workflow_of.inputs("pixel"),
    output: workflow_of.makes("pixel")
    params: config=workflow_of.config_slice("pixel")
    log: "results/{experiment}/logs/pixel.log"
    benchmark: "results/{experiment}/benchmarks/pixel.tsv"
    conda: ask.environment("pixel")
    threads: ask.threads("pixel")
    resources: **ask.resources("pixel")
    shell: workflow_of.launch("train pixel {wildcards.experiment:q}", work="pixel")


rule import_pixel:
    input: workflow_of.inputs("import", recipe="pixel")
    output: workflow_of.makes("pixel")
    wildcard_constraints: experiment=workflow_of.importing("pixel")
    params: config=workflow_of.config_slice("pixel")
    log: "results/{experiment}/logs/import_pixel.log"
    benchmark: "results/{experiment}/benchmarks/import_pixel.tsv"
    conda: "../envs/cpu.yaml"
    threads: ask.threads("import")
    resources: **ask.resources("import")
    retries: 0
    shell: "python -m gss import {wildcards.experiment:q} > {log:q} 2>&1"


ruleorder: import_pixel > pixel
