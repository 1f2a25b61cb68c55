"""The table of `python -m safety.filter_check`, from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffdecide.app.results import markdown_table

_POLICIES = {"mpc": "MPC behind the filter", "mpc-free": "MPC, no filter"}
_TITLES = (
    "task",
    "policy",
    "episodes",
    "cost",
    "worst",
    "nearest, m",
    "return",
    "kept",
    "interventions",
    "no safe action",
)


def is_filter_check(record: Mapping[str, Any]) -> bool:
    """Whether a JSON record is one of the filter check."""
    return "records" in record and all("infeasible_because" in row for row in record.get("rows", [{}]))


def filter_table(record: Mapping[str, Any]) -> str:
    """One line per task and policy, in Markdown; steps are shares of all steps."""
    lines = []
    for row in record["rows"]:
        reasons = ", ".join(f"{name} {count}" for name, count in row["infeasible_because"].items() if count)
        kept = row.get("return_kept")
        cells = [row["env"], _POLICIES.get(row["policy"], row["policy"]), row["episodes"], f"{row['mean_cost']:.3g}"]
        cells += [f"{row['max_cost']:g}", f"{row['least_clearance']:.3f}", f"{row['mean_return']:.1f}"]
        cells += [None if kept is None else f"{100 * kept:.0f} %", f"{100 * row['interventions'] / row['steps']:.1f} %"]
        share = f"{100 * row['infeasible'] / row['steps']:.2f} %"
        lines.append([*cells, f"{share} ({reasons})" if reasons else share])
    head = (
        f"Margin {record['settings']['margin']:g} m; nearest: the least clearance to what costs, in any step. Steps "
        "without a safe action by cause: inside the margin already, in touch with something, or nothing to see. "
        f"Commit {str(record['commit'])[:9]}.\n\n"
    )
    return head + markdown_table(_TITLES, lines)
