"""Every error says what is wrong, what was got, what is needed, and the fix."""

from __future__ import annotations

import pickle

import pytest

from tinker_officer import errors


TREE = {
    errors.DataError: ValueError,
    errors.ModelError: LookupError,
    errors.PlanError: ValueError,
    errors.RunError: RuntimeError,
    errors.EvalError: RuntimeError,
    errors.RegistryError: RuntimeError,
    errors.EngineError: RuntimeError,
}


def test_a_message_has_four_parts_in_order() -> None:
    """The text is the problem, then got, need and fix, each on a labelled line."""
    error = errors.PlanError(
        "rank is out of range", got=0, need="an integer from 1 to 512", fix="pin(rank=32)"
    )
    assert str(error) == (
        "rank is out of range\n  got:  0\n  need: an integer from 1 to 512\n  fix:  pin(rank=32)"
    )


def test_a_part_of_many_lines_is_indented_under_its_label() -> None:
    """A second line of `got` starts where its first does, so that the labels stay readable."""
    text = errors.explain("bad rows", got="line 1\nline 2", need="rows", fix="")
    assert "  got:  line 1\n        line 2\n  need: rows\n  fix:" in text


@pytest.mark.parametrize(("kind", "parent"), TREE.items())
def test_each_error_is_caught_by_its_stdlib_co_parent(
    kind: type[errors.OfficerError], parent: type[Exception]
) -> None:
    """`except ValueError` catches a PlanError, as a newcomer would expect."""
    with pytest.raises(parent):
        raise kind("p", got="g", need="n", fix="f")


def test_an_error_survives_pickling_with_its_parts() -> None:
    """What a worker process raises arrives whole in the parent."""
    sent = errors.DataError("p", got=3, need="n", fix="f")
    received = pickle.loads(pickle.dumps(sent))
    assert type(received) is errors.DataError
    assert (received.problem, received.got, str(received)) == ("p", "3", str(sent))
