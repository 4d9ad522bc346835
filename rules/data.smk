# The data set: made (toy only) or unpacked, then looked at from end to end before anything trains.


rule toy_data:
    output: "{folder}/classes.csv"
    log: "{folder}/toy_data.log"
    conda: "../envs/cpu.yaml"
    retries: 0
    shell: "python -m gss toy-data {wildcards.folder} > {log} 2>&1"


rule prepare:
    output: "results/{experiment}/data/prepared.json"
    log: "results/{experiment}/logs/prepare.log"
    benchmark: "results/{experiment}/benchmarks/prepare.tsv"
    conda: "../envs/cpu.yaml"
    threads: workflow_of.threads("prepare")
    resources: **workflow_of.resources("prepare")
    retries: 0
    shell: "python -m gss prepare {wildcards.experiment} > {log} 2>&1"


rule check:
    input: workflow_of.data_inputs
    output:
        "results/{experiment}/data/manifest.json",
        "results/{experiment}/data/statistics.json",
    params: config=workflow_of.config_slice("check")
    log: "results/{experiment}/logs/check.log"
    benchmark: "results/{experiment}/benchmarks/check.tsv"
    conda: "../envs/cpu.yaml"
    threads: workflow_of.threads("check")
    resources: **workflow_of.resources("check")
    retries: 0
    shell: "python -m gss check {wildcards.experiment} > {log} 2>&1"
