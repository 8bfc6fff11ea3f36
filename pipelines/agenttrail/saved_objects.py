"""Objects for Kibana, made from ``kibana/questions.yml``: data views, saved queries and searches, and a dashboard.

In the format that Kibana 9.0 and later import (Stack Management, Saved Objects): one JSON object a line.  Objects say
the version of their own type's format, and newer Kibanas bring them up to theirs.
"""

from __future__ import annotations

from typing import Any

import orjson

from agenttrail.questions import Question, questions

KIBANA = "9.0"
"""The oldest Kibana that takes the objects."""
_CORE = "8.8.0"  # the format of what all types share; it is that of all Kibanas since
_VERSIONS = {"index-pattern": "8.0.0", "query": "10.2.0", "search": "10.5.0", "dashboard": "10.2.0"}
_TIME = "@timestamp"
_META = "kibanaSavedObjectMeta"
_LISTED = ("open-and-high", "untriaged", "two-kinds-of-sources", "tool-call-before", "gaps")
"""Questions on the dashboard, from top to bottom."""
_CHARTS = ("severity", "technique")
_CHART_HEIGHT, _TABLE_HEIGHT, _WIDTH = 12, 14, 48  # of a grid with 48 columns


def ndjson(prefix: str = "agenttrail") -> str:
    """Return all objects, one a line; what refers to others comes after them.

    Args:
        prefix: what the names of all indices begin with; the ids of the objects begin with it, too.
    """
    objects = [
        *(_data_view(prefix, kind) for kind in ("incidents", "findings", "timeline")),
        *(_query(prefix, one) for one in questions()),
        *(_search(prefix, one) for one in questions()),
        _dashboard(prefix),
    ]
    return "".join(f"{_json(one)}\n" for one in objects)


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _object(type_: str, id_: str, attributes: dict[str, Any], references: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "type": type_, "id": id_, "attributes": attributes, "references": references, "managed": False,
        "coreMigrationVersion": _CORE, "typeMigrationVersion": _VERSIONS[type_],
    }  # fmt: skip


def _reference(type_: str, id_: str, name: str) -> dict[str, str]:
    return {"type": type_, "id": id_, "name": name}


def _kuery(query: str) -> dict[str, str]:
    return {"language": "kuery", "query": query}


def _data_view(prefix: str, kind: str) -> dict[str, Any]:
    alias = f"{prefix}-{kind}"
    return _object("index-pattern", alias, {"title": alias, "name": alias, "timeFieldName": _TIME}, [])


def _query(prefix: str, one: Question) -> dict[str, Any]:
    title = f"{prefix}: {one.question}"
    told = {
        "title": title, "titleKeyword": title, "description": _description(prefix, one), "filters": [],
        "query": _kuery(one.kql()),
    }  # fmt: skip
    return _object("query", f"{prefix}-query-{one.id}", told, [])


def _description(prefix: str, one: Question) -> str:
    told = f"On {prefix}-{one.of}."
    values = ", ".join(one.examples.values())
    return f"{told}  Replace by your own: {values}" if values else told


def _search(prefix: str, one: Question) -> dict[str, Any]:
    index = f"{_META}.searchSourceJSON.index"
    source = {"query": _kuery(one.kql()), "filter": [], "indexRefName": index}
    attributes = {
        "title": f"{prefix}: {one.question}", "description": _description(prefix, one), "columns": list(one.columns),
        "sort": [list(by) for by in one.sort], "grid": {}, "hideChart": one.of != "timeline", "isTextBasedQuery": False,
        "timeRestore": False, _META: {"searchSourceJSON": _json(source)},
    }  # fmt: skip
    references = [_reference("index-pattern", f"{prefix}-{one.of}", index)]
    return _object("search", f"{prefix}-search-{one.id}", attributes, references)


# -- the dashboard


