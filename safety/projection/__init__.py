"""Projection onto half-spaces: the nearest allowed point, with an explicit status for every row."""

from safety.projection.problem import InfeasibleError, Projection, Status
from safety.projection.project import Method, project
from safety.projection.soft import SoftProjection, project_soft

__all__ = ["InfeasibleError", "Method", "Projection", "SoftProjection", "Status", "project", "project_soft"]
