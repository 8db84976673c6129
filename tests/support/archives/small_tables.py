"""A table of two rows, and how tests write and read such tables."""

from pathlib import Path

from service.training.data import data_request, datasets
from service.training.interactions import Interactions

HEADER = "user_id,item_id,rating,timestamp\n"
ROWS = "ann,p-1,4.5,1609556645\nbob,p-2,2,1609556700\n"
TRIPLES = [("ann", "p-1", 4.5), ("bob", "p-2", 2.0)]


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def read_with(*sources: str, **options: str) -> Interactions:
    return datasets.read(data_request.parse(sources, **options))
