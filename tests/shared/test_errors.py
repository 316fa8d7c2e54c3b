from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from fairlead import errors
from fairlead.errors import BadFrame, FairleadError, Malformed, NoSuchPeer, Reject

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if found.__module__ == errors.__name__
]


def _drawn() -> Iterator[tuple[str, str, str]]:
    """(name, its parent, what it says) of each line of the tree in the module's docstring."""
    above: list[str] = []
    tree = (errors.__doc__ or "").partition("\n\n")[2]
    for line in tree.splitlines():
        found = re.fullmatch(r"([│├└─ ]*)(\w+)(?: {2,}(\S.*))?", line)
        assert found, f"{line!r} is no line of the tree"
        depth = len(found[1]) // 4
        del above[depth:]
        yield found[2], above[-1] if above else "Exception", found[3] or ""
        above.append(found[2])


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    ours = {c.__name__: next(b for b in c.__mro__[1:] if issubclass(b, Exception)) for c in CLASSES}
    drawn = {name: parent for name, parent, _ in _drawn()}
    assert drawn == {name: parent.__name__ for name, parent in ours.items()}


def test_the_tree_says_what_each_error_is_for() -> None:
    for name, _, says in _drawn():
        assert says or name == "FairleadError"


@pytest.mark.parametrize("error", CLASSES)
def test_each_error_is_ours_and_has_a_docstring(error: type[Exception]) -> None:
    assert issubclass(error, FairleadError)
    assert error.__dict__["__doc__"], "of its own, not inherited"


def test_what_is_malformed_is_a_value_error_too() -> None:
    assert issubclass(Malformed, ValueError)
    assert issubclass(errors.BadName, ValueError)


def test_a_bad_frame_knows_its_ref_and_status() -> None:
    plain, told = BadFrame("no data"), BadFrame("too many", ref=3, status=429)
    assert (str(plain), plain.ref, plain.status) == ("no data", None, 400)
    assert (told.ref, told.status) == (3, 429)


def test_no_such_peer_names_it() -> None:
    error = NoSuchPeer("e1-7")
    assert error.peer == "e1-7"
    assert str(error) == "no connection 'e1-7' in this topic; it may have left"


def test_a_reject_carries_a_status_and_a_text() -> None:
    assert (Reject(404).status, Reject(404).detail, str(Reject(404))) == (404, None, "status 404")
    told = Reject(403, "not yours")
    assert (told.status, told.detail, str(told)) == (403, "not yours", "not yours")


@pytest.mark.parametrize("status", [0, 200, 399, 600])
def test_a_reject_is_from_400_to_599(status: int) -> None:
    with pytest.raises(ValueError, match=f"from 400 to 599, not {status}"):
        Reject(status)


@pytest.mark.parametrize("status", [400, 599])
def test_the_ends_of_that_range_are_in_it(status: int) -> None:
    assert Reject(status).status == status
