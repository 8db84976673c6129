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


def held_back_sentence(manifest: dict[str, Any]) -> str:
    """Return why a version was not activated, and the command that activates it."""
    version = manifest["version"]
    return (
        f"{version} was published and not activated: {manifest['measures']['held_back']}. The active version stays; "
        f"activate the new one anyway with: recollect models activate {version} (or train with --activate)"
    )
