// The log on a job's page. However long the log is, the page holds a window of it: a few blocks of lines that move along
// as one scrolls, follows, searches or opens a link to a line. Every text is set as text.
"use strict";

(() => {
  const section = document.getElementById("log");
  if (!section) return;
  /** The lines of a block, the blocks of the window, and how many characters of a line are shown at first. */
  const BLOCK_LINES = 500;
  const BLOCKS_MAX = 4;
  const LINE_CHARS = 2000;
  /** How many lines are searched at a time. */
  const SEARCH_LINES = 1000;
  /** From one attempt's first line to the next one's, and how near to an edge more is fetched, in pixels. */
  const PER_ATTEMPT = 100000000;
  const EDGE_PX = 600;
  /** How far from the end one has to scroll for the log to stop following. */
  const LEAVE_PX = 40;

  const job = section.dataset.job;
  const view = section.querySelector(".lines");
  const said = section.querySelector(".said");
  const find = document.getElementById("find");
  const followButton = document.getElementById("follow");
  const attemptSelect = document.getElementById("attempt");

  let attempt = 0;
  /** The window: blocks with the numbers of their lines, in order. */
  let blocks = [];
  /** Whether the window's end is the end of all that is known. */
  let atEnd = false;
  let stream = null;
  let pending = [];
  let drawing = false;
  /** Where following has put the view, in pixels. */
  let placed = 0;
  let busy = false;
  let searching = null;
  /** The line that a search has found, and the text. */
  let hit = null;

  const base = () => (attempt - 1) * PER_ATTEMPT;
  const first = () => (blocks.length ? blocks[0].from : base() + 1);
  const last = () => (blocks.length ? blocks[blocks.length - 1].to : base());
  const api = (query) => `/api/v1/jobs/${job}/logs?attempt=${attempt}&${query}`;

  function say(text) {
    if (said.textContent !== text) said.textContent = text;
  }

  async function ask(path) {
    const answer = await fetch(path, { headers: { accept: "application/json" } });
    if (!answer.ok) throw new Error(answer.status === 401 ? "you are signed out" : `the server answered ${answer.status}`);
    return answer.json();
  }

  /** The lines after number `after`, at most `limit`. */
  const page = (after, limit) => ask(api(`after=${after}&limit=${limit}`));

  function rendered(line) {
    const row = document.createElement("div");
    row.className = "line " + line.stream;
    row.id = "L" + line.n;
    const number = document.createElement("a");
    number.className = "n";
    number.href = "#L" + line.n;
    number.textContent = String(line.n - base());
    number.tabIndex = -1;
    const text = document.createElement("span");
    text.className = "text";
    fill(text, line.text, LINE_CHARS);
    row.append(number, text);
    return row;
  }

  function fill(place, text, most) {
    place.textContent = "";
    let left = most;
    for (const run of windlassAnsi.runs(text)) {
      if (left <= 0) break;
      const piece = run.text.slice(0, left);
      left -= run.text.length;
      if (run.classes) {
        const span = document.createElement("span");
        span.className = run.classes;
        span.textContent = piece;
        place.append(span);
      } else {
        place.append(piece);
      }
    }
    if (left < 0) {
      const more = document.createElement("button");
      more.type = "button";
      more.className = "more";
      more.textContent = `… ${-left} more characters`;
      more.addEventListener("click", () => fill(place, text, Infinity));
      place.append(more);
    }
  }

  function block(lines) {
    const element = document.createElement("div");
    element.className = "block";
    element.append(...lines.map(rendered));
    return { element, from: lines[0].n, to: lines[lines.length - 1].n, count: lines.length };
  }

  function clear() {
    blocks = [];
    pending = [];
    view.textContent = "";
  }

  /** Adds lines at the window's end; what is too much at its beginning goes. */
  function append(lines) {
    while (lines.length) {
      const end = blocks[blocks.length - 1];
      if (end && end.count < BLOCK_LINES) {
        const some = lines.splice(0, BLOCK_LINES - end.count);
        end.element.append(...some.map(rendered));
        end.to = some[some.length - 1].n;
        end.count += some.length;
      } else {
        const made = block(lines.splice(0, BLOCK_LINES));
        blocks.push(made);
        view.append(made.element);
      }
    }
    while (blocks.length > BLOCKS_MAX) {
      const gone = blocks.shift();
      const height = gone.element.offsetHeight;
      const top = view.scrollTop;
      gone.element.remove();
      view.scrollTop = Math.max(0, top - height);
    }
    mark();
  }

  function prepend(lines) {
    const made = block(lines);
    const top = view.scrollTop;
    view.prepend(made.element);
    blocks.unshift(made);
    view.scrollTop = top + made.element.offsetHeight;
    while (blocks.length > BLOCKS_MAX) {
      blocks.pop().element.remove();
      atEnd = false;
    }
    mark();
  }

  /** Opens the window so that it begins after line `after`. */
  async function open(after) {
    const got = await page(after, BLOCK_LINES * 2);
    clear();
    atEnd = got.lines.length === 0;
    append(got.lines);
    told(got);
  }

  function told(got) {
    view.hidden = false;
    if (got.gap) say(`A part of the log is missing: ${got.gap}.`);
    else if (!blocks.length) say(live() ? "No output yet." : "The job has written nothing.");
    else if (!searching && !hit) say("");
  }

  const live = () => Boolean(document.getElementById("main").dataset.refresh);

  async function later() {
    const got = await page(last(), BLOCK_LINES);
    atEnd = got.lines.length === 0;
    if (got.lines.length) append(got.lines);
    told(got);
  }

  async function earlier() {
    const from = first();
    if (from <= base() + 1) return;
    const got = await page(Math.max(base(), from - 1 - BLOCK_LINES), Math.min(BLOCK_LINES, from - 1 - base()));
    let lines = got.lines.filter((line) => line.n < from);
    // A page of long lines ends early: what lies between it and the window is asked for as well.
    while (lines.length && lines[lines.length - 1].n < from - 1) {
      const more = await page(lines[lines.length - 1].n, BLOCK_LINES);
      const fitting = more.lines.filter((line) => line.n < from);
      if (!fitting.length) break;
      lines = lines.concat(fitting);
    }
    if (lines.length) prepend(lines);
  }

  /** One thing at a time; what fails is said. */
  async function once(work) {
    if (busy) return;
    busy = true;
    try {
      await work();
    } catch (error) {
      say(`The log can't be shown at the moment: ${error.message}.`);
    } finally {
      busy = false;
    }
  }

  // Following.

  function follow() {
    if (stream) return;
    placed = view.scrollTop;
    followButton.setAttribute("aria-pressed", "true");
    stream = new EventSource(api(`after=${last()}&follow=true`));
    stream.onmessage = (message) => {
      pending.push(JSON.parse(message.data));
      // What would leave the window at once isn't drawn at all.
      if (pending.length > 2 * BLOCK_LINES * BLOCKS_MAX) {
        pending = pending.slice(-BLOCK_LINES * BLOCKS_MAX);
        blocks = [];
        view.textContent = "";
      }
      if (!drawing) {
        drawing = true;
        requestAnimationFrame(draw);
      }
    };
    // A connection that is lost the browser makes again by itself; what is refused it gives up.
    stream.onerror = () => {
      if (!stream || stream.readyState !== EventSource.CLOSED) return;
      leave();
      say("The log can't be followed at the moment.");
    };
    stream.addEventListener("gap", (message) => say(`A part of the log is missing: ${JSON.parse(message.data).detail}.`));
    stream.addEventListener("end", () => {
      // What is still to be drawn is the end that one has followed to.
      draw();
      leave();
      atEnd = true;
      if (!blocks.length && !pending.length) say("The job has written nothing.");
    });
  }

  function draw() {
    drawing = false;
    const lines = pending;
    pending = [];
    if (!lines.length) return;
    if (said.textContent === "No output yet.") say("");
    append(lines);
    if (stream) toBottom();
  }

  function toBottom() {
    view.scrollTop = view.scrollHeight;
    placed = view.scrollTop;
  }

  function leave() {
    followButton.setAttribute("aria-pressed", "false");
    if (stream) stream.close();
    stream = null;
    if (pending.length) draw();
  }

  async function toEnd() {
    const { last: end } = await ask(`/jobs/${job}/log-end?attempt=${attempt}`);
    if (end < first() || end > last() + BLOCK_LINES) {
      await open(Math.max(base(), end - BLOCK_LINES));
    }
    while (last() < end) {
      const before = last();
      await later();
      if (last() === before) break;
    }
    atEnd = true;
    view.scrollTop = view.scrollHeight;
    told({ lines: [] });
  }

  // Lines and searching.

  async function toLine(n, focus) {
    leave();
    attempt = Math.floor((n - 1) / PER_ATTEMPT) + 1;
    attemptSelect.value = String(attempt);
    if (n < first() || n > last()) await open(Math.max(base(), n - 1 - Math.floor(BLOCK_LINES / 2)));
    for (const old of view.querySelectorAll(".marked")) old.classList.remove("marked");
    const row = document.getElementById("L" + n);
    if (!row) return say(`The log has no line ${n - base()}.`);
    row.classList.add("marked");
    row.scrollIntoView({ block: "center" });
    if (focus) view.focus({ preventScroll: true });
  }

  function mark() {
    for (const old of view.querySelectorAll(".hit")) old.classList.remove("hit");
    const row = hit && document.getElementById("L" + hit.n);
    if (row) row.classList.add("hit");
  }

  /** The next line with the text after `from`, or the one before it; none at the log's edge. */
  async function seek(text, from, back, state) {
    const has = (line) => windlassAnsi.plain(line.text).toLowerCase().includes(text);
    let at = from;
    while (state === searching) {
      say(`Searching, at line ${Math.max(1, at - base())} …`);
      const after = back ? Math.max(base(), at - 1 - SEARCH_LINES) : at;
      let { lines } = await page(after, SEARCH_LINES);
      if (back) {
        const before = at;
        lines = lines.filter((line) => line.n < before);
        // A page of long lines ends early: the rest up to `at` comes before anything earlier.
        while (lines.length && lines[lines.length - 1].n < before - 1) {
          const more = (await page(lines[lines.length - 1].n, SEARCH_LINES)).lines.filter((line) => line.n < before);
          if (!more.length) break;
          lines = lines.concat(more);
        }
      }
      if (!lines.length) return null;
      const found = back ? lines.findLast(has) : lines.find(has);
      if (found) return found;
      at = back ? lines[0].n : lines[lines.length - 1].n;
      if (back && at <= base() + 1) return null;
    }
    return null;
  }

  async function search(back) {
    const text = find.value.toLowerCase();
    if (!text) return;
    leave();
    const state = (searching = {});
    const from = hit && hit.text === text ? hit.n : back ? last() + 1 : first() - 1;
    try {
      let found = await seek(text, from, back, state);
      let again = "";
      if (!found && state === searching) {
        // Past the edge it goes on from the other one.
        const edge = back ? (await ask(`/jobs/${job}/log-end?attempt=${attempt}`)).last + 1 : base();
        found = await seek(text, edge, back, state);
        again = back ? ", from the end again" : ", from the beginning again";
      }
      if (state !== searching) return;
      hit = found && { n: found.n, text };
      if (found) {
        await toLine(found.n, false);
        say(`Found in line ${found.n - base()}${again}.`);
      } else {
        say("Not found.");
      }
      mark();
    } catch (error) {
      say(`The search broke off: ${error.message}.`);
    } finally {
      if (state === searching) searching = null;
    }
  }

  // The beginning.

  function attempts() {
    const count = Number(section.dataset.attempt);
    for (let n = attemptSelect.options.length + 1; n <= count; n++) attemptSelect.append(new Option(String(n), String(n)));
    attemptSelect.parentElement.hidden = count < 2;
    return count;
  }

  async function begin() {
    const count = attempts();
    if (count === 0) {
      say("The log begins with the first attempt.");
      return;
    }
    say("");
    attempt = count;
    attemptSelect.value = String(attempt);
    section.querySelector(".tools").hidden = false;
    view.hidden = false;
    const asked = /^#L(\d+)$/.exec(location.hash);
    if (asked) await toLine(Number(asked[1]), false);
    else if (section.dataset.opens === "start") await open(base());
    else {
      await toEnd();
      if (section.dataset.opens === "follow") follow();
    }
  }

  view.addEventListener("scroll", () => {
    const below = view.scrollHeight - view.clientHeight - view.scrollTop;
    // Lines may have come since the view was put to its end: only who has scrolled up from there wants to leave.
    if (stream && below > LEAVE_PX && view.scrollTop < placed - LEAVE_PX) leave();
    if (stream || busy) return;
    if (view.scrollTop < EDGE_PX && first() > base() + 1) once(earlier);
    else if (below < EDGE_PX && !atEnd) once(later);
  });
  followButton.addEventListener("click", () => (stream ? leave() : once(() => toEnd().then(follow))));
  document.getElementById("to-start").addEventListener("click", () => {
    leave();
    once(() => open(base()).then(() => (view.scrollTop = 0)));
  });
  document.getElementById("to-end").addEventListener("click", () => once(toEnd));
  document.getElementById("find-back").addEventListener("click", () => search(true));
  find.form.addEventListener("submit", (event) => {
    event.preventDefault();
    search(false);
  });
  find.addEventListener("keydown", (event) => {
    if (event.key === "Escape") searching = null;
  });
  attemptSelect.addEventListener("change", () => {
    leave();
    attempt = Number(attemptSelect.value);
    hit = null;
    once(() => open(base()));
  });
  addEventListener("hashchange", () => {
    const asked = /^#L(\d+)$/.exec(location.hash);
    if (asked) once(() => toLine(Number(asked[1]), true));
  });
  // In a window of another width the lines break elsewhere: what is followed stays in sight.
  new ResizeObserver(() => stream && toBottom()).observe(view);
  // The page that is brought up to date says when another attempt has begun.
  new MutationObserver(() => {
    const before = attemptSelect.options.length;
    const followed = stream || attempt === 0 || atEnd;
    if (attempts() > before && followed && attempt === before) {
      leave();
      clear();
      once(begin);
    }
  }).observe(section, { attributeFilter: ["data-attempt"] });
  once(begin);
})();
