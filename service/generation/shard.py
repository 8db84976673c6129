"""The task of one shard: from its users to its file."""

from service.generation.files.shard_file import ShardFile, shard_file
from service.generation.files.shard_format import Layout
from service.generation.lists.list_model import BulkModel
from service.generation.lists.shard_lists import shard_lists
from service.generation.lists.shard_users import ShardUsers


def make_shard(model: BulkModel, users: ShardUsers, layout: Layout) -> ShardFile:
    """Make the lists of some users, and return them as a file."""
    return shard_file(users.ids, shard_lists(model, users), model.snapshot.items, layout)