def _dashboard(prefix: str) -> dict[str, Any]:
    """Return the page to begin with: how many incidents when, by what technique, and what is to be done."""
    by_id = {one.id: one for one in questions()}
    charts = [
        _chart(prefix, "severity", "Incidents by day and severity", _by_day("incident.severity"), 0),
        _chart(prefix, "technique", "Incidents by technique", _by_value("threat.technique.id"), _WIDTH // 2),
    ]
    tables = [_table(by_id[id_], place) for place, id_ in enumerate(_LISTED)]
    references = [
        *(_reference("index-pattern", f"{prefix}-incidents", f"{name}:{_layer(name)}") for name in _CHARTS),
        *(_reference("search", f"{prefix}-search-{id_}", f"{id_}:panel_{id_}") for id_ in _LISTED),
    ]  # fmt: skip
    attributes = {
        "title": f"{prefix}: incidents", "description": "What agents did, what is open, and what could not be seen.",
        "panelsJSON": _json([*charts, *tables]), "optionsJSON": _json({"useMargins": True, "hidePanelTitles": False}),
        "timeRestore": True, "timeFrom": "now-7d", "timeTo": "now", "version": 1,
        _META: {"searchSourceJSON": _json({"query": _kuery("not incident.superseded_by : *"), "filter": []})},
    }  # fmt: skip
    return _object("dashboard", f"{prefix}-dashboard", attributes, references)


def _grid(name: str, left: int, top: int, width: int, height: int) -> dict[str, Any]:
    return {"i": name, "x": left, "y": top, "w": width, "h": height}


def _table(one: Question, place: int) -> dict[str, Any]:
    top = _CHART_HEIGHT + place * _TABLE_HEIGHT
    return {
        "type": "search", "panelIndex": one.id, "panelRefName": f"panel_{one.id}", "title": one.question,
        "gridData": _grid(one.id, 0, top, _WIDTH, _TABLE_HEIGHT), "embeddableConfig": {"enhancements": {}},
    }  # fmt: skip


def _layer(name: str) -> str:
    """Return the name by which a chart refers to the data view of its layer."""
    return f"indexpattern-datasource-layer-{name}"


_COUNT = {
    "label": "incidents", "customLabel": True, "dataType": "number", "operationType": "count", "isBucketed": False,
    "scale": "ratio", "sourceField": "___records___",
}  # fmt: skip


def _by_value(name: str) -> dict[str, Any]:
    """Return the columns of a chart that counts the commonest values of a field."""
    values = {
        "label": name, "dataType": "string", "operationType": "terms", "isBucketed": True, "scale": "ordinal",
        "sourceField": name,
        "params": {
            "size": 10, "orderBy": {"type": "column", "columnId": "count"}, "orderDirection": "desc",
            "otherBucket": False, "missingBucket": False, "parentFormat": {"id": "terms"},
        },
    }  # fmt: skip
    return {"x": values, "count": _COUNT}


def _by_day(name: str) -> dict[str, Any]:
    """Return the columns of a chart that counts by time and, within that, by a field."""
    days = {
        "label": _TIME, "dataType": "date", "operationType": "date_histogram", "isBucketed": True, "scale": "interval",
        "sourceField": _TIME, "params": {"interval": "auto", "includeEmptyRows": True, "dropPartials": False},
    }  # fmt: skip
    return {"x": days, "split": _by_value(name)["x"], "count": _COUNT}


def _chart(prefix: str, name: str, title: str, columns: dict[str, Any], left: int) -> dict[str, Any]:
    """Return a bar chart that stands in the dashboard itself."""
    layer = {
        "layerId": name, "layerType": "data", "seriesType": "bar_stacked", "xAccessor": "x", "accessors": ["count"],
        **({"splitAccessor": "split"} if "split" in columns else {}),
    }  # fmt: skip
    counted = {"columns": columns, "columnOrder": list(columns), "incompleteColumns": {}}
    state = {
        "datasourceStates": {"formBased": {"layers": {name: counted}}},
        "visualization": {
            "layers": [layer], "preferredSeriesType": "bar_stacked", "legend": {"isVisible": True, "position": "right"},
            "valueLabels": "hide", "fittingFunction": "None",
        },
        "query": _kuery(""), "filters": [], "internalReferences": [], "adHocDataViews": {},
    }  # fmt: skip
    attributes = {
        "title": title, "visualizationType": "lnsXY", "state": state,
        "references": [_reference("index-pattern", f"{prefix}-incidents", _layer(name))],
    }  # fmt: skip
    return {
        "type": "lens", "panelIndex": name, "title": title,
        "gridData": _grid(name, left, 0, _WIDTH // 2, _CHART_HEIGHT),
        "embeddableConfig": {"attributes": attributes, "enhancements": {}},
    }  # fmt: skip
