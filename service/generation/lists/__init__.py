"""The lists of a shard: exact scores and items for blocks of users (pure), and the kernels that choose them."""
