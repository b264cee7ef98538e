"""What the page does when it is used: sort a table, hide what a filter leaves out, save a figure. Nothing is loaded."""

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

# A figure is saved as it is seen, with its legend below it, in the colours of the light page: paper is white.
SAVE = """
const light = new Map(), [first] = document.querySelector("style").textContent.split("}");
for (const [, name, value] of first.matchAll(/--([\\w-]+):([^;]+)/g)) light.set(name, value);
const coloured = text => text.replace(/var\\(--([\\w-]+)\\)/g, (_, name) => light.get(name));
const make = (parent, name, attributes) => {
  const node = document.createElementNS(parent.namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return parent.appendChild(node);
};
const pen = document.createElement("canvas").getContext("2d");
pen.font = "13px sans-serif";
const drawn = svg => {
  const copy = svg.cloneNode(true), [left, top, width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  for (const node of copy.querySelectorAll("[data-label]")) if (node.style.display === "none") node.remove();
  let x = left, y = top + height + 20;
  const legends = [...(svg.closest("figure")?.querySelectorAll(".legend") ?? [])];
  const entries = legends.flatMap(one => [...one.children]).filter(item => !item.hidden);
  for (const item of entries) {
    const mark = item.firstElementChild, text = item.textContent.replace(mark.textContent, "").trim();
    const style = mark.getAttribute("style") ?? "", colour = style.match(/var\\(--[\\w-]+\\)/)?.[0] ?? "var(--ink)";
    const wide = 36 + pen.measureText(text).width;
    if (x > left && x + wide > left + width) { x = left; y += 20; }
    const dashes = style.includes("solid") ? "none" : style.includes("dotted") ? "2 2" : "5 3";
    if (mark.matches(".box")) make(copy, "rect", {x: x + 2, y: y - 11, width: 12, height: 12, rx: 3, fill: colour});
    else if (mark.matches(".dash"))
      make(copy, "path", {d: `M${x} ${y - 5}h18`, stroke: colour, "stroke-width": 2, "stroke-dasharray": dashes});
    else make(copy, "text", {x: x + 2, y, fill: colour, "font-size": 13}).textContent = mark.textContent;
    make(copy, "text", {x: x + 22, y, fill: "var(--ink)", "font-size": 13}).textContent = text;
    x += wide;
  }
  const tall = entries.length ? y + 8 - top : height;
  const whole = {viewBox: [left, top, width, tall].join(" "), width, height: tall, "font-family": "sans-serif"};
  for (const [key, value] of Object.entries(whole)) copy.setAttribute(key, value);
  return coloured(new XMLSerializer().serializeToString(copy));
};
const figures = [...document.querySelectorAll("figure svg")].map(svg => {
  const titles = [svg.closest("figure").querySelector("h3"), svg.parentElement.querySelector("h4")].filter(Boolean);
  const words = titles.map(title => title.textContent).join(" ").toLowerCase().match(/[a-z0-9]+/g);
  return [svg, titles.at(-1), words.join("-")];
});
for (const [svg, title, name] of figures) {
  const button = document.createElement("button");
  Object.assign(button, {type: "button", className: "save", textContent: "SVG"});
  button.setAttribute("aria-label", `Save as SVG: ${svg.getAttribute("aria-label")}`);
  button.onclick = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([drawn(svg)], {type: "image/svg+xml"}));
    link.download = `${name}.svg`;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  title.append(button);
}
"""

SCRIPT = SORT + FILTER + SAVE


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
