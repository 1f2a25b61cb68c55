"""What is allowed: environments, costs, constraints, projections and filters."""
