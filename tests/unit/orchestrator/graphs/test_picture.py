"""A graph drawn: every node, every edge, every state."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from services.orchestrator.graphs.picture import Drawn, mermaid, svg

NODES = [
    Drawn("root", "Athena@1.0.0", "completed", ()),
    Drawn("a-very-long-name-of-a-node-that-is-cut", "Apollo@1.0.0", "running", ("root",)),
    Drawn("end<b>", "", "pending", ("root", "a-very-long-name-of-a-node-that-is-cut")),
]
_SVG = "{http://www.w3.org/2000/svg}"


def test_mermaid_has_a_line_for_each_node_edge_and_state() -> None:
    text = mermaid(NODES)
    assert text.startswith("flowchart LR\n")
    assert '  n0["root<br/>Athena@1.0.0<br/>completed"]:::completed' in text
    assert '"]:::running' in text
    assert [line.strip() for line in text.splitlines() if "-->" in line] == ["n0 --> n1", "n0 --> n2", "n1 --> n2"]
    assert text.count("classDef") == 6


def test_the_svg_is_whole_and_puts_each_level_in_a_column() -> None:
    root = ET.fromstring(svg(NODES))
    boxes = root.findall(f"{_SVG}g/{_SVG}rect")
    assert len(boxes) == 3
    assert len(root.findall(f"{_SVG}path")) == 3
    assert len({box.get("x") for box in boxes}) == 3
    assert {box.get("fill") for box in boxes} == {"#a9dc76", "#ffd866", "#e8e8e8"}
    assert [title.text for title in root.findall(f"{_SVG}g/{_SVG}title")] == [node.id for node in NODES]


def test_no_label_is_wider_than_its_box() -> None:
    longest = [Drawn("W" * 64, f"{'W' * 60}@1.0.0", "cancelled", ()), Drawn("a", "Hermes@1.0.0", "completed", ())]
    for group in ET.fromstring(svg(longest)).findall(f"{_SVG}g"):
        box, *labels = group.findall(f"{_SVG}rect") + group.findall(f"{_SVG}text")
        end = int(box.get("x", "")) + int(box.get("width", ""))
        # A character of a monospaced font is 0.6 times its size wide.
        assert max(int(label.get("x", "")) + len(label.text or "") * 12 * 0.6 for label in labels) <= end
        assert (labels[1].text or "").endswith((" · cancelled", " · completed"))
    assert "font:12px monospace" in svg(longest)


def test_a_graph_without_nodes_is_an_empty_picture() -> None:
    assert ET.fromstring(svg([])).tag == f"{_SVG}svg"
