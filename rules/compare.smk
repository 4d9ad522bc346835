# Two or more runs beside each other: `comparisons` in config/config.yaml.


rule compare:
    input: workflow_of.comparison_inputs
    output:
        page=report("results/comparisons/{comparison}/index.html", category="Comparisons"),
        summary="results/comparisons/{comparison}/summary.csv",
        per_class="results/comparisons/{comparison}/per_class.csv",
    params:
        runs=workflow_of.comparison_runs,
        split=workflow_of.comparison_split,
        folder="results/comparisons/{comparison}",
    log: "results/comparisons/{comparison}/compare.log"
    conda: "../envs/cpu.yaml"
    shell: "python -m gss compare {params.runs:q} --split {params.split} -o {params.folder:q} > {log:q} 2>&1"
