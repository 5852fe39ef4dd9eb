// Building elements. Data only ever becomes text or the value of a harmless attribute, never markup: names come from
// pods and files, and a hostile one must stay a name.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. `on` holds event handlers by name. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, { on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const [name, handler] of Object.entries(on)) element.addEventListener(name, handler);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Set an element's text if it differs, so that an unchanged page is neither laid out nor announced again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Make `children` the children of `parent`, moving as few as possible: an element that is moved loses its focus. */
export function setChildren(parent, children) {
  const wanted = new Set(children);
  for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
  children.forEach((child, at) => parent.childNodes[at] === child || parent.insertBefore(child, parent.childNodes[at] ?? null));
}

/** Rows of a table that turns into cards on a phone. Its roles are explicit, because CSS would remove them. */
export function row(cells, labels, attributes = {}) {
  const made = cells.map((cell, at) => (cell instanceof Element && (cell.tagName === "TD" || cell.tagName === "TH") ? cell : el("td", {}, cell)));
  made.forEach((cell, at) => {
    cell.setAttribute("role", cell.tagName === "TH" ? "rowheader" : "cell");
    if (cell.tagName === "TD") cell.setAttribute("data-label", labels[at]);
  });
  return el("tr", { role: "row", ...attributes }, ...made);
}

/** Give a table of the page its explicit roles, and return the texts of its column headers. */
export function prepareTable(table) {
  table.classList.add("cards-on-phone");
  table.setAttribute("role", "table");
  for (const part of table.querySelectorAll("thead, tbody")) part.setAttribute("role", "rowgroup");
  const heads = [...table.querySelectorAll("thead th")];
  for (const head of heads) head.setAttribute("role", "columnheader");
  table.querySelector("thead tr").setAttribute("role", "row");
  return heads.map((head) => head.textContent);
}

/** A card of a summary: a term and its value. */
export const card = (term, value, kind = "") => el("div", {}, el("dt", {}, term), el("dd", { class: kind }, value));
