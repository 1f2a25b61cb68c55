"""Controllers that need no learning: the proportional baseline and the sampling MPC (the ceiling of every table)."""
