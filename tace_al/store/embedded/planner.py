"""Which documents a filter matches, looking at as few as the indexes allow.

The equalities of a filter (`field: value`, `$eq`, `$in`, also inside `$and`) are answered by the
hash maps; mongomock then tests what is left of the filter on the candidates.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from mongomock.filtering import filter_applies, resolve_sort_key

from tace_al.store.embedded.hash_index import Bucket, Stored
from tace_al.store.embedded.memory_collection import MemoryCollection
from tace_al.store.embedded.scalar_keys import ScalarKey, field_key, identity_key, scalar_key

Filter = Mapping[str, Any]
Sort = Sequence[tuple[str, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Candidates of a filter, and what must still be tested on each."""

    candidates: Iterable[Stored]
    remaining: dict[str, Any]


def select(
    collection: MemoryCollection,
    criteria: Filter,
    *,
    sort: Sort = (),
    skip: int = 0,
    limit: int = 0,
) -> list[Stored]:
    """Return the matching documents in the order asked for, or in order of insertion.

    Parameters
    ----------
    collection
        Where to look.
    criteria
        A MongoDB filter.
    sort
        Pairs of dotted path and 1 or -1.
    skip, limit
        How many to leave out first and how many to return at most; 0 means all.
    """
    end = skip + limit if limit else None
    wanted, exact = _equalities(criteria)
    if len(sort) == 1 and end is not None:
        for index in collection.indexes.values():
            walk = index.ordered(wanted, *sort[0])
            if walk is not None:
                remaining = _without(criteria, exact, [path for path, _ in index.spec.fields[:-1]])
                return list(islice(_matching(walk, remaining), skip, end))
    plan = _plan(collection, criteria, wanted, exact)
    matches = _matching(plan.candidates, plan.remaining)
    if not sort:
        return list(islice(matches, skip, end))
    ordered = list(matches)
    for path, direction in reversed(sort):
        if path == "$natural":
            ordered.sort(key=lambda stored: stored.serial, reverse=direction < 0)
        else:
            _sort_by(ordered, path, direction)
    return ordered[skip:end]


def count(collection: MemoryCollection, criteria: Filter) -> int:
    """Return how many documents match."""
    wanted, exact = _equalities(criteria)
    plan = _plan(collection, criteria, wanted, exact)
    return sum(1 for _ in _matching(plan.candidates, plan.remaining))


def _matching(candidates: Iterable[Stored], remaining: dict[str, Any]) -> Iterable[Stored]:
    """Give the candidates that pass what is left of the filter."""
    if not remaining:
        return candidates
    return (stored for stored in candidates if filter_applies(remaining, stored.body))


def _plan(
    collection: MemoryCollection,
    criteria: Filter,
    wanted: dict[str, list[ScalarKey]],
    exact: set[str],
) -> _Plan:
    """Choose the index with the fewest candidates, or the whole collection."""
    if not collection.documents:
        filter_applies(dict(criteria), {})  # an invalid filter is an error all the same
    if "_id" in wanted:
        keys = dict.fromkeys(wanted["_id"])
        found = [collection.documents[key] for key in keys if key in collection.documents]
        return _Plan(candidates=_in_order(found), remaining=_without(criteria, exact, ["_id"]))
    best: tuple[int, list[Bucket], list[str]] | None = None
    for index in collection.indexes.values():
        lookup = index.buckets(wanted)
        if lookup is None:
            continue
        length, buckets = lookup
        paths = [path for path, _ in index.spec.fields[:length]]
        if index.irregular:
            buckets, paths = [*buckets, index.irregular], []
        size = sum(map(len, buckets))
        if best is None or size < best[0]:
            best = (size, buckets, paths)
    if best is None:
        return _Plan(candidates=list(collection.documents.values()), remaining=dict(criteria))
    _, buckets, paths = best
    found = list(chain.from_iterable(bucket.values() for bucket in buckets))
    return _Plan(candidates=_in_order(found), remaining=_without(criteria, exact, paths))


def _equalities(criteria: Filter) -> tuple[dict[str, list[ScalarKey]], set[str]]:
    """Return the acceptable values by path, and the paths whose condition says no more than that.

    The latter are top-level only, so that they can be dropped from the filter.
    """
    wanted: dict[str, list[ScalarKey]] = {}
    exact: set[str] = set()
    for path, condition in criteria.items():
        if path == "$and" and isinstance(condition, list):
            for part in condition:
                if isinstance(part, Mapping):
                    for inner, keys in _equalities(part)[0].items():
                        wanted.setdefault(inner, keys)
            continue
        if path.startswith("$"):
            continue
        keys_of = _accepted(condition, is_identity=path == "_id")
        if keys_of is not None:
            wanted[path] = keys_of
            if not isinstance(condition, Mapping) or len(condition) == 1:
                exact.add(path)
    return wanted, exact


def _accepted(condition: Any, *, is_identity: bool) -> list[ScalarKey] | None:
    """Return the keys that a condition on one path accepts, None when it is no equality."""
    if isinstance(condition, Mapping) and any(name.startswith("$") for name in condition):
        if "$eq" in condition:
            choices = [condition["$eq"]]
        elif isinstance(condition.get("$in"), list):
            choices = condition["$in"]
        else:
            return None
    else:
        choices = [condition]
    if is_identity and not any(hasattr(choice, "pattern") for choice in choices):
        return [identity_key(choice) for choice in choices]
    keys = [scalar_key(choice) for choice in choices]
    return None if None in keys else keys  # type: ignore[return-value]


def _without(criteria: Filter, exact: set[str], paths: Iterable[str]) -> dict[str, Any]:
    """Return the filter less the conditions that an index has already settled."""
    settled = exact.intersection(paths)
    return {path: condition for path, condition in criteria.items() if path not in settled}


def _in_order(found: list[Stored]) -> list[Stored]:
    """Sort by order of insertion."""
    found.sort(key=lambda stored: stored.serial)
    return found


def _sort_by(documents: list[Stored], path: str, direction: int) -> None:
    """Sort by the value at a path; equals keep their order."""
    bodies = [stored.body for stored in documents]
    keys: list[Any] = [field_key(body, path) for body in bodies]
    if None in keys:
        keys = [resolve_sort_key(path, body) for body in bodies]
    order = sorted(range(len(keys)), key=keys.__getitem__, reverse=direction < 0)
    documents[:] = [documents[place] for place in order]
