// Reads a line of a log: colours become runs with classes, all other control sequences go, and every character that would
// hide or reorder what stands beside it is written out. It makes text, never markup.
"use strict";

const windlassAnsi = (() => {
  // CSI, OSC and its like up to their end (or the line's), and two-character escapes.
  const SEQUENCES = /\x1b(?:\[([0-?]*)[ -\/]*([@-~])?|[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|[ -\/]*[0-~]?)/g;
  const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/g;
  const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

  function shown(text) {
    return text.replace(HIDDEN, (c) => "⟨U+" + c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0") + "⟩");
  }

  /** The nearest of our colours, all of which can be read on our backgrounds. */
  function nearest(r, g, b) {
    const most = Math.max(r, g, b);
    if (most - Math.min(r, g, b) < 40) return most < 96 ? "black" : "white";
    const half = (most + Math.min(r, g, b)) / 2;
    return NAMES[(r > half ? 1 : 0) + (g > half ? 2 : 0) + (b > half ? 4 : 0)];
  }

  function indexed(n) {
    if (n < 16) return NAMES[n % 8];
    if (n >= 232) return n < 240 ? "black" : "white";
    const part = (k) => [0, 95, 135, 175, 215, 255][Math.floor((n - 16) / k) % 6];
    return nearest(part(36), part(6), part(1));
  }

  /** A colour after 38 or 48, and how many numbers it took. */
  function extended(codes, at) {
    if (codes[at] === 5 && codes[at + 1] < 256) return [indexed(codes[at + 1]), 2];
    if (codes[at] === 2) return [nearest(codes[at + 1] || 0, codes[at + 2] || 0, codes[at + 3] || 0), 4];
    return [null, 1];
  }

  function style(state, parameters) {
    const codes = parameters.split(/[;:]/).map((code) => (code === "" ? 0 : Number(code)));
    for (let i = 0; i < codes.length; i++) {
      const code = codes[i];
      if (code === 0) Object.keys(state).forEach((key) => delete state[key]);
      else if (code === 1) state.bold = true;
      else if (code === 2) state.faint = true;
      else if (code === 3) state.italic = true;
      else if (code === 4) state.underline = true;
      else if (code === 7) state.inverse = true;
      else if (code === 9) state.strike = true;
      else if (code === 22) state.bold = state.faint = false;
      else if (code === 23) state.italic = false;
      else if (code === 24) state.underline = false;
      else if (code === 27) state.inverse = false;
      else if (code === 29) state.strike = false;
      else if (code >= 30 && code <= 37) state.fg = NAMES[code - 30];
      else if (code >= 90 && code <= 97) state.fg = NAMES[code - 90];
      else if (code >= 40 && code <= 47) state.bg = NAMES[code - 40];
      else if (code >= 100 && code <= 107) state.bg = NAMES[code - 100];
      else if (code === 39) state.fg = null;
      else if (code === 49) state.bg = null;
      else if (code === 38 || code === 48) {
        const [colour, took] = extended(codes, i + 1);
        state[code === 38 ? "fg" : "bg"] = colour;
        i += took;
      }
    }
  }

  function classes(state) {
    const all = ["bold", "faint", "italic", "underline", "inverse", "strike"].filter((name) => state[name]);
    if (state.bg) all.push("bg-" + state.bg);
    else if (state.fg) all.push("fg-" + state.fg);
    return all.join(" ");
  }

  /** What a terminal shows of a line that goes back to its beginning: what was written last. */
  function overwritten(text) {
    const parts = text.split("\r");
    while (parts.length > 1 && parts[parts.length - 1] === "") parts.pop();
    return parts[parts.length - 1];
  }

  /** The runs of a line, each with its text and its classes. */
  function runs(line) {
    const text = overwritten(line);
    const found = [];
    const state = {};
    let from = 0;
    const add = (end) => {
      if (end > from) found.push({ text: shown(text.slice(from, end)), classes: classes(state) });
    };
    for (const sequence of text.matchAll(SEQUENCES)) {
      add(sequence.index);
      from = sequence.index + sequence[0].length;
      if (sequence[2] === "m" && /^[0-9;:]*$/.test(sequence[1])) style(state, sequence[1]);
    }
    add(text.length);
    return found;
  }

  /** A line's text as it is shown, to be searched. */
  function plain(line) {
    return runs(line).map((run) => run.text).join("");
  }

  return { runs, plain };
})();
