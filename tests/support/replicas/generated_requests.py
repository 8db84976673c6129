"""What generated requests have in common: their seed, and ids of users and items."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# The same requests every time, so that a failure here is one everywhere.
seeded = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=250,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Ids that the model knows, and any text at all.
ids = st.one_of(
    st.integers(0, 70).map("u{}".format), st.integers(0, 70).map("i{}".format), st.text(min_size=1, max_size=130)
)
# Valid ids, and what readers of paths give a meaning to.
good_id = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)
pieces = st.sampled_from([*"./{}%?#;:@&=+~\\ aé", "..", "//", "/../", "%2F", "%25", "%7B"])
path_like = st.lists(pieces, min_size=1, max_size=12).map("".join)
