"""What Kibana imports: of the shape of its version, about fields that there are, current, and whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agenttrail.cli import main
from agenttrail.questions import question_table, questions
from agenttrail.saved_objects import ndjson
from agenttrail.sinks.elasticsearch_indices import KINDS, mappings

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((ROOT / "tests" / "data" / "kibana" / "saved_object.schema.json").read_text(encoding="utf-8"))
OBJECTS = [json.loads(line) for line in ndjson().splitlines()]
_STRING = re.compile(r'"(?:\\.|[^"\\])*"')
_FIELD = re.compile(r"([@\w][\w.]*)\s*(?::|<=|>=|<|>)")


def _valid(document: Any, of: str = "") -> None:
    schema = {**SCHEMA["$defs"][of], "$defs": SCHEMA["$defs"]} if of else SCHEMA
    Draft202012Validator(schema).validate(document)


def _of_type(type_: str) -> list[dict[str, Any]]:
    return [one for one in OBJECTS if one["type"] == type_]


def _fields(kind: str) -> dict[str, str]:
    """Return the types of all fields of a kind of index, by dotted names."""

    def flat(properties: dict[str, Any], before: str = "") -> dict[str, str]:
        found = {f"{before}{name}": str(told.get("type", "object")) for name, told in properties.items()}
        for name, told in properties.items():
            found |= flat(told.get("properties", {}), f"{before}{name}.")
        return found

    return flat(mappings(kind)["properties"])


def _asked(query: str) -> set[str]:
    """Return the fields that a KQL query names."""
    return set(_FIELD.findall(_STRING.sub('""', query)))


def test_the_schema_itself_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(Exception, match="is not one of"):
        _valid({**OBJECTS[0], "type": "visualisation"})
    with pytest.raises(Exception, match="'title' is a required property"):
        _valid({**OBJECTS[0], "attributes": {"name": "x", "timeFieldName": "@timestamp"}})


@pytest.mark.parametrize("one", OBJECTS, ids=lambda one: one["id"])
def test_every_object_is_of_its_types_shape(one: dict[str, Any]) -> None:
    _valid(one)
    attributes = one["attributes"]
    if "kibanaSavedObjectMeta" in attributes:
        source = json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])
        _valid(source, "search_source")
        assert source.get("indexRefName") in {None, *(reference["name"] for reference in one["references"])}
    if one["type"] == "dashboard":
        _valid(json.loads(attributes["panelsJSON"]), "panels")
        assert isinstance(json.loads(attributes["optionsJSON"]), dict)


def test_ids_are_unique_and_references_come_to_something_above() -> None:
    known: set[tuple[str, str]] = set()
    for one in OBJECTS:
        assert (one["type"], one["id"]) not in known
        assert {(reference["type"], reference["id"]) for reference in one["references"]} <= known, one["id"]
        known.add((one["type"], one["id"]))
    assert [len(_of_type(type_)) for type_ in ("index-pattern", "query", "search", "dashboard")] == [3, 20, 20, 1]


def test_data_views_are_the_aliases() -> None:
    assert {one["attributes"]["title"] for one in _of_type("index-pattern")} == {f"agenttrail-{kind}" for kind in KINDS}


@pytest.mark.parametrize("question", questions(), ids=lambda one: one.id)
def test_a_question_names_fields_that_its_index_has(question: Any) -> None:
    """And sorts by what can be sorted by."""
    known = _fields(question.of)
    assert _asked(question.query)
    assert _asked(question.query) | set(question.columns) | {name for name, _ in question.sort} <= known.keys()
    assert all(known[name] not in ("text", "object") for name, _ in question.sort)
    assert not any(known[name] == "object" for name in {*question.columns, *_asked(question.query)})


def test_searches_and_queries_ask_the_same_of_the_index_that_they_say() -> None:
    queries = {one["id"].partition("-query-")[2]: one for one in _of_type("query")}
    for one in _of_type("search"):
        id_ = one["id"].partition("-search-")[2]
        source = json.loads(one["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
        question = next(question for question in questions() if question.id == id_)
        assert source["query"] == queries[id_]["attributes"]["query"] == {"language": "kuery", "query": question.kql()}
        assert one["references"][0]["id"] == f"agenttrail-{question.of}"
        assert all(value in one["attributes"]["description"] for value in question.examples.values())


def test_panels_refer_to_what_the_dashboard_refers_to_and_do_not_overlap() -> None:
    (dashboard,) = _of_type("dashboard")
    panels = json.loads(dashboard["attributes"]["panelsJSON"])
    names = {reference["name"] for reference in dashboard["references"]}
    wanted: set[str] = set()
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        inner = panel["embeddableConfig"].get("attributes", {}).get("references", [])
        told = [panel["panelRefName"]] if "panelRefName" in panel else [reference["name"] for reference in inner]
        wanted |= {f"{panel['panelIndex']}:{name}" for name in told}
        place = panel["gridData"]
        assert place["i"] == panel["panelIndex"]
        assert place["x"] + place["w"] <= 48
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells
        cells |= own
    assert wanted == names


def test_charts_count_by_fields_that_can_be_counted_by() -> None:
    (dashboard,) = _of_type("dashboard")
    known, seen = _fields("incidents"), set()
    for panel in json.loads(dashboard["attributes"]["panelsJSON"]):
        if panel["type"] == "lens":
            state = panel["embeddableConfig"]["attributes"]["state"]
            for layer in state["visualization"]["layers"]:
                counted = state["datasourceStates"]["formBased"]["layers"][layer["layerId"]]
                used = {layer["xAccessor"], *layer["accessors"], layer.get("splitAccessor", layer["xAccessor"])}
                assert used == set(counted["columns"]) == set(counted["columnOrder"])
                seen |= {column["sourceField"] for column in counted["columns"].values()}
    assert seen - {"___records___"} == {"@timestamp", "incident.severity", "threat.technique.id"}
    assert {known[name] for name in seen - {"___records___"}} == {"date", "keyword"}


def test_the_file_is_current_and_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    """`make docs` writes it."""
    assert (ROOT / "kibana" / "agenttrail.ndjson").read_text(encoding="utf-8") == ndjson()
    assert main(["elasticsearch", "kibana"]) == 0
    assert capsys.readouterr().out == ndjson()
    assert main(["elasticsearch", "kibana", "--prefix", "soc"]) == 0
    assert "agenttrail" not in capsys.readouterr().out


def test_the_table_of_the_readme_is_current() -> None:
    assert question_table() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_values_of_a_question_are_only_values() -> None:
    by_agent, by_technique = (
        next(one for one in questions() if one.id == f"by-{what}") for what in ("agent", "technique")
    )
    assert by_agent.kql({"agent": '" or * \\'}).startswith('gen_ai.agent.id : "\\" or * \\\\" and')
    assert by_agent.kql({"agent": "{job}"}).startswith('gen_ai.agent.id : "{job}" and')
    with pytest.raises(ValueError, match="cannot stand in a query without quotation marks"):
        by_technique.kql({"technique": "T1496 or *"})
    with pytest.raises(KeyError):
        by_agent.kql({})
