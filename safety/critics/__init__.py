"""Cost critics: what lies ahead of a state and an action, learned from transitions.

- `safety.critics.base`: `CriticConfig`, `Critic` (the interface: `loss`, `risk`, `state_risk`, `save_pretrained`)
- `safety.critics.expected`: `ExpectedCostCritic`, expected discounted cost
- `safety.critics.quantile`: `QuantileCostCritic`, its distribution, CVaR at any level
- `safety.critics.feasibility`: `FeasibilityCritic`, Hamilton-Jacobi value of the continuous clearances
- `safety.critics.transitions`: `Transitions`, the data set they are trained on
- `safety.critics.storage`: `load_critic`
"""
