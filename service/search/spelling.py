"""The distance of misspelt words (pure)."""


def distance(one: str, other: str, most: int) -> int:
    """Return the least number of edits that turn one word into the other, or `most` + 1 if it is larger.

    Edits are a character more, less or changed, and two neighbours swapped: the optimal string alignment distance
    (Boytsov, "Indexing methods for approximate dictionary searching", JEA 16, 2011, section 2.2.1).
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(other, 1):
            least = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                least = min(least, last[j - 2] + 1)
            row.append(least)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)


def allowed_edits(word: str) -> int:
    """Return how many edits a misspelling of a word may have: none in short words, which are all alike."""
    return 0 if len(word) < 4 else 1 if len(word) < 8 else 2
