# The data set: made (toy only) or unpacked, then looked at from end to end before anything trains.


rule toy_data:
    output: "{folder}/classes.csv"
    log: "{folder}/toy_data.log"
    conda: "../envs/cpu.yaml"
    retries: 0
    shell: "python -m gss toy-data {wildcards.folder:q} > {log:q} 2>&1"


rule prepare:
    output: workflow_of.makes("prepare")
    params: config=workflow_of.config_slice("prepare")
    log: "results/{experiment}/logs/prepare.log"
    benchmark: "results/{experiment}/benchmarks/prepare.tsv"
    group: "data"
    conda: "../envs/cpu.yaml"
    threads: ask.threads("prepare")
    resources: **ask.resources("prepare")
    retries: 0
    shell: "python -m gss prepare {wildcards.experiment:q} > {log:q} 2>&1"


rule labels:
    input: workflow_of.annotations
    output: workflow_of.makes("labels")
    params: config=workflow_of.config_slice("labels")
    log: "results/{experiment}/logs/labels.log"
    benchmark: "results/{experiment}/benchmarks/labels.tsv"
    group: "data"
    conda: "../envs/cpu.yaml"
    threads: ask.threads("labels")
    resources: **ask.resources("labels")
    retries: 0
    shell: "python -m gss labels {wildcards.experiment:q} --only data > {log:q} 2>&1"


rule labels_of_set:
    input: workflow_of.annotations
    output: workflow_of.labels_of_set()
    params: config=workflow_of.config_slice("labels")
    log: "results/{experiment}/logs/set_labels_{split}.log"
    benchmark: "results/{experiment}/benchmarks/set_labels_{split}.tsv"
    group: "data"
    conda: "../envs/cpu.yaml"
    threads: ask.threads("labels")
    resources: **ask.resources("labels")
    retries: 0
    shell: "python -m gss labels {wildcards.experiment:q} --only {wildcards.split} > {log:q} 2>&1"


rule check:
    input: workflow_of.data_inputs
    output: kept(workflow_of.makes("check"))
    params: config=workflow_of.config_slice("check")
    log: "results/{experiment}/logs/check.log"
    benchmark: "results/{experiment}/benchmarks/check.tsv"
    group: "data"
    conda: "../envs/cpu.yaml"
    threads: ask.threads("check")
    resources: **ask.resources("check")
    retries: 0
    shell: "python -m gss check {wildcards.experiment:q} --only data > {log:q} 2>&1"


rule check_set:
    input: workflow_of.set_inputs
    output: kept(workflow_of.set_makes())
    params: config=workflow_of.config_slice("check")
    log: "results/{experiment}/logs/set_{split}.log"
    benchmark: "results/{experiment}/benchmarks/set_{split}.tsv"
    group: "data"
    conda: "../envs/cpu.yaml"
    threads: ask.threads("check")
    resources: **ask.resources("check")
    retries: 0
    shell: "python -m gss check {wildcards.experiment:q} --only {wildcards.split} > {log:q} 2>&1"
