# The two trained parts and their merge. Checkpoints are in work/ and never declared: Snakemake deletes what is.


rule latent_prior_segment:
    input:
        workflow_of.previous_segment,
        workflow_of.class_counts("latent_prior"),
        "results/{experiment}/data/manifest.json",
        "results/{experiment}/palette.csv",
        "results/{experiment}/tokenizer.safetensors",
    output: "results/{experiment}/latent_prior/step_{step}.pth"
    params:
        config=workflow_of.config_slice("latent_prior"),
        until=workflow_of.milestone,
    log: "results/{experiment}/logs/latent_prior_{step}.log"
    benchmark: "results/{experiment}/benchmarks/latent_prior_{step}.tsv"
    conda: ask.environment("latent_prior")
    threads: ask.threads("latent_prior")
    resources: **ask.resources("latent_prior")
    shell: workflow_of.launch("train latent-prior {wildcards.experiment:q} --until {params.until}", work="latent_prior")


use rule latent_prior_segment as latent_prior with:
    output: "results/{experiment}/gss_ff.pth"
    log: "results/{experiment}/logs/latent_prior.log"
    benchmark: "results/{experiment}/benchmarks/latent_prior.tsv"


rule posterior:
    input:
        workflow_of.posterior_start,
        workflow_of.class_counts("posterior"),
        "results/{experiment}/data/manifest.json",
        "results/{experiment}/tokenizer.safetensors",
    output: "results/{experiment}/posterior.pth"
    params: config=workflow_of.config_slice("posterior")
    log: "results/{experiment}/logs/posterior.log"
    benchmark: "results/{experiment}/benchmarks/posterior.tsv"
    conda: ask.environment("posterior")
    threads: ask.threads("posterior")
    resources: **ask.resources("posterior")
    shell: workflow_of.launch("train posterior {wildcards.experiment:q}", work="posterior")


rule import_latent_prior:
    input:
        "results/{experiment}/data/manifest.json",
        "results/{experiment}/palette.csv",
        "results/{experiment}/tokenizer.safetensors",
    output: "results/{experiment}/gss_ff.pth"
    wildcard_constraints: experiment=workflow_of.importing("latent_prior")
    params:
        config=workflow_of.config_slice("latent_prior"),
        kind="gss_ff",
    log: "results/{experiment}/logs/import_gss_ff.log"
    benchmark: "results/{experiment}/benchmarks/import_gss_ff.tsv"
    conda: "../envs/cpu.yaml"
    threads: ask.threads("import")
    resources: **ask.resources("import")
    retries: 0
    shell: "python -m gss import {wildcards.experiment:q} --as {params.kind} > {log:q} 2>&1"


use rule import_latent_prior as import_posterior with:
    output: "results/{experiment}/posterior.pth"
    wildcard_constraints: experiment=workflow_of.importing("posterior")
    params:
        config=workflow_of.config_slice("posterior"),
        kind="posterior",
    log: "results/{experiment}/logs/import_posterior.log"
    benchmark: "results/{experiment}/benchmarks/import_posterior.tsv"


ruleorder: import_latent_prior > latent_prior
ruleorder: import_posterior > posterior


rule merge:
    input:
        "results/{experiment}/gss_ff.pth",
        workflow_of.posterior_file,
    output: "results/{experiment}/gss_ft.pth"
    params: config=workflow_of.config_slice("merge")
    log: "results/{experiment}/logs/merge.log"
    benchmark: "results/{experiment}/benchmarks/merge.tsv"
    conda: "../envs/cpu.yaml"
    threads: ask.threads("merge")
    resources: **ask.resources("merge")
    retries: 0
    shell: "python -m gss merge {wildcards.experiment:q} > {log:q} 2>&1"
