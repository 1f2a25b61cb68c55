"""Rewards from preferences and from diffusion models.

Import the modules themselves; nothing is imported here, so that `import reward_models` stays light:

- `preferences`, `preference_files`, `splits`, `importers`: comparisons of segments, their Parquet schema, other formats
- `teachers`, `pairs`: scripted teachers with known Bayes rates, data sets from episodes
- `config`, `networks`, `model`, `bradley_terry`, `train`: reward models learned from comparisons
- `likelihood`, `relative`, `dpo`: rewards from diffusion models, and planners aligned with preferences
- `calibration`, `judging`, `epic`, `heatmap`: how good a reward is
- `plan_observations`, `guide`, `wrapper`, `relabel`: using one
- `labelling`: a page on which a person compares rollouts
"""
