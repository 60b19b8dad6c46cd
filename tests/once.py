"""What takes long to make is made once, by whichever test process needs it first; the others read it."""

from filelock import FileLock


def made_once(tmp_path_factory, name, make):
    """Return the folder that ``make(folder)`` fills; a process that comes while it is filled waits."""
    place = tmp_path_factory.getbasetemp()
    if place.name.startswith("popen-"):  # of one of several test processes
        place = place.parent
    folder = place / f"once-{name}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            (folder / "made").touch()
    return folder
