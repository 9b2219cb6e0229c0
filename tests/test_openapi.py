"""The published documents say what is run."""

from __future__ import annotations

import json
import re

import pytest
from house import House

from liveroom.commands import COMMANDS
from liveroom.errors import FAMILIES
from liveroom.events import EVENTS
from liveroom.web.schemas import BODIES, asyncapi


@pytest.fixture
def house(db, redis_url):
    return lambda: House(db, redis_url)


def references(document):
    return re.findall(r'"\$ref": ?"#/([^"]+)"', json.dumps(document))


def resolve(document, path):
    for part in path.split("/"):
        document = document[part]
    return document


def test_openapi_has_every_route(run, house):
    """Each route under /v1 stands in the document with a summary, and bodies where it reads one."""

    async def story():
        async with house() as h:
            document = (await h.ask("GET", "/openapi.json")).json()
            assert document["openapi"].startswith("3.1")
            paths = document["paths"]
            routes = [r for r in h.app.routes if getattr(r, "path", "").startswith("/v1")]
            for route in routes:
                for method in route.methods - {"HEAD"}:
                    operation = paths[route.path][method.lower()]
                    assert operation["summary"], (method, route.path)
                    reads = (method, route.path) in BODIES
                    assert ("requestBody" in operation) == reads, (method, route.path)
            ids = [o["operationId"] for path in paths.values() for o in path.values()]
            assert len(ids) == len(set(ids))
            for path in references(document):
                assert resolve(document, path) is not None

    run(story())


def test_every_changing_route_names_its_body(run, house):
    """A POST or PATCH without a described body is a button or a webhook, and nothing else."""

    async def story():
        async with house() as h:
            bare = {
                route.path
                for route in h.app.routes
                for method in getattr(route, "methods", None) or ()
                if method in {"POST", "PATCH"} and (method, route.path) not in BODIES
            }
            assert bare == {
                "/v1/payments/webhooks/{provider}",
                "/v1/sandbox/payments/{payment}/succeed",
                "/v1/sandbox/payments/{payment}/fail",
            }

    run(story())


def test_asyncapi_has_every_command_and_event():
    """Each command with who may, each event with its delivery class, each error code."""
    document = json.loads(json.dumps(asyncapi()))
    messages = document["components"]["messages"]
    for cmd, row in COMMANDS.items():
        assert messages[cmd]["x-who"] == row.who.value
    for event, spec in EVENTS.items():
        assert messages[event]["x-delivery"] == spec.delivery.value
        properties = messages[event]["payload"]["properties"]
        assert ("seq" in properties) == (spec.delivery.value == "logged")
    codes = messages["reply"]["payload"]["properties"]["error"]["properties"]["code"]["enum"]
    assert codes == [code for family in FAMILIES for code in family.codes]
    for path in references(document):
        assert resolve(document, path) is not None
    sent = [ref["$ref"].rpartition("/")[2] for ref in document["operations"]["command"]["messages"]]
    assert set(sent) == {"room.join", *COMMANDS}


def test_docs_page_names_everything(run, house):
    """The page for people has every route, command, event and error code."""

    async def story():
        async with house() as h:
            page = (await h.ask("GET", "/docs")).text
            for word in [*COMMANDS, *EVENTS, *(c for f in FAMILIES for c in f.codes)]:
                assert f">{word}<" in page, word

    run(story())
