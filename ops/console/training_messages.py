"""Sentences about a dataset that was read and a version that was trained, for several commands and pages (pure)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Importing it loads numpy and scipy, which commands without data do not need.
    from service.training.interactions import ReadReport


def dataset_size(data: dict[str, Any]) -> str:
    """Return "N ratings by N users of N items", from a manifest's `data` or from `comparison.describe_dataset`."""
    return f"{data['n_ratings']:,} {interaction_noun(data)} by {data['n_users']:,} users of {data['n_items']:,} items"


def interaction_noun(data: dict[str, Any]) -> str:
    """Return "ratings", or "interactions" if nothing is rated."""
    return "interactions" if data.get("rated_share") == 0 else "ratings"


def data_report_lines(report: "ReadReport") -> list[str]:
    """Return the lines about columns, bad rows, duplicates and oddities of a dataset that was read."""
    lines = list(report.columns)
    if report.n_bad_rows:
        are = "is bad and was" if report.n_bad_rows == 1 else "are bad and were"
        lines.append(f"{report.n_bad_rows:,} of {report.n_rows:,} rows {are} left out, such as:")
        lines += [f"  {example}" for example in report.bad_examples]
    if report.n_duplicates:
        rows = "row was" if report.n_duplicates == 1 else "rows were"
        lines.append(f"{report.n_duplicates:,} {rows} left out for a later one of the same user and item.")
    return [*lines, *report.notes]


def was_activated(manifest: dict[str, Any], activate: bool | None) -> bool:  # noqa: FBT001  # the caller's option
    """Return whether training activated the version; None activates it unless it is held back."""
    return bool(activate or (activate is None and manifest["measures"]["held_back"] is None))


def held_back_sentence(manifest: dict[str, Any], command: str = "train") -> str:
    """Return why a version was not activated, and the commands that activate it in any case."""
    version = manifest["version"]
    force = f" (or {command} with --force)" if command != "search" else ""
    return (
        f"{version} was published and not activated: {manifest['measures']['held_back']}. The active version, if any, "
        f"stays; activate the new one in any case with: recollect models activate {version} --force{force}"
    )


def selection_lines(selection: dict[str, Any]) -> list[str]:
    """Return how `auto` chose, as plain lines; none if the algorithm was named."""
    if not selection["candidates"]:
        return []
    heading, rows = selection_table(selection)
    lines = ["  ".join(f"{name} {text}" for name, text in zip(heading, row, strict=True) if text) for row in rows]
    return [selection_headline(selection), *lines, selection_verdict(selection)]


def selection_table(selection: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the heading and the rows of the candidates of `auto`."""
    rows = []
    for candidate in selection["candidates"]:
        settings = [f"{name}={value}" for name, value in candidate["settings"].items()]
        measures = [candidate[name] for name in ("ndcg@10", "recall@20")]
        rows.append(
            [
                " ".join((candidate["algorithm"], *settings)),
                *("-" if value is None else f"{value:.4f}" for value in measures),
                f"{candidate['fit_s']:.1f}",
                candidate["why_not"] or "",
            ]
        )
    return ["algorithm", "ndcg@10", "recall@20", "seconds", "note"], rows


def selection_headline(selection: dict[str, Any]) -> str:
    """Return what the candidates were judged on, and within which time."""
    held_out = selection["holdout"]
    judged = {
        "time-per-user": f"the youngest interactions of {held_out['users']:,} users",
        "random": f"{held_out['n']:,} random interactions of {held_out['users']:,} users",
    }.get(held_out["split"], "nothing, because too few interactions can be held out")
    sampled = "" if selection["sampled_users"] is None else f" among {selection['sampled_users']:,} sampled users"
    took = f"{selection['took_s']:.1f} s of at most {selection['budget_s']:.0f} s"
    return f"Candidates, judged on {judged}{sampled}; {took}:"


def selection_verdict(selection: dict[str, Any]) -> str:
    """Return which candidate was chosen, and why."""
    return f"Chosen: {selection['chosen']}; {selection['why']}."
