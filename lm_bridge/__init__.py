"""Instructions in natural language become goal embeddings that condition the planner."""
