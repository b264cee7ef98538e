"""What the page does when it is used: sort a table by a column, hide what a filter leaves out. Nothing is loaded."""

from __future__ import annotations

SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.querySelectorAll("th button")].map(b => b.closest("th"));
  const value = (row, at) => row.cells[at].dataset.value ?? "";
  for (const head of heads) head.querySelector("button").onclick = () => {
    const at = +head.dataset.column, text = head.dataset.kind === "text";
    const first = text ? "ascending" : "descending", second = text ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? second : first, sign = order === "ascending" ? 1 : -1;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const compare = (a, b) => {
      const x = value(a, at), y = value(b, at);
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (text ? x.localeCompare(y, "en", {numeric: true}) : x - y);
    };
    body.append(...[...body.rows].sort(compare));
  };
}
"""

# What can be hidden: rows of tables, small multiples with a label, entries of legends, and series within drawings. Each
# is known by its label, which begins with its method. Words typed must all be in the label, or in the row's text.
FILTER = """
const tools = document.querySelector(".tools");
if (tools) {
  const items = [];
  const add = (node, label, text) => items.push({node, method: label.split(/[ ,]/)[0], text: text.toLowerCase()});
  for (const row of document.querySelectorAll("table.sortable > tbody > tr")) {
    const name = row.cells[0];
    add(row, name.dataset.value || name.textContent.trim(), row.textContent + " " + name.dataset.value);
  }
  for (const head of document.querySelectorAll("h4[data-label]"))
    add(head.parentElement, head.dataset.label, head.dataset.label);
  for (const node of document.querySelectorAll("li[data-label], svg [data-label]"))
    add(node, node.dataset.label, node.dataset.label);
  const rows = items.filter(item => item.node.closest("table.main"));
  const search = tools.querySelector("input"), buttons = [...tools.querySelectorAll("button")];
  const said = tools.querySelector("output");
  const methods = new Set(buttons.map(button => button.value));
  const apply = () => {
    const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
    const off = new Set(buttons.filter(b => b.getAttribute("aria-pressed") === "false").map(b => b.value));
    for (const {node, method, text} of items) {
      const known = methods.has(method);
      const asked = node.localName === "li" || words.every(word => text.includes(word));
      const gone = known && (off.has(method) || !asked);
      if (node instanceof SVGElement) node.style.display = gone ? "none" : ""; else node.hidden = gone;
    }
    const left = rows.filter(item => !item.node.hidden).length;
    said.textContent = left === rows.length ? "" : `${left} of ${rows.length} rows shown`;
  };
  search.oninput = apply;
  for (const button of buttons) button.onclick = () => {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "false");
    apply();
  };
  tools.hidden = false;
  apply();
}
"""

SCRIPT = SORT + FILTER


def tools(methods: list[str]) -> str:
    """Write the filter: a field for words, and a button a method; shown once the script runs."""
    from html import escape

    named = [
        f'<button type="button" value="{escape(one)}" aria-pressed="true">{escape(one)}</button>' for one in methods
    ]
    return (
        '<div class="tools" hidden role="search"><label>Filter <input type="search" placeholder="method, option, text" '
        'aria-label="Show only rows and figures with these words"></label>'
        f'{"".join(named) if len(methods) > 1 else ""}<output aria-live="polite"></output></div>'
    )
