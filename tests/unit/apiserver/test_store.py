"""Versions, history and the journal."""

import asyncio
from pathlib import Path

import pytest

from ebpf_lb.apiserver.journal import Journal
from ebpf_lb.apiserver.kinds import NODE, SERVICE
from ebpf_lb.apiserver.store import Compacted, Store, Stored


def put(store: Store, name: str, value: int = 0) -> Stored:
    return store.put(SERVICE, {"metadata": {"name": name, "namespace": "default"}, "value": value})


def names(objects: list[Stored]) -> list[str]:
    return [stored.name for stored in objects]


def test_every_change_takes_a_number() -> None:
    store = Store()
    first, second = put(store, "a"), put(store, "b")
    gone = store.remove(first)
    assert [first.version, second.version, gone.version, store.version] == [1, 2, 3, 3]


def test_objects_are_sorted_and_of_one_namespace() -> None:
    store = Store()
    for namespace, name in (("b", "x"), ("a", "y"), ("a", "x")):
        store.put(SERVICE, {"metadata": {"name": name, "namespace": namespace}})
    assert [stored.key for stored in store.objects(SERVICE)] == ["a/x", "a/y", "b/x"]
    assert [stored.key for stored in store.objects(SERVICE, "a")] == ["a/x", "a/y"]
    assert store.objects(NODE) == []


def test_the_past_can_be_listed() -> None:
    store = Store()
    put(store, "a", 1)
    put(store, "b")
    then = store.version
    put(store, "a", 2)
    put(store, "c")
    store.remove(store.objects(SERVICE)[1])
    past = store.objects_at(SERVICE, then)
    assert names(past) == ["a", "b"]
    assert past[0].object["value"] == 1
    assert names(store.objects(SERVICE)) == ["a", "c"]


def test_history_is_bounded() -> None:
    store = Store(history_limit=3)
    for value in range(5):
        put(store, "a", value)
    with pytest.raises(Compacted) as caught:
        store.watch(SERVICE, 1)
    assert caught.value.oldest == 2
    with pytest.raises(Compacted):
        store.objects_at(SERVICE, 1)
    assert [change.version for change in store.watch(SERVICE, 2).take()] == [3, 4, 5]
    assert store.watch(SERVICE, 5).take() == []


def test_a_watcher_that_falls_behind_is_told() -> None:
    store = Store(history_limit=3)
    cursor = store.watch(SERVICE, 0)
    put(store, "a")
    assert len(cursor.take()) == 1
    for value in range(4):
        put(store, "a", value)
    with pytest.raises(Compacted):
        cursor.take()


def test_waiting_ends_with_a_change() -> None:
    async def scenario() -> int:
        store = Store()
        cursor = store.watch(SERVICE, 0)
        await cursor.wait(0.001)
        assert cursor.take() == []
        waiting = asyncio.create_task(cursor.wait(30))
        await asyncio.sleep(0)
        put(store, "a")
        await asyncio.wait_for(waiting, 20)
        return len(cursor.take())

    assert asyncio.run(scenario()) == 1


def journaled(path: Path) -> tuple[Store, Journal]:
    journal, store = Journal(path), Store()
    store.restore(*journal.read())
    store.journal = journal.write
    return store, journal


def test_a_restart_keeps_objects_and_versions(tmp_path: Path) -> None:
    store, _ = journaled(tmp_path / "state")
    put(store, "a", 1)
    put(store, "b")
    put(store, "a", 2)
    store.remove(store.objects(SERVICE)[1])
    again, _ = journaled(tmp_path / "state")
    assert again.version == store.version == 4
    assert [stored.object for stored in again.objects(SERVICE)] == [
        stored.object for stored in store.objects(SERVICE)
    ]
    with pytest.raises(Compacted):
        again.watch(SERVICE, 3)
    assert again.watch(SERVICE, 4).take() == []
