"""Lists of many users at once, as files: shards of users, made by workers on one machine or many."""
