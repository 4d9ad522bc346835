# Colours of the classes, and the tokenizer that turns their maskiges into tokens and back.


rule palette:
    input: workflow_of.palette_inputs
    output:
        "results/{experiment}/palette/start.csv",
        "results/{experiment}/palette/quality.json",
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
    input:
        "results/{experiment}/data/manifest.json",
        "results/{experiment}/palette/start.csv",
    output: "results/{experiment}/tokenizer/start.safetensors"
    params: config=workflow_of.config_slice("tokenizer")
    log: "results/{experiment}/logs/tokenizer.log"
    benchmark: "results/{experiment}/benchmarks/tokenizer.tsv"
    conda: ask.environment("tokenizer")
    threads: ask.threads("tokenizer")
    resources: **ask.resources("tokenizer")
    shell: workflow_of.launch("tokenizer {wildcards.experiment:q}", work="tokenizer")


rule reconstruct:
    input:
        unpack(workflow_of.reconstruction_inputs),
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
