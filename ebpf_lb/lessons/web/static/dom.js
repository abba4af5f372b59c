// Elements in one expression.

const SVG = "http://www.w3.org/2000/svg";
const LETTER = 0.56; // a letter's width, of its size; of a monospaced one:
const CHARACTER = 0.602;
export const MONO = "'DejaVu Sans Mono', Menlo, Consolas, monospace";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child || child === 0));
  return element;
}

export const html = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** Text in a drawing; where it is wider than `width`, its end is cut and shown on hovering. */
export function text(x, y, words, { size = 12, width = Infinity, mono, bold, ...attributes } = {}) {
  const letters = Math.floor(width / (size * (mono ? CHARACTER : LETTER)));
  const whole = String(words);
  const shown = whole.length > letters ? `${whole.slice(0, letters - 1)}…` : whole;
  const look = { "font-size": size, fill: "#212529", ...attributes };
  if (mono) look["font-family"] = MONO;
  if (bold) look["font-weight"] = "bold";
  return svg("text", { x, y, ...look }, shown, shown !== whole && svg("title", {}, whole));
}

/** A part of a drawing that can be clicked, also by keyboard. */
export const button = (label, click, attributes, ...children) =>
  svg(
    "g",
    {
      role: "button",
      tabindex: 0,
      "aria-label": label,
      cursor: "pointer",
      click,
      keydown: (event) => event.key === "Enter" && click(event),
      ...attributes,
    },
    ...children,
  );
