// Finds what keeps people out of a page, or makes it unpleasant; the body of a function that returns a list of faults.
const faults = [];
const all = [...document.querySelectorAll("body *")];
const seen = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) && element.getClientRects().length > 0;
const called = (element) => element.outerHTML.slice(0, 90);

if (!document.documentElement.lang) faults.push("the page doesn't say its language");
if (document.querySelectorAll("h1").length !== 1) faults.push("the page hasn't one first heading");
if (document.querySelectorAll("main").length !== 1) faults.push("the page hasn't one main part");
if (!document.querySelector('meta[name="viewport"]')) faults.push("the page doesn't fit small screens");
const ids = new Set();
for (const { id } of all) {
  if (id && ids.has(id)) faults.push(`two elements are called ${id}`);
  ids.add(id);
}
for (const element of all) {
  for (const name of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const id of (element.getAttribute(name) || "").split(" ").filter(Boolean)) {
      if (!document.getElementById(id)) faults.push(`${name} names ${id}, which isn't there`);
    }
  }
}
const name = (element) => {
  const by = element.getAttribute("aria-labelledby");
  return (element.getAttribute("aria-label") || (by && document.getElementById(by).textContent) || element.textContent || element.alt || "").trim();
};
for (const input of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
  if (!input.labels.length && !input.getAttribute("aria-label")) faults.push(`no label: ${called(input)}`);
}
for (const control of document.querySelectorAll("a[href], button, summary, [role=region], nav, [role=search]")) {
  if (!name(control)) faults.push(`no name: ${called(control)}`);
}
for (const image of document.querySelectorAll("img, svg")) {
  const hidden = image.closest("[aria-hidden=true]") || image.getAttribute("alt") === "";
  if (!hidden && !(image.getAttribute("aria-label") || image.getAttribute("alt"))) faults.push(`no name: ${called(image)}`);
}
let level = 0;
for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
  const own = Number(heading.tagName[1]);
  if (own > level + 1) faults.push(`a heading leaves a level out: ${called(heading)}`);
  level = own;
}

// Contrast, by the formula of WCAG 2.
const numbers = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
const light = (rgb) => {
  const [r, g, b] = rgb.map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const [r, g, b, a = 1] = numbers(getComputedStyle(at).backgroundColor);
    if (a === 1) return [r, g, b];
    if (a !== 0) return null;
  }
  return numbers(getComputedStyle(document.documentElement).backgroundColor).slice(0, 3);
};
const poor = new Set();
for (const element of all) {
  const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!(text || element.matches("input, select")) || !seen(element) || element.closest("noscript, option")) continue;
  const behind = ground(element);
  if (!behind) continue;
  const [one, two] = [light(numbers(getComputedStyle(element).color).slice(0, 3)), light(behind)];
  const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  if (contrast < 4.5) poor.add(`contrast ${contrast.toFixed(2)}: ${element.tagName} ${element.className} in ${element.parentElement.className}`);
}
faults.push(...poor);

// Size and place.
if (document.documentElement.scrollWidth > innerWidth) faults.push(`the page is ${document.documentElement.scrollWidth} wide in ${innerWidth}`);
const scrolls = (element) => element.closest(".lines, pre, .skip, .unseen, thead, [hidden]");
for (const element of all) {
  if (!seen(element) || scrolls(element) || element.closest("svg")) continue;
  const box = element.getBoundingClientRect();
  if (box.right > innerWidth + 1 || box.left < -1) faults.push(`out of the window: ${called(element)}`);
}
for (const control of document.querySelectorAll("button, select, input:not([type=hidden], [type=checkbox])")) {
  if (!seen(control) || scrolls(control)) continue;
  if (control.getBoundingClientRect().height < 32) faults.push(`too small for a finger: ${called(control)}`);
}
return faults;
