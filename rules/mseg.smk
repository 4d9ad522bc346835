# MSeg's labels, made of those that its data sets are published with; experiments name the records in `prepared`.


rule mseg_labels:
    input: workflow_of.mseg_inputs
    output: "{folder}/prepared/{set}.json"
    wildcard_constraints:
        folder=workflow_of.mseg_folders(),
        set=workflow_of.mseg_sets(),
    log: "{folder}/prepared/{set}.log"
    conda: "../envs/cpu.yaml"
    threads: 16
    resources: **ask.labels()
    retries: 0
    shell:
        "python -m gss mseg-labels {wildcards.set:q} --root {wildcards.folder:q} "
        "--workers {resources.cpus_per_task:q} > {log:q} 2>&1"
