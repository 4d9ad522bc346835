# Generative Semantic Segmentation: colours, tokenizer, latent prior, X^-1, and their merge.
# Checkpoints are in work/ and never declared: Snakemake deletes what is.
import gss.recipes.gss.workflow as gss_of


rule palette:
    input: gss_of.palette_inputs
    output: workflow_of.makes("palette")
    params: config=workflow_of.config_slice("palette")
    log: "results/{experiment}/logs/palette.log"
    benchmark: "results/{experiment}/benchmarks/palette.tsv"
    group: "data"
    conda: "../envs/cpu.yaml"
    threads: ask.threads("palette")
    resources: **ask.resources("palette")
    retries: 0
    shell: "python -m gss palette {wildcards.experiment:q} > {log:q} 2>&1"


rule tokenizer:
    input: workflow_of.inputs("tokenizer")
    output: workflow_of.makes("tokenizer")
    params: config=workflow_of.config_slice("tokenizer")
    log: "results/{experiment}/logs/tokenizer.log"
    benchmark: "results/{experiment}/benchmarks/tokenizer.tsv"
    conda: ask.environment("tokenizer")
    threads: ask.threads("tokenizer")
    resources: **ask.resources("tokenizer")
    shell: workflow_of.launch("tokenizer {wildcards.experiment:q}", work="tokenizer")


rule reconstruct:
    input:
        unpack(gss_of.reconstruction_inputs),
        manifest="results/{experiment}/data/manifest.json",
    output:
        "results/{experiment}/palette.csv",
        "results/{experiment}/tokenizer.safetensors",
        "results/{experiment}/reconstruction/metrics.json",
        shown("results/{experiment}/reconstruction/rounds.csv", "Tables", of="palette refinement"),
    params: config=workflow_of.config_slice("reconstruct")
    log: "results/{experiment}/logs/reconstruct.log"
    benchmark: "results/{experiment}/benchmarks/reconstruct.tsv"
    conda: ask.environment("reconstruct")
    threads: ask.threads("reconstruct")
    resources: **ask.resources("reconstruct")
    shell: workflow_of.launch("reconstruct {wildcards.experiment:q}", work="reconstruct")


rule latent_prior_segment:
    input:
        gss_of.previous_segment,
        workflow_of.training_inputs("latent_prior"),
        workflow_of.inputs("latent_prior"),
    output: "results/{experiment}/latent_prior/step_{step}.pth"
    params:
        config=workflow_of.config_slice("latent_prior"),
        until=gss_of.milestone,
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
        gss_of.posterior_start,
        workflow_of.training_inputs("posterior"),
        workflow_of.inputs("posterior"),
    output: workflow_of.makes("posterior")
    params: config=workflow_of.config_slice("posterior")
    log: "results/{experiment}/logs/posterior.log"
    benchmark: "results/{experiment}/benchmarks/posterior.tsv"
    conda: ask.environment("posterior")
    threads: ask.threads("posterior")
    resources: **ask.resources("posterior")
    shell: workflow_of.launch("train posterior {wildcards.experiment:q}", work="posterior")


rule import_latent_prior:
    input: workflow_of.inputs("import", recipe="gss")
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
        workflow_of.inputs("merge"),
        gss_of.posterior_file,
    output: workflow_of.makes("merge")
    params: config=workflow_of.config_slice("merge")
    log: "results/{experiment}/logs/merge.log"
    benchmark: "results/{experiment}/benchmarks/merge.tsv"
    conda: "../envs/cpu.yaml"
    threads: ask.threads("merge")
    resources: **ask.resources("merge")
    retries: 0
    shell: "python -m gss merge {wildcards.experiment:q} > {log:q} 2>&1"
