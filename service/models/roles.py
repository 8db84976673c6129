"""The roles of replicas: what part of the work of a list each does."""

from typing import Final, Literal, TypeAlias, get_args

Role: TypeAlias = Literal["all", "candidates", "ranking"]
"""`candidates` finds the items nearest to a user's vector, `ranking` computes the vector and ranks the items, and `all`
does both in one process."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)
SEPARATE: Final[tuple[Role, ...]] = ("candidates", "ranking")
"""The roles that have a service, an active version and a swap of their own."""
