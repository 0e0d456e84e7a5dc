"""The published study, whole: nine candidates, one chosen, assessed, and its report.

In reading order:

config      one TOML file, and what it may say
reproduce   the steps of a study
data        radiographs, their splits, and batches of their children
pretrain    colour to grey, on photographs
candidates  the nine: all layers trained, or fully connected ones on frozen features (frozen)
conclude    what follows training: assess, baselines, leakage, model_comparison, statistics, records
results     everything found, as data: results.json
figures     draw draws all: flow, plots, radiographs (with maps by occlusion)
report      write writes report.md and report.html from sections, findings, held_out and document
"""
