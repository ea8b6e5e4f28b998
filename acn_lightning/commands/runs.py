"""`acn runs`."""


def runs(
    folder: str | None,
    overrides: list[str],
    *,
    experiment: str | None = None,
    sort: str = "written",
    json: bool = False,
) -> str:
    """List runs: their state, costs and accuracies.

    Args:
        folder: where to look for them; by default runs.
        overrides: none.
        experiment: only runs of this experiment; * stands for any letters, as in digits*.
        sort: "written", "name", "state", "epochs", "cost", "ordered", "unordered", "linear", "knn",
            "labels_100" or "seconds"; newest, best or longest first.
        json: whether to print JSON, for programs; also --json.

    Returns:
        A table. Costs are in nats per image: the lowest held-out one, and those of the test.

    Raises:
        UsageError: there is no such folder or no run in it.
    """
    from fnmatch import fnmatchcase

    from acn_lightning.commands._words import refuse
    from acn_lightning.runs.finding import ROOT, find_runs
    from acn_lightning.runs.listing import as_json, ordered, table
    from acn_lightning.runs.reading import read_run
    from acn_lightning.utils.errors import UsageError
    from acn_lightning.utils.files import local_path

    refuse("runs", overrides)
    root = local_path(folder or ROOT, "folder")
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}. Name the one that your runs are in.")
    found = [read_run(one) for one in find_runs(root)]
    wanted = [one for one in found if fnmatchcase(one.experiment, experiment or "*")]
    if found and not wanted:
        known = ", ".join(sorted({one.experiment for one in found}))
        raise UsageError(f"experiment: no run of {experiment} in {root}. There are {known}.")
    listed = ordered(wanted, sort)
    if json:
        return as_json(listed)
    return table(listed) if listed else f"no runs in {root}"
