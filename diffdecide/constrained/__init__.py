"""Constrained sampling: constraint objects and a cost limit as arguments, one interface for every method and scheduler.

Import the modules themselves; nothing is imported here, so that `import diffdecide` stays light:

- `diffdecide.constrained.plan_constraints`: `RowConstraints`, `MotionConstraints` (what a plan is held to)
- `diffdecide.constrained.projection`: `project_plans`
- `diffdecide.constrained.steering`: `Moment`, `Steering`, `Method` (what a method may do in a sampling run)
- `diffdecide.constrained.projected`, `.barrier`, `.gradients`: the methods
- `diffdecide.constrained.budget`: classifier-free guidance on the cost budget
- `diffdecide.constrained.sampling`: `sample_constrained`
- `diffdecide.constrained.catalogue`: the methods by name
"""
