"""The processes of a pod, as this machine numbers them: so `means` reaches the pods of a kind node here."""

from pathlib import Path

_INFRASTRUCTURE = frozenset({"pause", "runc", "runc:[0:PARENT]", "runc:[1:CHILD]", "runc:[2:INIT]"})


def processes_of(uid: str) -> tuple[list[int], list[int]]:
    """Return the processes of the containers of the pod with this UID, and those that hold its network namespace.

    Both lists are empty where the node is another machine.
    """
    wanted = {uid, uid.replace("-", "_")}
    containers: list[int] = []
    holders: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            groups = (folder / "cgroup").read_text()
            if not any(one in groups for one in wanted):
                continue
            name = (folder / "comm").read_text().strip()
            state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except (OSError, IndexError):
            continue
        if state == "Z":
            continue
        (holders if name in _INFRASTRUCTURE else containers).append(int(folder.name))
    return sorted(containers), sorted(holders) or sorted(containers)
