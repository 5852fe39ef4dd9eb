"""The choice and the set-up of a base, in small repositories."""

import subprocess

import bench_environment as place
import click
import pytest

SETUP = """#!/bin/sh
cd "$(dirname "$0")/.."
mkdir -p .venv/bin && printf '#!/bin/sh\\ncat version\\n' > .venv/bin/python && chmod +x .venv/bin/python
"""


class Repository:
    """A git repository whose set-up creates an interpreter that prints the version of the revision."""

    def __init__(self, root):
        self.root = root
        root.mkdir()
        self.git("init", "-q", "-b", "main")
        (root / ".gitignore").write_text("out/\n.venv/\n")
        (root / "hack").mkdir()
        (root / "hack/setup.sh").write_text(SETUP)
        (root / "hack/setup.sh").chmod(0o755)

    def git(self, *arguments):
        names = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *names, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, version):
        (self.root / "version").write_text(version)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", version)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repository")


def choose(repository, asked=None):
    return place.choose_base(asked, place.read_head(repository.root), repository.root)


def test_changes_are_compared_with_head(repository):
    repository.commit("1")
    second = repository.commit("2")
    (repository.root / "version").write_text("3")
    assert place.read_head(repository.root).dirty
    assert choose(repository) == (second, "HEAD, since the tree has changes")


def test_a_branch_is_compared_with_where_it_left_main(repository):
    first = repository.commit("1")
    repository.git("update-ref", "refs/remotes/origin/main", first)
    repository.commit("2")
    repository.commit("3")
    assert choose(repository)[0] == first


def test_main_is_compared_with_the_commit_before(repository):
    first, second = repository.commit("1"), repository.commit("2")
    repository.git("update-ref", "refs/remotes/origin/main", second)
    assert choose(repository) == (first, "the parent commit")


def test_a_first_commit_and_no_checkout_have_no_base(repository, tmp_path):
    repository.commit("1")
    assert choose(repository) == ("", "the checkout has no earlier commit (a shallow clone?)")
    assert place.choose_base(None, place.read_head(tmp_path), tmp_path) == ("", "this is not a git checkout")


def test_a_base_that_was_asked_for_must_be_there(repository):
    first, _ = repository.commit("1"), repository.commit("2")
    assert choose(repository, "HEAD~1") == (first, "HEAD~1")
    with pytest.raises(click.ClickException, match="git rev-parse"):
        choose(repository, "no-such-revision")


def run(python):
    return subprocess.run([python], cwd=python.parents[2], capture_output=True, text=True, check=True).stdout


def test_a_base_is_set_up_beside_a_dirty_tree_and_leaves_it_as_it_was(repository):
    first, _ = repository.commit("1"), repository.commit("2")
    (repository.root / "version").write_text("3")
    before = repository.git("status", "--porcelain")
    out = repository.root / "out/benchmark"
    out.mkdir(parents=True)
    assert run(place.prepare_base(first, out, repository.root)) == "1"
    assert repository.git("status", "--porcelain") == before
    assert repository.git("worktree", "list").count("\n") == 0


def test_a_base_is_unpacked_once_and_only_the_last_is_kept(repository):
    first, second = repository.commit("1"), repository.commit("2")
    out = repository.root / "out"
    out.mkdir()
    python = place.prepare_base(first, out, repository.root)
    (python.parents[2] / "mark").touch()
    assert place.prepare_base(first, out, repository.root) == python
    assert (python.parents[2] / "mark").exists()
    assert run(place.prepare_base(second, out, repository.root)) == "2"
    assert [path.name for path in out.glob("base-*") if path.is_dir()] == [f"base-{second[:12]}"]


def test_what_an_interrupted_run_left_is_made_again(repository):
    first = repository.commit("1")
    out = repository.root / "out"
    half = out / f"base-{first[:12]}"
    half.mkdir(parents=True)
    (half / "version").write_text("half")
    assert run(place.prepare_base(first, out, repository.root)) == "1"


def test_a_set_up_that_fails_is_one_line(repository):
    (repository.root / "hack/setup.sh").write_text("#!/bin/sh\necho 'no compiler here' >&2\nexit 1\n")
    first = repository.commit("1")
    out = repository.root / "out"
    out.mkdir()
    with pytest.raises(click.ClickException, match="set-up of the base failed: no compiler here"):
        place.prepare_base(first, out, repository.root)
    assert not (out / f"base-{first[:12]}" / ".ready").exists()


def test_one_run_at_a_time(tmp_path):
    refused = pytest.raises(click.ClickException, match="another benchmark run")
    with place.exclusive(tmp_path), refused, place.exclusive(tmp_path):
        pass
    with place.exclusive(tmp_path):
        pass
