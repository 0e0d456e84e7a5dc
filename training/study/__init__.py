"""The published study, whole: nine candidates, one chosen, assessed, and its report.

In reading order:

config      one TOML file, and what it may say
reproduce   the way of a study; crossing splits its radiographs otherwise
data        radiographs, their children (children, medians, randomness) and batches of them
pretrain    colour to grey, on photographs
candidates  the nine: all layers (epochs) or fully connected ones on frozen features (frozen)
conclude    what follows training: assess, rivals, leakage, verdict, statistics, records
results     everything found, as data: results.json
pictures    the figures: flow, plots, figures of radiographs (figures, occlusion)
report      report.md and report.html out of sections, findings, tested and document
"""
