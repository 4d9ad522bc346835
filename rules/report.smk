# One page per experiment with all that its files tell; `snakemake --report` holds it, too. With `seeds`, one per seed and
# one of them all.


rule report:
    input: workflow_of.report_inputs
    output:
        shown("results/{experiment}/report.html", "Report", of="{experiment}"),
        shown(
            directory("results/{experiment}/report_pictures"),
            "Pictures",
            model="{model}",
            split="{split}",
            image="{image}",
        ),
    wildcard_constraints: experiment=workflow_of.without_seeds()
    log: "results/{experiment}/logs/report.log"
    conda: "../envs/cpu.yaml"
    retries: 0
    shell: "python -m gss report {wildcards.experiment:q} > {log:q} 2>&1"


rule seeds:
    input: workflow_of.seeds_inputs
    output:
        shown("results/{experiment}/report.html", "Report", of="{experiment}, all seeds"),
        shown("results/{experiment}/seeds.csv", "Tables", of="all seeds"),
    wildcard_constraints: experiment=workflow_of.with_seeds()
    log: "results/{experiment}/logs/report.log"
    conda: "../envs/cpu.yaml"
    retries: 0
    shell: "python -m gss report {wildcards.experiment:q} > {log:q} 2>&1"
