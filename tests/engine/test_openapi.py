"""The description of the server: of its own routes, whole, and for those with the token."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
from starlette.routing import BaseRoute, Route

from tinker_officer.engine.app import build
from tinker_officer.engine.openapi import description


@pytest.fixture(scope="module")
def routes() -> list[BaseRoute]:
    """The routes of the application, of which none is called."""
    return build(None).routes  # only a route that is called asks the state


@pytest.fixture(scope="module")
def described(routes: list[BaseRoute]) -> dict[str, Any]:
    """What the application of a server says of itself."""
    return description(routes)


def test_every_route_is_described(described: dict[str, Any], routes: list[BaseRoute]) -> None:
    """Each path and method of the application stands in the description, and what takes any path does not."""
    expected = {
        (route.path, method.lower())
        for route in routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD" and ":path}" not in route.path
    }

    assert {(path, method) for path, of in described["paths"].items() for method in of} == expected
    assert ("/api/v1/asample", "post") in expected


def test_bodies_are_those_that_the_sdk_sends(described: dict[str, Any]) -> None:
    """A request as the SDK makes it fits the body described for its path; one with a wrong type does not."""
    import tinker
    from tinker.types.optim_step_request import OptimStepRequest

    body = described["paths"]["/api/v1/optim_step"]["post"]["requestBody"]["content"]["application/json"]
    schema = {**body["schema"], "components": described["components"]}
    sent = OptimStepRequest(adam_params=tinker.AdamParams(learning_rate=1e-4), model_id="x", seq_id=1)
    good = sent.model_dump(mode="json", exclude_none=True)

    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**good, "model_id": 3}, schema)


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    """What a body refers to is part of the description."""
    names = set(re.findall(r"#/components/schemas/(\w+)", repr(described)))

    assert "SampleRequest" in names
    assert names <= described["components"]["schemas"].keys()
