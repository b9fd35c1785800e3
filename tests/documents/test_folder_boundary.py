"""A walk stays in the folder that was named, ends, and says what it did not open."""

import os
import socket
from pathlib import Path

import pytest

from ragasync.documents import (
    AsyncDocumentProcessor,
    LoadError,
    Source,
    SqliteStore,
    find_sources,
    load_source,
)
from tests.support.requirements import only_where

pytestmark = only_where(os.name == "posix", "links need rights elsewhere")


def make(folder: Path, *names: str) -> Path:
    """Write files that hold their own names, and return the folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def found(folder: Path, **options: bool) -> dict[str, str | None]:
    """Return why each source that is found is barred, by its id."""
    found = find_sources(folder, root=folder, **options)
    sources = [source for source in found if isinstance(source, Source)]
    assert len({source.id for source in sources}) == len(sources)
    return {source.id: source.barred for source in sources}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return a folder with links of all sorts, beside another with a secret."""
    make(tmp_path, "outside/secret.md", "outside/deep/secret.md")
    folder = make(tmp_path / "in", "a.md", "sub/b.md")
    (folder / "inside.md").symlink_to(folder / "a.md")
    (folder / "inside").symlink_to(folder / "sub")
    (folder / "up").symlink_to(folder)
    (folder / "sub" / "relative.md").symlink_to("../../outside/secret.md")
    (folder / "out.md").symlink_to(tmp_path / "outside" / "secret.md")
    (folder / "out").symlink_to(tmp_path / "outside")
    return folder


def test_links_that_lead_out_are_found_and_barred(top: Path):
    """Files and folders alike; those inside are a file more, or walked by their own name."""
    assert found(top) == {
        "a.md": None,
        "inside.md": None,
        "out": "link",
        "out.md": "link",
        "sub/b.md": None,
        "sub/relative.md": "link",
    }


def test_links_may_lead_out_where_that_is_allowed(top: Path):
    """Their ids still begin in the folder, and a folder outside is walked once."""
    (top / "out again").symlink_to(top.parent / "outside" / "deep")
    assert found(top, follow_symlinks=True) == {
        "a.md": None,
        "inside.md": None,
        "out.md": None,
        "out/secret.md": None,
        "out again/secret.md": None,
        "sub/b.md": None,
        "sub/relative.md": None,
    }


@pytest.mark.parametrize("links", [False, True])
def test_circles_of_links_end(tmp_path: Path, links: bool):
    """To itself, to each other, to what is above, and from outside back in."""
    top = make(tmp_path / "in", "a.md", "one/b.md", "two/c.md")
    make(tmp_path, "outside/d.md")
    (top / "itself").symlink_to("itself")
    (top / "ping").symlink_to("pong")
    (top / "pong").symlink_to("ping")
    (top / "one" / "two").symlink_to(top / "two")
    (top / "two" / "one").symlink_to(top / "one")
    (top / "two" / "above").symlink_to(tmp_path)
    (top / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(top)
    ids = found(top, follow_symlinks=links)
    assert {"a.md", "one/b.md", "two/c.md"} <= ids.keys()
    assert sum(id_.endswith("d.md") for id_ in ids) == links
    with pytest.raises(OSError, match="symbolic links"):
        load_source(Source("itself", top / "itself"))


def test_a_folder_that_is_named_may_be_a_link_itself(top: Path):
    """Whoever names it allows it."""
    (top.parent / "link").symlink_to(top)
    assert found(top.parent / "link") == found(top)
    assert found(top / "out")["deep/secret.md"] is None


def test_hard_links_are_files_like_others(top: Path):
    """They lead nowhere: the file is in both places."""
    os.link(top.parent / "outside" / "secret.md", top / "hard.md")
    assert found(top)["hard.md"] is None


def test_ids_stay_in_the_folder_whatever_names_are_like(tmp_path: Path):
    """None is absolute, and none leads up."""
    make(tmp_path / "in", "..a.md", "a..md", "b\\..\\c.md", "C:x.md", "~x.md", "new\nline.md")
    for id_ in found(tmp_path / "in" / ".." / "in"):
        assert not id_.startswith("/")
        assert ".." not in id_.split("/")


def special(folder: Path) -> None:
    """Make a pipe and a socket, and links to a pipe, a device and a socket."""
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)  # the name of a socket must be short
        listener.bind("socket")
        os.chdir(here)
    (folder / "to the pipe").symlink_to(folder / "pipe")
    (folder / "device").symlink_to("/dev/zero")


def test_what_is_no_file_is_found_and_barred(tmp_path: Path):
    """None of these is ever opened: a pipe would wait, and a device never end."""
    special(tmp_path)
    barred = dict.fromkeys(["pipe", "socket", "to the pipe"], "not a file")
    assert found(tmp_path) == {**barred, "device": "link"}
    assert found(tmp_path, follow_symlinks=True) == {**barred, "device": "not a file"}


def read(path: Path) -> str:
    """Load as a function of somebody's own, which would wait for a pipe."""
    return Path(path).read_text()


@pytest.mark.real_time
@pytest.mark.parametrize("load", [None, read])
async def test_what_is_barred_fails_with_its_reason_and_harms_nothing_else(top: Path, load):
    """The text of what is outside is never read, by a loader of one's own either."""
    special(top)
    with SqliteStore(top.parent / "store.sqlite") as store:
        result = await AsyncDocumentProcessor(load, store=store, root=top).process(top)
        texts = [hit.text for hit in store.search("secret", 20)]
    failures = {outcome.item.id: outcome for outcome in result.get_failed()}
    reasons = {id_: outcome.error.reason for id_, outcome in failures.items()}
    links, others = ["device", "out", "out.md", "sub/relative.md"], ["pipe", "socket"]
    assert reasons == {
        **dict.fromkeys(links, "link"),
        **dict.fromkeys([*others, "to the pipe"], "not a file"),
    }
    assert {outcome.stage for outcome in failures.values()} == {"load"}
    assert "follow_symlinks=True" in str(failures["out.md"].error)
    assert result.success_count == 3
    assert not any("secret" in text for text in texts)


@pytest.mark.real_time
async def test_what_is_outside_is_loaded_where_that_is_allowed(top: Path):
    """By sources that were found so."""
    result = await AsyncDocumentProcessor().process(
        find_sources(top, follow_symlinks=True, root=top)
    )
    assert result.all_succeeded
    assert "out/deep/secret.md" in {document.id for document in result.get_successful()}


def test_a_file_that_became_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch):
    """Between the look at it and its opening."""
    path = make(tmp_path, "a.md") / "a.md"
    looked_at = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: looked_at)
    with pytest.raises(LoadError, match="not a file"):
        load_source(path)
